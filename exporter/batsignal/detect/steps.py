"""Growth by steps: how fast it goes on, and whether it still does.

What takes slots comes by steps, a leaked session or a pod's pool at a time, at intervals that differ. Whether it has
ended is told by their rhythm: a silence that is longer than those between the steps. A line through the past would go
on for minutes. Owns that arithmetic; no clock, no memory.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

# It has ended when nothing came for so many times the usual gap: that in the midst of which half of the time was
# spent. Of gaps that chance draws one in three hundred is so long, of regular ones none, and sessions that come several
# at a time have the gaps between the times. The slack is for what is too young to be seen.
SILENCE_FACTOR = 3.5
SILENCE_SLACK_SECONDS = 3.0


@dataclass(frozen=True)
class Steps:
    """Steps up in order of time, Unix seconds, and how many sessions came with each. The first is where it began."""

    times: Sequence[float]
    sizes: Sequence[int]

    @property
    def span_seconds(self) -> float:
        return self.times[-1] - self.times[0] if self.times else 0.0

    @cached_property
    def silence_most_seconds(self) -> float:
        """How long nothing may come before it has ended."""
        gaps = sorted(later - earlier for earlier, later in pairwise(self.times))
        usual = gaps[bisect_left(list(accumulate(gaps)), self.span_seconds / 2)] if gaps else 0.0
        return SILENCE_FACTOR * usual + SILENCE_SLACK_SECONDS

    def goes_on(self, t: float) -> bool:
        """Return whether the silence up to `t` is one as there is between steps."""
        return self.span_seconds > 0 and t - self.times[-1] <= self.silence_most_seconds

    def rate(self, t: float) -> float:
        """Return sessions a second from the first step on, slowed by what the silence up to `t` has beyond a usual gap.

        It is 0 once that silence is too long.

        >>> steps = Steps((0, 10, 20, 30), (1, 1, 1, 1))
        >>> [round(steps.rate(t), 3) for t in (30, 40, 60, 69)]
        [0.1, 0.1, 0.06, 0.0]
        """
        return self.slowed_rate(t) if self.goes_on(t) else 0.0

    def slowed_rate(self, t: float) -> float:
        """Return the same however long the silence; 0 where all came at once."""
        if self.span_seconds <= 0:
            return 0.0
        silence = max(t - self.times[-1] - self.span_seconds / (len(self.times) - 1), 0.0)
        return self._gained / (self.span_seconds + silence)

    @cached_property
    def _gained(self) -> int:
        return sum(self.sizes[1:])
