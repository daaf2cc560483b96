"""Each group's sessions sorted into lost and used again, worked out anew only where something changed.

Most sessions of most services do from look to look what they did before: they were used long after their opening, and
no row of theirs makes them look lost any more. So an origin is sorted out again (`lost`) only when a session came, left
or moved, when one that may still turn out either way shows another row, or when time alone tells one from the other.
Owns that memory, which lives as long as the window's origins do. It judges nothing and has no clock.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from batsignal.config import Thresholds
from batsignal.detect import lost as losses
from batsignal.detect.lost import SortedOut
from batsignal.detect.tracks import Group, Origin, Track
from batsignal.detect.window import Window


@dataclass(slots=True, eq=False)
class _Line:
    """What is known of one origin, and of which state of it."""

    changes: int
    sorted_out: SortedOut
    due: float
    is_stale: bool = False


@dataclass(slots=True, eq=False)
class Suspects:
    """The sessions of one group that look lost, as one after the other was, and those that were used again."""

    lines: Sequence[_Line]
    """What they were put together from."""
    lost: Sequence[Track]
    filling: Sequence[Track]
    lone: Sequence[Track]
    lone_used: Sequence[Track]
    """First sessions of their origins that came alone: those that look lost, in order, and those used again."""
    reused: Sequence[Track]
    lent: Sequence[Track]
    """The lost, and among them those that a pool had lent for long before."""
    due: float
    changes: int


class Lineup:
    """All groups' suspects, from look to look."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._lines: dict[Origin, _Line] = {}
        self._suspects: dict[Group, Suspects] = {}

    def clear(self) -> None:
        """Forget everything: the window was emptied."""
        self._lines.clear()
        self._suspects.clear()

    def look(self, window: Window) -> None:
        """Note what of the sessions that can still turn out either way changed at this look."""
        lines = self._lines
        for track in window.changed:
            # One that was lent before looks lost only in the middle of its work.
            is_stuck = track.session.state != "idle" and track.resting_since is not None
            if track.is_in_use and track.lost_at == math.inf and not is_stuck:
                continue
            line = lines.get(track.origin)
            if line is not None:
                line.is_stale = True
                self._suspects.pop(track.origin.group, None)
        if len(lines) > 2 * len(window.origins):
            living = set(window.origins.values())
            self._lines = {origin: line for origin, line in lines.items() if origin in living}
            groups = set(window.groups.values())
            self._suspects = {group: one for group, one in self._suspects.items() if group in groups}

    def suspects(self, group: Group, t: float) -> Suspects:
        """Return a group's suspects; the same object while nothing about them changed."""
        known = self._suspects.get(group)
        if known is not None and known.changes != group.changes:
            known = None
        if known is not None and t < known.due:
            return known
        lines = [self._line(origin, t) for origin in group.origins.values() if origin.tracks]
        due = min((line.due for line in lines), default=t)
        if known is not None and not known.lent and known.lines == lines:
            known.due = due
            return known
        parts = [line.sorted_out for line in lines]
        lost = sorted((track for one in parts for track in one.lost), key=losses.lost_at)
        lent = [track for one in parts for track in one.lent]
        found = Suspects(
            lost=lost,
            lent=sorted([*lost, *lent], key=losses.lost_at) if lent else lost,
            filling=[track for one in parts for track in one.filling],
            lone=sorted((track for one in parts for track in one.lone), key=losses.lost_at),
            lone_used=[track for one in parts for track in one.lone_used],
            reused=[track for one in parts for track in one.reused],
            lines=lines,
            due=due,
            changes=group.changes,
        )
        self._suspects[group] = found
        return found

    def _line(self, origin: Origin, t: float) -> _Line:
        line = self._lines.get(origin)
        if line is not None and not line.is_stale and line.changes == origin.changes:
            if t >= line.due:
                line.due = losses.due_again(line.sorted_out, origin, t, self._limits)
            if t < line.due:
                return line
        found = losses.sort_out(origin, t, self._limits)
        line = self._lines[origin] = _Line(origin.changes, found, found.due)
        return line
