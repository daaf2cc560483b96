"""The last few incidents, each in one line: a fold over events that a page can show without asking a disk.

Pure: events in, lines out, the one detected last first, and never more than `RECENT_MOST` of them.
"""

from collections.abc import Iterable

from batsignal.detect.signal import Event
from batsignal.record.board import PastIncident

RECENT_MOST = 8


def with_events(recent: tuple[PastIncident, ...], events: Iterable[Event]) -> tuple[PastIncident, ...]:
    """Return the last few incidents after some events."""
    known = {one.id: one for one in recent}
    for event in events:
        signal, before = event.signal, known.get(event.signal.id)
        was_critical = before is not None and before.severity == "critical"
        known[signal.id] = PastIncident(
            id=signal.id,
            server=signal.server,
            kind=signal.finding.kind,
            severity="critical" if was_critical else signal.finding.severity,
            summary=signal.finding.summary,
            since=signal.finding.since,
            detected=signal.detected,
            ended=event.t if event.event == "cleared" else None,
        )
    return _newest(known.values())


def _newest(incidents: Iterable[PastIncident]) -> tuple[PastIncident, ...]:
    return tuple(sorted(incidents, key=lambda one: one.detected, reverse=True)[:RECENT_MOST])
