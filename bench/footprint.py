"""What the daemon takes of its host and its server: memory, processor, sessions; postgres_exporter's beside it.

100 sessions, most with a new statement each second, so that rows really change; a look a second, a health endpoint
probed every 5 s, a scrape every 5 s as Prometheus does it. A superuser counts the daemon's sessions ten times a
second from before its start, and at the end takes its session away once.
"""

import argparse
import threading
import time
from dataclasses import dataclass
from typing import Any

from batsignal.errors import UnreachableError
from report import Line, bounded, run
from stage import Metrics, Program, Stage, healthy_endpoint, wait_until

SESSIONS = 100
IDLE_SESSIONS = 20
MEMORY_MEGABYTES_AT_MOST = 75
PROCESSOR_PERCENT_AT_MOST = 2
OWN_SESSIONS_AT_MOST = 1
RECONNECTING_SESSIONS_AT_MOST = 2
COUNT_SECONDS = 0.1
COUNT = "SELECT pid FROM pg_stat_get_activity(NULL) WHERE usesysid = 'batsignal'::regrole"


class Seats:
    """Counts the daemon's sessions until told to stop."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)
        self.most = 0
        self.pids: list[int] = []
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._stopping.wait(COUNT_SECONDS):
            cursor = self._session.cursor()
            cursor.execute(COUNT)
            pids = [pid for (pid,) in cursor.fetchall()]
            self.most = max(self.most, len(pids))
            self.pids = pids


@dataclass(slots=True)
class Scraped:
    """A program that is scraped at its interval."""

    program: Program
    client: Metrics
    interval_seconds: float
    cpu_seconds_before: float = 0.0


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Return memory, processor and sessions."""
    with Stage(max_connections=SESSIONS + 20) as stage, healthy_endpoint() as url:
        seats = Seats(stage.superuser())
        stage.fill(SESSIONS - IDLE_SESSIONS, busy=True)
        stage.fill(IDLE_SESSIONS, busy=False)
        endpoint = {"name": "shop", "url": url, "interval_seconds": 5}
        ours, fast, slow = (
            Scraped(program, Metrics(program.port), seconds)
            for program, seconds in (
                (stage.daemon(endpoints=[endpoint]), 5.0),
                (stage.exporter(), 5.0),
                (stage.exporter("exporter_slow"), 15.0),
            )
        )
        scraped = (ours, fast, slow)
        _scrape(scraped, arguments.warm_up)
        for one in scraped:
            one.cpu_seconds_before = one.program.cpu_seconds
        took = _scrape(scraped, arguments.seconds)
        percent = [(one.program.cpu_seconds - one.cpu_seconds_before) / took * 100 for one in scraped]
        most = seats.most
        reconnected = _take_seat_away(stage.superuser(), seats)
        seats.stop()
        for one in scraped:
            one.client.close()
        memory, processor = MEMORY_MEGABYTES_AT_MOST, PROCESSOR_PERCENT_AT_MOST
        peer = fast.program
        return [
            bounded("resident memory", ours.program.rss_megabytes, "MB", memory, peer.rss_megabytes),
            bounded(
                "resident memory, largest ever", ours.program.rss_megabytes_most, "MB", memory, peer.rss_megabytes_most
            ),
            bounded("processor, share of one core (peer scraped every 5 s)", percent[0], "%", processor, percent[1]),
            bounded("processor, share of one core (peer scraped every 15 s)", percent[0], "%", processor, percent[2]),
            bounded("own sessions on the server, most ever seen", most, "", OWN_SESSIONS_AT_MOST),
            bounded("own sessions while reconnecting, most seen", reconnected, "", RECONNECTING_SESSIONS_AT_MOST),
        ]


def _scrape(scraped: tuple[Scraped, ...], seconds: float) -> float:
    """Scrape each at its interval for so long; return how long it really was."""
    began = time.monotonic()
    due = dict.fromkeys(range(len(scraped)), began)
    while (now := time.monotonic()) - began < seconds:
        for index, one in enumerate(scraped):
            if now >= due[index]:
                due[index] += one.interval_seconds
                one.client.scrape()
        time.sleep(max(min(due.values()) - time.monotonic(), 0))
    return time.monotonic() - began


def _take_seat_away(session: Any, seats: Seats) -> int:
    """End the daemon's session and wait for its next one; return the most that were seen at a time."""
    (pid,) = seats.pids
    seats.most = 0
    session.cursor().execute("SELECT pg_terminate_backend(%s)", (pid,))
    if not wait_until(lambda: bool(seats.pids) and pid not in seats.pids, 30):
        raise UnreachableError("the daemon did not come back within 30 s after its session was ended")
    return seats.most


def options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--warm-up", type=float, default=20, help="seconds before the measurement")
    parser.add_argument("--seconds", type=float, default=60, help="seconds of the measurement")


if __name__ == "__main__":
    run(__doc__, measure, options)
