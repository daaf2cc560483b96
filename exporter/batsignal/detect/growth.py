"""How fast a number of sessions grows, and when a limit is reached if it goes on like that.

Read off the *floor*, the least of each few seconds: peaks of traffic pass, a session that is kept lifts the floor. Most
of its movement must be upwards, in several steps: services grow by a pod at a time, and a batch is one step. Several
looks back are kept, of minutes to half an hour, because what is far ahead is told from far back. Owns that memory,
bounded; no clock, no I/O.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from batsignal.detect.steps import Steps

# Floors of 5 s; looked at as they are over 2 min, by three over 6 min, by twelve over 24 min.
FLOOR_SECONDS = 5.0
FLOORS_TOGETHER = (1, 3, 12)
BUCKETS_LEAST = 6
BUCKETS_MOST = 24
GAP_SECONDS = 30.0
# What the floor gained, as a share of all its ups and downs, before it is called growth; in so many steps at the least,
# of which none is most of it.
GAINED_RATIO = 0.8
STEPS_LEAST = 3
STEP_MOST_RATIO = 0.6
GROWTH_SESSIONS_LEAST = 3
# What the newest so many floors have in common is there to stay.
FLOORS_KEPT = 3
# Few steps tell little, and what is further ahead than one looks back is told by a longer look: where there is one.
STEPS_ENOUGH = 8

Floor = tuple[float, int]


class Growth:
    """The growth of one number."""

    def __init__(self) -> None:
        self._floors: deque[Floor] = deque(maxlen=BUCKETS_MOST * FLOORS_TOGETHER[-1] + 1)
        self._t = -math.inf
        self._growing: Sequence[Steps] = ()
        """The steps of each look back over which it grows, the shortest first."""
        self._ended: int | None = None
        """How many there were when what grew had stopped: of how it grew before that, nothing follows."""

    def add(self, t: float, used: int) -> None:
        """Take in the next look."""
        if not 0 <= t - self._t < GAP_SECONDS:
            self._floors.clear()  # a gap in the looks, or a clock that stepped: nothing is told across it
        self._t = t
        floors = self._floors
        if floors and math.floor(floors[-1][0] / FLOOR_SECONDS) == math.floor(t / FLOOR_SECONDS):
            if used < floors[-1][1]:
                floors[-1] = (floors[-1][0], used)
            return
        self._look_back(list(floors))
        floors.append((t, used))

    def seconds_left(self, room: int) -> float:
        """Return when `room` more are taken if it goes on as it does; infinite when nothing grows steadily by now."""
        if room <= 0:
            return 0.0
        told = math.inf
        for steps in self._growing:
            told = room / steps.slowed_rate(self._t)
            if told <= steps.span_seconds and len(steps.times) > STEPS_ENOUGH:
                break
        return told

    def _look_back(self, floors: Sequence[Floor]) -> None:
        """Look back from the end of a floor: over which stretches it grew, and whether it still does."""
        growing = []
        for together in FLOORS_TOGETHER:
            least = _least_of(floors[-BUCKETS_MOST * together :], together)
            if len(least) >= BUCKETS_LEAST and _is_growth(least):
                growing.append(_steps(least))
        kept = min((used for _, used in floors[-FLOORS_KEPT:]), default=0)
        if growing and not growing[0].goes_on(self._t):
            self._ended = kept
        elif self._ended is not None:
            self._ended = None if kept >= self._ended + GROWTH_SESSIONS_LEAST else min(self._ended, kept)
        self._growing = growing if self._ended is None else ()


def _least_of(floors: Sequence[Floor], together: int) -> list[Floor]:
    """Return the least of each so many floors; of the newest ones always as many."""
    begin = len(floors) % together
    used = [count for _, count in floors]
    return [(floors[at][0], min(used[at : at + together])) for at in range(begin, len(floors), together)]


def _is_growth(floors: Sequence[Floor]) -> bool:
    """Return whether most of the movement is upwards, in several steps."""
    moves = [later - earlier for (_, earlier), (_, later) in pairwise(floors) if later != earlier]
    steps = [move for move in moves if move > 0]
    gained = sum(moves)
    if gained < max(GROWTH_SESSIONS_LEAST, GAINED_RATIO * sum(map(abs, moves))):
        return False
    return len(steps) >= STEPS_LEAST and max(steps) <= STEP_MOST_RATIO * gained


def _steps(floors: Sequence[Floor]) -> Steps:
    """Return when what was kept since then came, and how much: what went again after a floor is no part of it."""
    kept = []
    least = math.inf
    for t, used in reversed(floors):
        least = min(least, used)
        kept.append((t, int(least)))
    kept.reverse()
    steps = [(t, used - before) for (_, before), (t, used) in pairwise(kept) if used > before]
    return Steps(tuple(t for t, _ in steps), tuple(size for _, size in steps))
