"""A daemon under load for as long as wanted: its memory and its files must stay flat, and no tick may be missed.

    python bench/soak.py [--minutes M] [--json FILE]

On an embedded server pgbench works at a steady rate while drills make one real incident after the other; a scraper and
a reader of the page call all the while. Prints a line a minute and what it comes to; exits 1 when a bar is missed.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from batsignal.drills.embedded import EmbeddedServer
from batsignal.drills.guardian import Guardian
from under_fault.stand import Daemon, ask, daemon, new_guest, server, value, watched

MINUTES = 20.0
# What a daemon learns, caches and renders for the first time is there by then.
WARM_SECONDS = 120.0
SAMPLE_SECONDS = 2.0
PAGE_EVERY_SAMPLES = 5
PGBENCH_CLIENTS = 8
PGBENCH_PER_SECOND = 60
# Of different kinds, over and over. The first one takes every slot: what that needs is there once, and for good.
DRILLS = ("saturation", "lock-pileup-transaction", "leak", "query-pileup", "leak-in-transaction", "idle-in-transaction")
SHORT_MINUTES, SHORT_DRILLS = 3.0, ("lock-pileup-transaction",)

GROWTH_BYTES_MOST = 2_000_000
# A scrape, a page and a wake-up more or less.
FILES_MORE_MOST = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """The daemon at one moment, `at` in seconds since the beginning."""

    at: float
    rss_bytes: int
    files: int
    threads: int


@dataclass
class Soak:
    """What was seen in all of it."""

    minutes: float
    warm_seconds: float
    samples: list[Sample] = field(default_factory=list)
    looks: list[tuple[float, float]] = field(default_factory=list)
    """When the daemon's last look was, and how many had been answered: at the beginning, and by now."""
    tick_errors: int = 0
    slowest_scrape_seconds: float = 0.0
    drills: list[tuple[str, int]] = field(default_factory=list)
    """Each drill that was played, and its exit code."""

    def _warm(self, *, is_end: bool) -> list[Sample]:
        span = min(60.0, self.minutes * 60 / 4)
        begin = self.samples[-1].at - span if is_end else self.warm_seconds
        return [one for one in self.samples if begin <= one.at <= begin + span]

    @property
    def growth_bytes(self) -> int:
        """By how much the median of the last minute is above that of the first one after the warm-up."""
        first, last = (statistics.median(s.rss_bytes for s in self._warm(is_end=end)) for end in (False, True))
        return round(last - first)

    @property
    def more_files(self) -> int:
        """The same of open files."""
        first, last = (statistics.median(s.files for s in self._warm(is_end=end)) for end in (False, True))
        return round(last - first)

    @property
    def missed_ticks(self) -> int:
        (began, before), (ended, after) = self.looks[0], self.looks[-1]
        # Rounded down: a last look that is late is not missed.
        return max(int(ended - began) - round(after - before), 0)

    @property
    def failures(self) -> list[str]:
        """The bars that were missed, in words."""
        found = []
        if self.growth_bytes >= GROWTH_BYTES_MOST:
            found.append(f"memory grew by {self.growth_bytes / 1e6:.1f} MB")
        if self.more_files > FILES_MORE_MOST:
            found.append(f"{self.more_files} more files are open")
        if self.missed_ticks:
            found.append(f"{self.missed_ticks} ticks were missed")
        if self.tick_errors:
            found.append(f"{self.tick_errors} ticks failed")
        return found


