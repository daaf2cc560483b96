"""What the daemon is seen to say during a drill: its signals, by their ids, from raise to clear.

Owns what was seen of each, its worst severity kept, and tells what changed as events. It must not judge what was said
(`verdict` does), and takes what was lit before the drill for none of its business.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from batsignal.drills.daemon_api import DaemonApi, SignalSeen
from batsignal.drills.drill_event import DrillEvent
from batsignal.drills.verdict import Sighted


class Sightings:
    """Follows the daemon's signals by their ids."""

    def __init__(self, api: DaemonApi | None) -> None:
        self._api = api
        self._lit: dict[str, SignalSeen] = {}
        self._sighted: dict[str, Sighted] = {}
        before = api.lit() if api is not None else None
        # What was lit before the drill began is none of its business.
        self._before = {seen.id for seen in before.signals} if before is not None else set()

    @property
    def sighted(self) -> list[Sighted]:
        """Every signal that was lit since the drill began, by when it was first seen."""
        return list(self._sighted.values())

    def look(self) -> Iterator[DrillEvent]:
        """Yield what was raised, changed in severity or subject, and cleared since the last look."""
        lit = self._api.lit() if self._api is not None else None
        if lit is None:
            return
        now = time.time()
        seen_now = {seen.id: seen for seen in lit.signals if seen.id not in self._before}
        for seen in seen_now.values():
            was = self._lit.get(seen.id)
            self._note(seen, lit.ahead_seconds)
            if was is None:
                yield DrillEvent(t=seen.detected + lit.ahead_seconds, event="raised", facts=_signal_facts(seen))
            elif (was.severity, was.subject, was.deploy) != (seen.severity, seen.subject, seen.deploy):
                yield DrillEvent(t=now, event="updated", facts=_signal_facts(seen))
        for seen in self._lit.values():
            if seen.id not in seen_now:
                self._sighted[seen.id] = replace(self._sighted[seen.id], cleared_at=now)
                yield DrillEvent(t=now, event="cleared", facts={"id": seen.id, "kind": seen.kind})
        self._lit = seen_now

    def _note(self, seen: SignalSeen, ahead_seconds: float) -> None:
        was = self._sighted.get(seen.id)
        worst = "critical" if was is not None and was.severity == "critical" else seen.severity
        self._sighted[seen.id] = Sighted(
            id=seen.id,
            kind=seen.kind,
            severity=worst,
            subject=seen.subject,
            detected=seen.detected + ahead_seconds,
            cleared_at=None,
            summary=seen.summary,
            deploy=seen.deploy,
        )


def _signal_facts(seen: SignalSeen) -> dict[str, Any]:
    return {
        "id": seen.id,
        "kind": seen.kind,
        "severity": seen.severity,
        "subject": {name: value for name, value in seen.subject.items() if value is not None},
        "exhaustion_seconds": seen.exhaustion_seconds,
        "deploy": None if seen.deploy is None else dict(seen.deploy),
        "summary": seen.summary,
        "evidence": list(seen.evidence),
        "action": seen.action,
    }
