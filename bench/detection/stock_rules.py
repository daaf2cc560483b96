"""The connection alerts that others ship, played on the same looks: thresholds as facts, evaluated as Prometheus does.

Owns the rules' numbers and the life of an alert (pending, firing, gone). It must not know any truth, and it sees what
those rules see: how many sessions there are and how many there may be.

Two ways to play: the monitor keeps its seat on the server, or opens one at each scrape and loses it when no slot is
left. Then the scrape fails, its series are stale at once, and every pending `for` starts over.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from batsignal.snapshot import Snapshot

INTERVAL_SECONDS = 15.0

Way = Literal["keeping", "losing"]
WAYS: tuple[Way, ...] = ("keeping", "losing")


@dataclass(frozen=True, slots=True, kw_only=True)
class StockRule:
    """One shipped alert: more than `ratio` of the limit for `for_seconds`, or that on average over `average_seconds`.

    The limit is `max_connections`, less the slots reserved for superusers where `less_reserved`. `or_equal` compares
    with `>=`.
    """

    name: str
    ratio: float
    for_seconds: float = 0.0
    average_seconds: float = 0.0
    less_reserved: bool = False
    or_equal: bool = False

    def is_over(self, sessions: float, limit: int, reserved: int) -> bool:
        """Return whether the expression holds.

        >>> rule = StockRule(name="at 80 %", ratio=0.8)
        >>> rule.is_over(80, 100, 3), rule.is_over(81, 100, 3)
        (False, True)
        >>> StockRule(name="full", ratio=1.0, less_reserved=True, or_equal=True).is_over(97, 100, 3)
        True
        """
        threshold = self.ratio * (limit - reserved if self.less_reserved else limit)
        return sessions >= threshold if self.or_equal else sessions > threshold


STOCK_RULES = (
    StockRule(name="awesome-prometheus-alerts", ratio=0.80, for_seconds=120),
    StockRule(name="mixin full", ratio=1.0, for_seconds=60, less_reserved=True, or_equal=True),
    StockRule(name="mixin 80 %", ratio=0.80, for_seconds=600, less_reserved=True),
    StockRule(name="pgmonitor warning", ratio=0.75, for_seconds=60),
    StockRule(name="pgmonitor critical", ratio=0.90, for_seconds=60),
    StockRule(name="CloudNativePG 80 %", ratio=0.80, for_seconds=300),
    StockRule(name="CloudNativePG 95 %", ratio=0.95, for_seconds=300),
    StockRule(name="PMM", ratio=0.80, for_seconds=300),
    StockRule(name="pigsty", ratio=0.70, for_seconds=180),
    StockRule(name="qonto", ratio=0.80, for_seconds=600),
    StockRule(name="Netdata warning", ratio=0.80, average_seconds=60),
    StockRule(name="Netdata critical", ratio=0.90, average_seconds=60),
    StockRule(name="Datadog", ratio=0.90, average_seconds=900),
)
LONGEST_AVERAGE_SECONDS = max(rule.average_seconds for rule in STOCK_RULES)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one scrape brought home."""

    t: float
    sessions: int
    limit: int
    reserved: int


@dataclass(slots=True)
class Alert:
    """One rule's alert: pending while its expression holds, firing once it has held for `for_seconds`."""

    rule: StockRule
    active_since: float | None = None
    raised_at: list[float] = field(default_factory=list)
    is_firing: bool = False

    def evaluate(self, t: float, samples: deque[Sample], current: Sample | None) -> None:
        """Evaluate the rule once. `current` is None when the series are stale; an average is over what is left."""
        if not self._holds(t, samples, current):
            self.active_since, self.is_firing = None, False
            return
        if self.active_since is None:
            self.active_since = t
        if not self.is_firing and t - self.active_since >= self.rule.for_seconds:
            self.is_firing = True
            self.raised_at.append(t)

    def _holds(self, t: float, samples: deque[Sample], current: Sample | None) -> bool:
        if not self.rule.average_seconds:
            return current is not None and self.rule.is_over(current.sessions, current.limit, current.reserved)
        seen = [sample for sample in samples if sample.t > t - self.rule.average_seconds]
        if not seen:
            return False
        mean = sum(sample.sessions for sample in seen) / len(seen)
        return self.rule.is_over(mean, seen[-1].limit, seen[-1].reserved)


class Monitor:
    """All stock rules behind one monitor that plays one way.

    `scrape_at` and `evaluate_at` are the first instants of each; both come again every 15 s.
    """

    def __init__(
        self, way: Way, *, scrape_at: float, evaluate_at: float, rules: tuple[StockRule, ...] = STOCK_RULES
    ) -> None:
        self.alerts = tuple(Alert(rule) for rule in rules)
        self._way = way
        self._next_scrape = scrape_at
        self._next_evaluation = evaluate_at
        self._samples: deque[Sample] = deque()
        self._current: Sample | None = None

    def look(self, snapshot: Snapshot) -> None:
        """Scrape and evaluate what has come due by the time of this look."""
        while min(self._next_scrape, self._next_evaluation) <= snapshot.t:
            if self._next_scrape <= self._next_evaluation:
                self._scrape(self._next_scrape, snapshot)
                self._next_scrape += INTERVAL_SECONDS
            else:
                for alert in self.alerts:
                    alert.evaluate(self._next_evaluation, self._samples, self._current)
                self._next_evaluation += INTERVAL_SECONDS

    def _scrape(self, t: float, snapshot: Snapshot) -> None:
        self._current = self._answer(t, snapshot)
        if self._current is not None:
            self._samples.append(self._current)
        while self._samples and self._samples[0].t <= t - LONGEST_AVERAGE_SECONDS:
            self._samples.popleft()

    def _answer(self, t: float, snapshot: Snapshot) -> Sample | None:
        slots = snapshot.slots
        if snapshot.failure is not None or slots is None:
            return None
        # Our own seat stands for the monitor's: whoever watches takes one.
        used = snapshot.used
        if self._way == "losing" and used >= slots.usable:
            return None
        return Sample(t=t, sessions=used, limit=slots.max, reserved=slots.superuser_reserved)


class StockRules:
    """Every stock rule, both ways, over one stream of looks."""

    def __init__(self, seed: int, began: float) -> None:
        self.began = began
        # Scraping and evaluating keep their own beat, as in a real Prometheus: what is judged is up to 15 s old.
        chance = random.Random(f"stock rules {seed}")  # noqa: S311 - chance that can be repeated
        scrape_at = began + chance.uniform(0, INTERVAL_SECONDS)
        evaluate_at = scrape_at + chance.uniform(0, INTERVAL_SECONDS)
        self._monitors = {way: Monitor(way, scrape_at=scrape_at, evaluate_at=evaluate_at) for way in WAYS}

    def look(self, snapshot: Snapshot) -> None:
        """Show one look to both monitors."""
        for monitor in self._monitors.values():
            monitor.look(snapshot)

    def raised_at(self) -> dict[Way, dict[str, tuple[float, ...]]]:
        """Return when each rule's alert began to fire, by way and by rule."""
        return {
            way: {alert.rule.name: tuple(alert.raised_at) for alert in monitor.alerts}
            for way, monitor in self._monitors.items()
        }
