"""How old what is held has become, by application, and how full the limits of roles and databases are, at one look.

Owns two counts that only dashboards ask for. It must not judge: which age is too old is a detector's business. Pure,
and bounded: the caller's labels are capped already, and of very many limits the fullest are told.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from batsignal.census import Census
from batsignal.snapshot import Session, Snapshot

LIMITS_SHOWN = 100
_IDLE = ("idle", "idle in transaction", "idle in transaction (aborted)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """The earliest moments (epoch seconds, the server's clock) of an application's sessions; None: there is none."""

    application: str
    session_at: float | None = None
    transaction_at: float | None = None
    idle_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """A limit of a role's or a database's own: `role:NAME` or `database:NAME`, and how much of it is taken."""

    name: str
    used: int
    most: int


def oldest_of(sessions: Iterable[tuple[str, Session]]) -> tuple[Oldest, ...]:
    """Return the oldest of each application, given each session with its application's label; in order of the labels.

    >>> one = Session(pid=1, backend_start=5.0, state="idle", state_change=8.0)
    >>> oldest_of([("web", one), ("web", Session(pid=2, backend_start=4.0, state="active", state_change=6.0))])
    (Oldest(application='web', session_at=4.0, transaction_at=None, idle_since=8.0),)
    """
    found: dict[str, tuple[float | None, float | None, float | None]] = {}
    for label, session in sessions:
        idle_since = session.state_change if session.state in _IDLE else None
        before = found.get(label, (None, None, None))
        found[label] = (
            _earlier(before[0], session.backend_start),
            _earlier(before[1], session.xact_start),
            _earlier(before[2], idle_since),
        )
    return tuple(
        Oldest(application=label, session_at=session_at, transaction_at=transaction_at, idle_since=idle_since)
        for label, (session_at, transaction_at, idle_since) in sorted(found.items())
    )


def limits_of(snapshot: Snapshot, census: Census) -> tuple[LimitUse, ...]:
    """Return the limits that roles and databases have of their own, at most `LIMITS_SHOWN`: the fullest."""
    if not snapshot.role_limits and not snapshot.database_limits:
        return ()
    roles: Counter[str | None] = Counter()
    databases: Counter[str | None] = Counter()
    for held in census:
        roles[held.usename] += held.sessions
        databases[held.datname] += held.sessions
    limits = [LimitUse(name=f"role:{name}", used=roles[name], most=most) for name, most in snapshot.role_limits.items()]
    limits += [
        LimitUse(name=f"database:{name}", used=databases[name], most=most)
        for name, most in snapshot.database_limits.items()
    ]
    fullest = sorted((one for one in limits if one.most > 0), key=lambda one: (-one.used / one.most, one.name))
    return tuple(sorted(fullest[:LIMITS_SHOWN], key=lambda one: one.name))


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
