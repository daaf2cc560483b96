"""Our own judge over a stream of looks, held in memory: the code of `batsignal replay`, without a file between.

Owns only the wiring. A play whose daemon is restarted names several starts: at each, a judge without any memory takes
over and what the one before had lit is gone with it.
"""

import re
from collections.abc import Iterable, Sequence

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.deploys.log import DeployLog
from batsignal.detect.signal import Event
from batsignal.detect.verdict import Judge
from batsignal.record.incidents import Incidents
from batsignal.snapshot import ApplicationPattern, Snapshot


class Watch:
    """One life of the daemon, seen through what it says."""

    def __init__(self, server: str) -> None:
        pattern = ApplicationPattern(re.compile(APPLICATION_PATTERN))
        self._judge = Judge(thresholds=Thresholds(), pattern=pattern)
        self._incidents = Incidents(server)
        self._deploys = DeployLog(pattern)
        self.events: list[Event] = []

    def look(self, snapshot: Snapshot) -> None:
        """Judge one more look."""
        verdict = self._judge.look(snapshot, self._deploys.add(snapshot))
        self.events += self._incidents.fold(snapshot.t, verdict.findings, verdict.superseded)


class Watches:
    """The lives of one daemon, one after the other: the first look at or after each instant of `starts` begins one."""

    def __init__(self, starts: Sequence[float]) -> None:
        self._starts = sorted(starts)
        self._lives: list[Watch] = []

    def look(self, snapshot: Snapshot) -> None:
        """Show the look to the daemon that lives at its time; before the first start there is none."""
        begun = sum(start <= snapshot.t for start in self._starts)
        if begun > len(self._lives):
            self._lives += [Watch(snapshot.server) for _ in range(begun - len(self._lives))]
        if self._lives:
            self._lives[-1].look(snapshot)

    def events(self) -> tuple[tuple[Event, ...], ...]:
        """Return what each life said, in order of time."""
        return tuple(tuple(life.events) for life in self._lives)


def events_of_looks(looks: Iterable[Snapshot]) -> tuple[Event, ...]:
    """Return what one daemon says that lives through all of these looks."""
    watches = Watches([float("-inf")])
    for snapshot in looks:
        watches.look(snapshot)
    return tuple(event for life in watches.events() for event in life)
