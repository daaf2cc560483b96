"""Running totals: what a counter or a histogram must remember between ticks.

A `Tally` is a fold: each snapshot is added once, and gives a frozen `ServerTally` for the board. It bounds every label
(`sticky_names`): the first `top_names` names keep a series of their own for as long as they live, later ones share one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from batsignal.census import Census
from batsignal.names import ApplicationPattern
from batsignal.record.histogram import Histogram
from batsignal.record.holders import LimitUse, Oldest, limits_of, oldest_of
from batsignal.record.sticky_names import OTHER, StickyNames
from batsignal.snapshot import Session, Snapshot, told_differently

UNSEEN = "unseen"
STARTING = "starting"
"""The state of a session that has not logged in."""

PING_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
RATIO_BUCKETS = (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0)
STATEMENTS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionCount:
    """Sessions that agree in all five labels; an unknown or unnamed one is the empty string."""

    database: str
    user: str
    application: str
    version: str
    state: str
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementCount:
    """Active sessions that run one statement; `query` is normalised."""

    query_id: str
    query: str
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTally:
    """What one server's ticks have added up to; counts of the last good look, and totals since the daemon's start.

    `usage`, `clients`, `statements`, `blocked`, `oldest` and `limits` are None when no look has succeeded yet or the
    last one failed: missing is not zero.
    """

    usage: tuple[ConnectionCount, ...] | None = None
    clients: tuple[tuple[str, int], ...] | None = None
    statements: tuple[StatementCount, ...] | None = None
    blocked: int | None = None
    oldest: tuple[Oldest, ...] | None = None
    limits: tuple[LimitUse, ...] | None = None
    opened: Mapping[str, int] = field(default_factory=dict)
    closed: Mapping[str, int] = field(default_factory=dict)
    session_seconds: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    used_ratio: Histogram = field(default_factory=lambda: Histogram.empty(RATIO_BUCKETS))
    ping: Histogram = field(default_factory=lambda: Histogram.empty(PING_BUCKETS))


class Tally:
    """The fold over one server's snapshots. Owned by the server's tick."""

    def __init__(self, *, pattern: ApplicationPattern, top_names: int) -> None:
        self._pattern = pattern
        self._applications = StickyNames(top_names)
        self._versions = StickyNames(top_names)
        self._users = StickyNames(top_names)
        self._databases = StickyNames(top_names)
        self._clients = StickyNames(top_names)
        self._alive: dict[tuple[int, float | None], str] | None = None
        self._is_detailed = True
        self._last_t: float | None = None
        self._opened: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()
        self._seconds: dict[tuple[str, str, str], float] = {}
        self._refusals: Counter[str] = Counter()
        self._used_ratio = Histogram.empty(RATIO_BUCKETS)
        self._ping = Histogram.empty(PING_BUCKETS)
        self._seen = 0
        self._sessions_counted: int | None = None
        self._seen_at_count = 0

    def read_as(self, pattern: ApplicationPattern, top_names: int) -> None:
        """Read names another way from the next tick on; what was counted under the old ones stays until it is gone."""
        self._pattern = pattern
        for names in (self._applications, self._versions, self._users, self._databases, self._clients):
            names.most = top_names

    def add(self, snapshot: Snapshot, census: Census) -> ServerTally:
        """Add one tick, counted, and return the totals."""
        if snapshot.met is not None and snapshot.refused:
            self._refusals[snapshot.met.reason] += snapshot.refused
        if snapshot.failure is not None:
            self._last_t = None
            return self._view(None, snapshot, census)
        clients = [session for session in snapshot.sessions if session.is_client]
        if snapshot.slots is not None and snapshot.slots.usable:
            self._used_ratio = self._used_ratio.observe(snapshot.used / snapshot.slots.usable)
        if snapshot.ping_seconds is not None:
            self._ping = self._ping.observe(snapshot.ping_seconds)
        self._count_churn(clients, snapshot)
        usage = self._usage(census, snapshot.authenticating, snapshot.t)
        if self._last_t is not None:
            elapsed = max(snapshot.t - self._last_t, 0.0)
            for count in usage:
                key = (count.application, count.version, count.state)
                self._seconds[key] = self._seconds.get(key, 0.0) + elapsed * count.sessions
        self._last_t = snapshot.t
        return self._view(clients, snapshot, census, usage)

    def _count_churn(self, clients: list[Session], snapshot: Snapshot) -> None:
        t = snapshot.t
        before = self._alive
        if before is not None and snapshot.is_detailed != self._is_detailed:
            names = told_differently((session.key for session in clients), before)
            before |= {now: before.pop(then) for now, then in names.items() if then in before}
        self._is_detailed = snapshot.is_detailed
        alive: dict[tuple[int, float | None], str] = {}
        for session in clients:
            label = before.get(session.key) if before else None
            if label is None:
                label = self._applications.admit(self._pattern.split(session.application_name).service or "", t)
            alive[session.key] = label
        if before is not None:
            opened = [label for key, label in alive.items() if key not in before]
            self._opened.update(opened)
            self._seen += len(opened)
            self._closed.update(label for key, label in before.items() if key not in alive)
        self._alive = alive
        self._count_unseen(snapshot)

    def _count_unseen(self, snapshot: Snapshot) -> None:
        """Sessions too short for a look a second: the server's own count of sessions less those that were seen."""
        total = snapshot.counters.sessions if snapshot.counters else None
        if total is None or total == self._sessions_counted:
            return
        if self._sessions_counted is not None and total > self._sessions_counted:
            missed = (total - self._sessions_counted) - (self._seen - self._seen_at_count)
            self._opened[UNSEEN] += max(missed, 0)
            self._closed[UNSEEN] = self._opened[UNSEEN]
        self._sessions_counted, self._seen_at_count = total, self._seen

    def _usage(self, census: Census, authenticating: int, t: float) -> tuple[ConnectionCount, ...]:
        counts: Counter[tuple[str, str, str, str, str]] = Counter()
        for held in census:
            who = self._pattern.split(held.application_name)
            application = self._applications.admit(who.service or "", t)
            version = "" if application == OTHER else self._version(application, who.version, t)
            key = (
                self._databases.admit(held.datname or "", t),
                self._users.admit(held.usename or "", t),
                application,
                version,
                held.state or "unknown",
            )
            counts[key] += held.sessions
        if authenticating:  # as PostgreSQL 18 shows them
            nobody = (self._databases.admit("", t), self._users.admit("", t), self._applications.admit("", t))
            counts[*nobody, "", STARTING] += authenticating
        return tuple(
            ConnectionCount(
                database=database, user=user, application=application, version=version, state=state, sessions=sessions
            )
            for (database, user, application, version, state), sessions in sorted(counts.items())
        )

    def _version(self, application: str, version: str | None, t: float) -> str:
        """Admit a version of an application: as a pair, or K services of K versions would be K times K series."""
        if not version:
            return ""
        return OTHER if self._versions.admit(_release(application, version), t) == OTHER else version

    def _view(
        self,
        clients: list[Session] | None,
        snapshot: Snapshot,
        census: Census,
        usage: tuple[ConnectionCount, ...] | None = None,
    ) -> ServerTally:
        self._forget_the_gone()
        return ServerTally(
            usage=usage,
            clients=None if clients is None else self._by_client(clients, snapshot.t),
            statements=None if clients is None else _statements(clients),
            blocked=None if clients is None else sum(1 for session in clients if session.wait_event_type == "Lock"),
            oldest=None if clients is None else oldest_of(self._labelled(clients)),
            limits=None if clients is None else limits_of(snapshot, census),
            opened=dict(self._opened),
            closed=dict(self._closed),
            session_seconds=dict(self._seconds),
            refusals=dict(self._refusals),
            used_ratio=self._used_ratio,
            ping=self._ping,
        )

    def _labelled(self, clients: Iterable[Session]) -> Iterator[tuple[str, Session]]:
        alive = self._alive or {}
        return ((alive[session.key], session) for session in clients)

    def _by_client(self, clients: Iterable[Session], t: float) -> tuple[tuple[str, int], ...]:
        counts: Counter[str] = Counter()
        for address, sessions in Counter(session.client_addr for session in clients).items():
            counts[self._clients.admit(address or "", t)] += sessions
        return tuple(sorted(counts.items()))

    def _forget_the_gone(self) -> None:
        """Drop the totals of names that gave their place back, so that memory and series stay bounded."""
        keep = {OTHER, UNSEEN}
        for totals in (self._opened, self._closed):
            for name in [name for name in totals if name not in keep and name not in self._applications]:
                del totals[name]
        stale = [
            key
            for key in self._seconds
            if (key[0] != OTHER and key[0] not in self._applications)
            or (key[1] not in {OTHER, ""} and _release(key[0], key[1]) not in self._versions)
        ]
        for key in stale:
            del self._seconds[key]


def _release(application: str, version: str) -> str:
    return f"{application}\n{version}"  # no name has a line break in it


def _statements(clients: Iterable[Session]) -> tuple[StatementCount, ...]:
    counts: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for session in clients:
        if session.state == "active" and (statement := session.statement_id) is not None:
            counts[statement] += 1
            texts.setdefault(statement, session.query or "")
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:STATEMENTS_SHOWN]
    return tuple(StatementCount(query_id=name, query=texts[name], sessions=count) for name, count in top)
