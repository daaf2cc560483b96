"""The window that numbers are judged by, while the view shows who is there and little more.

The titles of a server's processes tell how many sessions there are, of whom and from where; not what they are called,
not since when they rest, nor what they wait for. What is judged by the history of sessions (a leak, a pile-up) must
take such a look for none: it would see every session change, and each one lose its name. So is a look from which the
server hides the rest since a moment ago. What is judged by numbers (limits, storms) must go on. So both have a window,
and this one owns the second: it exists only while such a view lasts, begins with what was seen before, and hands over
to the other when all is seen again.

It judges nothing and has no clock.
"""

from dataclasses import replace

from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Snapshot, told_differently

# What was seen longer ago is no beginning: who came and left meanwhile is not known.
FRESH_SECONDS = 15.0


class Counting:
    """Says by which window numbers are judged at a look. Owned by the judge."""

    def __init__(self, pattern: ApplicationPattern) -> None:
        self._pattern = pattern
        self._own: Window | None = None

    def add(self, snapshot: Snapshot, whole: Window) -> Window:
        """Take in a look that `whole` has taken in by now; return the window to judge numbers by."""
        if self._own is None:
            if snapshot.failure is not None or whole.snapshot is snapshot:
                return whole
            self._own = Window(self._pattern, takes_titles=True)
            if whole.snapshot is not None and 0 <= snapshot.t - whole.snapshot.t <= FRESH_SECONDS:
                self._own.add(whole.snapshot)
        own = self._own
        own.add(_called_as_before(snapshot, own.snapshot))
        if whole.snapshot is snapshot:
            # What came and left up to here is counted by now; from the next look on the whole window counts.
            self._own = None
        return own


def _called_as_before(snapshot: Snapshot, before: Snapshot | None) -> Snapshot:
    """Return the look with every session called as it was before, by whichever view that was."""
    if before is None or snapshot.failure is not None:
        return snapshot
    names = told_differently(
        (session.key for session in snapshot.sessions), (session.key for session in before.sessions)
    )
    if not names:
        return snapshot
    sessions = tuple(
        replace(session, backend_start=names[session.key][1]) if session.key in names else session
        for session in snapshot.sessions
    )
    return replace(snapshot, sessions=sessions)
