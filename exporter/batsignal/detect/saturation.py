"""Says when a connection limit is about to be reached, and how long that takes when nothing else explains it.

Three limits are watched: the server's (reserved slots subtracted), every role's and every database's. A cause that is
lit silences this: it is the symptom. Owns the thresholds' hysteresis and the growth of the total; no clock, no I/O.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from batsignal.config import Thresholds
from batsignal.detect import wording
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.window import Window
from batsignal.snapshot import Snapshot

BUCKET_SECONDS = 5.0
BUCKETS_LEAST = 6
BUCKETS_MOST = 24
# How much of the movement of the floor a straight line must explain before it is called growth.
STRAIGHT_RATIO = 0.8
GROWTH_SESSIONS_LEAST = 3.0


class Growth:
    """How fast the number of used slots grows, read off its floor.

    The floor (the least of each 5 s) is what stays: peaks of traffic pass, a session that is kept lifts the floor.
    """

    def __init__(self) -> None:
        self._floors: deque[tuple[float, int]] = deque(maxlen=BUCKETS_MOST)

    def add(self, t: float, used: int) -> None:
        bucket = math.floor(t / BUCKET_SECONDS)
        if self._floors and math.floor(self._floors[-1][0] / BUCKET_SECONDS) == bucket:
            start, floor = self._floors[-1]
            self._floors[-1] = (start, min(floor, used))
            return
        if self._floors and not 0 < t - self._floors[-1][0] < 6 * BUCKET_SECONDS:
            self._floors.clear()  # a gap in the looks, or a clock that stepped: no line through it
        self._floors.append((t, used))

    def rate(self) -> float:
        """Return sessions a second, 0 when nothing grows steadily; least squares over up to two minutes."""
        points = list(self._floors)[:-1]  # the newest bucket is not complete
        if len(points) < BUCKETS_LEAST:
            return 0.0
        middle_t = sum(t for t, _ in points) / len(points)
        middle_used = sum(used for _, used in points) / len(points)
        spread = sum((t - middle_t) ** 2 for t, _ in points)
        slope = sum((t - middle_t) * (used - middle_used) for t, used in points) / spread
        total = sum((used - middle_used) ** 2 for _, used in points)
        grown = slope * (points[-1][0] - points[0][0])
        if grown < GROWTH_SESSIONS_LEAST or total == 0:
            return 0.0
        return slope if slope**2 * spread / total >= STRAIGHT_RATIO else 0.0


@dataclass(slots=True)
class _Held:
    """Since when a limit has been over each threshold, and what is lit for it."""

    since: float | None = None
    critical_since: float | None = None
    below_since: float | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class _Limit:
    name: str
    used: int
    usable: int

    @property
    def ratio(self) -> float:
        return self.used / self.usable


class SaturationDetector:
    """Watches every limit of one server."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._growth = Growth()
        self._held: dict[str, _Held] = {}
        self._last: tuple[Finding, ...] = ()

    def exhaustion_seconds(self, window: Window) -> float:
        """Return when the server's slots run out if the total goes on as it does; infinite when nothing grows."""
        snapshot = window.snapshot
        if snapshot is None or snapshot.slots is None:
            return math.inf
        room = snapshot.slots.usable - window.used
        if room <= 0:
            return 0.0
        rate = self._growth.rate()
        return room / rate if rate > 0 else math.inf

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the limits that are about to be reached. A look that failed changes nothing."""
        snapshot = window.snapshot
        if snapshot is None or window.t != snapshot.t:
            return self._last
        if window.began == window.t:
            self._forget_times()
        self._growth.add(snapshot.t, window.used)
        limits = list(_limits(snapshot, window.used))
        for name in set(self._held) - {limit.name for limit in limits}:
            del self._held[name]
        findings = []
        for limit in limits:
            held = self._held.setdefault(limit.name, _Held())
            self._hold(held, limit, snapshot.t)
            if held.severity is not None:
                findings.append(self._finding(limit, held, held.severity, window))
        self._last = tuple(findings)
        return self._last

    def _forget_times(self) -> None:
        """Start every hold anew: the clock stepped back, and what was noted lies in the future."""
        for held in self._held.values():
            held.since = held.critical_since = held.below_since = None

    def _hold(self, held: _Held, limit: _Limit, t: float) -> None:
        numbers = self._limits
        warning, critical = numbers.saturation_warning_ratio, numbers.saturation_critical_ratio
        # Lit, it takes a little less to stay lit: a limit that is brushed must not flap.
        slack = numbers.saturation_clear_ratio
        over = limit.ratio >= warning - (slack if held.severity is not None else 0)
        over_critical = limit.ratio >= critical - (slack if held.severity == "critical" else 0)
        held.since = (t if held.since is None else held.since) if over else None
        held.critical_since = (t if held.critical_since is None else held.critical_since) if over_critical else None
        if over:
            held.below_since = None
        elif held.below_since is None:
            held.below_since = t
        if held.critical_since is not None and t - held.critical_since >= numbers.saturation_critical_hold_seconds:
            held.severity = "critical"
        elif held.since is not None and held.severity == "critical" and held.critical_since is None:
            held.severity = "warning"
        elif held.since is not None and t - held.since >= numbers.saturation_warning_hold_seconds:
            held.severity = held.severity or "warning"
        elif held.below_since is not None and t - held.below_since >= numbers.saturation_clear_seconds:
            held.severity = None

    def _finding(self, limit: _Limit, held: _Held, severity: Severity, window: Window) -> Finding:
        exhaustion = self.exhaustion_seconds(window) if limit.name == "server" else math.inf
        if limit.used >= limit.usable:
            exhaustion = 0.0
        kind, _, owner = limit.name.partition(":")
        what = {"server": "the server's connection slots", "role": f"the connection limit of role {owner}"}.get(
            kind, f"the connection limit of database {owner}"
        )
        left = (
            "none is left"
            if exhaustion <= 0
            else f"the last is gone in {wording.duration(exhaustion)}"
            if math.isfinite(exhaustion)
            else "not growing steadily"
        )
        holders = _largest_holders(window, limit)
        previous = next((finding for finding in self._last if finding.key == (limit.name,)), None)
        since = previous.since if previous else (held.since if held.since is not None else window.t)
        return Finding(
            kind="saturation",
            key=(limit.name,),
            severity=severity,
            subject=Subject(
                limit=limit.name,
                user=owner if kind == "role" else None,
                database=owner if kind == "database" else None,
            ),
            since=since,
            fading=held.below_since is not None,
            sessions=limit.used,
            exhaustion_seconds=exhaustion,
            evidence=(f"largest holders: {holders}",) if holders else (),
            summary=f"{limit.used} of {limit.usable} of {what} are taken; {left}",
            action=f"Ask the largest holders first: {holders}." if holders else "",
        )


def _limits(snapshot: Snapshot, used: int) -> Iterable[_Limit]:
    if snapshot.slots is not None and snapshot.slots.usable:
        yield _Limit("server", used, snapshot.slots.usable)
    if not snapshot.role_limits and not snapshot.database_limits:
        return
    roles = Counter(session.usename for session in snapshot.sessions if session.is_client)
    databases = Counter(session.datname for session in snapshot.sessions if session.is_client)
    for name, most in sorted(snapshot.role_limits.items()):
        if most > 0:
            yield _Limit(f"role:{name}", roles[name], most)
    for name, most in sorted(snapshot.database_limits.items()):
        if most > 0:
            yield _Limit(f"database:{name}", databases[name], most)


def _largest_holders(window: Window, limit: _Limit) -> str:
    kind, _, owner = limit.name.partition(":")
    holders: Counter[str] = Counter()
    for origin in window.origins.values():
        key = origin.key
        if (kind == "role" and key.user != owner) or (kind == "database" and key.database != owner):
            continue
        subject = Subject(application=key.service, version=key.version, user=key.user)
        holders[wording.culprit(subject)] += len(origin.tracks)
    largest = sorted(((name, count) for name, count in holders.items() if count), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in largest[:3])
