"""Acts of locks: a queue behind DDL, a queue behind a forgotten transaction, and a transaction that is left open.

Owns who takes which lock and who then waits for it. The waits are PostgreSQL's own. The blocker told is the root of the
chain: the session that the others wait for, directly or not, and that waits for nobody. Behind DDL that is the long
reader and not the DDL, which is the first of the blocked; to end either one frees the queue.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.act import ActSpec, OnsetFacts, Pace, Subject, Tell
from batsignal.drills.actors.clients import Calm, Clients, Traffic, run
from batsignal.drills.ground import Ground
from batsignal.drills.truth import BLOCKING_BOUND_SECONDS, BOUND_SECONDS

SERVICE = "checkout@3.1.0"
REPORTS, MIGRATION, BACK_OFFICE = "reports", "migrate", "backoffice"
POOL_MINIMUM = 4
CALM_PER_SECOND = 6.0
QUEUE_PER_SECOND, QUEUE_SIZE = 4.0, 40
TABLE_ROWS = 1000
HOT_ROW = 1
FOREVER_SECONDS = 86_400
BEFORE_SECONDS = 3.0
BLOCKS_AFTER_SECONDS = 60.0

Statement = Callable[[str], tuple[str, tuple[int]]]

_RUNS = "SELECT 1 FROM pg_stat_activity WHERE pid = %(pid)s AND wait_event = 'PgSleep'"
_WAITS_FOR = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND %(blocker)s = ANY (pg_blocking_pids(pid))"
)


@dataclass(frozen=True, slots=True)
class _Checkout:
    """The service whose requests will queue, and the table that it works on."""

    traffic: Traffic
    table: str


def queue_behind_ddl(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let a report read a table for long, then alter that table: `rate` requests a second queue, up to `size`."""
    checkout = _READERS.of(ground)
    with checkout.traffic.clients as clients:
        clients.tell = tell
        report, migration = clients.connect(REPORTS), clients.connect(MIGRATION)
        # A plain read: it holds ACCESS SHARE, which is in nobody's way as long as nobody alters the table.
        reading = f"SELECT count(*), max(length(body)) FROM {checkout.table}, pg_sleep({FOREVER_SECONDS})"
        clients.start(lambda: run(report, reading))
        if not clients.await_rows(_RUNS, pid=report.server_pid) or not clients.sleep(BEFORE_SECONDS):
            return
        altered_at = time.time()
        clients.start(lambda: run(migration, f"ALTER TABLE {checkout.table} ADD COLUMN note text"))
        if not clients.await_rows(_WAITS_FOR, blocker=report.server_pid):
            return
        _let_queue(checkout, pace, _read)
        _tell_queue(tell, REPORTS, report.server_pid, altered_at)
        tell.note(
            f"ALTER TABLE (pid {migration.server_pid}) waits for the report (pid {report.server_pid}),"
            " whoever comes after it waits for both"
        )
        clients.await_stop()


def queue_behind_transaction(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Forget a transaction that has changed a hot row: `rate` updates of it a second queue, up to `size`."""
    checkout = _WRITERS.of(ground)
    with checkout.traffic.clients as clients:
        clients.tell = tell
        forgetful = clients.connect(BACK_OFFICE, autocommit=False)
        run(forgetful, *_sell(checkout.table))
        forgotten_at = time.time()
        _let_queue(checkout, pace, _sell)
        if not clients.await_rows(_WAITS_FOR, blocker=forgetful.server_pid):
            return
        _tell_queue(tell, BACK_OFFICE, forgetful.server_pid, forgotten_at)
        # The blocker is in fact idle in transaction: who says that as well is not wrong.
        tell.onset(
            OnsetFacts(
                kind="idle_in_transaction",
                subject=Subject(application=BACK_OFFICE),
                at=forgotten_at,
                bound_seconds=BOUND_SECONDS["idle_in_transaction"],
                optional=True,
            )
        )
        clients.await_stop()


def transaction_left_open(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Leave a transaction open that holds a row; after a minute (or half of the time) `size` sessions want that row."""
    table = ground.table("stock", TABLE_ROWS)
    duration_seconds = pace.duration_seconds or 2 * BLOCKS_AFTER_SECONDS
    blocks_after_seconds = min(BLOCKS_AFTER_SECONDS, duration_seconds / 2)
    with Clients(ground, tell) as clients:
        forgetful = clients.connect(BACK_OFFICE, autocommit=False)
        run(forgetful, *_sell(table))
        tell.onset(
            OnsetFacts(
                kind="idle_in_transaction",
                subject=Subject(application=BACK_OFFICE),
                bound_seconds=min(blocks_after_seconds + BLOCKING_BOUND_SECONDS, BOUND_SECONDS["idle_in_transaction"]),
            )
        )
        tell.lost()
        if not clients.sleep(blocks_after_seconds):
            return
        for _ in range(pace.size or 1):
            waiting = clients.connect(SERVICE)
            clients.start(lambda session=waiting: run(session, *_sell(table)))  # type: ignore[misc]
        if clients.await_rows(_WAITS_FOR, blocker=forgetful.server_pid):
            tell.note(f"{SERVICE} waits for the transaction that {BACK_OFFICE} has left open")
        clients.await_stop()


def _let_queue(checkout: "_Checkout", pace: Pace, statement: Statement) -> None:
    """Let the requests of the incident come, each of which gets stuck."""
    clients = checkout.traffic.clients

    def work(session: Connection) -> None:
        clients.tell.lost()
        run(session, *statement(checkout.table))

    checkout.traffic.change(pace.rate_per_second or CALM_PER_SECOND, work, at_once=pace.size or POOL_MINIMUM)


def _tell_queue(tell: Tell, application: str, blocker: int, at: float) -> None:
    subject = Subject(application=application, blocker=blocker)
    tell.onset(OnsetFacts(kind="lock_pileup", subject=subject, at=at))


def _read(table: str) -> tuple[str, tuple[int]]:
    return f"SELECT body FROM {table} WHERE id = %s", (random.randint(1, TABLE_ROWS),)  # noqa: S311 - no secret


def _sell(table: str) -> tuple[str, tuple[int]]:
    return f"UPDATE {table} SET body = md5(body) WHERE id = %s", (HOT_ROW,)


def _begin(statement: Statement) -> Callable[[Ground], _Checkout]:
    """Start the service as it is in the calm, with nobody in its way."""

    def begin(ground: Ground) -> _Checkout:
        table = ground.table("stock", TABLE_ROWS)
        traffic = Traffic(
            ground,
            SERVICE,
            minimum=POOL_MINIMUM,
            per_second=CALM_PER_SECOND,
            work=lambda session: run(session, *statement(table)),
        )
        return _Checkout(traffic, table)

    return begin


_READERS: Calm[_Checkout] = Calm(_begin(_read))
_WRITERS: Calm[_Checkout] = Calm(_begin(_sell))

ACTS: Mapping[str, ActSpec] = {
    "lock-pileup": ActSpec(
        run=queue_behind_ddl,
        rate_per_second=QUEUE_PER_SECOND,
        size=QUEUE_SIZE,
        duration_seconds=45.0,
        prepare=_READERS.prepare,
    ),
    "lock-pileup-transaction": ActSpec(
        run=queue_behind_transaction,
        rate_per_second=QUEUE_PER_SECOND,
        size=QUEUE_SIZE,
        duration_seconds=40.0,
        prepare=_WRITERS.prepare,
    ),
    "idle-in-transaction": ActSpec(
        run=transaction_left_open, size=1, duration_seconds=BLOCKS_AFTER_SECONDS + BLOCKING_BOUND_SECONDS + 25.0
    ),
}
