from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.parking import RESTS_MOST
from batsignal.snapshot import PollFailure, Snapshot

HOLDER = 50
RESTS = "idle in transaction"

Row = Callable[..., Any]
Show = Callable[..., Any]


def left_open(row: Row, at: float, pid: int = HOLDER, **facts: Any) -> Any:
    facts = {"application_name": "backoffice@2.1", "usename": "ops", "backend_xid": "77"} | facts
    return row(pid, RESTS, at=at, xact_start=at - 1, query="UPDATE prices SET amount = ? WHERE id = ?", **facts)


def waiter(row: Row, at: float, pid: int = 1000, **facts: Any) -> Any:
    facts = {"wait_event_type": "Lock", "wait_event": "transactionid", "query": "DELETE FROM prices"} | facts
    return row(pid, "active", at=at, xact_start=at, blocked_by=(HOLDER,), **facts)


def test_transaction_that_rests_for_five_minutes_is_a_warning_of_its_application(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: [left_open(row, 100)] if t > 100 else [], 420)
    (raised,) = watcher.raised("idle_in_transaction")
    assert 400 <= raised.t - start <= 401.5
    finding = raised.signal.finding
    assert (finding.severity, finding.since) == ("warning", start + 100)
    assert (finding.subject.application, finding.subject.version, finding.subject.user) == ("backoffice", "2.1", "ops")
    assert finding.summary == "backoffice@2.1 has left a transaction open for 5 min; nobody waits for it yet"
    assert "End the transaction" in finding.action
    assert any(one.startswith(f"pid {HOLDER} rests for") for one in finding.evidence)


def test_transaction_that_blocks_somebody_is_critical_within_its_bound(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: [left_open(row, 100), *([waiter(row, 130)] if t > 130 else [])], 150)
    (raised,) = watcher.raised("idle_in_transaction")
    assert raised.t - start - 130 <= 7.5
    assert raised.signal.finding.severity == "critical"
    assert raised.signal.finding.summary.endswith("1 session waits for it")
    assert "blocked: web@1.0" in raised.signal.finding.evidence


def test_it_turns_from_warning_to_critical_and_back_as_others_wait_and_is_one_signal(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: [left_open(row, 0), *([waiter(row, 340)] if 340 < t < 360 else [])], 420)
    (raised,) = watcher.raised("idle_in_transaction")
    severities = [
        (one.t - start, one.signal.finding.severity) for one in watcher.events if one.signal.id == raised.signal.id
    ]
    assert [severity for _, severity in severities] == ["warning", "critical", "warning"]
    assert severities[1][0] <= 347
    assert severities[2][0] >= 370  # the next one may come at once


def test_transaction_that_rests_since_before_the_clock_was_set_back_is_named_and_began_no_later_than_it_is_found(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: [left_open(row, 3600), *([waiter(row, 30)] if t > 30 else [])], 60)
    (raised,) = watcher.raised("idle_in_transaction")
    assert raised.t - start - 30 <= 7.5
    assert raised.signal.finding.since == raised.signal.detected
    assert "has left a transaction open for 0 s" in raised.signal.finding.summary


def test_signal_ends_when_the_transaction_does(row: Row, show: Show, watcher: Any, start: float) -> None:
    show(watcher, lambda t: [left_open(row, 0)] if t < 350 else [row(HOLDER, at=350)], 370)
    (cleared,) = watcher.cleared("idle_in_transaction")
    assert cleared.t - start <= 357


def test_several_of_one_application_are_one_signal(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda _t: [left_open(row, 0), left_open(row, -20, pid=51)], 1000)
    assert len(watcher.raised("idle_in_transaction")) == 1
    assert watcher.now[0].sessions == 2


def dump(row: Row) -> Iterator[Any]:
    """The leader rests in its transaction; its workers copy by its snapshot."""
    facts = {"application_name": "pg_dump", "usename": "backup", "backend_xmin": "74211"}
    yield row(HOLDER, RESTS, at=5, xact_start=1, **facts | {"query": "SELECT pg_export_snapshot()"})
    yield row(51, "active", at=100, xact_start=6, **facts | {"query": "COPY public.orders TO stdout"})
    for n in range(6):  # one large table is left: the others are done
        yield row(60 + n, RESTS, at=90, xact_start=6, **facts | {"query": f"COPY public.t{n} TO stdout"})


