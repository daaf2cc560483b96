"""PgBouncer's queue: who waits in vain, told from a peak, a pause and a server that comes back."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batsignal.snapshot import PollFailure, PoolerPool, Session, Slots, Snapshot

T = 1_760_000_000.0
KIND = "pool_starvation"
CONSOLE = PoolerPool(database="pgbouncer", user="pgbouncer", cl_active=1, cl_waiting=0, sv_active=0, maxwait_seconds=0)

Row = Callable[[int], PoolerPool]


def row(waiting: int = 0, wait_seconds: float | None = 0.0, **facts: Any) -> PoolerPool:
    given = {"sv_active": 6, "sv_idle": 0, "sv_used": 0, "sv_tested": 0, "sv_login": 0, "pool_mode": "transaction"}
    return PoolerPool(
        database="shop", user="web", cl_waiting=waiting, maxwait_seconds=wait_seconds, **{**given, **facts}
    )


def stuck(n: int) -> PoolerPool:
    """A pool whose clients have waited since second 10."""
    return row(2 * (n - 10), n - 10.0) if n > 10 else row(sv_active=2, sv_idle=4)


def held(pid: int, application: str = "web@2.4.0", **facts: Any) -> Session:
    given = {"state": "idle in transaction", "xact_start": T, "state_change": T} | facts
    return Session(pid=pid, backend_start=1.0, datname="shop", usename="web", application_name=application, **given)


def look_on(watcher: Any, rows: Row, seconds: int = 40, sessions: tuple[Session, ...] = ()) -> None:
    for n in range(seconds):
        watcher.look(
            Snapshot(
                server="db1",
                t=T + n,
                sessions=sessions,
                slots=Slots(max=100, superuser_reserved=3),
                ping_seconds=0.0004,
                pools=(rows(n), CONSOLE),
            )
        )


def test_clients_that_wait_in_vain_are_named_with_pool_and_longest_wait(watcher: Any) -> None:
    look_on(watcher, stuck, sessions=tuple(held(pid) for pid in range(6)))
    (raised,) = watcher.raised(KIND)
    assert raised.t == T + 18
    found = raised.signal.finding
    assert (found.subject.pool, found.subject.application, found.subject.version) == ("shop/web", "web", "2.4.0")
    assert (found.subject.database, found.subject.user) == ("shop", "web")
    assert found.severity == "critical"
    assert found.since == T + 10
    assert found.summary == (
        "PgBouncer's pool shop/web has nothing left to lend: 16 clients wait, the longest for 8 s;"
        " all 6 sessions of its own are taken"
    )
    assert found.action.startswith("Undo the last change of web: it keeps the pool's sessions. A larger pool only")
    assert "6 idle in transaction, for up to 18 s" in found.evidence
    assert not watcher.cleared(KIND)


def test_the_statement_that_holds_them_is_named(watcher: Any) -> None:
    slow = tuple(held(pid, state="active", query_start=T, query="SELECT slow", query_id="7") for pid in range(6))
    look_on(watcher, stuck, sessions=slow)
    found = watcher.now[0]
    assert found.subject.query_id == "7"
    assert "the statement of 6 of them: SELECT slow" in found.evidence


def test_who_was_named_stays_named_while_others_are_served_in_between(watcher: Any) -> None:
    stays = tuple(held(pid) for pid in range(5))
    for n in range(40):
        guest = held(9, "jobs@1") if n % 3 == 0 else held(9)
        sessions = stays if n % 2 else (*stays, guest)
        watcher.look(Snapshot(server="db1", t=T + n, sessions=sessions, ping_seconds=0.0004, pools=(stuck(n),)))
    names = [finding.subject.application for _, finding in watcher.said if finding.kind == KIND]
    assert names == [None] * names.count(None) + ["web"] * names.count("web")
    assert names[-1] == "web"


def test_names_of_nobody_are_none(watcher: Any) -> None:
    look_on(watcher, stuck, sessions=(held(1, "web@1"), held(2, "jobs@1")))
    assert watcher.now[0].subject.application is None
    look_on(watcher, stuck)
    assert watcher.now[0].subject.pool == "shop/web"
    assert watcher.now[0].subject.database is None


@pytest.mark.parametrize(("wait_seconds", "is_named"), [(7.9, False), (8.0, True), (8.1, True)])
def test_a_client_must_have_waited_for_eight_seconds(watcher: Any, wait_seconds: float, *, is_named: bool) -> None:
    look_on(watcher, lambda n: row(3, wait_seconds) if n == 9 else row(), seconds=10)
    assert bool(watcher.raised(KIND)) == is_named


@pytest.mark.parametrize(
    ("waiting", "wait_seconds", "is_named"),
    [
        pytest.param(lambda n: 5 + n, 3.0, True, id="becomes longer"),
        pytest.param(lambda _n: 5, 3.0, True, id="stays as long"),
        pytest.param(lambda n: 60 - n, 3.0, False, id="becomes shorter"),
        pytest.param(lambda n: 5 + n, 2.9, False, id="nobody waits for long"),
    ],
)
def test_queue_that_moves_must_not_become_shorter(
    watcher: Any, waiting: Callable[[int], int], wait_seconds: float, *, is_named: bool
) -> None:
    look_on(watcher, lambda n: row(waiting(n), min(float(n), wait_seconds)), seconds=30)
    assert bool(watcher.raised(KIND)) == is_named


def test_pooler_too_old_to_say_how_long_is_judged_by_how_long_somebody_has_waited(watcher: Any) -> None:
    look_on(watcher, lambda n: replace(stuck(n), maxwait_seconds=None))
    (raised,) = watcher.raised(KIND)
    assert raised.t == T + 21
    assert "the longest for 10 s" in raised.signal.finding.summary


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"sv_active": 0}, id="paused: nothing is lent"),
        pytest.param({"sv_idle": 1}, id="one is free"),
        pytest.param({"sv_used": 1}, id="one is free and to be tested"),
        pytest.param({"sv_active": 0, "sv_login": 1}, id="the server came back: it logs in"),
        pytest.param({"sv_active": 2, "sv_login": 1}, id="it warms up"),
    ],
)
def test_clients_wait_for_something_else_while_not_all_sessions_are_lent(watcher: Any, facts: dict[str, int]) -> None:
    look_on(watcher, lambda n: row(10, float(n), **facts))
    assert not watcher.events


def test_peaks_of_a_few_seconds_stay_dark(watcher: Any) -> None:
    look_on(watcher, lambda n: row(20, float(n % 10)) if n % 10 < 6 else row(sv_active=4, sv_idle=2), seconds=300)
    assert not watcher.events


def test_the_console_is_no_pool(watcher: Any) -> None:
    look_on(watcher, lambda n: replace(CONSOLE, cl_waiting=5, sv_active=1, maxwait_seconds=float(n)))
    assert not watcher.events


def test_it_ends_ten_seconds_after_the_last_long_wait_and_a_moments_relief_does_not_end_it(watcher: Any) -> None:
    def rows(n: int) -> PoolerPool:
        relieved = n in {30, 31, 32} or n >= 50
        return row(sv_active=3, sv_idle=3) if relieved else stuck(n)

    look_on(watcher, rows, seconds=80)
    assert len(watcher.raised(KIND)) == 1
    (cleared,) = watcher.cleared(KIND)
    assert cleared.t == T + 60


def test_look_without_an_answer_of_the_pooler_or_of_the_server_changes_nothing(watcher: Any) -> None:
    look_on(watcher, stuck, seconds=30)
    for n in range(30, 60):
        failure = PollFailure(reason="slots_full", text="full") if n % 2 else None
        watcher.look(Snapshot(server="db1", t=T + n, pools=None, failure=failure))
    assert [finding.kind for finding in watcher.now] == [KIND]
    assert len(watcher.events) == len(watcher.raised(KIND)) + sum(one.event == "updated" for one in watcher.events)


def test_row_of_nulls_raises_no_exception(watcher: Any) -> None:
    look_on(watcher, lambda n: PoolerPool(database="shop", user="web", cl_waiting=n))
    assert len(watcher.raised(KIND)) == 1
    look_on(watcher, lambda _n: PoolerPool(database="", user=""))
