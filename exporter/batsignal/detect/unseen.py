"""How many sessions come and go that no look catches, of all clients together: what the server's own counter tells.

A session of milliseconds is caught by one look in a hundred, and where four services open such sessions none is seen
often enough to be named. The counter (PostgreSQL 14+) misses none of them. Owns the counts of the last minutes and
since when they are above a pace. It names nobody, judges nothing, has no clock and does no I/O.
"""

from collections import deque
from dataclasses import dataclass

# A counter is read every 2 s, or every 10 s where it stands in a file (before PostgreSQL 15): both leave a few counts.
COUNTS_MOST = 64
COUNTS_LEAST = 2
# The newest count speaks for so long, or half as long again as it covers.
FRESH_SECONDS = 3.0
FRESH_FACTOR = 1.5


@dataclass(frozen=True, slots=True)
class Count:
    """So many sessions came and went, between two readings of the counter, that no look caught."""

    since: float
    t: float
    sessions: float

    @property
    def seconds(self) -> float:
        return self.t - self.since

    @property
    def per_second(self) -> float:
        return self.sessions / self.seconds


@dataclass(frozen=True, slots=True)
class Flood:
    """Since when every count has been above a pace, and the pace of the newest ones."""

    began: float
    per_second: float


class Unseen:
    """The counts of one server."""

    def __init__(self) -> None:
        self._counts: deque[Count] = deque(maxlen=COUNTS_MOST)

    def clear(self) -> None:
        """Forget all counts: nobody knows what came in a gap."""
        self._counts.clear()

    def add(self, since: float, t: float, sessions: float) -> None:
        """Take in a count; one over no time, or over time that ran backwards, is none."""
        if t > since:
            self._counts.append(Count(since, t, sessions))

    def flood(self, t: float, per_second: float) -> Flood | None:
        """Return since when so many a second have come without a break; None when the newest counts are below that."""
        counts = reversed(self._counts)
        newest = next(counts, None)
        if newest is None or not 0 <= t - newest.t <= max(FRESH_SECONDS, FRESH_FACTOR * newest.seconds):
            return None
        above = [newest] if newest.per_second >= per_second else []
        for count in counts if above else ():
            if count.per_second < per_second or count.t < above[-1].since:
                break
            above.append(count)
        if len(above) < COUNTS_LEAST:
            return None
        late = above[:COUNTS_LEAST]
        return Flood(above[-1].since, sum(one.sessions for one in late) / (newest.t - late[-1].since))
