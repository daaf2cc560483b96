"""A histogram that is a value: how often something was how much, in buckets that are given.

Immutable, so that a board may show it while the next tick observes. Pure.
"""

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """A cumulative histogram: `counts` per bucket plus one for +Inf, not yet accumulated."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> "Histogram":
        return cls(bounds, (0,) * (len(bounds) + 1), 0.0)

    def observe(self, value: float) -> "Histogram":
        """Return the histogram with one more observation; a value on a bound belongs to that bound's bucket.

        >>> Histogram.empty((1.0, 2.0)).observe(1.0).observe(5.0).counts
        (1, 0, 1)
        """
        index = bisect_left(self.bounds, value)
        counts = (*self.counts[:index], self.counts[index] + 1, *self.counts[index + 1 :])
        return Histogram(self.bounds, counts, self.total + value)
