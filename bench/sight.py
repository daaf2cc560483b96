"""What is seen while every slot is taken, a superuser's too: the share of ticks with a true count, by each way to see.

The real daemon at a look a second, on PostgreSQL 15 and 18. It keeps its session from before; or is started while all
is full, with an emergency_dsn or with nothing but the titles of the server's processes; or loses its session to
somebody else and gets it back later. What it saw is read off its own recording, what was true is asked of the server,
and ten times a second the server is asked how many sessions are the daemon's.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg2
import yaml

from batsignal.drills.embedded import HOST
from batsignal.errors import UnreachableError
from batsignal.record.recording import read
from batsignal.snapshot import Snapshot
from report import Line, bounded, run
from stage import Stage, wait_until

SLOTS = 40
WITHIN_SESSIONS = 1
FULL_SECONDS = 30.0
BACK_SECONDS = 6.0
COUNT_SECONDS = 0.1
GAP_TICKS_AT_MOST = 2
OWN_SESSIONS_AT_MOST = 2
STOP_SECONDS = 10.0
OWN = "SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE application_name = 'batsignal'"
TAKEN = "SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'client backend'"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL) WHERE application_name = 'batsignal'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to see: what it is called, and how the daemon comes to need it."""

    name: str
    view: str
    starts_full: bool = False
    has_emergency: bool = False
    loses_session: bool = False


WAYS = (
    Way(name="kept session", view="session"),
    Way(name="started while full, walsender", view="walsender", starts_full=True, has_emergency=True),
    Way(name="started while full, titles only", view="process_titles", starts_full=True),
    Way(name="session lost while full, walsender", view="walsender", has_emergency=True, loses_session=True),
    Way(name="session lost while full, titles only", view="process_titles", loses_session=True),
)


class Everybody:
    """Superuser sessions that take every slot there is, and a witness among them that asks the server."""

    def __init__(self, stage: Stage, stack: ExitStack) -> None:
        self._stage = stage
        self._witness = stage.superuser()
        self._held: list[Any] = []
        self._asking = threading.Lock()
        self._stopping = threading.Event()
        self.own_most = 0
        stack.callback(self.close)
        self._counter = threading.Thread(target=self._count, daemon=True)
        self._counter.start()

    def fill(self) -> None:
        while len(self._held) <= SLOTS:
            try:
                self._held.append(psycopg2.connect(self._stage.dsn(application="crowd@1")))
            except psycopg2.OperationalError:
                return
        raise UnreachableError("the server took more sessions than it has slots")

    def free(self, sessions: int) -> None:
        for _ in range(sessions):
            self._held.pop().close()

    def ask(self, statement: str) -> int:
        with self._asking, self._witness.cursor() as cursor:
            cursor.execute(statement)
            return int(cursor.fetchone()[0])

    def close(self) -> None:
        self._stopping.set()
        self._counter.join()
        self.free(len(self._held))

    def _count(self) -> None:
        while not self._stopping.wait(COUNT_SECONDS):
            self.own_most = max(self.own_most, self.ask(OWN))


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Return the shares by way, the longest gap and the most sessions of ours."""
    lines = []
    gap = own = 0
    for major in (15, 18):
        for way in WAYS:
            ticks, back, own_most = _play(major, way, arguments.seconds)
            true = [tick for tick in ticks if tick.failure is None and abs(tick.used - SLOTS) <= WITHIN_SESSIONS]
            by_way = sum(tick.view == way.view for tick in true)
            what = f"ticks with a true count, {way.name}, PostgreSQL {major} ({by_way} of {len(ticks)} by {way.view})"
            percent = 100 * len(true) / len(ticks)
            # Losing a session may cost up to two ticks; what is seen without losing one may cost none.
            least = 100.0 * (1 - GAP_TICKS_AT_MOST / len(ticks)) if way.loses_session else 100.0
            lines.append(
                Line(what=what, ours=percent, unit="%", bar=f">= {least:.4g} %", met=percent >= least and by_way > 0)
            )
            gap = max(gap, _longest_gap([*ticks, *back]))
            own = max(own, own_most)
    lines.append(bounded("longest gap in a change over, in ticks", gap, "", GAP_TICKS_AT_MOST))
    lines.append(bounded("own sessions, the most at once, both ways together", own, "", OWN_SESSIONS_AT_MOST))
    return lines


def _play(major: int, way: Way, seconds: float) -> tuple[list[Snapshot], list[Snapshot], int]:
    """Return the ticks while every slot was taken, those after some were free again, and the most sessions of ours."""
    with ExitStack() as stack:
        stage = stack.enter_context(Stage(major=major, max_connections=SLOTS))
        everybody = Everybody(stage, stack)
        everybody.ask("CREATE ROLE emergency LOGIN REPLICATION IN ROLE pg_monitor; SELECT 1")
        if way.starts_full:
            everybody.fill()
        recording = stage.folder / "recording.jsonl"
        process = _daemon(stage, way, recording)
        if not way.starts_full:
            everybody.fill()
        if way.loses_session:
            everybody.ask(END)
            wait_until(lambda: _is_refilled(everybody), STOP_SECONDS)
        if everybody.ask(TAKEN) != SLOTS:
            raise UnreachableError("not every slot is taken")
        full_from = time.time()
        time.sleep(seconds)
        full_until = time.time()
        if everybody.ask(TAKEN) != SLOTS:
            raise UnreachableError("not every slot was taken all the time")
        everybody.free(SLOTS // 4)
        time.sleep(BACK_SECONDS)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
        ticks = list(read(recording)[1])
        full = [tick for tick in ticks if full_from <= tick.t <= full_until]
        back = [tick for tick in ticks if tick.t > full_until]
        if not full or back[-1].view != "session":
            raise UnreachableError("the daemon did not get its session back")
        return full, back, everybody.own_most


def _is_refilled(everybody: Everybody) -> bool:
    """Take the slot that the daemon lost, unless it was quicker: then take its session away again."""
    everybody.fill()
    if everybody.ask(f"{OWN} AND backend_type = 'client backend'"):
        everybody.ask(END)
        return False
    return everybody.ask(TAKEN) == SLOTS


def _daemon(stage: Stage, way: Way, recording: Path) -> Any:
    port = stage.free_port()
    server = {"name": "db1", "dsn": stage.dsn("batsignal")}
    if way.has_emergency:
        server["emergency_dsn"] = stage.dsn("emergency")
    config = stage.folder / "batsignal.yml"
    content = {"servers": [server], "web": {"listen_address": f"{HOST}:{port}"}, "store": {"path": None}}
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [sys.executable, "-m", "batsignal", "run", "--config.file", str(config), "--record", str(recording)]
    process = stage.start(command, environment=dict(os.environ))
    stage.await_answer(process, port, "/-/ready")
    return process


def _longest_gap(ticks: Sequence[Snapshot]) -> int:
    gaps = (len(list(run_)) for failed, run_ in groupby(ticks, lambda tick: tick.failure is not None) if failed)
    return max(gaps, default=0)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS, help="how long every slot is taken, each time")


if __name__ == "__main__":
    run(__doc__, measure, _options)
