"""Gives findings a life: a pure fold from one tick's findings to signals with an identity, and the events between.

A finding's key makes it the same signal from tick to tick; `id` and `detected` stay from raise to clear, also over a
restart of the daemon (`resume`). Nothing is judged here, and there is no clock: time is an argument.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from batsignal.detect.signal import Event, Finding, Key, Signal
from batsignal.record.news import is_news

# A detector that begins anew may need minutes of history before it finds again what it had found: a leak that crawls,
# an endpoint that is probed rarely. What is not found by then has ended while nobody looked.
RESUME_SECONDS = 600.0
# The same thing found again after a longer absence is the same incident only if it began before the absence did.
ABSENCE_SECONDS = 900.0


class Incidents:
    """The lit signals of one server."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._lit: dict[Key, Signal] = {}
        self._told: dict[Key, tuple[float, Finding]] = {}
        # Of an earlier life of the daemon: what it left lit, until when it looked, and the onsets that it knew.
        self._left: dict[Key, Signal] = {}
        self._left_at = 0.0
        self._began: float | None = None
        self._onsets: dict[Key, float] = {}

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The lit signals, oldest first."""
        return tuple(self._lit.values())

    def resume(self, left: Iterable[Signal], *, left_at: float) -> None:
        """Take over what was lit when an earlier life of the daemon looked last, at `left_at`; before the first fold.

        It is not lit by that: it may have ended meanwhile. Found again it goes on, an `updated` event, with its id,
        `detected`, `raised_as` and its onset where that is the earlier one. Else it is cleared after `RESUME_SECONDS`.
        """
        self._left = {(signal.finding.kind, signal.finding.key): signal for signal in left}
        self._left_at = left_at

    def fold(self, t: float, findings: Iterable[Finding], superseded: Mapping[Key, Key]) -> tuple[Event, ...]:
        """Take in one tick's findings and return what changed: raised and updated in their order, then cleared."""
        events: list[Event] = []
        present: set[Key] = set()
        if self._began is None:
            self._began = t
        for found in findings:
            key: Key = (found.kind, found.key)
            present.add(key)
            signal = self._lit.get(key)
            left = self._left_by(found) if signal is None else None
            if left is not None:
                self._onsets[key] = left.finding.since
            # A clock that was set back leaves instants behind that have not come: nothing begins after it is found.
            finding = replace(found, since=min(found.since, self._onsets.get(key, found.since), t))
            if left is not None:
                del self._left[key]
                signal = replace(left, finding=finding)
                events.append(Event(t=t, event="updated", signal=signal))
                self._told[key] = (t, finding)
            elif signal is None:
                signal = Signal(
                    id=_new_id(self._server, key, t),
                    server=self._server,
                    detected=t,
                    raised_as=finding.subject,
                    finding=finding,
                    sessions_most=finding.sessions,
                )
                events.append(Event(t=t, event="raised", signal=signal))
                self._told[key] = (t, finding)
            else:
                if finding.since > signal.detected:
                    # It came again before it was seen to have ended: it began no later than it was told.
                    finding = replace(finding, since=signal.finding.since)
                most = max(signal.sessions_most, finding.sessions)
                signal = replace(signal, finding=finding, sessions_most=most)
                told_at, told = self._told[key]
                if is_news(told, told_at, finding, t, raised_at=signal.detected):
                    events.append(Event(t=t, event="updated", signal=signal))
                    self._told[key] = (t, finding)
            self._lit[key] = signal
        events.extend(self._clear(t, present, superseded))
        if self._left:
            events.extend(self._give_up(t, superseded))
        return tuple(events)

    def _left_by(self, found: Finding) -> Signal | None:
        """Return the signal of an earlier life that a finding goes on with."""
        left = self._left.get((found.kind, found.key))
        if left is None:
            return None
        soon = self._began is None or self._began - self._left_at <= ABSENCE_SECONDS
        return left if soon or found.since <= self._left_at else None

    def _give_up(self, t: float, superseded: Mapping[Key, Key]) -> Iterable[Event]:
        """Clear what an earlier life left lit and nobody found again, or what another incident is found to be."""
        if self._began is None or t < self._began:  # the clock stepped back
            self._began = t
        is_over = t - self._began > RESUME_SECONDS
        for key, signal in list(self._left.items()):
            cause = self._lit.get(superseded[key]) if key in superseded else None
            if is_over or key in self._lit or cause is not None:
                del self._left[key]
                yield _cleared(t, signal, cause)

    def _clear(self, t: float, present: set[Key], superseded: Mapping[Key, Key]) -> Iterable[Event]:
        for key in [key for key in self._lit if key not in present]:
            signal = self._lit.pop(key)
            del self._told[key]
            self._onsets.pop(key, None)
            yield _cleared(t, signal, self._lit.get(superseded[key]) if key in superseded else None)


def _cleared(t: float, signal: Signal, cause: Signal | None) -> Event:
    if cause is None:
        return Event(t=t, event="cleared", signal=signal, reason="ended")
    return Event(t=t, event="cleared", signal=signal, reason="superseded", by=cause.id)


def _new_id(server: str, key: Key, t: float) -> str:
    """Derive the id from what raised it, so that a replay gives the same one."""
    return hashlib.sha256(repr((server, key, t)).encode()).hexdigest()[:16]
