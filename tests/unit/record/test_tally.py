import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batsignal.census import take_census
from batsignal.config import APPLICATION_PATTERN
from batsignal.names import ApplicationPattern
from batsignal.record.sticky_names import NAME_LIFE_SECONDS
from batsignal.record.tally import ServerTally, Tally
from batsignal.snapshot import Counters, PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0
PATTERN = ApplicationPattern(re.compile(APPLICATION_PATTERN))


class Ticks:
    """Adds one look after the other."""

    def __init__(self, top_names: int = 100) -> None:
        self.tally = Tally(pattern=PATTERN, top_names=top_names)

    def look(self, t: float, *sessions: Session, **facts: Any) -> ServerTally:
        return self.add(Snapshot(server="db1", t=T + t, sessions=sessions, **facts))

    def fail(self, t: float, reason: Any = "slots_full", refused: int | None = 1) -> ServerTally:
        failure = PollFailure(reason=reason, text="no")
        return self.add(Snapshot(server="db1", t=T + t, failure=failure, refused=refused))

    def add(self, snapshot: Snapshot) -> ServerTally:
        return self.tally.add(snapshot, take_census(snapshot))


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def session(pid: int, application: str | None = "web@1", **facts: Any) -> Session:
    given: dict[str, Any] = {"state": "idle", "datname": "shop", "usename": "app", "client_addr": "10.0.0.4"}
    return Session(pid=pid, backend_start=T, application_name=application, **(given | facts))


# -- what is there now -------------------------------------------------------------------------------------------------


def test_usage_counts_sessions_by_who_and_state(ticks: Ticks) -> None:
    tally = ticks.look(0, session(1), session(2), session(3, state="active"), session(4, "psql", usename=None))
    assert tally.usage is not None
    assert [
        (count.database, count.user, count.application, count.version, count.state, count.sessions)
        for count in tally.usage
    ] == [
        ("shop", "", "", "", "idle", 1),
        ("shop", "app", "web", "1", "active", 1),
        ("shop", "app", "web", "1", "idle", 2),
    ]
    assert tally.clients == (("10.0.0.4", 4),)


def test_sessions_that_have_not_logged_in_are_counted_as_starting_whether_by_number_or_by_row(ticks: Ticks) -> None:
    rows = [session(n, None, state="starting", datname=None, usename=None) for n in (2, 3)]
    by_row = ticks.look(0, session(1), *rows)
    by_number = ticks.look(1, session(1), authenticating=2)
    assert by_row.usage == by_number.usage
    assert by_number.usage is not None
    assert sum(count.sessions for count in by_number.usage if count.state == "starting") == 2


def test_sessions_are_the_same_when_the_titles_tell_their_begin_a_little_otherwise(ticks: Ticks) -> None:
    ticks.look(0, session(1), session(2))
    by_titles = {"view": "process_titles"}
    ticks.look(1, session(1), session(2), replace(session(3, None), backend_start=T + 0.4), **by_titles)
    ticks.look(2, session(1), session(2), replace(session(3, None), backend_start=T + 0.4), **by_titles)
    tally = ticks.look(3, session(1), session(2), replace(session(3), backend_start=T))
    assert (dict(tally.opened), dict(tally.closed)) == ({"": 1}, {})
    another = ticks.look(4, session(1), session(2), replace(session(3), backend_start=T + 0.4))
    assert another.closed == {"": 1}, "within one view another begin is another session"


def test_only_client_backends_are_counted(ticks: Ticks) -> None:
    tally = ticks.look(0, session(1, backend_type="walsender"), session(2))
    assert tally.usage is not None
    assert sum(count.sessions for count in tally.usage) == 1


def test_after_a_failed_look_missing_is_not_zero(ticks: Ticks) -> None:
    ticks.look(0, session(1))
    tally = ticks.fail(1)
    assert (tally.usage, tally.clients, tally.statements, tally.blocked) == (None, None, None, None)


def test_statements_that_run_are_counted_the_most_frequent_first(ticks: Ticks) -> None:
    rows = [session(n, state="active", query="SELECT ?", query_id="7") for n in range(3)]
    rows.append(session(8, state="active", query="DELETE FROM orders"))
    rows.append(session(9, query="SELECT ?", query_id="7"))
    tally = ticks.look(0, *rows)
    assert tally.statements is not None
    assert [(one.query, one.sessions) for one in tally.statements] == [("SELECT ?", 3), ("DELETE FROM orders", 1)]


