"""How much room a pile of sessions leaves: share of the slots, the nearest limit, and when it is reached.

Owns the arithmetic that the detectors of piles share. It judges nothing.
"""

import math
from collections import deque
from collections.abc import Iterable

from batsignal.detect import wording
from batsignal.detect.signal import Subject
from batsignal.detect.window import Window
from batsignal.snapshot import Session

# The pace is read off so long a time, and no less than that: it follows what a pile does now, a pool that is full by
# now and the jobs that go on beyond it, and chance evens out (a pile takes one to six sessions a second). What grew by
# less does not grow: services come and go by one or two all the time.
PACE_SECONDS = 15.0
PACE_SECONDS_LEAST = 5.0
PACE_SESSIONS_LEAST = 3


class Pace:
    """How fast slots are taken, net, of late. Owned by a detector, told every look."""

    def __init__(self) -> None:
        self._used: deque[tuple[float, int]] = deque()

    def add(self, window: Window) -> None:
        """Take in a look that succeeded; a gap or a clock that stepped back begins anew."""
        if self._used and not 0 <= window.t - self._used[-1][0] <= PACE_SECONDS:
            self._used.clear()
        self._used.append((window.t, window.used))
        while window.t - self._used[0][0] > PACE_SECONDS:
            self._used.popleft()

    def exhaustion_seconds(self, window: Window, since: float) -> float:
        """Return when the server's slots run out at this pace: infinite when nothing grows, 0 when none is left.

        What was before `since`, when the pile began, says nothing of how fast it grows.
        """
        slots = usable(window)
        if slots is None:
            return math.inf
        room = slots - window.used
        if room <= 0:
            return 0.0
        begins = min(since, window.t - PACE_SECONDS_LEAST)
        oldest = self._used[0] if self._used else (window.t, window.used)
        begin, used = next((look for look in reversed(self._used) if look[0] <= begins), oldest)
        grown, seconds = window.used - used, window.t - begin
        return room * seconds / grown if grown >= PACE_SESSIONS_LEAST and seconds >= PACE_SECONDS_LEAST else math.inf


def usable(window: Window) -> int | None:
    """Return the slots that an ordinary role can take, None when they are not known."""
    snapshot = window.snapshot
    return None if snapshot is None or snapshot.slots is None or not snapshot.slots.usable else snapshot.slots.usable


def is_full(window: Window, ratio: float) -> bool:
    """Return whether so much of the slots is taken; False when they are not known."""
    slots = usable(window)
    return slots is not None and window.used >= ratio * slots


def used_ratio(window: Window, sessions: Iterable[Session]) -> float:
    """Return how full the fullest limit is that these sessions count against, 0 to 1; 0 when no limit is known."""
    snapshot = window.snapshot
    if snapshot is None:
        return 0.0
    slots = usable(window)
    ratios = [] if slots is None else [window.used / slots]
    sessions = list(sessions)
    user = wording.common(session.usename for session in sessions)
    if user is not None and snapshot.role_limits.get(user, 0) > 0:
        ratios.append(sum(1 for one in snapshot.sessions if one.usename == user) / snapshot.role_limits[user])
    database = wording.common(session.datname for session in sessions)
    if database is not None and snapshot.database_limits.get(database, 0) > 0:
        held = sum(1 for one in snapshot.sessions if one.datname == database)
        ratios.append(held / snapshot.database_limits[database])
    return max(ratios, default=0.0)


def left(window: Window, exhaustion: float) -> str:
    """Say how long the slots last, to be put behind a sentence; nothing where they are not known."""
    if usable(window) is None:
        return ""
    if exhaustion <= 0:
        return "; no slot is left"
    if math.isfinite(exhaustion):
        return f"; slots run out in {wording.duration(exhaustion)}"
    return "; no further slots are taken now"


def share(window: Window, count: int) -> str:
    """Say what share of the slots so many sessions are; empty when nothing is known of the slots."""
    slots = usable(window)
    return "" if slots is None else f"{min(count / slots, 1.0):.0%} of the slots"


def subject_of(window: Window, sessions: Iterable[Session]) -> Subject:
    """Return what all of these sessions have in common."""
    sessions = list(sessions)
    who = [window.who(session) for session in sessions]
    return Subject(
        application=wording.common(one.service for one in who),
        version=wording.common(one.version for one in who),
        user=wording.common(session.usename for session in sessions),
        database=wording.common(session.datname for session in sessions),
        client=wording.common(session.client_addr for session in sessions),
    )
