"""Days of ticks in compressed time: what a watch, its board and its store keep must not grow with them.

    python bench/week.py [--days D] [--interval-seconds S] [--json FILE]

No server: a small shop is made up whose names change all the time (a deploy a day, batch jobs and hosts of new names,
new statements, an incident each noon, a restart each night). All else is the daemon's own: judge, tally, board,
metrics, page, store and flight recorder, on a real disk. Prints a line a day; exits 1 when something grew.
"""

import argparse
import contextlib
import gc
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import yaml

from batsignal import __version__, footprint
from batsignal.chronicle import Chronicle
from batsignal.config import Config, Thresholds, load
from batsignal.deploys.log import DeployLog
from batsignal.detect.signal import Event
from batsignal.expose import page
from batsignal.expose.metrics import Exposition
from batsignal.names import ApplicationPattern
from batsignal.record import keeper
from batsignal.record.board import Board, BoardCell, ServerBoard
from batsignal.snapshot import Counters, PollFailure, Session, Slots, Snapshot
from batsignal.tick import Watch, tick

DAY = 86_400.0
STARTED = 1_760_000_000.0 // DAY * DAY
# The first days fill what is bounded: labels, deploys, what is usual, the days that are kept.
WARM_DAYS = 4
KEEP_DAYS = 2
# What is kept is counted in objects: names that are new each hour fill what is bounded by their number, a few a day.
GROWTH_OBJECTS_MOST = 10_000
# The process as a whole gets room for what days in seconds do to a heap: the thread that writes runs behind, and leaves
# it in pieces. In real time `bench/soak.py` is the judge of it.
GROWTH_BYTES_MOST = 8_000_000
# SQLite's log takes up to 4 MB before it is folded in; the rest is what two days are.
STORE_BYTES_MOST = 10_000_000
# What the thread that writes is behind by at most: in compressed time a tick would else outrun any disk.
WAITING_MOST = 20
SCRAPE_EVERY_TICKS, PAGES_EVERY_TICKS = 15, 500
SERVICES = ("shop", "billing", "mailer", "search", "stock")
LEAK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Day:
    """What there was at the end of a day."""

    day: int
    rss_bytes: int
    objects: int
    """Blocks of memory that the interpreter has given out, after a collection."""
    store_bytes: int
    incidents: int
    tick_seconds: float
    """Of the processor, all threads together."""


