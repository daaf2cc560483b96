"""The limits on the number of sessions: the server's slots, every role's and every database's own.

Owns how many of each are taken at a look and how many there are. Reserved slots are subtracted; our own seats take
slots of the server and belong to no role. It judges nothing and has no clock.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from batsignal.detect import wording
from batsignal.detect.signal import Subject
from batsignal.detect.tracks import Origin
from batsignal.detect.window import Window

# Before 18 they are in no view, and known by number only; from 18 on they are sessions without a name.
NOT_LOGGED_IN = "sessions that have not logged in"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and how much of it is taken. `name` is `server`, `role:NAME` or `database:NAME`."""

    name: str
    used: int
    usable: int

    @property
    def ratio(self) -> float:
        return self.used / self.usable

    @property
    def room(self) -> int:
        return self.usable - self.used

    @property
    def owner(self) -> str | None:
        """The role or the database whose limit it is; None of the server's.

        >>> Limit("role:app", 1, 20).owner
        'app'
        """
        return self.name.partition(":")[2] or None


def limits_of(window: Window) -> list[Limit]:
    """Return every limit that is known at the last look, the server's first; one of zero is none that fills."""
    snapshot = window.snapshot
    if snapshot is None:
        return []
    limits = []
    if snapshot.slots is not None and snapshot.slots.usable:
        limits.append(Limit("server", window.used, snapshot.slots.usable))
    if snapshot.role_limits or snapshot.database_limits:
        roles: Counter[str | None] = Counter()
        databases: Counter[str | None] = Counter()
        for key, origin in window.origins.items():
            roles[key.user] += len(origin.tracks)
            databases[key.database] += len(origin.tracks)
        limits += [Limit(f"role:{name}", roles[name], most) for name, most in _set(snapshot.role_limits)]
        limits += [Limit(f"database:{name}", databases[name], most) for name, most in _set(snapshot.database_limits)]
    return limits


def holders_of(window: Window, limit: str) -> Counter[str]:
    """Return who held how many sessions that count against a limit, by name, when they were last seen."""
    holders: Counter[str] = Counter()
    if limit == "server" and window.snapshot is not None and window.snapshot.authenticating:
        holders[NOT_LOGGED_IN] = window.snapshot.authenticating
    for key, origin in window.origins.items():
        if not origin.tracks:
            continue
        if limit == "server" and key.user is None and key.service is None and _is_starting(origin):
            holders[NOT_LOGGED_IN] += len(origin.tracks)
        elif limit in {"server", f"role:{key.user}", f"database:{key.database}"}:
            subject = Subject(application=key.service, version=key.version, user=key.user)
            holders[wording.culprit(subject)] += len(origin.tracks)
    return holders


def _is_starting(origin: Origin) -> bool:
    return all(track.session.state == "starting" for track in origin.tracks.values())


def _set(limits: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted((name, most) for name, most in limits.items() if most > 0)
