"""Gives findings a life: a pure fold from one tick's findings to signals with an identity, and the events between.

A finding's key makes it the same signal from tick to tick; `id` and `detected` stay from raise to clear. Nothing is
judged here, and there is no clock: time is an argument.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from batsignal.detect.signal import Event, Finding, Key, Signal

# An update is worth an event when a fact changed or the count moved by this share; each tick would drown them.
COUNT_STEP_RATIO = 0.25


class Incidents:
    """The lit signals of one server."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._lit: dict[Key, Signal] = {}
        self._told: dict[Key, Finding] = {}

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The lit signals, oldest first."""
        return tuple(self._lit.values())

    def fold(self, t: float, findings: Iterable[Finding], superseded: Mapping[Key, Key]) -> tuple[Event, ...]:
        """Take in one tick's findings and return what changed: raised and updated in their order, then cleared."""
        events: list[Event] = []
        present: set[Key] = set()
        for finding in findings:
            key: Key = (finding.kind, finding.key)
            present.add(key)
            signal = self._lit.get(key)
            if signal is None:
                signal = Signal(
                    id=_new_id(self._server, key, t),
                    server=self._server,
                    detected=t,
                    raised_as=finding.subject,
                    finding=finding,
                )
                events.append(Event(t=t, event="raised", signal=signal))
                self._told[key] = finding
            else:
                signal = replace(signal, finding=finding)
                if _is_news(self._told[key], finding):
                    events.append(Event(t=t, event="updated", signal=signal))
                    self._told[key] = finding
            self._lit[key] = signal
        events.extend(self._clear(t, present, superseded))
        return tuple(events)

    def _clear(self, t: float, present: set[Key], superseded: Mapping[Key, Key]) -> Iterable[Event]:
        for key in [key for key in self._lit if key not in present]:
            signal = self._lit.pop(key)
            del self._told[key]
            cause = self._lit.get(superseded[key]) if key in superseded else None
            if cause is None:
                yield Event(t=t, event="cleared", signal=signal, reason="ended")
            else:
                yield Event(t=t, event="cleared", signal=signal, reason="superseded", by=cause.id)


def _is_news(told: Finding, now: Finding) -> bool:
    facts_changed = (told.severity, told.subject, told.deploy, told.since, told.database_healthy) != (
        now.severity,
        now.subject,
        now.deploy,
        now.since,
        now.database_healthy,
    )
    return facts_changed or abs(now.sessions - told.sessions) > COUNT_STEP_RATIO * max(told.sessions, 1)


def _new_id(server: str, key: Key, t: float) -> str:
    """Derive the id from what raised it, so that a replay gives the same one."""
    return hashlib.sha256(repr((server, key, t)).encode()).hexdigest()[:16]
