"""People at the database: analysts with a tool open all day, and the one whose query takes twenty minutes.

Owns the acts of sessions that a human holds. They have the names that tools give themselves, or none, rest for hours,
and are no application of ours: nobody deployed them and nobody can roll them back.
"""

import contextlib
import itertools
from collections.abc import Callable, Mapping

from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.act import ActSpec, Pace, Tell
from batsignal.drills.actors.clients import Clients, run
from batsignal.drills.actors.pods import Course, room
from batsignal.drills.ground import Ground

QUERY_SECONDS = 20 * 60.0
REPORT_ROWS = 20_000
IDLE_DAY_SECONDS = 8 * 3600.0
ANALYSTS = 8
ASKS_PER_SECOND = 1 / 1200
ARRIVING = 20
ARRIVALS_PER_SECOND = 1 / 90
ARRIVING_SECONDS = 2400.0
# The names that interactive tools give their sessions; None is a driver that gives none.
TOOLS = ("psql", None, "notebook", None, "spreadsheet", "psql", None, "report designer")
DESKS = 4
ASK = "SELECT relname, reltuples FROM pg_class ORDER BY relpages DESC LIMIT 20"

# One statement that works for as long as it is told to: it reads the whole table again for each step. The step is part
# of what is compared, or the planner would read once and remember.
REPORT = """
    WITH RECURSIVE report (step, matches, at) AS (
        SELECT 0, 0::bigint, clock_timestamp()
        UNION ALL
        SELECT step + 1, found.matches, clock_timestamp()
        FROM report, LATERAL (
            SELECT count(*) AS matches FROM {table} WHERE md5(body || report.step::text) LIKE '00%%'
        ) AS found
        WHERE report.at < %(until)s
    )
    SELECT count(*), sum(matches) FROM report
"""


def run_report(session: Connection, table: str, seconds: float) -> None:
    """Run one real statement that reads a table again and again for that long."""
    with session.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp() + make_interval(secs => %s)", (seconds,))
        row = cursor.fetchone()
        cursor.execute(REPORT.format(table=table), {"until": row[0] if row else None})
        cursor.fetchall()


def query_for_long(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Run `size` analytics queries, one unless told otherwise, each of them one statement over the whole duration."""
    course = Course(ground, pace, whole_seconds=QUERY_SECONDS)
    table = ground.table("facts", REPORT_ROWS)
    with Clients(ground, tell) as clients:
        queries = room(ground, pace.size or 1)

        def query() -> None:
            # A statement that was called off ends its session too: nobody is left to look at the result.
            with contextlib.closing(clients.connect("notebook", host=DESKS)) as session:
                run_report(session, table, course.duration_seconds)

        for _ in range(queries):
            clients.start(query)
        tell.note(f"an analytics query runs for {course.duration_seconds:.0f} s")
        if course.finish():
            tell.done()


def park_idle(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Open `size` analysts' sessions within the first minute; each asks one thing and is then parked for the day.

    One of them, in turn, asks one more thing `rate` times a second.
    """
    course = Course(ground, pace, whole_seconds=IDLE_DAY_SECONDS)
    with Clients(ground, tell) as clients:
        analysts = room(ground, pace.size or ANALYSTS)
        sessions = _arrivals(clients, analysts, pause=lambda: course.wait(60.0 / analysts))
        tell.note(f"{len(sessions)} analysts have their tools open")
        turns = itertools.cycle(sessions)
        while course.pause(1.0 / (pace.rate_per_second or ASKS_PER_SECOND)):
            run(next(turns), ASK)
        if not ground.stopped.is_set():
            tell.done()


def arrive_one_by_one(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Open `size` analysts' sessions one after the other, `rate` a second; each is used at once, then parked.

    With less time fewer of them come.
    """
    course = Course(ground, pace, whole_seconds=ARRIVING_SECONDS)
    every_seconds = 1.0 / (pace.rate_per_second or ARRIVALS_PER_SECOND)
    with Clients(ground, tell) as clients:
        wanted = room(ground, pace.size or ARRIVING)
        sessions = _arrivals(clients, wanted, pause=lambda: course.pause(every_seconds))
        tell.note(f"{len(sessions)} analysts have arrived")
        if course.finish():
            tell.done()


def _arrivals(clients: Clients, analysts: int, *, pause: Callable[[], bool]) -> list[Connection]:
    """Let analysts sit down one after the other, until they are all there or the pause says that it is over."""
    role = clients.ground.role("analyst")
    sessions: list[Connection] = []
    for number in range(analysts):
        tool, desk = TOOLS[number % len(TOOLS)], 1 + number % DESKS
        sessions.append(clients.connect(tool, user=role, host=desk))
        run(sessions[-1], ASK)
        if not pause():
            break
    return sessions


ACTS: Mapping[str, ActSpec] = {
    "analytics-query": ActSpec(run=query_for_long, size=1, duration_seconds=QUERY_SECONDS),
    "analysts-idle": ActSpec(
        run=park_idle,
        rate_per_second=ASKS_PER_SECOND,
        size=ANALYSTS,
        duration_seconds=IDLE_DAY_SECONDS,
        needs=("role",),
    ),
    "analysts-arriving": ActSpec(
        run=arrive_one_by_one,
        rate_per_second=ARRIVALS_PER_SECOND,
        size=ARRIVING,
        duration_seconds=ARRIVING_SECONDS,
        needs=("role",),
    ),
}
