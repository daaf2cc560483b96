"""What one look at the world returned: frozen values, the only thing that crosses from `poll` to the rest.

Owns the shapes and the arithmetic that belongs to one value (usable slots, an age). It must not know where
a value came from, what it means, or what time it is: `t` is part of the value. All instants are Unix seconds,
all durations seconds; `None` means unknown, which is never zero.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from typing import Literal

from batsignal.names import NAME_LONGEST

FailureReason = Literal[
    "slots_full",
    "role_limit",
    "database_limit",
    "not_accepting",
    "no_database",
    "auth_failed",
    "tls_failed",
    "refused",
    "timeout",
    "unreachable",
]
SessionKey = tuple[int, float | None]
"""The pid and the begin of a session, for pids are reused."""
View = Literal["session", "reserved", "walsender", "process_titles", "none"]

FAILURE_REASONS: tuple[FailureReason, ...] = FailureReason.__args__  # type: ignore[attr-defined]
VIEWS: tuple[View, ...] = View.__args__  # type: ignore[attr-defined]

CLIENT_BACKEND = "client backend"
# When a process began, by the kernel and by the server: moments apart, and by what the clock was set since.
START_TOLERANCE_SECONDS = 5.0


@lru_cache(maxsize=4096)
def fingerprint(query: str) -> str:
    """Return a short name for a normalised statement, for servers that give no `query_id`.

    >>> fingerprint("SELECT ?")
    '66cbb3a40d4b'
    """
    return hashlib.sha256(query.encode("utf-8", "replace")).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One row of `pg_stat_activity`, in PostgreSQL's names. A session is `(pid, backend_start)`: pids are reused."""

    pid: int
    backend_start: float | None
    state: str | None
    datname: str | None = None
    usename: str | None = None
    application_name: str | None = None
    client_addr: str | None = None
    xact_start: float | None = None
    query_start: float | None = None
    state_change: float | None = None
    wait_event_type: str | None = None
    wait_event: str | None = None
    query_id: str | None = None
    query: str | None = None
    """Normalised: literals never leave the poller."""
    blocked_by: tuple[int, ...] = ()
    backend_type: str | None = CLIENT_BACKEND
    backend_xid: str | None = None
    backend_xmin: str | None = None
    leader_pid: int | None = None
    code: str | None = None
    """Where in the application the statement comes from, as its comment says: `controller=users action=show`."""

    def __eq__(self, other: object) -> bool:
        """Return whether every value is the same, in two halves.

        What `dataclass` writes compares tuples of all 20 values: CPython 3.11 and 3.12 keep up to 2,000 of that size
        once they are free, and use none of them again.
        """
        if not isinstance(other, Session):
            return NotImplemented
        return _first_half(self) == _first_half(other) and _second_half(self) == _second_half(other)

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> SessionKey:
        return (self.pid, self.backend_start)

    @property
    def statement_id(self) -> str | None:
        """The server's `query_id`, else a fingerprint of the normalised text; None when neither is known."""
        return self.query_id or (fingerprint(self.query) if self.query else None)

    @property
    def is_client(self) -> bool:
        """Whether it holds one of the slots that `max_connections` counts."""
        return self.backend_type == CLIENT_BACKEND


_NAMES = tuple(one.name for one in fields(Session))
_first_half, _second_half = attrgetter(*_NAMES[:10]), attrgetter(*_NAMES[10:])


