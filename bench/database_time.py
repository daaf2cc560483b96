"""What watching costs the database: 15 ticks of the daemon against one scrape of postgres_exporter.

15 ticks, because that is what falls between two scrapes at Prometheus' usual interval: the daemon looks once a second
and postgres_exporter is scraped every 15 s, as each is in service. Both run at the same time on one server, as two
roles with pg_monitor, and pg_stat_statements adds up planning and execution of each role. Whatever is asked more rarely
(settings, names, counters) is in it by its share.
"""

import argparse
import time
from typing import Any

from report import Line, compared, run
from stage import Metrics, Stage

TICKS = 15
WARM_UP_SECONDS = 12.0
SCRAPES = 6
SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_planning": "on",
    "pg_stat_statements.track": "all",
}
# With track=all the statements inside functions are rows of their own: only what the client sent is added up.
SPENT = """
    SELECT coalesce(sum(total_exec_time + total_plan_time), 0)::float8, coalesce(sum(calls), 0)::int,
           coalesce(max(calls) FILTER (WHERE query LIKE '%%clock_timestamp()%%'), 0)::int
    FROM pg_stat_statements WHERE toplevel AND userid = %s::regrole
"""


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Return database time and statements at each number of sessions."""
    lines = []
    for sessions in arguments.sessions:
        with Stage(max_connections=max(110, sessions + 10), settings=SETTINGS) as stage:
            database = stage.superuser().cursor()
            database.execute("CREATE EXTENSION pg_stat_statements")
            stage.fill(sessions, busy=True)
            stage.daemon()
            exporter = Metrics(stage.exporter().port)
            exporter.scrape()
            time.sleep(WARM_UP_SECONDS)
            lines += _spent(database, exporter, sessions, arguments.interval)
            exporter.close()
    return lines


def _spent(database: Any, exporter: Metrics, sessions: int, interval_seconds: float) -> list[Line]:
    database.execute("SELECT pg_stat_statements_reset()")
    began = time.monotonic()
    for scrape in range(1, SCRAPES + 1):
        # In the middle of its 15 s, so that as many ticks are before it as after it.
        time.sleep(max(began + (scrape - 0.5) * interval_seconds - time.monotonic(), 0))
        exporter.scrape()
    time.sleep(interval_seconds / 2)
    database.execute(SPENT, ("batsignal",))
    our_milliseconds, our_statements, ticks = database.fetchone()
    database.execute(SPENT, ("exporter",))
    peer_milliseconds, peer_statements, _ = database.fetchone()
    at = f"{sessions} sessions"
    ours_each, peer_each = our_milliseconds / ticks * TICKS, peer_milliseconds / SCRAPES
    return [
        compared(f"database time, {TICKS} ticks against one scrape, {at}", ours_each, peer_each, "ms", 1.0),
        compared(f"database time, one tick against one scrape, {at}", ours_each / TICKS, peer_each, "ms"),
        compared(
            f"statements, one tick against one scrape, {at}", our_statements / ticks, peer_statements / SCRAPES, ""
        ),
    ]


def options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--sessions", type=int, nargs="+", default=[43, 100], help="sessions on the server")
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between two scrapes of postgres_exporter")


if __name__ == "__main__":
    run(__doc__, measure, options)