def test_sessions_that_wait_for_a_lock_are_blocked(ticks: Ticks) -> None:
    assert ticks.look(0, session(1, wait_event_type="Lock"), session(2, wait_event_type="Client")).blocked == 1


# -- what comes and goes -----------------------------------------------------------------------------------------------


def test_sessions_that_open_and_close_are_counted_by_application(ticks: Ticks) -> None:
    ticks.look(0, session(1))
    ticks.look(1, session(1), session(2), session(3, "billing"))
    tally = ticks.look(2, session(3, "billing"))
    assert tally.opened == {"web": 1, "billing": 1}
    assert tally.closed == {"web": 2}


def test_sessions_found_at_the_first_look_were_not_opened_by_it(ticks: Ticks) -> None:
    assert ticks.look(0, session(1), session(2)).opened == {}


def test_reused_pid_is_one_closed_and_one_opened(ticks: Ticks) -> None:
    ticks.look(0, session(1))
    tally = ticks.look(1, Session(pid=1, backend_start=T + 0.5, state="idle", application_name="web@1"))
    assert (tally.opened, tally.closed) == ({"web": 1}, {"web": 1})


def test_what_changed_during_a_gap_is_counted_after_it(ticks: Ticks) -> None:
    ticks.look(0, session(1))
    ticks.fail(1)
    tally = ticks.look(2, session(2))
    assert (tally.opened, tally.closed) == ({"web": 1}, {"web": 1})


def test_session_keeps_the_name_it_was_first_counted_by(ticks: Ticks) -> None:
    ticks.look(0)
    ticks.look(1, session(1, ""))
    ticks.look(2, session(1, "web@1"))
    tally = ticks.look(3)
    assert tally.opened == tally.closed == {"": 1}


def test_sessions_too_short_to_be_seen_are_counted_from_the_servers_own_counter(ticks: Ticks) -> None:
    ticks.look(0, counters=Counters(sessions=100))
    ticks.look(1, session(1), counters=Counters(sessions=100))
    tally = ticks.look(2, session(1), counters=Counters(sessions=121))
    assert tally.opened == {"web": 1, "unseen": 20}
    assert tally.closed["unseen"] == 20


def test_counter_that_was_reset_counts_nothing_unseen(ticks: Ticks) -> None:
    ticks.look(0, counters=Counters(sessions=100))
    tally = ticks.look(1, counters=Counters(sessions=3))
    assert tally.opened.get("unseen", 0) == 0
    assert ticks.look(2, counters=Counters(sessions=5)).opened["unseen"] == 2


def test_server_without_that_counter_has_no_unseen_sessions(ticks: Ticks) -> None:
    ticks.look(0, counters=Counters(sessions=None))
    assert "unseen" not in ticks.look(1, counters=Counters(sessions=None)).opened


def test_session_seconds_add_up_tick_by_tick(ticks: Ticks) -> None:
    ticks.look(0, session(1), session(2))
    ticks.look(1, session(1), session(2))
    tally = ticks.look(3, session(1), session(2, state="active"))
    assert tally.session_seconds == {("web", "1", "idle"): 4.0, ("web", "1", "active"): 2.0}


def test_no_session_seconds_are_made_up_for_a_gap(ticks: Ticks) -> None:
    ticks.look(0, session(1))
    ticks.fail(1)
    assert ticks.look(600, session(1)).session_seconds == {}


def test_clock_that_steps_back_takes_no_session_seconds_away(ticks: Ticks) -> None:
    ticks.look(0, session(1))
    ticks.look(10, session(1))
    assert ticks.look(-3600, session(1)).session_seconds == {("web", "1", "idle"): 10.0}


def test_refusals_are_counted_by_reason(ticks: Ticks) -> None:
    ticks.fail(0)
    ticks.fail(1, refused=2)
    ticks.fail(2, reason="role_limit")
    assert ticks.fail(3, refused=None).refusals == {"slots_full": 3, "role_limit": 1}


