"""One drill from the calm to the truth: background, act and daemon brought together, and told as they happen.

Owns the order and the clock of a drill, and turns what it sees into events. It must not print, and must not judge by
anything but the truth the act tells and the signals the daemon shows (`sightings`, `verdict`). The server is looked at
by a thread of its own (`pulse`), so that one that hangs does not hang the drill.
"""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from batsignal.detect.signal import Kind, Subject
from batsignal.drills.act import ActSpec, Pace, Tell, Told
from batsignal.drills.actors import background
from batsignal.drills.daemon_api import DaemonApi
from batsignal.drills.drill_event import DrillEvent
from batsignal.drills.ground import Ground
from batsignal.drills.pulse import PULSE_SECONDS, Pulse
from batsignal.drills.sightings import Sightings
from batsignal.drills.truth import Row, Truth
from batsignal.drills.verdict import Verdict, achieved_rate, judge, truth_of
from batsignal.errors import BatSignalError, UnreachableError

TICK_SECONDS = 1.0
AFTER_DONE_SECONDS = 10.0
JOIN_SECONDS = 5.0


class Play:
    """One drill on a ground; `api` is the daemon whose page is timed, None for nobody's."""

    def __init__(
        self,
        ground: Ground,
        row: Row,
        spec: ActSpec,
        pace: Pace,
        *,
        api: DaemonApi | None,
    ) -> None:
        self.verdicts: list[Verdict] = []
        self.truths: list[Truth] = []
        self._ground = ground
        self._row = row
        self._spec = spec
        self._pace = spec.paced(pace)
        self._has_daemon = api is not None
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._tell = Tell(self._told.put)
        self._signals = Sightings(api)
        self._failure: BaseException | None = None
        self._shown: tuple[object, ...] = ()
        self._refusals = 0
        self._full_said = False
        self._is_whole = False

    def run(self, stop: threading.Event, *, forever: bool = False) -> Iterator[DrillEvent]:
        """Yield events until the time is up, the act is done, or `stop` is set; then the truths and the verdicts.

        `forever` goes on after the time is up. Raises UnreachableError when the server goes away, with no truth told.
        """
        pulse = Pulse(self._ground)
        with contextlib.nullcontext() if self._spec.own_background else background.going_on(self._ground):
            yield from self._run(pulse, stop, forever=forever)

    def _run(self, pulse: Pulse, stop: threading.Event, *, forever: bool) -> Iterator[DrillEvent]:
        ground, pace = self._ground, self._pace
        calm_seconds = pace.calm_seconds or 0.0
        began = time.monotonic()
        yield DrillEvent(
            t=time.time(),
            event="calm",
            facts={
                "drill": self._row.name,
                "story": self._row.story,
                "seconds": calm_seconds,
                "then_seconds": None if forever else pace.duration_seconds,
                "slots": ground.slots.usable,
                "budget": ground.budget,
            },
        )
        yield from self._go_on(pulse, stop, until=began + calm_seconds)
        act: threading.Thread | None = None
        if not stop.is_set():
            act = ground.start_thread(self._act, f"drill {self._row.name}")
            until = None if forever else began + calm_seconds + (pace.duration_seconds or 0.0)
            yield from self._go_on(pulse, stop, until=until, ends_when_done=not forever)
        ended_at = time.time()
        # Who plays it forever has seen enough when he ends it.
        self._is_whole = forever or self._tell.is_done or not stop.is_set()
        yield from self._look(pulse, until=ended_at)
        yield DrillEvent(t=ended_at, event="ended")
        ground.stopped.set()
        if act is not None:
            act.join(JOIN_SECONDS)
        yield from self._conclude(pulse, ended_at)

    def _act(self) -> None:
        try:
            self._spec.run(self._ground, self._pace, self._tell)
        except BaseException as exc:  # noqa: BLE001 - it is raised again, in the main thread
            self._failure = exc

    def _go_on(
        self, pulse: Pulse, stop: threading.Event, *, until: float | None, ends_when_done: bool = False
    ) -> Iterator[DrillEvent]:
        """Look once a second until it is time, and pass on at once what the act tells."""
        done_at: float | None = None
        next_look = time.monotonic()
        while not stop.is_set() and (until is None or time.monotonic() < until):
            pulse.require_life()
            self._require_act()
            if self._ground.daemon is not None:
                self._ground.daemon.require_life()
            if time.monotonic() >= next_look:
                next_look += TICK_SECONDS
                yield from self._look(pulse)
            if self._tell.is_done and ends_when_done:
                done_at = time.monotonic() if done_at is None else done_at
                if time.monotonic() - done_at >= AFTER_DONE_SECONDS:
                    return
            wait = min(next_look, until or next_look) - time.monotonic()
            yield from self._what_was_told(max(min(wait, PULSE_SECONDS), 0.0))

    def _require_act(self) -> None:
        failure = self._failure
        if failure is None or self._ground.stopped.is_set():
            return
        if isinstance(failure, BatSignalError):
            raise failure
        self._ground.require_life()  # it may have failed because the server is gone: then that is to be said
        raise UnreachableError(f"the drill {self._row.name} failed: {_one_line(failure)}") from failure

    def _what_was_told(self, wait_seconds: float, *, until: float = math.inf) -> Iterator[DrillEvent]:
        """Yield what the act has told up to an instant: what it tells because it was stopped did not happen."""
        try:
            told = self._told.get(timeout=wait_seconds)
        except queue.Empty:
            return
        while True:
            if told.t <= until:
                yield DrillEvent(t=told.t, event=told.event, facts=_plain(told.facts))
            try:
                told = self._told.get_nowait()
            except queue.Empty:
                return

    def _look(self, pulse: Pulse, *, until: float = math.inf) -> Iterator[DrillEvent]:
        ground, now = self._ground, time.time()
        yield from self._what_was_told(0.0, until=until)
        if pulse.full_at is not None and not self._full_said:
            self._full_said = True
            yield DrillEvent(t=pulse.full_at, event="exhausted", facts={"limit": "server"})
        state = (pulse.used, ground.held)
        if state != self._shown:
            self._shown = state
            yield DrillEvent(
                t=now, event="slots", facts={"used": pulse.used, "usable": ground.slots.usable, "held": ground.held}
            )
        if ground.refusals > self._refusals:
            self._refusals = ground.refusals
            yield DrillEvent(t=now, event="refused", facts={"count": self._refusals, "text": ground.last_refusal})
        yield from self._signals.look()

    # -- the end ---------------------------------------------------------------------------------------------------

    def _conclude(self, pulse: Pulse, ended_at: float) -> Iterator[DrillEvent]:
        yield from self._what_was_told(0.0, until=ended_at)
        lost_at = [at for at in self._tell.lost_at if at <= ended_at]
        achieved, asked = achieved_rate(lost_at), self._pace.rate_per_second
        self.truths = [
            truth_of(
                facts,
                lost_at=lost_at,
                exhaustion=self._exhaustion(facts.kind, pulse, achieved, ended_at),
                asked_per_second=asked,
            )
            for facts in self._tell.onsets.values()
            if facts.at is None or facts.at <= ended_at
        ]
        if self._has_daemon:
            self.verdicts = judge(
                self._row, self.truths, self._signals.sighted, until=ended_at, is_whole=self._is_whole
            )
        for verdict in self.verdicts:
            yield DrillEvent(
                t=time.time(),
                event="verdict",
                facts={
                    "outcome": verdict.outcome,
                    "kind": verdict.kind,
                    "after_seconds": verdict.after_seconds,
                    "bound_seconds": verdict.bound_seconds,
                    "finding": verdict.is_finding,
                    "text": verdict.text,
                },
            )
        # What was asked for, and counted, is the incident itself: not its symptom, nor what came behind it.
        main = next((truth for truth in self.truths if not truth.optional), None)
        for truth in self.truths:
            rates = {"rate_asked": asked, "rate_achieved": achieved}
            own = rates if truth is main else dict.fromkeys(rates)
            ahead = {"predicted": truth.exhaustion is not None and truth.exhaustion > ended_at}
            yield DrillEvent(t=time.time(), event="truth", facts={**truth.as_json(), **own, **ahead})

    def _exhaustion(self, kind: Kind, pulse: Pulse, achieved: float | None, ended_at: float) -> float | None:
        """Return when the limit was reached, or would be if the leak went on as it did; None if it never is."""
        if kind in {"pool_starvation", "endpoint_down", "endpoint_slow", "database_unreachable", "idle_in_transaction"}:
            return None
        at = self._tell.exhausted_at or pulse.full_at
        rate = achieved or self._pace.rate_per_second
        if at is not None or kind != "leak" or rate is None or pulse.used is None or self._ground.seats.withheld:
            return at
        return ended_at + (self._ground.slots.usable - pulse.used) / rate


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: getattr(value, key) for key in Subject.__dataclass_fields__ if getattr(value, key) is not None}
        if isinstance(value, Subject)
        else value
        for name, value in facts.items()
    }


def _one_line(exc: BaseException) -> str:
    words = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {words[0]}" if words else type(exc).__name__
