"""Our own judge over a stream of looks, held in memory: the code of `batsignal replay`, without a file between.

Owns only the wiring. A play whose daemon is restarted names several starts: at each, a judge without any memory takes
over and what the one before had lit is gone with it.
"""

from collections.abc import Iterable, Sequence

from batsignal.cli.replay import Life
from batsignal.detect.signal import Event
from batsignal.snapshot import Snapshot


class Watches:
    """The lives of one daemon, one after the other: the first look at or after each instant of `starts` begins one."""

    def __init__(self, starts: Sequence[float]) -> None:
        self._starts = sorted(starts)
        self._lives: list[Life] = []
        self._events: list[list[Event]] = []

    def look(self, snapshot: Snapshot) -> None:
        """Show the look to the daemon that lives at its time; before the first start there is none."""
        begun = sum(start <= snapshot.t for start in self._starts)
        while begun > len(self._lives):
            self._lives.append(Life(snapshot.server))
            self._events.append([])
        if self._lives:
            _, events = self._lives[-1].look(snapshot)
            self._events[-1] += events

    def events(self) -> tuple[tuple[Event, ...], ...]:
        """Return what each life said, in order of time."""
        return tuple(tuple(events) for events in self._events)


def events_of_looks(looks: Iterable[Snapshot]) -> tuple[Event, ...]:
    """Return what one daemon says that lives through all of these looks."""
    watches = Watches([float("-inf")])
    for snapshot in looks:
        watches.look(snapshot)
    return tuple(event for life in watches.events() for event in life)
