"""The product in one function: poll, detect, record, publish.

A `Watch` is one server's state between ticks; `tick` moves it on by one look. Pollers and the clock come in as
arguments, so that the same code runs live, in a replay and in a test.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from batsignal.census import Census, take_census
from batsignal.config import Thresholds
from batsignal.detect.hindsight import told_over
from batsignal.detect.signal import Event
from batsignal.detect.verdict import Judge, Verdict
from batsignal.names import ApplicationPattern
from batsignal.record.board import ServerBoard, SlotSample
from batsignal.record.incidents import Incidents
from batsignal.record.tally import ConnectionCount, ServerTally, Tally
from batsignal.snapshot import Deploy, Snapshot

# The page shows the last quarter of an hour, and more where looks are rarer than one a second.
HISTORY_SAMPLES = 900
HISTORY_SECONDS = 900.0
# More than the page draws: which are the largest of all is known only at the end.
APPLICATIONS_SHOWN = 10


@dataclass(slots=True, kw_only=True)
class Watch:
    """What is remembered of one server from tick to tick; owned by the one thread that ticks it."""

    server: str
    interval_seconds: float
    judge: Judge
    incidents: Incidents
    tally: Tally
    answered: Snapshot | None = None
    answered_at: float | None = None
    answered_usage: tuple[ConnectionCount, ...] = ()
    history: deque[SlotSample] = field(default_factory=lambda: deque(maxlen=HISTORY_SAMPLES))

    @classmethod
    def of(
        cls,
        *,
        server: str,
        interval_seconds: float,
        thresholds: Thresholds,
        pattern: ApplicationPattern,
        top_names: int,
    ) -> "Watch":
        """Return the watch of a server that has not been looked at yet."""
        return cls(
            server=server,
            interval_seconds=interval_seconds,
            judge=Judge(thresholds=thresholds, pattern=pattern),
            incidents=Incidents(server),
            tally=Tally(pattern=pattern, top_names=top_names),
            history=deque(maxlen=max(HISTORY_SAMPLES, math.ceil(HISTORY_SECONDS / interval_seconds))),
        )


def tick(
    watch: Watch,
    *,
    look: Callable[[], Snapshot],
    find_deploys: Callable[[Snapshot, Census], Iterable[Deploy]],
    publish: Callable[[ServerBoard, tuple[Event, ...]], None],
    now: Callable[[], float],
) -> None:
    """Look once and publish what it comes to. `find_deploys` returns every deploy known after this look."""
    snapshot = look()
    census = take_census(snapshot)
    verdict, events = judge_look(watch.judge, watch.incidents, snapshot, find_deploys(snapshot, census))
    tally = watch.tally.add(snapshot, census)
    ticked_at = now()
    if snapshot.failure is None:
        watch.answered, watch.answered_at, watch.answered_usage = snapshot, ticked_at, tally.usage or ()
    watch.history.append(_sample(snapshot, tally, before=watch.history[-1] if watch.history else None))
    publish(_board(watch, snapshot, verdict, tally, ticked_at), events)


def judge_look(
    judge: Judge, incidents: Incidents, snapshot: Snapshot, deploys: Iterable[Deploy]
) -> tuple[Verdict, tuple[Event, ...]]:
    """Judge one look and fold the verdict into the incidents: the step that is the same live and in a replay."""
    known = tuple(deploys)
    verdict = judge.look(snapshot, known)
    events = incidents.fold(snapshot.t, verdict.findings, verdict.superseded)
    return verdict, tuple(told_over(event, known) for event in events)


def _board(watch: Watch, snapshot: Snapshot, verdict: Verdict, tally: ServerTally, ticked_at: float) -> ServerBoard:
    return ServerBoard(
        name=watch.server,
        interval_seconds=watch.interval_seconds,
        snapshot=snapshot,
        answered=watch.answered,
        answered_at=watch.answered_at,
        answered_usage=watch.answered_usage,
        ticked_at=ticked_at,
        signals=watch.incidents.signals,
        exhaustion_seconds=verdict.exhaustion_seconds,
        tally=tally,
        history=tuple(watch.history),
    )


def _sample(snapshot: Snapshot, tally: ServerTally, *, before: SlotSample | None) -> SlotSample:
    """Return what the picture shows of a tick. What is as it was `before` is the same object: 900 of them are kept."""
    usable = snapshot.slots.usable if snapshot.slots else None
    if snapshot.failure is not None:
        return SlotSample(t=snapshot.t, used=None, usable=usable)
    sessions: dict[str, int] = {}
    for count in tally.usage or ():
        name = sys.intern(f"{count.application}@{count.version}") if count.version else count.application
        sessions[name] = sessions.get(name, 0) + count.sessions
    largest = tuple(sorted(sessions.items(), key=lambda item: (-item[1], item[0]))[:APPLICATIONS_SHOWN])
    if before is not None:
        known = {pair: pair for pair in before.by_application}
        same = before.by_application == largest
        largest = before.by_application if same else tuple(known.get(pair, pair) for pair in largest)
    return SlotSample(t=snapshot.t, used=snapshot.used, usable=usable, by_application=largest)
