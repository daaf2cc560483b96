"""Says when a health endpoint is slow against its own past: for a while, and by more than a daily rhythm explains.

What is usual is the median of the medians of its minutes, over a day: a probe that is slow by itself moves neither, and
an hour of trouble hardly. It never wakes anybody: who is slow still answers. An endpoint that fails is `endpoints`'
affair; failed probes say nothing here.

Owns the history of each endpoint's good probes, which outlives a restart of the daemon.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from batsignal.detect import wording
from batsignal.detect.memory import Memory
from batsignal.detect.signal import Finding, Subject
from batsignal.snapshot import ProbeResult

# One median a minute for a day: with it, the slow hours of a daily rhythm are part of the past.
MINUTE_SECONDS = 60.0
MINUTES_KEPT = 1440
# Of them so many are kept over a restart, from the whole day: what is usual does not hang on every minute.
MINUTES_REMEMBERED = 288
# So much of the past is needed to know what is usual; a probe may begin a little after the watch did.
PAST_SECONDS = 285.0
PAST_MINUTES_LEAST = 4
# Traffic that doubles makes an endpoint slower, too: three times the usual it seldom does for long, and never when its
# own slow hours were as slow. Below a tenth of a second more, nobody notices.
SLOW_FACTOR = 3.0
SLOW_HOUR_FACTOR = 1.5
SLOW_HOUR_RATIO = 0.95
SLOWER_LEAST_SECONDS = 0.1
# Three probes over a while, or two of an endpoint that is asked seldom: the bound is a minute.
RECENT_SECONDS = 25.0
RECENT_PROBES = 3
SELDOM_SECONDS = 15.0
SELDOM_PROBES = 2
# Quicker again by so much, and for so long.
CLEAR_FACTOR = 0.7
CLEAR_SECONDS = 20.0
# What has been so for a whole day is usual by now.
USUAL_BY_NOW_SECONDS = 86_400.0
ENDPOINTS_MOST = 1000
FORGOTTEN_LOOKS = 60
FORGOTTEN_INTERVALS = 10


@dataclass(slots=True)
class _Endpoint:
    """One endpoint's durations; instants are those of the looks that brought them."""

    service: str
    began: float
    minutes: deque[float] = field(default_factory=lambda: deque(maxlen=MINUTES_KEPT))
    known_seconds: float = 0.0
    """How much of the past an earlier life of the daemon had seen."""
    minute_since: float = 0.0
    minute: list[float] = field(default_factory=list)
    recent: deque[tuple[float, float]] = field(default_factory=deque)
    """Of the good probes of late, when each came and how long it took."""
    interval_seconds: float = 0.0
    came_at: float | None = None
    lit_since: float | None = None
    usual_seconds: float = 0.0
    """What was usual when it was lit."""
    quick_since: float | None = None
    looks_silent: int = 0
    looks_between: int = 0

    @property
    def is_forgotten(self) -> bool:
        return self.looks_silent > FORGOTTEN_INTERVALS * self.looks_between + FORGOTTEN_LOOKS

    def start_anew(self, t: float) -> None:
        """Forget instants: the clock stepped back."""
        self.known_seconds += max(self.minute_since - self.began, 0.0)
        self.began = self.minute_since = t
        self.minute.clear()
        self.recent.clear()
        self.came_at = self.lit_since = self.quick_since = None

    def add(self, probe: ProbeResult, t: float) -> None:
        if self.came_at is not None:
            self.interval_seconds = t - self.came_at
        self.came_at = t
        self.service = probe.service
        self.looks_between, self.looks_silent = max(self.looks_between, self.looks_silent), 0
        if not probe.up:
            return
        seconds = max(probe.seconds, 0.0)
        self.recent.append((t, seconds))
        while len(self.recent) > RECENT_PROBES and self.recent[1][0] < t - RECENT_SECONDS:
            self.recent.popleft()
        self._judge(t)
        self._learn(seconds, t)

    def _judge(self, t: float) -> None:
        if self.lit_since is None:
            since = self._slow_since(t)
            if since is not None:
                self.lit_since, self.usual_seconds, self.quick_since = since, self.usual, None
            return
        is_quick = self.now_seconds < CLEAR_FACTOR * _slow_from(self.usual_seconds, self.usual_seconds)
        self.quick_since = (self.quick_since if self.quick_since is not None else t) if is_quick else None
        if self.quick_since is not None and t - self.quick_since >= CLEAR_SECONDS:
            self.lit_since = None
        elif t - self.lit_since > USUAL_BY_NOW_SECONDS:
            self.lit_since = None
            self.minutes.clear()
            self.began, self.known_seconds = t, 0.0

    def _slow_since(self, t: float) -> float | None:
        """Return when it became slow, None when it is not, or not for long enough."""
        if t - self.began + self.known_seconds < PAST_SECONDS or len(self.minutes) < PAST_MINUTES_LEAST:
            return None
        slow = _slow_from(self.usual, self._slow_minute())
        is_seldom = self.interval_seconds >= SELDOM_SECONDS
        least = SELDOM_PROBES if is_seldom else RECENT_PROBES
        seconds = SELDOM_SECONDS if is_seldom else RECENT_SECONDS - self.interval_seconds
        streak = self._streak(slow)
        if len(streak) < least or t - streak[0][0] < min(seconds, RECENT_SECONDS):
            return None
        return streak[0][0] - streak[0][1]

    def _streak(self, slow: float) -> Sequence[tuple[float, float]]:
        """Return the probes from the first slow one on, when nearly all since then were slow."""
        recent = list(self.recent)
        if not recent or recent[-1][1] < slow:
            return ()
        begin = next(index for index, (_, seconds) in enumerate(recent) if seconds >= slow)
        streak = recent[begin:]
        quick = sum(1 for _, seconds in streak if seconds < slow)
        return streak if quick <= len(streak) // 5 else ()

    def _learn(self, seconds: float, t: float) -> None:
        """Let a minute that was not slow become part of the past."""
        if self.lit_since is not None:
            self.minute.clear()
            self.minute_since = t
            return
        self.minute.append(seconds)
        if t - self.minute_since >= MINUTE_SECONDS:
            self.minutes.append(median(self.minute))
            self.minute.clear()
            self.minute_since = t

    @property
    def usual(self) -> float:
        return median(self.minutes) if self.minutes else math.inf

    @property
    def now_seconds(self) -> float:
        return median(seconds for _, seconds in self.recent)

    def _slow_minute(self) -> float:
        ordered = sorted(self.minutes)
        return ordered[int(SLOW_HOUR_RATIO * (len(ordered) - 1))]


