"""How services behave from look to look: what a deploy's checklist compares, before it and after.

A fold over the snapshots of all servers: per service and server ten minutes of sums, a line each 5 s, and the
statements it is known by. It judges nothing; `verify` does. Bounded in services, in lines and in statements; shared by
the servers' ticks and whoever asks, under one lock.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from batsignal.census import Census
from batsignal.detect.signal import Signal
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Session, Snapshot

LINE_SECONDS = 5.0
LINES_KEPT = 120
SERVICES_MOST = 100
# A service with more shapes of statements than these makes them up: of it, none is new.
STATEMENTS_MOST = 400
SIGNALS_MOST = 200
# Of a service that calls itself something else each time, these are told apart; the rest is counted together.
VERSIONS_MOST = 20
OTHER = "(other)"


@dataclass(slots=True)
class Line:
    """A few seconds of a service on a server, from `t` on: the most sessions of each version, and its probes."""

    t: float
    sessions: dict[str, int] = field(default_factory=dict)
    probes: int = 0
    failures: int = 0
    slowest_seconds: float = 0.0


@dataclass(slots=True)
class Statements:
    """When each statement of a service was seen first and last; `is_whole` until there were too many."""

    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    is_whole: bool = True

    def see(self, statement: str, t: float) -> None:
        if statement not in self.first:
            if len(self.first) >= STATEMENTS_MOST:
                self.is_whole = False
                return
            self.first[statement] = t
        self.last[statement] = t


@dataclass(slots=True)
class Service:
    """One service on one server, over the last ten minutes. Health is told at one server only."""

    since: float
    seen_at: float
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    versions: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When each version was seen first and last."""
    statements: Statements = field(default_factory=Statements)

    def see(self, version: str, t: float) -> None:
        """Take in that a version has sessions now."""
        first, _ = self.versions.get(version, (t, t))
        self.versions[version] = (first, t)
        if len(self.versions) > 2 * VERSIONS_MOST:
            del self.versions[min(self.versions, key=lambda one: self.versions[one][1])]

    def line(self, t: float) -> Line:
        """Return the line that an instant belongs to."""
        if not self.lines or not 0 <= t - self.lines[-1].t < LINE_SECONDS:
            # Most lines are as the one before: 120 a service are kept, and the counts of equal ones but once.
            if len(self.lines) > 1 and self.lines[-1].sessions == self.lines[-2].sessions:
                self.lines[-1].sessions = self.lines[-2].sessions
            self.lines.append(Line(t))
        return self.lines[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSeen:
    """A signal as it was told last; `until` is when it was seen lit last, and `is_lit` whether it still is."""

    signal: Signal
    until: float
    is_lit: bool


@dataclass(slots=True)
class _Server:
    """One server: its last look that succeeded, whether the last look did, and the refusals, a line each 5 s."""

    since: float
    answered: Snapshot | None = None
    up: bool = False
    refused: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    services: dict[str, Service] = field(default_factory=dict)
    before: Mapping[tuple[int, float | None], Session] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is known of one service on one server. `service` is None where it was never seen."""

    server: str
    since: float
    up: bool
    answered: Snapshot | None
    refused: tuple[tuple[float, int], ...]
    service: Service | None


class Conduct:
    """The fold."""

    def __init__(self, pattern: ApplicationPattern) -> None:
        self.pattern = pattern
        self._lock = threading.Lock()
        self._servers: dict[str, _Server] = {}
        self._signals: dict[str, SignalSeen] = {}

    def add(self, snapshot: Snapshot, census: Census) -> None:
        """Take in a look, counted."""
        with self._lock:
            server = self._servers.setdefault(snapshot.server, _Server(since=snapshot.t))
            self._add_refusals(server, snapshot)
            for probe in snapshot.probes:
                if probe.is_home and (service := _service(server, probe.service, snapshot.t)) is not None:
                    line = service.line(snapshot.t)
                    line.probes += 1
                    line.failures += not probe.up
                    line.slowest_seconds = max(line.slowest_seconds, probe.seconds)
            server.up = snapshot.failure is None
            if server.up:
                server.answered = snapshot
                self._add_counts(server, snapshot.t, census)
                self._add_statements(server, snapshot)

    def lit(self, server: str, signals: Iterable[Signal], t: float) -> None:
        """Take in which signals are lit at a server."""
        with self._lock:
            now = {signal.id: SignalSeen(signal=signal, until=t, is_lit=True) for signal in signals}
            for name, seen in self._signals.items():
                if seen.is_lit and seen.signal.server == server and name not in now:
                    self._signals[name] = SignalSeen(signal=seen.signal, until=seen.until, is_lit=False)
            self._signals |= now
            while len(self._signals) > SIGNALS_MOST:
                del self._signals[min(self._signals, key=lambda name: self._signals[name].until)]

    def watch_only(self, servers: Iterable[str]) -> None:
        """Forget every other server."""
        wanted = set(servers)
        with self._lock:
            self._servers = {name: server for name, server in self._servers.items() if name in wanted}
            self._signals = {name: one for name, one in self._signals.items() if one.signal.server in wanted}

    def first_seen(self, service: str, version: str) -> float | None:
        """Return when a version was seen first; None when it was not."""
        with self._lock:
            known = [server.services[service] for server in self._servers.values() if service in server.services]
            return min((one.versions[version][0] for one in known if version in one.versions), default=None)

    def versions(self, service: str) -> tuple[str, ...]:
        """Return the versions of a service that were seen, the last seen first."""
        with self._lock:
            last: dict[str, float] = {}
            for server in self._servers.values():
                if service in server.services:
                    for version, (_, seen) in server.services[service].versions.items():
                        last[version] = max(last.get(version, seen), seen)
        return tuple(sorted(last, key=last.__getitem__, reverse=True))

    def of(self, service: str) -> tuple[Sight, ...]:
        """Return what is known of a service, by server; it may be read only while `reading` is held."""
        return tuple(
            Sight(
                server=name,
                since=server.since,
                up=server.up,
                answered=server.answered,
                refused=tuple(server.refused),
                service=server.services.get(service),
            )
            for name, server in self._servers.items()
        )

    @property
    def reading(self) -> threading.Lock:
        """The lock that keeps ticks from changing what is read."""
        return self._lock

    @property
    def signals(self) -> tuple[SignalSeen, ...]:
        """The signals of late, lit or not."""
        return tuple(self._signals.values())

    @staticmethod
    def _add_refusals(server: _Server, snapshot: Snapshot) -> None:
        if not server.refused or not 0 <= snapshot.t - server.refused[-1][0] < LINE_SECONDS:
            server.refused.append((snapshot.t, 0))
        t, count = server.refused[-1]
        server.refused[-1] = (t, count + (snapshot.refused or 0))

    def _add_counts(self, server: _Server, t: float, census: Census) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        for held in census:
            who = self.pattern.split(held.application_name)
            if who.service is not None:
                counts[who.service, who.version or ""] += held.sessions
        for (name, version), sessions in counts.items():
            service = _service(server, name, t)
            if service is None:
                continue
            line = service.line(t)
            known = version if version in line.sessions or len(line.sessions) < VERSIONS_MOST else OTHER
            line.sessions[known] = max(line.sessions.get(known, 0), sessions)
            service.see(version, t)

    def _add_statements(self, server: _Server, snapshot: Snapshot) -> None:
        before, now = server.before, {}
        for session in snapshot.sessions:
            now[session.key] = session
            # Rows that did not change are the same objects: their statement was seen already.
            if before.get(session.key) is not session and session.is_client:
                self._see_statement(server, session, snapshot.t)
        server.before = now

    def _see_statement(self, server: _Server, session: Session, t: float) -> None:
        statement = session.statement_id
        name = self.pattern.split(session.application_name).service
        service = server.services.get(name) if name is not None else None
        if statement is not None and service is not None:
            service.statements.see(statement, t)


def _service(server: _Server, name: str, t: float) -> Service | None:
    """Return a service; the one that was not seen for longest gives way to a new one, if that is long enough ago."""
    service = server.services.get(name)
    if service is None:
        if len(server.services) >= SERVICES_MOST:
            oldest = min(server.services, key=lambda one: server.services[one].seen_at)
            if t - server.services[oldest].seen_at < LINES_KEPT * LINE_SECONDS:
                return None
            del server.services[oldest]
        service = server.services[name] = Service(since=t, seen_at=t)
    service.seen_at = t
    return service