def parked(row: Row) -> Iterable[Any]:
    """Tools of analysts that begin a transaction with each window, and have only read."""
    for n in range(5):
        yield row(70 + n, RESTS, at=0, xact_start=0, application_name="DBeaver 23.1", query="SELECT * FROM sales")
    yield row(80, "active", at=0, xact_start=0, backend_xmin="74000", application_name="reports")


def pool(row: Row, t: float) -> Iterable[Any]:
    """Sessions that rest in their transactions for moments, and write."""
    for n in range(20):
        yield row(200 + n, RESTS, at=t // 3 * 3, xact_start=t // 3 * 3, backend_xid=f"{100 + n}")


def failed(row: Row) -> Iterable[Any]:
    """What failed has let its locks go, and holds nothing."""
    yield row(HOLDER, f"{RESTS} (aborted)", at=0, query="UPDATE prices SET amount = ?")


@pytest.mark.parametrize("scene", [dump, parked, failed])
def test_what_rests_in_a_transaction_and_has_not_written_is_left_alone(
    row: Row, show: Show, watcher: Any, scene: Callable[[Row], Iterable[Any]]
) -> None:
    show(watcher, lambda _t: scene(row), 2000, begin=100)
    assert not watcher.events, watcher.sentences()


def test_pools_that_rest_in_transactions_for_moments_are_left_alone(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda t: pool(row, t), 700)
    assert not watcher.events, watcher.sentences()


@pytest.mark.parametrize(("waits_seconds", "called"), [(4.5, False), (9.0, True)])
def test_others_that_wait_for_four_seconds_are_everyday_life(
    row: Row, show: Show, watcher: Any, waits_seconds: float, called: bool
) -> None:
    until = 130 + waits_seconds
    show(watcher, lambda t: [left_open(row, 100), *([waiter(row, 130)] if 130 < t < until else [])], 200)
    assert bool(watcher.raised("idle_in_transaction")) == called


def test_index_that_is_built_concurrently_and_waits_for_it_is_not_hurt(row: Row, show: Show, watcher: Any) -> None:
    index = waiter(row, 130, query="CREATE INDEX CONCURRENTLY i ON t (a)", wait_event="virtualxid")
    show(watcher, lambda t: [left_open(row, 120), *([index] if 130 < t < 190 else [])], 250)
    assert not watcher.raised("idle_in_transaction"), watcher.sentences()


@pytest.mark.parametrize(
    ("query", "called"),
    [
        ("UPDATE t SET a = ?", True),
        ("WITH done AS (UPDATE t SET a = ? RETURNING id) SELECT count(*) FROM done", True),
        ("SELECT id FROM t WHERE a = ? FOR NO KEY UPDATE SKIP LOCKED", True),
        ("SELECT ?", False),
        ("WITH recent AS (SELECT id FROM updates) SELECT * FROM recent", False),
        ("BEGIN", False),
        (None, True),
    ],
)
def test_without_ids_of_transactions_the_last_statement_tells_whether_it_has_written(
    row: Row, show: Show, watcher: Any, query: str | None, called: bool
) -> None:
    show(watcher, lambda _t: [row(HOLDER, RESTS, at=0, xact_start=0, query=query)], 330)
    assert bool(watcher.raised("idle_in_transaction")) == called


def test_without_ids_a_statement_that_was_seen_to_write_earlier_in_the_transaction_tells(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    def scene(t: float) -> Iterator[Any]:
        if 20 < t <= 30:
            yield row(HOLDER, RESTS, at=20, xact_start=10, query="UPDATE t SET a = ?")
        elif t > 30:
            yield row(HOLDER, RESTS, at=30, xact_start=10, query="SELECT a FROM t")

    show(watcher, scene, 360)
    (raised,) = watcher.raised("idle_in_transaction")
    assert 330 <= raised.t - start <= 332


def test_without_ids_what_wrote_in_a_transaction_before_says_nothing_of_the_next(
    row: Row, show: Show, watcher: Any
) -> None:
    def scene(t: float) -> Iterator[Any]:
        if t <= 30:
            yield row(HOLDER, RESTS, at=0, xact_start=0, query="UPDATE t SET a = ?")
        else:
            yield row(HOLDER, RESTS, at=40, xact_start=40, query="SELECT a FROM t")

    show(watcher, scene, 700)
    assert not watcher.events, watcher.sentences()


@pytest.mark.parametrize(("used_every_seconds", "called"), [(1, True), (5, False)])
def test_without_ids_a_reader_of_a_service_at_work_is_told_and_one_that_a_person_parked_is_not(
    row: Row, show: Show, watcher: Any, used_every_seconds: int, called: bool
) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield row(HOLDER, RESTS, at=20, xact_start=20, query="SELECT a FROM t")
        yield row(60, at=t // used_every_seconds * used_every_seconds)

    show(watcher, scene, 323, begin=21)
    assert len(watcher.raised("idle_in_transaction")) == called, watcher.sentences()


def nameless(session: Any) -> Any:
    """What a recording shows that has neither statements nor ids of transactions."""
    hidden = {"query": None, "query_id": None, "backend_xid": None, "backend_xmin": None}
    return type(session)(**{name: getattr(session, name) for name in session.__slots__} | hidden)


def windows_of_a_tool(row: Row, t: float, name: str = "DBeaver 23.1") -> Iterator[Any]:
    """A person's windows: each rests in a transaction for minutes, is used again, and rests anew."""
    for n, every_seconds in enumerate((450, 500)):
        at = t // every_seconds * every_seconds + 90.0 * n
        if at <= t:
            yield nameless(row(70 + n, RESTS, at=at, xact_start=at, application_name=name, usename="anna"))


def test_without_ids_and_texts_tools_that_park_their_windows_in_transactions_are_left_alone(
    row: Row, show: Show, watcher: Any
) -> None:
    show(watcher, lambda t: windows_of_a_tool(row, t), 1300)
    assert not watcher.events, watcher.sentences()


def test_without_ids_and_texts_a_single_window_that_is_parked_again_and_again_is_told_once(
    row: Row, show: Show, watcher: Any
) -> None:
    show(watcher, lambda t: [one for one in windows_of_a_tool(row, t) if one.pid == 70], 1300)
    assert len(watcher.raised("idle_in_transaction")) == 1, watcher.sentences()


def test_without_ids_and_texts_what_a_service_at_work_leaves_open_is_told_beside_parked_tools(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from windows_of_a_tool(row, t)
        yield from (nameless(row(60 + n, at=t // 1)) for n in range(3))
        if t > 100:
            yield nameless(row(HOLDER, RESTS, at=100, xact_start=99))

    show(watcher, scene, 900)
    (raised,) = watcher.raised("idle_in_transaction")
    assert raised.signal.finding.subject.application == "web"
    assert 400 <= raised.t - start <= 402


@pytest.mark.parametrize("others", [0, 1, 2])
def test_without_ids_and_texts_one_other_that_rests_may_be_forgotten_too_and_two_are_a_habit(
    row: Row, show: Show, watcher: Any, others: int
) -> None:
    def scene(t: float) -> Iterator[Any]:
        for n, name in enumerate(("psql-ops", "TablePlus", "DBeaver")[: others + 1]):
            if t > 30 * n:
                yield nameless(row(70 + n, RESTS, at=30.0 * n, xact_start=30.0 * n, application_name=name))

    show(watcher, scene, 320)
    assert bool(watcher.raised("idle_in_transaction")) == (others < 2), watcher.sentences()


def test_memory_of_who_parks_in_transactions_is_bounded(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        at = t // 10 * 10 - 80.0
        for n in range(300):
            yield nameless(row(1000 + n, RESTS, at=at, xact_start=at, application_name=f"tool {at}"))

    show(watcher, scene, 30, used=400)
    assert len(watcher._life._judge._transactions._writes._parking._rests) == RESTS_MOST


def test_others_of_a_pool_that_write_for_moments_do_not_hide_the_one_that_is_left(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    left = {"application_name": "web@1.0", "usename": "web"}
    show(watcher, lambda t: [left_open(row, 100, **left), *pool(row, t)] if t > 100 else [], 420)
    (raised,) = watcher.raised("idle_in_transaction")
    assert raised.t - start <= 402


def test_without_ids_and_texts_the_leader_of_a_dump_is_left_alone(row: Row, show: Show, watcher: Any) -> None:
    def scene(_t: float) -> Iterator[Any]:
        for session in dump(row):
            yield type(session)(
                **{name: getattr(session, name) for name in session.__slots__} | {"query": None, "backend_xmin": None}
            )

    show(watcher, scene, 1500, begin=100)
    assert not watcher.raised("idle_in_transaction"), watcher.sentences()


@pytest.mark.parametrize("name", ["pg_dump", "backup@1"])
def test_the_leader_of_a_dump_whose_workers_write_to_their_clients_or_are_done_is_left_alone(
    row: Row, show: Show, watcher: Any, name: str
) -> None:
    def scene(t: float) -> Iterator[Any]:
        facts = {"application_name": name, "usename": "backup"}
        leader = row(HOLDER, RESTS, at=5, **facts | {"query": "SELECT pg_export_snapshot()"})
        yield replace(leader, query_start=None)
        if t < 1200:
            for n in range(4):  # state_change moves with each block that the client has taken
                yield row(51 + n, "active", at=t // 2 * 2, **facts | {"query": "COPY public.orders TO stdout"})

    show(watcher, scene, 1600, begin=10)
    assert not watcher.raised("idle_in_transaction"), watcher.sentences()


def test_sessions_that_are_lost_in_their_transactions_are_left_to_the_leak(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        for n in range(30):
            if 60 * n <= t:
                yield left_open(row, 60.0 * n, pid=100 + n, opened=60.0 * n - 1)

    show(watcher, scene, 800)
    assert not watcher.raised("idle_in_transaction"), watcher.sentences()


def test_moment_behind_another_of_the_application_is_everyday_life_while_one_is_lit(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    """Another one has a row for a moment, and somebody waits for it: that prolongs nothing."""
    other = 60

    def scene(t: float) -> Iterator[Any]:
        if 100 < t <= 140:
            yield left_open(row, 100)
            yield waiter(row, 110)
        if 139 < t <= 143:
            yield left_open(row, 139, other)
            yield replace(waiter(row, 139.5, 1001), blocked_by=(other,))

    show(watcher, scene, 160)
    (raised,) = watcher.raised("idle_in_transaction")
    assert raised.signal.finding.subject.blocker == HOLDER
    (cleared,) = watcher.cleared("idle_in_transaction")
    assert cleared.t - start <= 146
    assert cleared.signal.finding.subject.blocker == HOLDER


def test_lock_pileup_behind_it_takes_its_place(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield left_open(row, 100)
        for n in range(20):
            if 130 + n <= t:
                yield waiter(row, 130.0 + n, 1000 + n)

    show(watcher, scene, 150)
    assert [one.kind for one in watcher.now] == ["lock_pileup"]
    assert [one.reason for one in watcher.cleared("idle_in_transaction")] == ["superseded"]


def test_gap_neither_raises_nor_clears(row: Row, show: Show, watcher: Any, start: float) -> None:
    show(watcher, lambda _t: [left_open(row, 0)], 310)
    for n in range(120):
        failure = PollFailure(reason="timeout", text="no answer")
        watcher.look(Snapshot(server="db1", t=start + 310.4 + n, failure=failure))
        assert "idle_in_transaction" in {one.kind for one in watcher.now}
    show(watcher, lambda _t: [left_open(row, 0)], 440, begin=431)
    assert len(watcher.raised("idle_in_transaction")) == 1
    assert not watcher.cleared("idle_in_transaction")