def told_differently(now: Iterable[SessionKey], before: Iterable[SessionKey]) -> Mapping[SessionKey, SessionKey]:
    """Return, for sessions that were there before, what they were called then: one view tells their begin otherwise.

    To be asked where the view changed to or from the titles of processes; within one view, another begin is another
    session.

    >>> dict(told_differently([(1, 10.0), (2, 20.0)], [(1, 10.5), (2, 9.0)]))
    {(1, 10.0): (1, 10.5)}
    """
    starts = {pid: start for pid, start in before}  # noqa: C416 - dict() would copy a mapping of sessions
    found: dict[SessionKey, SessionKey] = {}
    for pid, start in now:
        known = starts.get(pid)
        if known is not None and start is not None and 0 < abs(start - known) <= START_TOLERANCE_SECONDS:
            found[pid, start] = (pid, known)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The server's connection slots. `reserved` is `reserved_connections` (PostgreSQL 16+, else 0)."""

    max: int
    superuser_reserved: int
    reserved: int = 0

    @property
    def usable(self) -> int:
        """Slots an ordinary role can take.

        >>> Slots(max=100, superuser_reserved=3).usable
        97
        """
        return max(self.max - self.superuser_reserved - self.reserved, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Sums over `pg_stat_database`; `sessions` is None before PostgreSQL 14."""

    sessions: int | None = None
    xact_commit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollFailure:
    """Why a look failed. `text` is one line for a person, without secrets; `sqlstate` is None when none was said.

    `by_pooler`: it was a pooler that stood in the way, or that said so; how the server behind it is, is not known.
    """

    reason: FailureReason
    text: str
    sqlstate: str | None = None
    by_pooler: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One request to a health endpoint.

    `seconds` is the whole request; `phases` the parts that were reached, of `resolve, connect, tls, first_byte, body`.
    `reason` says in one line why the probe failed, and is None when `up`. Every server that the endpoint depends on is
    told; at one of them, its home, the endpoint's own signals are said.
    """

    endpoint: str
    service: str
    at: float
    up: bool
    seconds: float
    status: int | None = None
    reason: str | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    tls_expiry: float | None = None
    is_home: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerPool:
    """One row of PgBouncer's `SHOW POOLS`, in its names; a column that this version of it does not have is None.

    `cl_waiting` clients wait for a server session, the first of them since `maxwait_seconds`.
    """

    database: str
    user: str
    cl_active: int | None = None
    cl_waiting: int | None = None
    sv_active: int | None = None
    sv_idle: int | None = None
    sv_used: int | None = None
    sv_tested: int | None = None
    sv_login: int | None = None
    maxwait_seconds: float | None = None
    pool_mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """The machine the server runs on, when it is ours too.

    Ratios are 0 to 1; `tcp` counts the TCP sessions on the server's port by state.
    """

    cpu_ratio: float
    memory_used_ratio: float
    load1: float
    cpu_count: int
    server_processes: int | None = None
    server_rss_bytes: int | None = None
    tcp: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """A service's version that began to run at `at`; `previous` is the version before it, when known."""

    service: str
    version: str
    at: float
    previous: str | None = None

    def is_of(self, version: str | None) -> bool:
        """Whether it brought a version: spelled as in a tag, with a `v`, or cut off where a name ends, it is the same.

        >>> deploy = Deploy(service="web", version="v2.4.0", at=0.0)
        >>> deploy.is_of("2.4.0"), deploy.is_of("2.4"), deploy.is_of(None)
        (True, False, False)
        """
        if version is None or version == self.version:
            return version is not None
        shorter, longer = sorted((_plain(version), _plain(self.version)), key=len)
        if len(f"{self.service}@{shorter}".encode("utf-8", "replace")) < NAME_LONGEST:
            return shorter == longer
        return longer.startswith(shorter)


def _plain(version: str) -> str:
    return version[1:] if version[:1] in {"v", "V"} and version[1:2].isdigit() else version


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One tick of one server.

    When `failure` is set the look failed: `sessions` is empty and means nothing. Rows that did not change since the
    tick before are the same objects, so that a reader can skip them by identity. `own_sessions` are our own seats on
    the server: they are in no row, but each takes a slot.

    When `refusal` is set the ordinary way in is shut, for that reason, and the sessions were seen another way (`view`).
    `authenticating` are sessions that hold a slot and are in no row, for they have not logged in yet (before PostgreSQL
    18); known where the server runs on this host.
    """

    server: str
    t: float
    sessions: tuple[Session, ...] = ()
    own_sessions: int = 0
    authenticating: int = 0
    slots: Slots | None = None
    role_limits: Mapping[str, int] = field(default_factory=dict)
    database_limits: Mapping[str, int] = field(default_factory=dict)
    counters: Counters | None = None
    refused: int | None = None
    ping_seconds: float | None = None
    probes: tuple[ProbeResult, ...] = ()
    deploys: tuple[Deploy, ...] = ()
    failure: PollFailure | None = None
    refusal: PollFailure | None = None
    view: View = "session"
    privileged: bool | None = None
    role: str | None = None
    """The role we are logged in as."""
    host: HostLoad | None = None
    pools: tuple[PoolerPool, ...] | None = None
    """The pooler's own pools; None where no pooler was asked, or none answered."""
    server_version_num: int | None = None
    poll_seconds: Mapping[str, float] = field(default_factory=dict)
    """How long each poller of this tick took, by its name."""

    @property
    def grant(self) -> str:
        """The statement that lets our role see other roles' sessions, to be pasted by a superuser."""
        role = self.role or "batsignal"
        plain = role.isascii() and role.isidentifier() and role.islower()
        return f"GRANT pg_monitor TO {role};" if plain else 'GRANT pg_monitor TO "{}";'.format(role.replace('"', '""'))

    @property
    def used(self) -> int:
        """Slots taken: every client session, those that still authenticate, and our own seats."""
        return sum(1 for session in self.sessions if session.is_client) + self.authenticating + self.own_sessions

    @property
    def met(self) -> PollFailure | None:
        """Why our own last attempt at the ordinary way was refused, whatever was seen another way."""
        return self.failure or self.refusal

    @property
    def is_detailed(self) -> bool:
        """Whether the rows tell all that the server knows of its sessions; titles tell who is there and little more."""
        return self.failure is None and self.view != "process_titles"