class Shop:
    """The made-up sessions of one server."""

    def sessions(self, t: float) -> Iterator[Session]:
        """Yield who is there at an instant."""
        day, second = divmod(t - STARTED, DAY)
        for number, service in enumerate(SERVICES):
            for place in range(3):
                born = STARTED + ((t - STARTED) // 1800) * 1800 - 60 * number  # recycled every half hour
                yield self._session(
                    pid=1000 + 10 * number + place,
                    born=born,
                    name=f"{service}@{day:.0f}",
                    client=f"10.0.{day:.0f}.{place}",
                    used=t,
                )
        hour = int((t - STARTED) // 3600)
        if second % 3600 < 300:
            for place in range(4):
                yield self._session(
                    pid=3000 + place,
                    born=STARTED + hour * 3600.0,
                    name=f"batch-{hour}",
                    client=f"10.9.{hour % 250}.1",
                    used=t,
                    statement=hour,
                )
        # At noon somebody loses sessions for ten minutes; an hour later they are gone.
        lost = int((min(second, 12 * 3600 + 600) - 12 * 3600) / LEAK_SECONDS)
        if lost > 0 and second < 13 * 3600:
            for place in range(lost):
                born = STARTED + day * DAY + 12 * 3600 + place * LEAK_SECONDS
                yield self._session(
                    pid=5000 + place, born=born, name=f"leaky@{day:.0f}", client="10.8.0.1", used=born + 1
                )

    @staticmethod
    def _session(*, pid: int, born: float, name: str, client: str, used: float, statement: int = 0) -> Session:
        return Session(
            pid=pid,
            backend_start=born,
            state="active" if statement else "idle",
            datname="shop",
            usename=name.partition("@")[0],
            application_name=name,
            client_addr=client,
            query_start=used,
            state_change=used,
            query_id=str(statement or hash(name.partition("@")[0]) % 1000),
            query=f"SELECT ? FROM orders_{statement}",
            backend_type="client backend",
        )


class Life:
    """A daemon's parts, wired as the daemon wires them, with a clock that is told the time."""

    def __init__(self, config: Config, interval_seconds: float) -> None:
        self.now = STARTED
        self.incidents = 0
        (server,) = config.servers
        pattern = ApplicationPattern(re.compile(config.application_pattern))
        self._chronicle = Chronicle(config.store, clock=lambda: self.now)
        self._deploys = DeployLog(pattern, known=self._chronicle.start())
        self._chronicle.watch(server, config)
        self._watch = Watch.of(
            server=server.name,
            interval_seconds=interval_seconds,
            thresholds=Thresholds(),
            pattern=pattern,
            top_names=config.metrics.top_names,
        )
        self._cell = BoardCell(Board(version=__version__, started_at=STARTED, servers={server.name: None}))
        self._exposition = Exposition(lambda: self._cell.board)
        self._shop = Shop()
        self._ticks = 0

    def tick(self) -> None:
        """Look once, and let a scraper and a reader of the page come by now and then."""
        tick(
            self._watch,
            look=self._look,
            find_deploys=self._deploys.add,
            publish=self._publish,
            now=lambda: self.now,
        )
        self._ticks += 1
        if self._ticks % SCRAPE_EVERY_TICKS == 0:
            self._exposition.refresh("a")
            self._exposition.answer(False, True)
        if self._ticks % PAGES_EVERY_TICKS == 0:
            page.render(self._cell.board, self.now)
            self._chronicle.remember("a", self._watch.judge.remembered())
        waiting = self._chronicle._keeper._jobs if self._chronicle._keeper else ()  # noqa: SLF001
        while len(waiting) > WAITING_MOST:
            time.sleep(0.001)

    @property
    def store_bytes(self) -> int:
        health = self._chronicle.tell()
        if health is None or not health.up or health.dropped_looks or health.dropped_writes:
            raise RuntimeError(f"the store did not keep up: {health}")
        return health.store_bytes + health.recordings_bytes

    def stop(self) -> None:
        self._chronicle.stop(10)

    def _look(self) -> Snapshot:
        seconds = (self.now - STARTED) % DAY
        failure = None
        if 3 * 3600 <= seconds < 3 * 3600 + 90:
            failure = PollFailure(reason="refused", text="nothing listens on 127.0.0.1 port 5432")
        ticks = int(self.now - STARTED)
        return Snapshot(
            server="a",
            t=self.now,
            sessions=() if failure else tuple(self._shop.sessions(self.now)),
            failure=failure,
            own_sessions=1,
            slots=Slots(max=100, superuser_reserved=3),
            counters=Counters(sessions=1000 + ticks // 60, xact_commit=ticks * 20),
            ping_seconds=0.0004 + ticks % 7 * 1e-5,
            privileged=True,
            server_version_num=150_018,
        )

    def _publish(self, board: ServerBoard, events: tuple[Event, ...]) -> None:
        self.incidents += sum(event.event == "raised" for event in events)
        self._chronicle.looked(board.name, board.snapshot, self._deploys.known, events)
        self._cell.put_server(board)
        self._chronicle.deployed(self._deploys.known)
        self._cell.swap(lambda old: replace(old, deploys=self._deploys.known, incidents=self._chronicle.recent))


def live(days: int, interval_seconds: float) -> list[Day]:
    """Let the days pass; return what there was at the end of each."""
    keeper.PRUNE_SECONDS, keeper.SIZE_SECONDS = 0.5, 0.2  # type: ignore[misc]  # days pass in seconds here
    seen: list[Day] = []
    with tempfile.TemporaryDirectory(prefix="batsignal-week-") as folder:
        file = Path(folder) / "batsignal.yml"
        store = {"path": f"{folder}/batsignal.db", "keep_days": KEEP_DAYS}
        file.write_text(yaml.safe_dump({"servers": [{"name": "a", "dsn": "host=a"}], "store": store}))
        life = Life(load(str(file), {}), interval_seconds)
        print(f"{'day':>3} {'memory':>9} {'objects':>9} {'on disk':>9} {'incidents':>9} {'a tick':>8}", flush=True)
        for day in range(days):
            began, ticks = time.process_time(), int(DAY / interval_seconds)
            for number in range(ticks):
                life.now = STARTED + day * DAY + number * interval_seconds
                life.tick()
            gc.collect()
            _date(Path(folder), life.now)
            time.sleep(0.5)  # the thread that writes looks at the sizes at its next turn
            tick_seconds = (time.process_time() - began) / ticks
            footprint.give_back()  # as the daemon does by the clock, which a week in seconds hardly moves
            rss = psutil.Process().memory_info().rss
            one = Day(day + 1, rss, sys.getallocatedblocks(), life.store_bytes, life.incidents, tick_seconds)
            seen.append(one)
            print(
                f"{day + 1:3} {rss / 1e6:6.1f} MB {one.objects:9} {one.store_bytes / 1e6:6.2f} MB {one.incidents:9}"
                f" {tick_seconds * 1e3:5.2f} ms",
                flush=True,
            )
        life.stop()
    return seen


def _date(folder: Path, now: float) -> None:
    """Give what was written today the time that it is for the daemon: by that it is deleted."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_mtime > now:
                os.utime(path, (now, now))


def failures(days: list[Day]) -> list[str]:
    """Return the bars that were missed, in words."""
    warm, last = days[min(WARM_DAYS, len(days) - 1) - 1], days[-1]
    found = []
    if last.objects - warm.objects >= GROWTH_OBJECTS_MOST:
        found.append(f"{last.objects - warm.objects} objects more are kept than after day {warm.day}")
    if last.rss_bytes - warm.rss_bytes >= GROWTH_BYTES_MOST:
        found.append(f"memory grew by {(last.rss_bytes - warm.rss_bytes) / 1e6:.1f} MB after day {warm.day}")
    if last.store_bytes > STORE_BYTES_MOST:
        found.append(f"the store takes {last.store_bytes / 1e6:.1f} MB")
    if last.incidents < last.day:
        found.append(f"{last.incidents} incidents were told, at least one a day was expected")
    if last.tick_seconds > 2 * warm.tick_seconds:
        found.append(f"a tick takes {last.tick_seconds * 1e3:.1f} ms, after {warm.tick_seconds * 1e3:.1f} ms")
    return found


def main() -> int:
    """Measure, print, and say by the exit code whether every bar was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--interval-seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured here, too")
    arguments = parser.parse_args()
    days = live(arguments.days, arguments.interval_seconds)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(day) for day in days]), encoding="utf-8")
    found = failures(days)
    for failure in found:
        print(f"FAIL {failure}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
