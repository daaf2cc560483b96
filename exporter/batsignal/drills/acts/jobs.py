"""Jobs: batches that come by the clock, a first-ever batch that starts bit by bit, and a backup.

Owns the acts of sessions that come to do a piece of work and go when it is done. The backup is the real `pg_dump`; what
is made slow is the disk that it writes to, for a scratch database is too small to take forty minutes.
"""

import contextlib
import functools
import random
import time
from collections.abc import Mapping
from pathlib import Path

from batsignal.drills.act import ActSpec, Pace, Tell
from batsignal.drills.actors.clients import Clients
from batsignal.drills.actors.pods import Course, read_item, room
from batsignal.drills.actors.programs import Program
from batsignal.drills.ground import Ground
from batsignal.errors import UnreachableError

BATCH = 30
BATCHES_PER_SECOND = 1 / 600
BATCH_SECONDS = 1320.0
BATCH_WORK_SECONDS = 60.0
STEP_SECONDS = 0.4
STEP_REST_SECONDS = 0.1
TABLE_ROWS = 1000

STAGGERED_SECONDS = 300.0
STARTS_PER_SECOND = 0.5
STAGGERED_WORK_SECONDS = 120.0
STAGGERED_ROWS = 40

DUMP_SECONDS = 40 * 60.0
DUMP_JOBS = 8
# More than the kernel keeps of a stream between a server and a reader that does not read.
DUMP_TABLE_BYTES = 24_000_000
ROW_BYTES = 2000
SLICE_SECONDS = 0.01
PAUSED_SECONDS = 0.05


def run_batches(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Run a batch of `size` sessions `rate` times a second (every 10 min).

    The first comes after a tenth of that time, or of the duration. A batch's sessions come together, work
    through many short statements for about a minute, and are closed. With a shorter duration the work of each batch
    shrinks; `rate` is kept, so that fewer batches come.
    """
    course = Course(ground, pace, whole_seconds=BATCH_SECONDS)
    table = ground.table("invoices", TABLE_ROWS)
    every_seconds = 1.0 / (pace.rate_per_second or BATCHES_PER_SECOND)
    work_seconds = course.seconds(BATCH_WORK_SECONDS)
    with Clients(ground, tell) as clients:
        goes_on = course.pause(0.1 * min(every_seconds, course.duration_seconds))
        while goes_on:
            workers = room(ground, pace.size or BATCH)
            tell.note(f"a batch of {workers} sessions starts")
            for _ in range(workers):
                clients.start(lambda: _work_off(clients, table, work_seconds * random.uniform(0.8, 1.2)))  # noqa: S311 - no secret
            goes_on = course.pause(every_seconds)
        if not ground.stopped.is_set():
            tell.done()


def _work_off(clients: Clients, table: str, seconds: float) -> None:
    with contextlib.closing(clients.connect("invoicing")) as session:
        end = time.monotonic() + seconds
        while time.monotonic() < end and clients.sleep(STEP_REST_SECONDS):
            read_item(session, table, hold_seconds=STEP_SECONDS)


def start_batch_bit_by_bit(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Start `size` workers, `rate` a second, each with one statement of two minutes that is the same but for its part.

    Nobody has seen this statement before. Each worker's session ends with its statement. With a shorter duration the
    statements shrink; `rate` is kept.
    """
    course = Course(ground, pace, whole_seconds=STAGGERED_SECONDS)
    table = ground.table("measurements", STAGGERED_ROWS)
    row_seconds = course.seconds(STAGGERED_WORK_SECONDS) / STAGGERED_ROWS
    with Clients(ground, tell) as clients:

        def work(part: int) -> None:
            with contextlib.closing(clients.connect("recalculation")) as session, session.cursor() as cursor:
                # It takes its time for each row, so that it can be called off between two of them.
                cursor.execute(
                    f"SELECT %s AS part, count(pg_sleep(%s)), max(md5(body)) FROM {table}", (part, row_seconds)
                )

        for part in range(room(ground, pace.size or BATCH)):
            clients.start(functools.partial(work, part))
            if not course.pause(1.0 / (pace.rate_per_second or STARTS_PER_SECOND)):
                break
        tell.note("every worker has started")
        if course.finish():
            tell.done()


def dump(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Dump the drill's tables with the real pg_dump and `size` jobs, on a disk so slow that it takes the duration.

    It holds a session for each job and one more, all in one snapshot; each job copies a table of its own.
    """
    course = Course(ground, pace, whole_seconds=DUMP_SECONDS)
    jobs = room(ground, (pace.size or DUMP_JOBS) + 1) - 1
    if jobs < 1:
        raise UnreachableError(f"a dump needs at least 2 sessions, and the drill may hold {ground.budget}")
    for number in range(jobs):
        table = ground.table(f"archive_{number + 1}")
        ground.execute(
            f"INSERT INTO {table} SELECT n, repeat(md5(n::text), %s) FROM generate_series(1, %s) AS n",
            (ROW_BYTES // 32, DUMP_TABLE_BYTES // ROW_BYTES),
        )
    give_back = ground.charge(jobs + 1)
    target = ground.directory / "dump"
    options = ["--format=directory", f"--jobs={jobs}", "--compress=0", f"--schema={ground.schema}", f"--file={target}"]
    try:
        with Program(ground, "pg_dump", *options) as program:
            _write_slowly(ground, program, target, course, jobs=jobs)
            if ground.stopped.is_set():
                return
            program.require_success()
            tell.note(f"pg_dump has ended, {sum(_sizes(target)) / 1e6:.0f} MB")
    finally:
        give_back()
    if course.finish():
        tell.done()


def _write_slowly(ground: Ground, program: Program, target: Path, course: Course, *, jobs: int) -> None:
    """Let the program run only while it has written less than its share of the time says, until it has ended.

    It is not held up before each job has begun to copy its table: a job that has not begun holds no transaction.
    """
    whole_bytes = jobs * DUMP_TABLE_BYTES
    while program.is_running:
        has_begun = sum(size > 0 for size in _sizes(target)) >= jobs
        is_ahead = has_begun and sum(_sizes(target)) > whole_bytes * course.passed_ratio
        program.pause() if is_ahead else program.go_on()
        if ground.stopped.wait(PAUSED_SECONDS if is_ahead else SLICE_SECONDS):
            return


def _sizes(target: Path) -> list[int]:
    return [path.stat().st_size for path in target.glob("[0-9]*.dat")]  # not the table of contents


ACTS: Mapping[str, ActSpec] = {
    "cron-batch": ActSpec(
        run=run_batches, rate_per_second=BATCHES_PER_SECOND, size=BATCH, duration_seconds=BATCH_SECONDS
    ),
    "staggered-batch": ActSpec(
        run=start_batch_bit_by_bit, rate_per_second=STARTS_PER_SECOND, size=BATCH, duration_seconds=STAGGERED_SECONDS
    ),
    "pg-dump": ActSpec(run=dump, size=DUMP_JOBS, duration_seconds=DUMP_SECONDS, needs=("pg_dump",)),
}