def _slow_from(usual_seconds: float, slow_minute_seconds: float) -> float:
    """Return from which duration on an endpoint is slow.

    >>> [round(_slow_from(usual, usual), 3) for usual in (0.005, 0.2)]
    [0.105, 0.6]
    """
    return max(
        SLOW_FACTOR * usual_seconds, usual_seconds + SLOWER_LEAST_SECONDS, SLOW_HOUR_FACTOR * slow_minute_seconds
    )


class SlownessDetector:
    """Holds each endpoint against its own past."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Endpoint] = {}
        self._remembered: dict[str, tuple[float, list[float]]] = {}
        self._t = -math.inf

    def look(self, probes: Sequence[ProbeResult], t: float) -> Iterable[Finding]:
        """Return the endpoints that are slow, after the probes that are new in this tick."""
        if t < self._t - 1.0:
            for endpoint in self._endpoints.values():
                endpoint.start_anew(t)
        self._t = t
        for endpoint in self._endpoints.values():
            endpoint.looks_silent += 1
        for probe in probes:
            self._take_in(probe, t)
        for name in [name for name, endpoint in self._endpoints.items() if endpoint.is_forgotten]:
            del self._endpoints[name]
        return [
            _finding(name, endpoint)
            for name, endpoint in sorted(self._endpoints.items())
            if endpoint.lit_since is not None
        ]

    def _take_in(self, probe: ProbeResult, t: float) -> None:
        endpoint = self._endpoints.get(probe.endpoint)
        if endpoint is None:
            if len(self._endpoints) >= ENDPOINTS_MOST:
                return
            endpoint = self._endpoints[probe.endpoint] = _Endpoint(probe.service, began=t, minute_since=t)
            seconds, minutes = self._remembered.pop(probe.endpoint, (0.0, []))
            endpoint.known_seconds = seconds
            endpoint.minutes.extend(minutes)
        endpoint.add(probe, t)

    def remembered(self) -> Memory:
        """Return each endpoint's past: how many seconds of it were seen, and the medians of its minutes."""
        return {
            name: {
                "seconds": round(endpoint.known_seconds + max(endpoint.minute_since - endpoint.began, 0.0), 1),
                "minutes": [
                    round(seconds, 4)
                    for seconds in list(endpoint.minutes)[:: math.ceil(len(endpoint.minutes) / MINUTES_REMEMBERED)]
                ],
            }
            for name, endpoint in self._endpoints.items()
            if endpoint.minutes
        }

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered, for the endpoints that are still probed."""
        recalled = {}
        for name, past in list(memory.items())[:ENDPOINTS_MOST]:
            minutes = [float(seconds) for seconds in past["minutes"]][-MINUTES_KEPT:]
            seconds = float(past["seconds"])
            if not all(math.isfinite(one) and one >= 0 for one in (seconds, *minutes)):
                raise ValueError(f"no past of an endpoint: {name}")
            recalled[str(name)] = (seconds, minutes)
        self._remembered = recalled


def _finding(name: str, endpoint: _Endpoint) -> Finding:
    now, usual = endpoint.now_seconds, endpoint.usual_seconds
    since = endpoint.lit_since or 0.0
    return Finding(
        kind="endpoint_slow",
        key=(name,),
        severity="warning",
        subject=Subject(application=endpoint.service, endpoint=name),
        since=since,
        evidence=(
            (
                f"median of the last {len(endpoint.recent)} probes {wording.latency(now)},"
                f" usually {wording.latency(usual)}"
            ),
        ),
        summary=(
            f"the health endpoint {name} of {endpoint.service} is slow: {wording.latency(now)} instead of"
            f" {wording.latency(usual)}, since {wording.clock_time(since)}"
        ),
        action=f"Look at {endpoint.service} and at what it waits for.",
    )
