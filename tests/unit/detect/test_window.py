from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect import window as windows
from batsignal.detect.rests import resting_since
from batsignal.detect.tracks import OriginKey
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import PollFailure, Session, Snapshot

T = 1_760_000_000.0


class Looks:
    """Feeds a window with the sessions of one look after the other."""

    def __init__(self, pattern: ApplicationPattern) -> None:
        self.window = Window(pattern)

    def look(self, t: float, *sessions: Session) -> Window:
        self.window.add(Snapshot(server="db1", t=T + t, sessions=sessions))
        return self.window

    def fail(self, t: float) -> Window:
        self.window.add(Snapshot(server="db1", t=T + t, failure=PollFailure(reason="timeout", text="no answer")))
        return self.window

    def track(self, pid: int) -> Any:
        (track,) = [
            track for origin in self.window.origins.values() for key, track in origin.tracks.items() if key[0] == pid
        ]
        return track


@pytest.fixture
def looks(pattern: ApplicationPattern) -> Looks:
    return Looks(pattern)


def session(pid: int, opened: float, rested: float | None = None, **facts: Any) -> Session:
    given: dict[str, Any] = {
        "state": "idle",
        "application_name": "web@1",
        "usename": "app",
        "datname": "shop",
        "client_addr": "10.0.0.4",
        "state_change": T + (opened if rested is None else rested),
    }
    return Session(pid=pid, backend_start=T + opened, **(given | facts))


# -- resting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["idle", "idle in transaction", "idle in transaction (aborted)"])
def test_idle_session_rests_since_its_state_changed(state: str) -> None:
    assert resting_since(session(1, 0, 7, state=state)) == T + 7


def test_session_at_work_does_not_rest() -> None:
    assert resting_since(session(1, 0, state="active")) is None
    assert resting_since(session(1, 0, state="active", wait_event="DataFileRead")) is None


def test_active_session_that_waits_for_its_client_rests() -> None:
    assert resting_since(session(1, 0, 3, state="active", wait_event="ClientRead")) == T + 3


def test_copy_that_waits_for_its_client_does_not_rest() -> None:
    fed = session(1, 0, state="active", wait_event="ClientRead", query="copy orders from stdin")
    assert resting_since(fed) is None


def test_session_whose_state_is_hidden_does_not_rest() -> None:
    assert resting_since(session(1, 0, state=None)) is None


# -- origins -----------------------------------------------------------------------------------------------------------


def test_origin_is_service_version_user_database_and_client(looks: Looks) -> None:
    window = looks.look(1, session(1, 0))
    assert list(window.origins) == [OriginKey("web", "1", "app", "shop", "10.0.0.4")]


def test_group_is_the_service_and_without_one_the_user() -> None:
    assert OriginKey("web", "1", "app", None, None).group == OriginKey("web", "2", None, "shop", "x").group
    assert OriginKey(None, None, "app", None, None).group == ("user", "app")
    assert OriginKey(None, None, None, None, None).group == ("user", "")


def test_service_named_as_a_user_is_another_group() -> None:
    assert OriginKey("app", None, None, None, None).group != OriginKey(None, None, "app", None, None).group


def test_name_that_is_set_after_the_opening_moves_the_session(looks: Looks) -> None:
    looks.look(1, session(1, 0, application_name=""))
    looks.look(2, session(1, 0))
    origin = looks.track(1).origin
    assert origin.key.service == "web"
    assert looks.track(1).opened_at == T
    assert origin.filling_since == T


def test_filling_begins_with_the_first_session_and_anew_after_the_last(looks: Looks) -> None:
    looks.look(1, session(1, 0.5))
    assert looks.track(1).origin.filling_since == T + 0.5
    looks.look(100, session(1, 0.5), session(2, 99))
    assert looks.track(2).origin.filling_since == T + 0.5
    looks.look(200)
    looks.look(300, session(3, 299))
    assert looks.track(3).origin.filling_since == T + 299


def test_restart_that_replaces_every_session_between_two_looks_fills_anew(looks: Looks) -> None:
    looks.look(1, session(1, 0), session(2, 0))
    looks.look(2, session(3, 1.5), session(4, 1.6))
    assert looks.track(3).origin.filling_since == T + 1.5


def test_workers_that_are_no_clients_are_left_out(looks: Looks) -> None:
    window = looks.look(1, session(1, 0, backend_type="autovacuum worker"), session(2, 0))
    assert window.sessions == 1


def test_memory_stays_bounded_whatever_names_come_by(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "ORIGINS_MOST", 100)
    for n in range(1000):
        looks.look(n, session(n, n, application_name=f"job-{n}"))
    assert len(looks.window.origins) <= 101


def test_origin_without_sessions_is_forgotten_within_a_minute_after_an_hour(looks: Looks) -> None:
    looks.look(0, *(session(n, 0, application_name=f"job-{n}") for n in range(100)))
    looks.look(1)
    assert len(looks.look(3600).origins) == 100
    assert len(looks.look(3661).origins) == 0


