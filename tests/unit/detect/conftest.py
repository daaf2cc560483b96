"""A world of sessions to look at: applications open, use and close them at given times, one snapshot a second.

Deterministic: time is simulated, chance comes from a seed. A behaviour is a generator that yields how many seconds it
waits; `World.run` starts it. A session's state is worked out when it is looked at, so that hours cost seconds.
"""

import heapq
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.deploys.log import DeployLog
from batsignal.detect.signal import Event, Finding
from batsignal.detect.verdict import Judge
from batsignal.record.incidents import Incidents
from batsignal.snapshot import ApplicationPattern, PollFailure, Session, Slots, Snapshot

START = 1_760_000_000.0
# Looks fall between the round instants at which behaviours begin.
PHASE_SECONDS = 0.37
SLOTS = Slots(max=100, superuser_reserved=3)
# From the fork of a backend to its first `idle`.
LOGIN_SECONDS = 0.004

Behaviour = Iterator[float]
Rate = float | Callable[[float], float]


@dataclass(slots=True, eq=False)
class Seat:
    """One session of the world."""

    pid: int
    start: float
    application: str | None
    user: str
    database: str
    client: str | None
    rest: str
    query: str
    busy_from: float = 0.0
    busy_until: float = 0.0
    rested_at: float = 0.0
    uses: int = 0
    closed: bool = False
    shown: tuple[int, bool] | None = None
    row: Session | None = None

    def use(self, at: float, seconds: float) -> None:
        """Begin a statement; while an earlier one runs, it begins when that one has ended."""
        self.busy_from = max(at, self.busy_until)
        self.busy_until = self.rested_at = self.busy_from + seconds
        self.uses += 1

    def look(self, t: float) -> Session:
        resting = t >= self.busy_until
        if self.row is None or self.shown != (self.uses, resting):
            self.shown = (self.uses, resting)
            self.row = self._row(resting=resting)
        return self.row

    def _row(self, *, resting: bool) -> Session:
        stuck = resting and self.rest == "ClientRead"
        state = "active" if stuck or not resting else self.rest
        return Session(
            pid=self.pid,
            backend_start=self.start,
            state=state,
            datname=self.database,
            usename=self.user,
            application_name=self.application,
            client_addr=self.client,
            query_start=self.busy_from if self.uses else None,
            xact_start=self.busy_from if state in {"active", "idle in transaction"} else None,
            # A statement that waits for its client has been `active` since it began.
            state_change=self.busy_from if state == "active" else self.rested_at,
            wait_event_type="Client" if resting else None,
            wait_event="ClientRead" if resting else None,
            query=self.query if self.uses else None,
        )


@dataclass(eq=False)
class Pool:
    """One process's pool: reuses what is idle, grows to `most` when nothing is, never shrinks below `least`."""

    world: "World"
    application: str | None
    least: int = 2
    most: int = 10
    order: Literal["lifo", "fifo"] = "lifo"
    lifetime_seconds: float | None = None
    idle_seconds: float | None = None
    fill_gap_seconds: float = 0.05
    place: dict[str, Any] = field(default_factory=dict)
    seats: list[Seat] = field(default_factory=list)
    closing: bool = False

    def fill(self) -> Behaviour:
        while len(self.seats) < self.least and not self.closing:
            self._open()
            yield self.fill_gap_seconds

    def work(self, rate: Rate, seconds: float = 0.02, until: float = float("inf")) -> Behaviour:
        """Take requests at `rate` a second (a number, or a function of the seconds since the start)."""
        chance = self.world.chance
        while self.world.elapsed < until and not self.closing:
            now = rate(self.world.elapsed) if callable(rate) else rate
            if now <= 0:
                yield 1.0
                continue
            yield chance.expovariate(now)
            if not self.closing:
                self.request(chance.expovariate(1 / seconds))

    def request(self, seconds: float) -> None:
        now = self.world.now
        free = [seat for seat in self.seats if seat.busy_until <= now]
        if free:
            seat = (max if self.order == "lifo" else min)(free, key=lambda one: one.busy_until)
        elif len(self.seats) < self.most:
            seat = self._open()
        else:
            seat = min(self.seats, key=lambda one: one.busy_until)
        seat.use(now, seconds)

    def close(self) -> None:
        self.closing = True
        for seat in self.seats:
            self.world.close(seat)
        self.seats.clear()

    def _open(self) -> Seat:
        seat = self.world.open(self.application, **self.place)
        self.seats.append(seat)
        if self.lifetime_seconds is not None:
            # As HikariCP does it: up to a fortieth less, so that they do not all go at once.
            life = self.lifetime_seconds * (1 - self.world.chance.random() / 40)
            self.world.run(self._retire(seat, life))
        if self.idle_seconds is not None:
            self.world.run(self._shrink(seat, self.idle_seconds))
        return seat

    def _retire(self, seat: Seat, life: float) -> Behaviour:
        yield life
        while seat in self.seats and seat.busy_until > self.world.now:
            yield 0.1
        if self._drop(seat):
            yield 0.02
            yield from self.fill()

    def _shrink(self, seat: Seat, idle_seconds: float) -> Behaviour:
        while seat in self.seats:
            yield 15.0
            if len(self.seats) > self.least and self.world.now - seat.busy_until > idle_seconds:
                self._drop(seat)

    def _drop(self, seat: Seat) -> bool:
        if seat not in self.seats:
            return False
        self.seats.remove(seat)
        self.world.close(seat)
        return True


