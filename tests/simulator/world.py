"""A world of sessions to look at: applications open, use and close them at given times, one snapshot a second.

Deterministic: time is simulated, chance comes from a seed. A behaviour is a generator that yields how many seconds it
waits; `World.run` starts it. A session's state is worked out when it is looked at, so that hours cost seconds.

Owns time, behaviours, and what a look shows. It judges nothing and must not know who does.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from batsignal.snapshot import Counters, Deploy, PollFailure, PoolerPool, ProbeResult, Slots, Snapshot
from simulator.locks import Ticket
from simulator.pools import Pool, Rate
from simulator.probes import TIMEOUT_SECONDS, Asked, probe
from simulator.seats import LOGIN_SECONDS, Behaviour, Seat
from simulator.server import SLOTS, START, Meter, Refused, Server

__all__ = ["PHASE_SECONDS", "SLOTS", "START", "Behaviour", "Meter", "Refused", "Seat", "World"]

# Looks fall between the round instants at which behaviours begin.
PHASE_SECONDS = 0.37
PING_SECONDS = 0.0004
# As many at work at once as the machine has cores for; beyond them, everybody waits for everybody.
CORES = 16
FULL_TEXT = "remaining connection slots are reserved"


class World(Server):
    """One server and everybody on it."""

    name = "db1"

    def __init__(self, *, seed: int = 1, slots: Slots | None = SLOTS) -> None:
        super().__init__(slots=slots)
        self.chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
        # For what only colours a look: what is decided by `chance` must not depend on how often somebody looks.
        self.noise = random.Random(f"noise {seed}")  # noqa: S311
        self.deploys: list[Deploy] = []
        self.probed: list[ProbeResult] = []
        self.troubled: list[tuple[str, Literal["endpoint_down", "endpoint_slow"], float]] = []
        """Every probe that failed or was slow: the endpoint, what it was, and when."""
        self.pooler: Callable[[], tuple[PoolerPool, ...]] | None = None
        """Where somebody asks a pooler for its own pools: what they show now."""
        self.tells_refusals = False
        """Whether a source tells of every refusal, as the server's log does."""
        self.ping_spread = 0.0
        """How much a ping varies (the sigma of its logarithm); without it, it follows the load alone."""
        self.server_version_num: int | None = None
        self._untold_deploys: list[Deploy] = []
        self._due: list[tuple[float, int, Behaviour]] = []
        self._count = 0

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
                seat = None if self.is_full else self.open(application, client=self.chance.choice(hosts), **place)
                if seat is not None:
                    count += 1
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
                seat = None if self.is_full else self.open(application, **place)
                if seat is None:
                    continue
                busy = self.chance.expovariate(1 / seconds)
                seat.use(self.now + 0.005, busy)
                self.call(self.elapsed + busy + 0.01, lambda seat=seat: self.close(seat))

        self.run(go())

    def run_locked(
        self,
        seat: Seat,
        lock: str,
        seconds: float,
        *,
        exclusive: bool = True,
        timeout_seconds: float = float("inf"),
        then: Callable[[bool], object] | None = None,
        **statement: Any,
    ) -> Ticket:
        """Run a statement that needs a lock: it waits for it, runs for so long, and lets it go at its end.

        With infinite `seconds` it holds the lock until `locks.leave`. `then` is told, at the end, whether it got it.
        """
        seat.use(self.now, float("inf"), **statement)

        def end(granted: bool) -> None:
            self.locks.leave(ticket)
            if not seat.closed:
                seat.finish(self.now)
            if then is not None:
                then(granted)

        def granted() -> None:
            if seconds < float("inf"):
                self.call(self.elapsed + seconds, lambda: end(True))

        def cancel() -> None:
            if ticket in ticket.lock.queue:
                end(False)

        ticket = self.locks.take(lock, seat, exclusive=exclusive, then=granted)
        if timeout_seconds < float("inf"):
            self.call(self.elapsed + timeout_seconds, cancel)
        return ticket

    def deploy(
        self, service: str, version: str, at: float, *, previous: str | None = None, announced: bool = False
    ) -> Deploy:
        """Note a deploy, `at` so many seconds after the start; unless it is announced, no look tells of it."""
        deploy = Deploy(service=service, version=version, at=START + at, previous=previous)
        self.deploys.append(deploy)
        if announced:
            self.call(at, lambda: self._untold_deploys.append(deploy))
        return deploy

    def endpoint(
        self,
        name: str,
        service: str,
        asked: Asked,
        *,
        interval_seconds: float = 5.0,
        timeout_seconds: float = TIMEOUT_SECONDS,
        at: float = 0.0,
    ) -> None:
        """Probe a health endpoint once an interval; what it answers comes from asking its pool, or a function."""
        behaviour = probe(
            self, name, service, asked, interval_seconds=interval_seconds, timeout_seconds=timeout_seconds
        )
        self.run(behaviour, at)

    def fail(self, at: float, seconds: float, failure: PollFailure, *, ends_sessions: bool = True) -> None:
        """Take the server away for a while."""

        def stop() -> None:
            self.is_watched = False
            for seat in list(self.seats.values()):
                self.close(seat)

        if ends_sessions:
            self.call(at, stop)
        self.failing.append((at, at + seconds, failure))

    def restart(self, at: float, seconds: float) -> None:
        """Take the server away for a while; every session is gone."""
        self.fail(at, seconds, PollFailure(reason="refused", text="nothing listens there"))

    def trouble(self, since: float) -> dict[tuple[str, Literal["endpoint_down", "endpoint_slow"]], float]:
        """Return which endpoints failed or were slow from that instant on, and when they first did."""
        first: dict[tuple[str, Literal["endpoint_down", "endpoint_slow"]], float] = {}
        for endpoint, kind, at in self.troubled:
            if at >= since:
                first.setdefault((endpoint, kind), at)
        return first

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
        probes, self.probed = tuple(self.probed), []
        deploys, self._untold_deploys = tuple(self._untold_deploys), []
        failure = self._failure()
        if failure is None and not self.is_watched:
            # Our own seat went with the server: it must be taken again, and somebody may have been faster.
            self.is_watched = self.refusal(user=None, database=None) is None
            if not self.is_watched:
                failure = PollFailure(reason="slots_full", sqlstate="53300", text=FULL_TEXT)
            else:
                self._established += 1
        refused, self._untold_refusals = self._untold_refusals, 0
        told = {"probes": probes, "deploys": deploys, "refused": refused if self.tells_refusals else None}
        if failure is not None:
            return Snapshot(server=self.name, t=t, failure=failure, slots=self.slots, view="none", **told)
        since = t - LOGIN_SECONDS
        sessions = tuple(seat.look(t) for seat in self.seats.values() if seat.start <= since)
        if self._has_wrapped:
            sessions = tuple(sorted(sessions, key=lambda session: session.pid))
        if self.processes:
            # As the daemon reads them: of the server's own processes only those that somebody waits for.
            blockers = {pid for session in sessions for pid in session.blocked_by}
            sessions = tuple(session for session in sessions if session.is_client or session.pid in blockers)
        active = sum(1 for session in sessions if session.state == "active" and session.wait_event_type is None)
        return Snapshot(
            server=self.name,
            t=t,
            sessions=sessions,
            own_sessions=1,
            slots=self.slots,
            role_limits=self.role_limits,
            database_limits=self.database_limits,
            counters=Counters(
                sessions=self._established,
                xact_commit=self._committed + sum(seat.commits for seat in self.seats.values()),
            ),
            ping_seconds=PING_SECONDS * self.noise.lognormvariate(0, self.ping_spread) * (1 + (active / CORES) ** 2),
            privileged=True,
            pools=None if self.pooler is None else self.pooler(),
            server_version_num=self.server_version_num,
            **told,
        )