@contextmanager
def _pgbench(a: EmbeddedServer, guardian: Guardian) -> Iterator[None]:
    base = ["pgbench", "-h", str(a.socket_directory), "-p", str(a.port), "-U", a.superuser]
    subprocess.run([*base, "-i", "-q", "-s", "1", "postgres"], check=True, capture_output=True)
    load = ["-n", "-c", str(PGBENCH_CLIENTS), "-R", str(PGBENCH_PER_SECOND), "-T", "86400", "postgres"]
    process = guardian.spawn([*base, *load], cwd=a.socket_directory)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _play_drills(a: EmbeddedServer, watcher: Daemon, soak: Soak, ended: threading.Event) -> None:
    command = [
        sys.executable,
        "-m",
        "batsignal",
        "drill",
        "--dsn",
        a.dsn(),
        "--url",
        f"http://127.0.0.1:{watcher.port}",
    ]
    for name in itertools.cycle(SHORT_DRILLS if soak.minutes < SHORT_MINUTES else DRILLS):
        with subprocess.Popen([*command, name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as drill:
            while drill.poll() is None:
                if ended.wait(0.2):
                    drill.terminate()
                    drill.wait()
                    return
        soak.drills.append((name, drill.returncode))


def _sample(watcher: Daemon, soak: Soak, began: float, number: int) -> None:
    process = psutil.Process(watcher.process.pid)
    asked = time.monotonic()
    text = watcher.text("/metrics")
    soak.slowest_scrape_seconds = max(soak.slowest_scrape_seconds, time.monotonic() - asked)
    if number % PAGE_EVERY_SAMPLES == 0:
        watcher.text("/")
        watcher.text("/api/v1/incidents")
    at = value(text, 'batsignal_last_tick_timestamp_seconds{server="a"}')
    answered = value(text, 'batsignal_ping_seconds_count{server="a"}')
    if at is not None and answered is not None:
        soak.looks = [*soak.looks[:1], (at, answered)]
    soak.tick_errors = int(value(text, 'batsignal_tick_errors_total{server="a"}') or 0)
    with process.oneshot():
        soak.samples.append(
            Sample(time.monotonic() - began, process.memory_info().rss, process.num_fds(), process.num_threads())
        )


def measure(minutes: float) -> Soak:
    """Run it; returns what was seen."""
    soak = Soak(minutes, min(WARM_SECONDS, minutes * 60 / 3))
    guest = new_guest()
    with ExitStack() as stack:
        a = stack.enter_context(server(guest, max_connections=100))
        ask(a, "CREATE TABLE batsignal_scratch ()")
        watcher = stack.enter_context(daemon({"servers": [watched("a", a.dsn(user=guest))]}))
        stack.enter_context(_pgbench(a, stack.enter_context(Guardian())))
        began, ended = time.monotonic(), threading.Event()
        drills = threading.Thread(target=_play_drills, args=(a, watcher, soak, ended))
        drills.start()
        stack.callback(drills.join)
        stack.callback(ended.set)
        print(f"{'minute':>6} {'memory':>9} {'files':>5} {'threads':>7} {'missed ticks':>12}  drills", flush=True)
        for number in itertools.count():
            _sample(watcher, soak, began, number)
            seconds = soak.samples[-1].at
            if number and seconds // 60 > soak.samples[-2].at // 60:
                _print_minute(soak)
            if seconds >= minutes * 60:
                break
            time.sleep(SAMPLE_SECONDS)
    return soak


def _print_minute(soak: Soak) -> None:
    now = soak.samples[-1]
    print(
        f"{now.at / 60:6.0f} {now.rss_bytes / 1e6:6.1f} MB {now.files:5} {now.threads:7} {soak.missed_ticks:12}"
        f"  {len(soak.drills)}",
        flush=True,
    )


def main() -> int:
    """Measure, print, and say by the exit code whether every bar was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured here, too")
    arguments = parser.parse_args()
    soak = measure(arguments.minutes)
    last = soak.samples[-1]
    print(
        f"growth of memory after the first {soak.warm_seconds:.0f} s: {soak.growth_bytes / 1e6:+.2f} MB (bar: < 2 MB)"
    )
    print(f"memory {last.rss_bytes / 1e6:.1f} MB; more open files: {soak.more_files:+d}; threads: {last.threads}")
    print(
        f"ticks missed: {soak.missed_ticks} of {soak.looks[-1][0] - soak.looks[0][0]:.0f}; failed: {soak.tick_errors}"
    )
    print(f"slowest scrape: {soak.slowest_scrape_seconds * 1e3:.0f} ms")
    played = ", ".join(f"{name}{'' if code == 0 else f' (exit {code})'}" for name, code in soak.drills)
    print(f"drills: {played or 'none was played to its end'}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(soak)), encoding="utf-8")
    for failure in soak.failures:
        print(f"FAIL {failure}")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
