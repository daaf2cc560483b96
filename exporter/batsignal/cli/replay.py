"""`batsignal replay`: the detectors over a recording, through the very code that runs live, as fast as it goes.

Names are split as the recording daemon split them (its `application_pattern` stands in the header), else as the default
does. Events are printed when the whole recording has been read: half a recording must not look like a whole one.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from batsignal.census import take_census
from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.deploys.log import DeployLog
from batsignal.detect.signal import Event
from batsignal.detect.verdict import Judge, Verdict
from batsignal.errors import UnreachableError
from batsignal.names import ApplicationPattern
from batsignal.record.incidents import Incidents
from batsignal.record.recording import read
from batsignal.snapshot import Snapshot
from batsignal.spelling import clock_time, count, date
from batsignal.tick import judge_look


def replay(path: str, *, spelling: str) -> int:
    """Print the events of a recording, a line each; raises RecordingError with the line's number.

    That there are none is said on standard error: silence could be a recording that was not understood.
    """
    if sys.stdout is None:
        raise UnreachableError("standard output does not take the events: it is closed")
    span = _Span()
    events = list(_events(Path(path), span))
    try:
        for line in map(_json, events) if spelling == "json" else _sentences(events):
            print(line)
        sys.stdout.flush()
        if not events:
            print(f"nothing lit in {span}", file=sys.stderr)
    except OSError as exc:
        raise UnreachableError(f"standard output does not take the events: {exc.strerror or exc}") from exc
    return 0


def events_of(path: Path) -> Iterator[Event]:
    """Yield what the detectors say of a recording, in order of time."""
    yield from _events(path, _Span())


def _events(path: Path, span: "_Span") -> Iterator[Event]:
    header, snapshots = read(path)
    life = Life(header.server, header.application_pattern)
    for snapshot in snapshots:
        span.take(snapshot.t)
        _, events = life.look(snapshot)
        yield from events


class _Span:
    """How many looks a recording has, and from when to when."""

    def __init__(self) -> None:
        self._looks = 0
        self._first = self._last = 0.0

    def take(self, t: float) -> None:
        self._first = self._first if self._looks else t
        self._last = t
        self._looks += 1

    def __str__(self) -> str:
        if not self._looks:
            return "a recording without a look"
        first, last = (f"{date(t)} {clock_time(t)}" for t in (self._first, self._last))
        return f"{count(self._looks, 'look')}, {first} to {last}"


class Life:
    """What a daemon remembers of one server from its start to its end, over looks that somebody else has taken.

    `application_pattern` is the default when it is None.
    """

    def __init__(self, server: str, application_pattern: str | None = None) -> None:
        pattern = ApplicationPattern(re.compile(application_pattern or APPLICATION_PATTERN))
        self._judge = Judge(thresholds=Thresholds(), pattern=pattern)
        self.incidents = Incidents(server)
        self.deploys = DeployLog(pattern)

    def look(self, snapshot: Snapshot) -> tuple[Verdict, tuple[Event, ...]]:
        """Judge one more look; return the verdict, and what changed by it."""
        deploys = self.deploys.add(snapshot, take_census(snapshot))
        return judge_look(self._judge, self.incidents, snapshot, deploys)


def _json(event: Event) -> str:
    return json.dumps(event.as_json())


def _sentences(events: Iterable[Event]) -> Iterator[str]:
    """Yield a line for each event, and the day before the first of each."""
    told = None
    for event in events:
        day = date(event.t)
        if day != told:
            yield day
        told = day
        yield " ".join(_parts(event))


def _parts(event: Event) -> Iterable[str]:
    found = event.signal.finding
    yield clock_time(event.t)
    yield f"{event.event:<8}"
    yield f"{found.severity:<8}"
    yield f"{found.kind}:"
    yield found.summary
    if event.event == "raised" and found.action:
        yield f"=> {found.action}"
    if event.reason is not None:
        yield f"({event.reason})"
