import re
from dataclasses import replace
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN
from batsignal.record.tally import NAME_LIFE_SECONDS, OTHER, UNSEEN, Histogram, Tally
from batsignal.snapshot import ApplicationPattern, Counters, PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0
FAILED = PollFailure(reason="slots_full", text="no slot is left")


def tally(top_names: int = 100) -> Tally:
    return Tally(pattern=ApplicationPattern(re.compile(APPLICATION_PATTERN)), top_names=top_names)


def session(pid: int, name: str = "web@2.4.0", **facts: Any) -> Session:
    given = {"pid": pid, "backend_start": T - 60, "state": "idle", "application_name": name, "usename": "web"}
    return Session(**(given | facts))


def look(second: float, *sessions: Session, **facts: Any) -> Snapshot:
    given = {"slots": Slots(max=13, superuser_reserved=3), "own_sessions": 1, "ping_seconds": 0.0004}
    return Snapshot(server="db1", t=T + second, sessions=sessions, **(given | facts))


def test_sessions_are_counted_by_who_they_are_and_what_they_do() -> None:
    view = tally().add(
        look(
            0,
            session(1),
            session(2),
            session(3, state="active"),
            session(4, name="psql", usename=None),
            session(5, "a"),
        )
    )
    assert view.usage is not None
    counts = {(one.application, one.version, one.user, one.state): one.sessions for one in view.usage}
    assert counts == {
        ("web", "2.4.0", "web", "idle"): 2,
        ("web", "2.4.0", "web", "active"): 1,
        ("", "", "", "idle"): 1,
        ("a", "", "web", "idle"): 1,
    }


def test_what_blocks_a_session_and_is_no_client_takes_no_slot_and_is_not_counted() -> None:
    view = tally().add(look(0, session(1), session(2, backend_type="autovacuum worker")))
    assert view.usage is not None
    assert sum(one.sessions for one in view.usage) == 1
    assert view.used_ratio.total == pytest.approx(2 / 10), "one session and our own, of ten usable slots"


def test_a_failed_look_has_no_counts_and_keeps_the_totals() -> None:
    fold = tally()
    before = fold.add(look(0, session(1)))
    view = fold.add(Snapshot(server="db1", t=T + 1, failure=FAILED, view="none", refused=1))
    assert view.usage is view.clients is view.statements is view.blocked is None
    assert view.ping == before.ping
    assert view.refusals == {"slots_full": 1}


def test_openings_and_closings_are_those_seen_since_the_first_look() -> None:
    fold = tally()
    fold.add(look(0, session(1), session(2)))
    fold.add(look(1, session(2), session(3)))
    view = fold.add(look(2, session(2), session(3, backend_start=T + 1.5), session(4, name="api@1")))
    assert view.opened == {"web": 2, "api": 1}
    assert view.closed == {"web": 2}


def test_sessions_open_and_gone_between_two_looks_are_unseen() -> None:
    fold = tally()
    fold.add(look(0, session(1), counters=Counters(sessions=100)))
    fold.add(look(1, session(1), session(2), counters=Counters(sessions=100)))
    view = fold.add(look(2, session(1), session(2), counters=Counters(sessions=105)))
    assert view.opened[UNSEEN] == view.closed[UNSEEN] == 4


def test_a_counter_that_was_reset_takes_nothing_back() -> None:
    fold = tally()
    fold.add(look(0, counters=Counters(sessions=100)))
    fold.add(look(1, counters=Counters(sessions=103)))
    view = fold.add(look(2, counters=Counters(sessions=1)))
    assert view.opened[UNSEEN] == 3
    assert fold.add(look(3, counters=Counters(sessions=2))).opened[UNSEEN] == 4


def test_time_in_a_state_adds_up_and_a_gap_adds_nothing() -> None:
    fold = tally()
    fold.add(look(0, session(1), session(2)))
    fold.add(look(1, session(1), session(2)))
    fold.add(Snapshot(server="db1", t=T + 2, failure=FAILED, view="none"))
    fold.add(look(60, session(1)))
    view = fold.add(look(61.5, session(1)))
    assert view.session_seconds == {("web", "2.4.0", "idle"): pytest.approx(2 + 1.5)}


def test_a_clock_that_steps_back_takes_no_time_away() -> None:
    fold = tally()
    fold.add(look(100, session(1)))
    assert fold.add(look(0, session(1))).session_seconds[("web", "2.4.0", "idle")] == 0.0


def test_names_beyond_the_cap_share_one_series_and_the_first_keep_theirs() -> None:
    fold = tally(top_names=2)
    fold.add(look(0, session(1, "a@1"), session(2, "b@1")))
    crowd = [
        session(pid, f"hostile-{pid}@{pid}", client_addr=f"10.1.{pid // 250}.{pid % 250}") for pid in range(10_000)
    ]
    for second in (1, 2):
        view = fold.add(look(second, session(20_001, "a@1"), *crowd))
        assert view.usage is not None
        assert view.clients is not None
        assert {one.application for one in view.usage} == {"a", OTHER}
        assert len(view.clients) <= 3
    assert set(view.opened) <= {"a", "b", OTHER}


def test_a_name_long_gone_gives_its_place_and_its_totals_back() -> None:
    fold = tally(top_names=1)
    fold.add(look(0))
    fold.add(look(1, session(1, "a@1")))
    later = 2 + NAME_LIFE_SECONDS
    fold.add(look(later))
    view = fold.add(look(later + 1, session(2, "b@1")))
    assert view.opened == {"b": 1}
    assert {one.application for one in view.usage or ()} == {"b"}


def test_only_active_statements_are_shown_and_the_most_frequent_first() -> None:
    runs = {"state": "active", "query": "SELECT ?", "query_id": "7"}
    view = tally().add(
        look(
            0, session(1, **runs), session(2, **runs), session(3, **(runs | {"query_id": None})), session(4, query="X")
        )
    )
    assert view.statements is not None
    assert [(one.query_id, one.sessions) for one in view.statements] == [
        ("7", 2),
        (session(3, **runs | {"query_id": None}).statement_id, 1),
    ]


def test_sessions_that_wait_for_a_lock_are_counted() -> None:
    assert tally().add(look(0, session(1), session(2, wait_event_type="Lock"))).blocked == 1


def test_a_value_on_a_bound_is_in_the_bucket_of_that_bound() -> None:
    counts = Histogram.empty((0.5, 1.0))
    for value in (0.4999, 0.5, 0.5001, 1.0, 1.0001):
        counts = counts.observe(value)
    assert counts.counts == (2, 2, 1)


def test_rows_without_privilege_are_counted_without_a_state() -> None:
    view = tally().add(look(0, replace(session(1), state=None, backend_start=None)))
    assert view.usage is not None
    assert view.usage[0].state == "unknown"
