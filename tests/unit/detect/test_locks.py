from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batsignal.snapshot import PollFailure, Snapshot

HOLDER, DDL = 50, 60
WAITS = "UPDATE stock SET amount = ? WHERE id = ?"

Row = Callable[..., Any]
Show = Callable[..., Any]


def waiter(row: Row, n: int, at: float, blocked_by: tuple[int, ...] = (HOLDER,), **facts: Any) -> Any:
    facts = {"wait_event_type": "Lock", "wait_event": "transactionid", "query": WAITS} | facts
    return row(1000 + n, "active", at=at, blocked_by=blocked_by, xact_start=at, **facts)


def queue(row: Row, t: float, *, since: float = 300.0, most: int = 40, **facts: Any) -> Iterator[Any]:
    """One more who waits each second."""
    for n in range(most):
        if since + n <= t:
            yield waiter(row, n, since + n, **facts)


def holder(row: Row, at: float = 290.0, **facts: Any) -> Any:
    facts = {"application_name": "backoffice@2.1", "usename": "ops", "client_addr": "10.9.0.7"} | facts
    return row(HOLDER, "idle in transaction", at=at, xact_start=at, query="UPDATE stock SET amount = ?", **facts)


def test_queue_behind_a_forgotten_transaction_is_called_in_time_by_its_blocker(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: [holder(row), *queue(row, t)], 330)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.t - start - 300 <= 9.5
    finding = raised.signal.finding
    subject = finding.subject
    assert (subject.application, subject.version, subject.user) == ("backoffice", "2.1", "ops")
    assert (subject.client, subject.blocker) == ("10.9.0.7", HOLDER)
    assert finding.severity == "critical"
    assert finding.since == start + 300
    now = watcher.now[0]
    assert now.summary.startswith("backoffice@2.1 blocks 30 sessions that wait for its locks, for 29 s by now")
    assert "End the transaction that backoffice@2.1 has left open since" in now.action
    assert f"pid {HOLDER}" in " ".join(now.evidence)
    assert str(HOLDER) not in now.summary + now.action
    assert not watcher.cleared("lock_pileup")


def test_root_behind_ddl_is_whom_the_ddl_waits_for_and_the_ddl_is_told(row: Row, show: Show, watcher: Any) -> None:
    reader = row(
        HOLDER, "active", at=100, xact_start=100, application_name="reports", query="SELECT sum(weight) FROM d"
    )
    ddl = waiter(
        row, -1, 300.0, application_name="migrate@3", query="ALTER TABLE d ADD note text", wait_event="relation"
    )
    show(watcher, lambda t: [reader, *([ddl] if t > 300 else []), *queue(row, t, since=300.2, blocked_by=(999,))], 315)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.subject.blocker == HOLDER
    assert raised.signal.finding.subject.application == "reports"
    assert "the statement of migrate@3" in raised.signal.finding.action
    assert "first in the queue: migrate@3, ALTER TABLE d ADD note text" in raised.signal.finding.evidence


