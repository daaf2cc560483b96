"""When to try again: a small object that is told the time, never one that sleeps."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Doubles the wait after each failure up to a cap, with jitter so that many daemons do not knock in step."""

    first_seconds: float = 0.5
    cap_seconds: float = 2.0
    jitter_ratio: float = 0.25
    random: Callable[[], float] = random.random
    _failures: int = field(default=0, init=False)
    _retry_at: float = field(default=float("-inf"), init=False)

    def failed(self, now: float) -> None:
        """Note a failure at `now`, a monotonic time in seconds."""
        # The exponent is bounded because a server may stay away for weeks.
        wait = min(self.first_seconds * 2 ** min(self._failures, 16), self.cap_seconds)
        self._failures += 1
        self._retry_at = now + wait * (1 + self.jitter_ratio * (2 * self.random() - 1))

    def succeeded(self) -> None:
        self._failures = 0
        self._retry_at = float("-inf")

    def may_try(self, now: float) -> bool:
        return now >= self._retry_at
