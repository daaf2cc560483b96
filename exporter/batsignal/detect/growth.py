"""How fast a number of sessions grows, and when a limit is reached if it goes on like that.

Read off the *floor*, the least of each few seconds: peaks of traffic pass, a session that is kept lifts the floor. Most
of its movement must be upwards, in several steps: services grow by a pod at a time, and a batch is one step. Several
looks back are kept, of minutes to half an hour, because what is far ahead is told from far back. Owns that memory,
bounded; no clock, no I/O.
"""

import math
from collections import deque
from itertools import pairwise

# Floors of 5 s over 2 min, of 15 s over 6 min, of a minute over 24 min.
BUCKET_SECONDS = (5.0, 15.0, 60.0)
BUCKETS_LEAST = 6
BUCKETS_MOST = 24
GAP_SECONDS = 30.0
# What the floor gained, as a share of all its ups and downs, before it is called growth; in so many steps at the least,
# of which none is most of it.
GAINED_RATIO = 0.8
STEPS_LEAST = 3
STEP_MOST_RATIO = 0.6
GROWTH_SESSIONS_LEAST = 3.0
# A line through fewer steps hangs on each of them: a longer one is preferred where there is one.
STEPS_ENOUGH = 5
# What is further ahead than so many times as far as a line looks back is told by a longer one.
AHEAD_FACTOR = 2.0


class Growth:
    """The growth of one number."""

    def __init__(self) -> None:
        self._floors = [_Floors(seconds) for seconds in BUCKET_SECONDS]
        self._t = -math.inf

    def add(self, t: float, used: int) -> None:
        """Take in the next look."""
        if not 0 <= t - self._t < GAP_SECONDS:
            for floors in self._floors:
                floors.clear()  # a gap in the looks, or a clock that stepped: no line through it
        self._t = t
        for floors in self._floors:
            floors.add(t, used)

    def seconds_left(self, room: int) -> float:
        """Return when `room` more are taken if it goes on as it does; infinite when nothing grows steadily."""
        if room <= 0:
            return 0.0
        told = math.inf
        for floors in self._floors:
            rate, steps = floors.rate()
            if rate > 0:
                told = room / rate
                if told <= AHEAD_FACTOR * floors.span_seconds and steps >= STEPS_ENOUGH:
                    break
        return told


class _Floors:
    """The least of each stretch of time, and the line through them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._points: deque[tuple[float, int]] = deque(maxlen=BUCKETS_MOST)

    @property
    def span_seconds(self) -> float:
        return self._points[-1][0] - self._points[0][0] if self._points else 0.0

    def clear(self) -> None:
        self._points.clear()

    def add(self, t: float, used: int) -> None:
        points = self._points
        if points and math.floor(points[-1][0] / self._seconds) == math.floor(t / self._seconds):
            start, floor = points[-1]
            if used < floor:
                points[-1] = (start, used)
        else:
            points.append((t, used))

    def rate(self) -> tuple[float, int]:
        """Return sessions a second by least squares and the steps up that it took; 0 when nothing grows steadily."""
        points = list(self._points)[:-1]  # the newest is not complete
        if len(points) < BUCKETS_LEAST:
            return 0.0, 0
        moves = [later - earlier for (_, earlier), (_, later) in pairwise(points) if later != earlier]
        steps = [move for move in moves if move > 0]
        gained = sum(moves)
        if gained < max(GROWTH_SESSIONS_LEAST, GAINED_RATIO * sum(map(abs, moves))):
            return 0.0, 0
        if len(steps) < STEPS_LEAST or max(steps) > STEP_MOST_RATIO * gained:
            return 0.0, 0
        middle_t = sum(t for t, _ in points) / len(points)
        middle_used = sum(used for _, used in points) / len(points)
        spread = sum((t - middle_t) ** 2 for t, _ in points)
        return max(sum((t - middle_t) * (used - middle_used) for t, used in points) / spread, 0.0), len(steps)