class World:
    """One server and everybody on it."""

    def __init__(self, *, seed: int = 1, slots: Slots | None = SLOTS) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
        self.now = START
        self.slots = slots
        self.role_limits: dict[str, int] = {}
        self.database_limits: dict[str, int] = {}
        self.seats: dict[int, Seat] = {}
        self.failing: list[tuple[float, float, PollFailure]] = []
        self.next_pid = 1000
        self._due: list[tuple[float, int, Behaviour]] = []
        self._count = 0

    @property
    def elapsed(self) -> float:
        return self.now - START

    def run(self, behaviour: Behaviour, at: float | None = None) -> None:
        """Start a behaviour now, or `at` so many seconds after the start."""
        self._count += 1
        heapq.heappush(self._due, (self.now if at is None else START + at, self._count, behaviour))

    def call(self, at: float, act: Callable[[], object]) -> None:
        """Do one thing `at` so many seconds after the start."""

        def once() -> Behaviour:
            act()
            yield from ()

        self.run(once(), at)

    def open(
        self,
        application: str | None,
        *,
        user: str = "app",
        database: str = "shop",
        client: str | None = "10.0.0.4",
        rest: str = "idle",
        query: str = "SELECT * FROM orders WHERE id = ?",
    ) -> Seat:
        self.next_pid += 1
        seat = Seat(self.next_pid, self.now, application, user, database, client, rest, query)
        seat.rested_at = self.now + LOGIN_SECONDS
        self.seats[seat.pid] = seat
        return seat

    def close(self, seat: Seat) -> None:
        seat.closed = True
        if self.seats.get(seat.pid) is seat:
            del self.seats[seat.pid]

    @property
    def is_full(self) -> bool:
        return self.slots is not None and len(self.seats) + 1 >= self.slots.usable

    # -- behaviours ------------------------------------------------------------------------------------------------

    def pool(self, application: str | None, *, work: Rate = 0.0, at: float = 0.0, **facts: Any) -> Pool:
        """A pool that fills `at` that time and then works at that rate."""
        seconds = facts.pop("seconds", 0.02)
        pool = Pool(self, application, **facts)
        self.run(pool.fill(), at)
        if work:
            self.run(pool.work(work, seconds), at + 1.0)
        return pool

    def leak(
        self,
        application: str | None,
        *,
        every: Rate,
        at: float = 0.0,
        until: float = float("inf"),
        jitter: float = 0.2,
        clients: Iterable[str] = ("10.0.0.4",),
        one_in: int = 1,
        **place: Any,
    ) -> list[Seat]:
        """Lose a session every so many seconds; with `one_in` N, all but every Nth are given back."""
        lost: list[Seat] = []
        hosts = list(clients)

        def go() -> Behaviour:
            count = 0
            while self.elapsed < until:
                if not self.is_full:
                    count += 1
                    seat = self.open(application, client=self.chance.choice(hosts), **place)
                    seat.use(self.now + 0.01, 0.02)
                    if count % one_in:
                        self.call(self.elapsed + 0.2, lambda seat=seat: self.close(seat))
                    else:
                        lost.append(seat)
                gap = every(self.elapsed) if callable(every) else every
                yield gap * self.chance.uniform(1 - jitter, 1 + jitter)

        self.run(go(), at)
        return lost

    def visits(self, application: str | None, *, rate: float, seconds: float = 0.1, **place: Any) -> None:
        """Open, query and close, as an application without a pool does."""

        def go() -> Behaviour:
            while True:
                yield self.chance.expovariate(rate)
                if self.is_full:
                    continue
                seat = self.open(application, **place)
                busy = self.chance.expovariate(1 / seconds)
                seat.use(self.now + 0.005, busy)
                self.call(self.elapsed + busy + 0.01, lambda seat=seat: self.close(seat))

        self.run(go())

    def restart(self, at: float, seconds: float) -> None:
        """Take the server away for a while; every session is gone."""

        def stop() -> None:
            for seat in list(self.seats.values()):
                self.close(seat)

        self.call(at, stop)
        self.failing.append((at, at + seconds, PollFailure(reason="refused", text="nothing listens there")))

    # -- looks -----------------------------------------------------------------------------------------------------

    def looks(self, seconds: float, interval: float = 1.0) -> Iterator[Snapshot]:
        """Yield what a look shows, one an interval, for so many seconds from here on."""
        end = self.elapsed + seconds
        n = round(self.elapsed / interval)
        while (n + 1) * interval <= end + 1e-6:
            n += 1
            t = START + n * interval - PHASE_SECONDS
            self._advance(t)
            yield self._look(t)
        self._advance(START + end)

    def _advance(self, t: float) -> None:
        while self._due and self._due[0][0] <= t:
            at, _, behaviour = heapq.heappop(self._due)
            self.now = max(self.now, at)
            wait = next(behaviour, None)
            if wait is not None:
                self.run(behaviour, self.elapsed + wait)
        self.now = t

    def _look(self, t: float) -> Snapshot:
        failure = next((one for start, end, one in self.failing if start <= t - START < end), None)
        if failure is not None:
            return Snapshot(server="db1", t=t, failure=failure, slots=self.slots, view="none")
        return Snapshot(
            server="db1",
            t=t,
            sessions=tuple(seat.look(t) for seat in self.seats.values()),
            own_sessions=1,
            slots=self.slots,
            role_limits=self.role_limits,
            database_limits=self.database_limits,
            ping_seconds=0.0004,
            privileged=True,
        )


