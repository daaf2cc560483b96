"""Says when a connection limit is about to be reached, and how long that takes when nothing else explains it.

Three limits are watched: the server's (reserved slots subtracted), every role's and every database's. A cause that is
lit silences this: it is the symptom. Owns each limit's hysteresis and what a usual peak of it is; no clock, no I/O.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from batsignal.config import Thresholds
from batsignal.detect import wording
from batsignal.detect.growth import Growth
from batsignal.detect.limits import Limit, holders_of, limits_of
from batsignal.detect.lockout import Lockout
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.window import Window
from batsignal.snapshot import Snapshot

# What is near a limit and does not grow towards it may be a batch that ends: the warning of it can wait. And a peak
# that came and went is usual: the next one is told of once it lasts clearly longer, up to so long.
PLATEAU_SECONDS = 300.0
GROWING_WITHIN_SECONDS = 3600.0
USUAL_PEAK_FACTOR = 1.5
USUAL_PEAK_MOST_SECONDS = 3600.0


@dataclass(slots=True)
class _Held:
    """Since when a limit has been over each threshold, what is lit for it, and how it grows."""

    since: float | None = None
    critical_since: float | None = None
    below_since: float | None = None
    severity: Severity | None = None
    peak_seconds: float = 0.0
    """The longest it was ever over the lower threshold and came back by itself."""
    was_critical: bool = False
    growth: Growth = field(default_factory=Growth)


class SaturationDetector:
    """Watches every limit of one server."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._held: dict[str, _Held] = {}
        self._lockout = Lockout()
        self._last: tuple[Finding, ...] = ()

    def exhaustion_seconds(self, window: Window) -> float:
        """Return when the server's slots run out if the total goes on as it does; infinite when nothing grows."""
        snapshot = window.snapshot
        if snapshot is None or snapshot.slots is None or "server" not in self._held:
            return math.inf
        return self._held["server"].growth.seconds_left(snapshot.slots.usable - window.used)

    def look(self, window: Window, latest: Snapshot) -> Iterable[Finding]:
        """Return the limits that are about to be reached; `latest` is the look of now, be it one that failed.

        One that failed changes nothing, unless it was refused because a limit is reached.
        """
        shut_out = self._lockout.look(window, latest)
        counted = {finding.key: finding for finding in self._counted(window)}
        # What is counted says more than that we are refused, where somebody can count.
        is_counted = shut_out is not None and shut_out.key in counted
        if shut_out is not None and not (is_counted and (shut_out.fading or latest.failure is None)):
            before = counted.get(shut_out.key)
            counted[shut_out.key] = shut_out if before is None else replace(shut_out, since=before.since)
        return tuple(counted.values())

    def _counted(self, window: Window) -> tuple[Finding, ...]:
        snapshot = window.snapshot
        if snapshot is None or window.t != snapshot.t:
            return self._last
        if window.began == window.t:
            self._forget_times()
        limits = limits_of(window)
        for name in set(self._held) - {limit.name for limit in limits}:
            del self._held[name]
        findings = []
        for limit in limits:
            held = self._held.get(limit.name)
            if held is None:
                held = self._held[limit.name] = _Held()
            held.growth.add(snapshot.t, limit.used)
            self._hold(held, limit, snapshot.t)
            if held.severity is not None:
                findings.append(self._finding(limit, held, held.severity, window))
        self._last = tuple(findings)
        return self._last

    def _forget_times(self) -> None:
        """Start every hold anew: the clock stepped back, and what was noted lies in the future."""
        for held in self._held.values():
            held.since = held.critical_since = held.below_since = None

    def _hold(self, held: _Held, limit: Limit, t: float) -> None:
        numbers = self._limits
        # Lit, it takes a little less to stay lit: a limit that is brushed must not flap.
        slack = numbers.saturation_clear_ratio
        over = limit.ratio >= numbers.saturation_warning_ratio - (slack if held.severity is not None else 0)
        over_critical = limit.ratio >= numbers.saturation_critical_ratio - (slack if held.severity == "critical" else 0)
        self._note(held, t, over=over, over_critical=over_critical)
        if held.critical_since is not None and t - held.critical_since >= numbers.saturation_critical_hold_seconds:
            held.severity, held.was_critical = "critical", True
        elif held.since is not None and held.severity == "critical" and held.critical_since is None:
            held.severity = "warning"
        elif held.since is not None and t - held.since >= self._warning_hold_seconds(held, limit):
            held.severity = held.severity or "warning"
        elif held.below_since is not None and t - held.below_since >= numbers.saturation_clear_seconds:
            held.severity = None

    @staticmethod
    def _note(held: _Held, t: float, *, over: bool, over_critical: bool) -> None:
        """Note since when it has been over each threshold, or under both."""
        if held.since is not None and not over and not held.was_critical:
            held.peak_seconds = max(held.peak_seconds, t - held.since)
        held.since = (t if held.since is None else held.since) if over else None
        held.was_critical = held.was_critical and over
        held.critical_since = (t if held.critical_since is None else held.critical_since) if over_critical else None
        if over:
            held.below_since = None
        elif held.below_since is None:
            held.below_since = t

    def _warning_hold_seconds(self, held: _Held, limit: Limit) -> float:
        """Return how long it must be over the lower threshold before somebody is warned."""
        is_growing = held.growth.seconds_left(limit.room) <= GROWING_WITHIN_SECONDS
        least = self._limits.saturation_warning_hold_seconds if is_growing else PLATEAU_SECONDS
        return max(least, min(USUAL_PEAK_FACTOR * held.peak_seconds, USUAL_PEAK_MOST_SECONDS))

    def _finding(self, limit: Limit, held: _Held, severity: Severity, window: Window) -> Finding:
        exhaustion = held.growth.seconds_left(limit.room)
        holders = wording.largest(holders_of(window, limit.name))
        previous = next((finding for finding in self._last if finding.key == (limit.name,)), None)
        since = previous.since if previous else (held.since if held.since is not None else window.t)
        return Finding(
            kind="saturation",
            key=(limit.name,),
            severity=severity,
            subject=Subject(
                limit=limit.name,
                user=limit.owner if limit.name.startswith("role:") else None,
                database=limit.owner if limit.name.startswith("database:") else None,
            ),
            since=since,
            fading=held.below_since is not None,
            sessions=limit.used,
            exhaustion_seconds=exhaustion,
            evidence=(f"largest holders: {holders}",) if holders else (),
            summary=f"{_taken(limit)} are taken; "
            + (_left(exhaustion) if held.below_since is None else "more were until a moment ago"),
            action=f"Ask the largest holders first: {holders}." if holders else "",
        )


def _taken(limit: Limit) -> str:
    kind = limit.name.partition(":")[0]
    what = "the server's connection slots" if kind == "server" else f"the connection limit of {kind} {limit.owner}"
    if limit.used <= limit.usable:
        return f"{limit.used} of {limit.usable} of {what}"
    # Superusers and reserved roles go on where others are refused.
    return f"all {limit.usable} of {what} and {limit.used - limit.usable} reserved ones"


def _left(exhaustion: float) -> str:
    if exhaustion <= 0:
        return "none is left"
    if math.isfinite(exhaustion):
        return f"the last is gone in {wording.duration(exhaustion)}"
    return "not growing steadily"
