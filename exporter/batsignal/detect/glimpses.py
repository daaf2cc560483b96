"""Of whom looks caught sessions in all the time of a storm that only the server's own count shows.

Of sessions that last some milliseconds one look in ten catches one: in `SPAN_SECONDS` too few to say whose they are, in
half a minute enough. Owns the sums since the storm began, less what is usual. It names nobody, has no clock and does
no I/O.
"""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

from batsignal.detect.churn import SPAN_SECONDS, Group
from batsignal.detect.streams import Stream
from batsignal.detect.tracks import OriginKey
from batsignal.detect.usual import Usual

ORIGINS_MOST = 1000
# More than are usual: by so many standard deviations, and by one.
CHANCE_FACTOR = 2.0
MORE_LEAST = 1.0


class Glimpses:
    """What was caught since an instant, by origin."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._until = since
        self._caught: Counter[OriginKey] = Counter()

    def add(self, streams: Iterable[Stream], t: float) -> None:
        """Take in what was caught since the last time, up to `t`."""
        for one in streams:
            for looks in one.looks:
                for look in takewhile(lambda look: look.t > self._until, reversed(looks)):
                    for key, count in look.origins.items():
                        if key in self._caught or len(self._caught) < ORIGINS_MOST:
                            self._caught[key] += count
        self._until = t

    def unusual(self, usual: Usual, t: float) -> Counter[OriginKey]:
        """Return the origins of those of whom more were caught than is usual in that time, and how many."""
        caught: Counter[Group] = Counter()
        for key, count in self._caught.items():
            caught[key.group] += count
        spans = max(t - self._since, SPAN_SECONDS) / SPAN_SECONDS
        groups = {group for group, count in caught.items() if _is_more(count, spans * usual.brief(group, t))}
        return _named(Counter({key: count for key, count in self._caught.items() if key.group in groups}))


def _is_more(count: int, usually: float) -> bool:
    return count >= usually + CHANCE_FACTOR * math.sqrt(usually) + MORE_LEAST


def _named(caught: Counter[OriginKey]) -> Counter[OriginKey]:
    """Leave out those without a name that are most likely of one that has: many set it only after they are in."""
    users = {key.user for key in caught if key.service is not None}
    return Counter({key: n for key, n in caught.items() if key.service is not None or key.user not in users})