class Watcher:
    """A judge with a memory of all it said: what a page, a log and a replay would show."""

    def __init__(self) -> None:
        pattern = ApplicationPattern(re.compile(APPLICATION_PATTERN))
        self.judge = Judge(thresholds=Thresholds(), pattern=pattern)
        self.incidents = Incidents("db1")
        self.deploys = DeployLog(pattern)
        self.events: list[Event] = []
        self.said: list[tuple[float, Finding]] = []
        self.now: tuple[Finding, ...] = ()

    def look(self, snapshot: Snapshot) -> tuple[Finding, ...]:
        verdict = self.judge.look(snapshot, self.deploys.add(snapshot))
        self.events += self.incidents.fold(snapshot.t, verdict.findings, verdict.superseded)
        self.said += [(snapshot.t - START, finding) for finding in verdict.findings]
        self.now = verdict.findings
        return verdict.findings

    def follow(self, looks: Iterable[Snapshot]) -> "Watcher":
        for snapshot in looks:
            self.look(snapshot)
        return self

    def raised(self, kind: str) -> list[Event]:
        return [one for one in self.events if one.event == "raised" and one.signal.finding.kind == kind]

    def cleared(self, kind: str) -> list[Event]:
        return [one for one in self.events if one.event == "cleared" and one.signal.finding.kind == kind]

    def at(self, seconds: float, kind: str = "leak") -> Finding:
        """What was said of that kind at the last look up to that many seconds after the start."""
        return [finding for t, finding in self.said if t <= seconds and finding.kind == kind][-1]

    def sentences(self) -> list[str]:
        """Every raise and clear in words, for a test that fails."""
        return [
            f"{one.t - START:.0f}s {one.event} {one.signal.finding.severity}: {one.signal.finding.summary}"
            for one in self.events
            if one.event != "updated"
        ]


def watch(world: World, seconds: float, *, starts: Iterable[float] = (0.0,), interval: float = 1.0) -> list[Watcher]:
    """Look on for so long; each watcher starts at its own time, as a daemon that is restarted in the middle does."""
    watchers = [(start, Watcher()) for start in starts]
    for snapshot in world.looks(seconds, interval):
        for start, watcher in watchers:
            if snapshot.t - START >= start:
                watcher.look(snapshot)
    return [watcher for _, watcher in watchers]


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def make_watcher() -> type[Watcher]:
    return Watcher


@pytest.fixture
def look_on() -> Callable[..., list[Watcher]]:
    return watch


@pytest.fixture
def start() -> float:
    """The world's first instant, in Unix seconds."""
    return START


@pytest.fixture
def pattern() -> ApplicationPattern:
    return ApplicationPattern(re.compile(APPLICATION_PATTERN))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()
