"""What keeps a database in shape, and the short waits that come with work: vacuum, replication, an index, row locks.

Owns the acts of the server's own upkeep. All of it is real: a vacuum with cost delays, autovacuum that the table's own
settings call, a walsender that feeds a receiver, a CREATE INDEX CONCURRENTLY that waits for a report to end. No setting
of the server is changed.
"""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping

from batsignal.drills.act import ActSpec, Pace, Tell
from batsignal.drills.actors.clients import Clients, run
from batsignal.drills.actors.pods import Application, Course, Fleet, room
from batsignal.drills.actors.programs import Program
from batsignal.drills.acts.people import run_report
from batsignal.drills.ground import Ground
from batsignal.errors import UnreachableError

MAINTENANCE_SECONDS = 600.0
TABLE_ROWS = 20_000
REPORT_SECONDS = 60.0
INDEX_STARTS_AFTER_SECONDS = 5.0
INDEXES = 4
CHURN_EVERY_SECONDS = 1.0
PODS = 2
RATE_PER_SECOND = 4.0
# As slow as it gets: 100 ms of rest after each page that had to be cleaned.
SLOW_VACUUM = ("SET vacuum_cost_delay = '100ms'", "SET vacuum_cost_limit = 20")
AUTOVACUUM = (
    "autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,"
    " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 20"
)

LOCK_WAITS_SECONDS = 300.0
LOCK_HELD_SECONDS = 4.0
ROUNDS_PER_SECOND = 1 / 15
WAITERS = 5


def maintain(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Keep a database in shape while an application works on it, `rate` requests a second on `size` pods.

    A vacuum all the time, autovacuum as it comes, a walsender where the server lets us have one, and an index built
    concurrently every now and then, which waits for a report of a minute to end.
    """
    course = Course(ground, pace, whole_seconds=MAINTENANCE_SECONDS)
    # A table each: vacuum, autovacuum and an index's build would wait for one another on the same.
    ledger, archive, queue = (ground.table(name, TABLE_ROWS) for name in ("ledger", "archive", "queue"))
    ground.execute(f"ALTER TABLE {queue} SET ({AUTOVACUUM})")
    application = Application(service="ledger", version="1.4.0", table=ledger, minimum=3, maximum=5)
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(ground, application))
        stack.enter_context(_replica(ground, tell))
        clients = stack.enter_context(Clients(ground, tell))
        clients.start(lambda: _vacuum(clients, archive))
        clients.start(lambda: _churn(clients, queue))
        fleet.resize(pace.size or PODS)
        fleet.work(pace.rate_per_second or RATE_PER_SECOND)
        for number in range(1, INDEXES + 1):
            clients.start(lambda: _report(clients, ledger, course.seconds(REPORT_SECONDS)))
            if not course.wait(INDEX_STARTS_AFTER_SECONDS):
                return
            tell.note(f"CREATE INDEX CONCURRENTLY, {number} of {INDEXES}, waits for a report")
            clients.start(functools.partial(_build_index, clients, ledger, number))
            if not course.until(number * MAINTENANCE_SECONDS / INDEXES):
                return
        if course.finish():
            tell.done()


def _vacuum(clients: Clients, table: str) -> None:
    with contextlib.closing(clients.connect("vacuumdb")) as session:
        for statement in SLOW_VACUUM:
            run(session, statement)
        while clients.sleep(CHURN_EVERY_SECONDS):
            run(session, f"UPDATE {table} SET body = md5(body)")
            run(session, f"VACUUM (ANALYZE) {table}")


def _churn(clients: Clients, table: str) -> None:
    """Leave dead rows behind, which autovacuum comes for."""
    with contextlib.closing(clients.connect("queue@1.1.0")) as session:
        while clients.sleep(CHURN_EVERY_SECONDS):
            run(session, f"UPDATE {table} SET body = md5(body) WHERE id %% 20 = %s", (int(time.time()) % 20,))


def _report(clients: Clients, table: str, seconds: float) -> None:
    with contextlib.closing(clients.connect("month-end report")) as session:
        run_report(session, table, seconds)


def _build_index(clients: Clients, table: str, number: int) -> None:
    with contextlib.closing(clients.connect("migration")) as session:
        run(session, f"CREATE INDEX CONCURRENTLY by_body_{number} ON {table} (body)")


def wait_for_row_locks(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let `size` sessions wait for a row that somebody holds for 4 s, `rate` times a second (every 15 s).

    The waits are no shorter with a shorter duration; there are fewer of them.
    """
    course = Course(ground, pace, whole_seconds=LOCK_WAITS_SECONDS)
    table = ground.table("accounts", 100)
    every_seconds = 1.0 / (pace.rate_per_second or ROUNDS_PER_SECOND)
    with Clients(ground, tell) as clients:
        waiters = room(ground, (pace.size or WAITERS) + 1) - 1
        sessions = [clients.connect("accounts@3.0.2") for _ in range(waiters + 1)]
        change = f"UPDATE {table} SET body = md5(body) WHERE id = 1"
        while True:
            holder, *others = sessions
            run(holder, "BEGIN")
            run(holder, change)
            for session in others:
                clients.start(functools.partial(run, session, change))
            if not clients.sleep(LOCK_HELD_SECONDS):
                return
            run(holder, "COMMIT")
            if not course.pause(max(every_seconds - LOCK_HELD_SECONDS, 0.5)):
                break
        if not ground.stopped.is_set():
            tell.done()


@contextlib.contextmanager
def _replica(ground: Ground, tell: Tell) -> Iterator[None]:
    """Run a receiver of the write-ahead log within the block, unless there is none or the server lets us have none."""
    try:
        receiver = Program(
            ground, "pg_receivewal", f"--directory={ground.directory}", "--no-loop", user=ground.administrator
        )
    except UnreachableError as exc:
        tell.note(f"without a walsender: {exc}")
        yield
        return
    with receiver:
        yield
        if not receiver.is_running:
            tell.note("without a walsender: the server did not let pg_receivewal in, or it ended early")


ACTS: Mapping[str, ActSpec] = {
    "maintenance": ActSpec(
        run=maintain, rate_per_second=RATE_PER_SECOND, size=PODS, duration_seconds=MAINTENANCE_SECONDS
    ),
    "short-lock-waits": ActSpec(
        run=wait_for_row_locks, rate_per_second=ROUNDS_PER_SECOND, size=WAITERS, duration_seconds=LOCK_WAITS_SECONDS
    ),
}