# -- tracks ------------------------------------------------------------------------------------------------------------


def test_session_that_is_used_again_remembers_its_longest_rest(looks: Looks) -> None:
    looks.look(1, session(1, 0, 0.5))
    looks.look(21, session(1, 0, 20.2, query_start=T + 20.0))
    assert looks.track(1).longest_rest_seconds == pytest.approx(19.5)
    looks.look(31, session(1, 0, 30.2, query_start=T + 30.0))
    assert looks.track(1).longest_rest_seconds == pytest.approx(19.5)


def test_session_remembers_from_which_rest_it_came_back_though_another_had_been_opened(looks: Looks) -> None:
    looks.look(0, session(1, 0))
    # Used again, and only then another one was opened: no pool has passed over anything.
    looks.look(30, session(1, 0, 29.0, query_start=T + 28.0), session(2, 29.5))
    assert looks.track(1).longest_passed_seconds == 0.0
    looks.look(60, session(1, 0, 59.0, query_start=T + 58.0), session(2, 29.5))
    assert looks.track(1).longest_passed_seconds == 0.0
    looks.look(70, session(1, 0, 59.0), session(2, 29.5), session(3, 69.0))
    looks.look(90, session(1, 0, 85.0, query_start=T + 84.0), session(2, 29.5), session(3, 69.0))
    assert looks.track(1).longest_passed_seconds == pytest.approx(25.0)


def test_session_that_only_rests_has_not_come_back(looks: Looks) -> None:
    for t in range(1, 100):
        looks.look(t, session(1, 0, 0.5, wait_event=f"changes-{t}"))
    assert looks.track(1).longest_rest_seconds == 0.0


def test_session_knows_how_long_another_was_idle_when_it_was_opened(looks: Looks) -> None:
    looks.look(1, session(1, 0))
    looks.look(61, session(1, 0), session(2, 60.5))
    assert looks.track(1).beside_idle_seconds == 0.0
    assert looks.track(2).beside_idle_seconds == pytest.approx(60.5)


def test_idle_session_of_another_client_is_not_beside_it(looks: Looks) -> None:
    looks.look(1, session(1, 0))
    looks.look(61, session(1, 0), session(2, 60.5, client_addr="10.0.0.5"))
    assert looks.track(2).beside_idle_seconds == 0.0


def test_first_look_tells_what_was_idle_beside_what_it_finds(looks: Looks) -> None:
    looks.look(61, session(1, 0), session(2, 60.5))
    assert looks.track(2).beside_idle_seconds == pytest.approx(60.5)


def test_opening_beside_sessions_at_work_is_beside_nothing_idle(looks: Looks) -> None:
    looks.look(1, session(1, 0, state="active"))
    looks.look(61, session(1, 0, 60.6), session(2, 60.5))
    assert looks.track(2).beside_idle_seconds == 0.0


def test_closing_remembers_how_the_session_was_used(looks: Looks) -> None:
    looks.look(1, session(1, 0, 0.5), session(2, 0))
    looks.look(21, session(1, 0, 20.2, query_start=T + 20.0), session(2, 0))
    looks.look(60, session(2, 0))
    (closing,) = looks.track(2).origin.closings
    assert (closing.t, closing.opened_at, closing.resting_since) == (T + 60, T, T + 20.2)
    assert closing.longest_rest_seconds == pytest.approx(19.5)


def test_visit_of_a_second_leaves_no_closing(looks: Looks) -> None:
    looks.look(1, session(1, 0), session(2, 0.5))
    looks.look(2, session(1, 0))
    assert not looks.track(1).origin.closings


def test_pid_with_another_start_is_another_session(looks: Looks) -> None:
    looks.look(1, session(1, 0))
    window = looks.look(2, session(1, 1.5))
    assert window.sessions == 1
    assert looks.track(1).opened_at == T + 1.5


def test_session_without_a_start_opened_when_it_was_first_seen(looks: Looks) -> None:
    looks.look(7, replace(session(1, 0), backend_start=None))
    assert looks.track(1).opened_at == T + 7


# -- gaps and clocks ---------------------------------------------------------------------------------------------------


def test_failed_look_is_a_gap_and_no_empty_server(looks: Looks) -> None:
    looks.look(1, session(1, 0))
    window = looks.fail(2)
    assert window.t == T + 2
    assert window.snapshot is not None
    assert window.snapshot.t == T + 1
    assert window.sessions == 1


def test_time_that_steps_back_empties_the_window(looks: Looks) -> None:
    looks.look(4000, session(1, 3990), session(2, 3991))
    window = looks.look(400, session(3, 399))
    assert window.sessions == 1
    assert window.began == T + 400


def test_jitter_of_the_clock_below_a_second_changes_nothing(looks: Looks) -> None:
    looks.look(10, session(1, 0))
    assert looks.look(9.5, session(1, 0)).began == T + 10