def test_chain_is_followed_to_the_one_who_waits_for_nobody(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield holder(row)
        for n in range(12):
            if 300 + n <= t:  # each behind the one before it
                yield waiter(row, n, 300.0 + n, (HOLDER if n == 0 else 999 + n,))

    show(watcher, scene, 320)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.subject.blocker == HOLDER
    assert watcher.now[0].sessions == 12


def test_prepared_transaction_is_told_as_such(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda t: queue(row, t, blocked_by=(0,)), 312)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.subject.blocker == 0
    assert raised.signal.finding.subject.database == "shop"
    assert "prepared transaction" in raised.signal.finding.summary
    assert "pg_prepared_xacts" in raised.signal.finding.action


def test_blocker_that_is_no_client_is_told_by_its_kind(row: Row, show: Show, watcher: Any) -> None:
    worker = row(HOLDER, None, at=100, application_name="", usename=None, backend_type="autovacuum worker")
    show(watcher, lambda t: [worker, *queue(row, t)], 312)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.summary.startswith("an autovacuum worker blocks")


@pytest.mark.parametrize(("held_seconds", "called"), [(7.0, False), (10.0, True)])
def test_queue_that_ends_before_eight_seconds_is_everyday_life(
    row: Row, show: Show, watcher: Any, held_seconds: float, called: bool
) -> None:
    ends = 300 + held_seconds
    show(watcher, lambda t: [holder(row), *queue(row, t)] if t < ends else [holder(row)], 330)
    assert bool(watcher.raised("lock_pileup")) == called


def test_waits_of_four_seconds_again_and_again_are_everyday_life(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        # The same session blocks in one transaction after the other, and many wait each time.
        episode = t // 5 * 5
        if t - episode < 4.5:
            yield holder(row, at=episode)
            for n in range(6):
                yield waiter(row, n, episode + 0.1 * n)

    show(watcher, scene, 200)
    assert not watcher.events, watcher.sentences()


def test_hot_row_that_is_handed_on_blames_nobody(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        turn = int(t // 2)
        yield row(2000 + turn, "active", at=2.0 * turn, xact_start=2.0 * turn - 8, query=WAITS)
        for n in range(1, 5):
            yield waiter(row, 1000 + turn + n, 2.0 * (turn + n) - 8, (2000 + turn,))

    show(watcher, scene, 120)
    assert not watcher.raised("lock_pileup"), watcher.sentences()


def test_first_in_the_queue_is_not_blamed_for_a_look_at_the_row_when_the_blocker_is_gone(
    row: Row, show: Show, watcher: Any
) -> None:
    """Of a row that one held for long, each who waited for it has it for a moment then."""

    def rows(t: float) -> Iterator[Any]:
        if t < 330:
            yield holder(row)
            yield from queue(row, t, most=20)
        elif t < 333:
            first = int(t - 330)
            yield row(1000 + first, "active", at=300.0 + first, xact_start=300.0 + first, query=WAITS)
            for n in range(first + 1, 20):
                yield waiter(row, n, 300.0 + n, (1000 + first,))

    show(watcher, rows, 350)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.subject.blocker == HOLDER
    assert not watcher.now


def test_one_who_waited_and_then_blocks_for_long_is_called(row: Row, show: Show, watcher: Any, start: float) -> None:
    """DDL that waited for a reader, and then rewrites the table for minutes."""
    ddl = {"application_name": "migrate@3", "query": "ALTER TABLE d ALTER id TYPE bigint", "xact_start": 300.0}

    def rows(t: float) -> Iterator[Any]:
        if t < 305:
            yield row(HOLDER, "active", at=100, xact_start=100, application_name="reports", query="SELECT * FROM d")
        if t > 300:
            lock = {"wait_event_type": "Lock", "wait_event": "relation", "blocked_by": (HOLDER,)} if t < 305 else {}
            yield row(DDL, "active", at=300.0, **ddl, **lock)
            yield from queue(row, t, since=300.5, blocked_by=(DDL,))

    show(watcher, rows, 330)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.subject.blocker == DDL
    assert raised.t - start - 305 <= 9.5


def test_one_who_waits_and_an_index_built_concurrently_light_nothing(row: Row, show: Show, watcher: Any) -> None:
    statement = "CREATE INDEX CONCURRENTLY i ON t (a)"

    def scene(t: float) -> Iterator[Any]:
        yield row(HOLDER, "active", at=0, xact_start=0, application_name="importer")
        for n in range(3):  # even three of them
            yield waiter(row, n, 20.0, query=statement, wait_event="virtualxid")
        if t > 60:
            yield waiter(row, 9, 60.0)

    show(watcher, scene, 200)
    assert not watcher.raised("lock_pileup"), watcher.sentences()


def test_two_who_wait_for_a_minute_are_a_warning(row: Row, show: Show, watcher: Any) -> None:
    reader = row(HOLDER, "active", at=0, xact_start=0, application_name="reports")
    show(watcher, lambda t: [reader, *queue(row, t, most=2)], 400)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.severity == "warning"


def test_two_behind_an_open_transaction_are_told_by_that_alone(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda t: [holder(row), *queue(row, t, most=2)], 420)
    (raised,) = watcher.raised("idle_in_transaction")
    assert raised.signal.finding.severity == "critical"
    assert not watcher.raised("lock_pileup")


def test_look_at_the_moment_the_blocker_ends_blames_nobody_unseen(row: Row, show: Show, watcher: Any) -> None:
    """The kernel wakes them one by one: they still wait, and nobody blocks them any more."""

    def scene(t: float) -> Iterator[Any]:
        if t < 400:
            yield row(HOLDER, "active", at=290.0, xact_start=290.0, query="ALTER TABLE stock ADD note text")
            yield from queue(row, t)
        elif t < 402:
            yield from queue(row, 399.0, blocked_by=())

    show(watcher, scene, 420)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.subject.blocker == HOLDER
    assert watcher.cleared("lock_pileup")


def test_queue_whose_blocker_is_told_no_more_is_told_on_its_own_in_eight_seconds(
    row: Row, show: Show, watcher: Any
) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield row(HOLDER, "active", at=290.0, xact_start=290.0, query="ALTER TABLE stock ADD note text")
        yield from queue(row, t, blocked_by=(HOLDER,) if t < 400 else ())

    show(watcher, scene, 420)
    assert [one.signal.finding.subject.blocker for one in watcher.raised("lock_pileup")] == [HOLDER, None]
    assert watcher.now[0].kind == "lock_pileup"


def test_stand_bys_that_wait_for_their_leader_wake_nobody(row: Row, show: Show, watcher: Any) -> None:
    leader = row(HOLDER, "idle", at=0, application_name="scheduler")
    show(
        watcher,
        lambda t: [leader, *queue(row, t, most=5, wait_event="advisory", query="SELECT pg_advisory_lock(?)")],
        420,
    )
    assert not watcher.events, watcher.sentences()


def test_one_queue_behind_two_readers_is_one_signal_of_the_older(row: Row, show: Show, watcher: Any) -> None:
    readers = [row(pid, "active", at=at, xact_start=at, query="SELECT") for pid, at in ((70, 200.0), (HOLDER, 100.0))]
    show(watcher, lambda t: [*readers, *queue(row, t, blocked_by=(70, HOLDER))], 320)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.subject.blocker == HOLDER


def test_without_blocked_by_the_only_one_that_could_is_named_and_two_that_could_are_not(
    row: Row, show: Show, make_watcher: Any
) -> None:
    one, two = make_watcher(), make_watcher()
    other = row(51, "idle in transaction", at=280, xact_start=280, application_name="api@1", backend_xid="9")
    show(one, lambda t: [holder(row, backend_xid="8"), *queue(row, t, blocked_by=())], 312)
    show(two, lambda t: [holder(row, backend_xid="8"), other, *queue(row, t, blocked_by=())], 312)
    assert one.raised("lock_pileup")[0].signal.finding.subject.application == "backoffice"
    assert two.raised("lock_pileup")[0].signal.finding.subject.blocker is None
    assert "cannot be seen" in two.raised("lock_pileup")[0].signal.finding.summary


def test_signal_ends_with_the_queue_and_stays_one_while_waiters_give_up_and_come_again(
    row: Row, show: Show, watcher: Any
) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield holder(row)
        if t < 400 and int(t) % 30 != 29:  # all give up at once, and come again
            for n in range(6):
                yield waiter(row, n, t // 30 * 30 + 0.1 * n)

    show(watcher, scene, 420)
    assert len(watcher.raised("lock_pileup")) == 1
    (cleared,) = watcher.cleared("lock_pileup")
    assert cleared.t >= watcher.raised("lock_pileup")[0].t + 60


def test_gap_neither_raises_nor_clears(row: Row, show: Show, watcher: Any, start: float) -> None:
    show(watcher, lambda t: [holder(row), *queue(row, t)], 315)
    failure = PollFailure(reason="timeout", text="no answer")
    for n in range(120):
        watcher.look(Snapshot(server="db1", t=start + 315.4 + n, failure=failure))
        assert [one.kind for one in watcher.now if one.kind == "lock_pileup"] == ["lock_pileup"]
    show(watcher, lambda t: [holder(row), *queue(row, t)], 450, begin=436)
    assert len(watcher.raised("lock_pileup")) == 1
    assert not watcher.cleared("lock_pileup")


def test_daemon_that_starts_in_the_middle_calls_it_with_its_true_onset(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: [holder(row), *queue(row, t)], 345, begin=330)
    (raised,) = watcher.raised("lock_pileup")
    assert raised.signal.finding.since == start + 300


def test_clock_that_steps_back_raises_nothing_and_no_exception(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda t: [holder(row), *queue(row, t)], 305)
    show(watcher, lambda t: [holder(row), *queue(row, t)], 108, begin=100)
    assert not watcher.raised("lock_pileup")


def test_rows_without_anything_are_borne(row: Row, show: Show, watcher: Any) -> None:
    bare = {"query": None, "application_name": None, "usename": None, "datname": None}

    def scene(_t: float) -> Iterator[Any]:
        for n in range(5):  # each waits for itself, for the next one, and for somebody who is not there
            yield waiter(row, n, 0.0, (1000 + n, 1001 + n, 7), wait_event_type=None, wait_event=None, **bare)

    show(watcher, scene, 30)
    assert {one.kind for one in watcher.now} <= {"lock_pileup"}
