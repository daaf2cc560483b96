"""What one pass of all detectors takes on a large server: 2,000 sessions of 40 services, as busy as it gets.

Each look, 30 % of the rows have changed, sessions without a pool come and go, some sessions wait for a lock, and
one service loses a session now and then. Times are the processor's, of the judge alone (reading
the rows is another measurement), median and 99th percentile, in all and for each detector.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from batsignal.cli.replay import Life
from batsignal.snapshot import Counters, ProbeResult, Session, Slots, Snapshot
from report import Line, bounded, quantile, run

T = 1_760_000_000.0
PASS_MILLISECONDS_AT_MOST = 10.0
SERVICES = 40
HOSTS_EACH = 5
CHANGED_RATIO = 0.3
AT_WORK_RATIO = 0.1
WAITING = 8
LOSES_EVERY = 20
WARM_LOOKS = 60
STATEMENTS = tuple(
    (str(9_000_000_000 + n), f"SELECT * FROM table_{n} WHERE id = ? ORDER BY created_at DESC LIMIT ?")
    for n in range(200)
)


class Crowd:
    """A server's sessions, moved on by one second at a time."""

    def __init__(self, sessions: int, opened_per_second: int, seed: int = 1) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a model, not a secret
        self._opened_per_second = opened_per_second
        self._pid = 1000
        self._pools = [
            self._opened(T - self._chance.uniform(600, 90_000), n % SERVICES) for n in range(sessions - WAITING)
        ]
        self._short: list[Session] = []
        self._lost: list[Session] = []
        self._blocker = replace(self._pools[0], state="idle in transaction", xact_start=T, backend_xid="771")
        self._queue = [self._opened(T - 600, 1) for _ in range(WAITING)]

    def _opened(self, at: float, service: int) -> Session:
        self._pid += 1
        return Session(
            pid=self._pid,
            backend_start=round(at, 6),
            state="idle",
            datname=f"db{service % 4}",
            usename=f"user{service}",
            application_name=f"service-{service}@{1 + service % 3}.0.{service}",
            client_addr=f"10.{service}.0.{self._chance.randrange(HOSTS_EACH)}",
            state_change=round(at + 0.01, 6),
            wait_event_type="Client",
            wait_event="ClientRead",
        )

    def _used(self, session: Session, at: float) -> Session:
        query_id, query = self._chance.choice(STATEMENTS)
        at_work = self._chance.random() < AT_WORK_RATIO
        return replace(
            session,
            state="active" if at_work else "idle",
            xact_start=at if at_work else None,
            query_start=at,
            state_change=at if at_work else at + 0.004,
            wait_event_type=None if at_work else "Client",
            wait_event=None if at_work else "ClientRead",
            query_id=query_id,
            query=query,
        )

    def _waiting(self, since: float) -> list[Session]:
        query_id, query = STATEMENTS[0]
        return [
            replace(
                session,
                state="active",
                state_change=since,
                query_start=since,
                xact_start=since,
                query=query,
                query_id=query_id,
                wait_event_type="Lock",
                wait_event="transactionid",
                blocked_by=(self._blocker.pid,),
            )
            for session in self._queue
        ]

    def looks(self, count: int) -> Iterator[Snapshot]:
        """Yield that many looks, one a second; rows that did not change are the same objects."""
        queue: list[Session] = []
        for second in range(count):
            t = T + second + 1.0
            for n, session in enumerate(self._pools):
                if self._chance.random() < CHANGED_RATIO:
                    self._pools[n] = self._used(session, t - self._chance.random())
            self._short = [
                self._used(self._opened(t - self._chance.random(), SERVICES - 1), t - 0.001)
                for _ in range(self._opened_per_second)
            ]
            if second % LOSES_EVERY == 0:
                self._lost.append(self._used(self._opened(t - 0.5, 2), t - 0.4))
            # A queue for a lock forms and dissolves, as it does every day.
            if second % 10 == 0:
                queue = self._waiting(t - 0.5)
            elif second % 10 == 4:
                queue = []
            rows = [self._blocker, *self._pools[1:], *self._short, *self._lost, *queue]
            yield Snapshot(
                server="db1",
                t=t,
                sessions=tuple(rows),
                own_sessions=1,
                slots=Slots(max=5000, superuser_reserved=3),
                counters=Counters(sessions=1000 + second * self._opened_per_second, xact_commit=second * 600),
                refused=0,
                ping_seconds=0.0004,
                probes=(ProbeResult(endpoint="web", service="service-1", at=t, up=True, seconds=0.02, status=200),),
                privileged=True,
                server_version_num=150018,
            )


class _Timed:
    """A part of the judge that notes what each call of it takes; all else is passed on."""

    def __init__(self, part: Any, spent: dict[str, float], name: str) -> None:
        self.__dict__.update(_part=part, _spent=spent, _name=name)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        if name not in {"look", "add"}:
            return value

        def timed(*arguments: Any) -> Any:
            began = time.process_time_ns()
            try:
                return value(*arguments)
            finally:
                self._spent[self._name] = self._spent.get(self._name, 0.0) + (time.process_time_ns() - began) / 1e6

        return timed


def _take_apart(life: Life) -> dict[str, float]:
    """Time every part of the judge that looks; return where what the look of now has taken is noted, in ms."""
    spent: dict[str, float] = {}
    judge = life._judge  # noqa: SLF001 - a measurement of its insides
    for name, part in list(vars(judge).items()):
        if callable(getattr(part, "look", None)) or type(part).__name__ == "Window":
            # The window is handed to the detectors: it stays itself, only its intake is timed.
            if type(part).__name__ == "Window":
                part.add = _Timed(part, spent, "window").add
            else:
                setattr(judge, name, _Timed(part, spent, name.strip("_")))
    return spent


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Return what a pass takes: whole, judged on its own, and taken apart."""
    count = WARM_LOOKS + arguments.looks
    whole: list[float] = []
    life = Life("db1")
    for n, snapshot in enumerate(Crowd(arguments.sessions, arguments.opened).looks(count)):
        began = time.process_time_ns()
        life.look(snapshot)
        if n >= WARM_LOOKS:
            whole.append((time.process_time_ns() - began) / 1e6)
    life = Life("db1")
    spent = _take_apart(life)
    parts: dict[str, list[float]] = {}
    for n, snapshot in enumerate(Crowd(arguments.sessions, arguments.opened).looks(count)):
        spent.clear()
        life.look(snapshot)
        if n >= WARM_LOOKS:
            for name, milliseconds in spent.items():
                parts.setdefault(name, []).append(milliseconds)
    what = f"{arguments.sessions} sessions, {arguments.opened} opened a second"
    lines = [
        bounded(f"one pass, median: {what}", quantile(whole, 0.5), "ms", PASS_MILLISECONDS_AT_MOST),
        Line(what="one pass, 99th percentile", ours=quantile(whole, 0.99), unit="ms"),
    ]
    for name, each in sorted(parts.items(), key=lambda item: -quantile(item[1], 0.5)):
        lines.append(Line(what=f"  {name}, median", ours=quantile(each, 0.5), unit="ms"))
        lines.append(Line(what=f"  {name}, 99th percentile", ours=quantile(each, 0.99), unit="ms"))
    return lines


def options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--opened", type=int, default=20, help="sessions without a pool, opened a second")
    parser.add_argument("--looks", type=int, default=240)


if __name__ == "__main__":
    run(__doc__, measure, options)