def test_ratio_of_slots_and_ping_are_observed_each_tick(ticks: Ticks) -> None:
    slots = Slots(max=13, superuser_reserved=3)
    ticks.look(0, *(session(n) for n in range(5)), slots=slots, ping_seconds=0.0004)
    tally = ticks.look(1, *(session(n) for n in range(9)), slots=slots, ping_seconds=0.3)
    assert (sum(tally.used_ratio.counts), tally.used_ratio.total) == (2, pytest.approx(1.4))
    assert sum(tally.ping.counts) == 2


# -- bounded labels ----------------------------------------------------------------------------------------------------


def test_names_beyond_the_cap_share_other_for_good() -> None:
    ticks = Ticks(top_names=2)
    ticks.look(0)
    ticks.look(1, session(1, "a"), session(2, "b"), session(3, "c"))
    tally = ticks.look(2, session(3, "c"), session(4, "d"))
    assert tally.opened == {"a": 1, "b": 1, "other": 2}
    assert tally.usage is not None
    assert {count.application for count in tally.usage} == {"other"}
    assert {count.version for count in tally.usage} == {""}


def test_counter_of_a_name_never_jumps_into_other() -> None:
    ticks = Ticks(top_names=1)
    ticks.look(0)
    ticks.look(1, session(1, "a"))
    tally = ticks.look(2, session(1, "a"), session(2, "b"), session(3, "a"))
    assert tally.opened == {"a": 2, "other": 1}


def test_name_that_nobody_used_for_an_hour_gives_its_series_back() -> None:
    ticks = Ticks(top_names=1)
    ticks.look(0)
    ticks.look(1, session(1, "a"))
    ticks.look(2)
    tally = ticks.look(3 + NAME_LIFE_SECONDS, session(2, "b"))
    assert set(tally.opened) == {"b"}
    assert {application for application, _, _ in tally.session_seconds} == {"b"}


def test_names_stay_bounded_whatever_comes_by() -> None:
    ticks = Ticks(top_names=10)
    for n in range(200):
        tally = ticks.look(n, *(session(1000 * n + k, f"{n}-{k}@{k}", usename=f"u{n}") for k in range(5)))
    assert len(tally.opened) <= 11
    assert len(tally.session_seconds) <= 11 * 11 * 3


# -- nothing raises ----------------------------------------------------------------------------------------------------

TEXTS = st.none() | st.text(max_size=63)
SESSIONS = st.builds(
    Session,
    pid=st.integers(1, 30),
    backend_start=st.none() | st.floats(0, 4e9),
    state=TEXTS,
    datname=TEXTS,
    usename=TEXTS,
    application_name=TEXTS,
    client_addr=TEXTS,
    query_id=TEXTS,
    query=TEXTS,
    wait_event_type=TEXTS,
)
SNAPSHOTS = st.builds(
    Snapshot,
    server=st.just("db1"),
    t=st.floats(0, 4e9),
    sessions=st.lists(SESSIONS, max_size=10).map(tuple),
    slots=st.none() | st.builds(Slots, max=st.integers(0, 9), superuser_reserved=st.integers(0, 3)),
    counters=st.none() | st.builds(Counters, sessions=st.none() | st.integers(0, 10**6)),
    refused=st.none() | st.integers(0, 9),
    ping_seconds=st.none() | st.floats(0, 1e6),
    failure=st.none() | st.just(PollFailure(reason="timeout", text="")),
)


@settings(max_examples=80)
@given(snapshots=st.lists(SNAPSHOTS, max_size=6))
def test_no_look_whatever_it_shows_raises_or_counts_below_zero(snapshots: list[Snapshot]) -> None:
    tally = Tally(pattern=PATTERN, top_names=3)
    for snapshot in snapshots:
        view = tally.add(snapshot, take_census(snapshot))
        assert all(count >= 0 for count in (*view.opened.values(), *view.closed.values()))
        assert all(seconds >= 0 for seconds in view.session_seconds.values())
        assert len(view.opened) <= 5


def test_versions_of_many_services_share_the_bound_on_names() -> None:
    ticks = Ticks(top_names=10)
    for n in range(100):
        tally = ticks.look(n, *(session(100 * n + one, f"service-{one}@{n // 2}") for one in range(10)))
    releases = {(application, version) for application, version, _ in tally.session_seconds}
    assert len(releases) == 2 * 10
    assert ("service-3", "0") in releases
