"""What a judge said of a series of looks, in a form in which two series can be compared.

Owns the comparison: texts and evidence carry clock times and names in prose, so that only facts are held against each
other. It must not know how the looks were made.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batsignal.cli.replay import Life
from batsignal.detect.signal import Event
from batsignal.snapshot import Snapshot

Rename = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One raise, clear or change of severity: when, in seconds after the first look, and of whom."""

    seconds: float
    event: str
    kind: str
    severity: str
    subject: tuple[tuple[str, Any], ...]


def events_of(looks: Iterable[Snapshot]) -> list[Event]:
    """Judge looks by one life of the daemon."""
    life = Life("db1")
    return [event for look in looks for event in life.look(look)[1]]


def facts_of(looks: Sequence[Snapshot], rename: Rename = lambda _key, value: value) -> list[Fact]:
    """Return the facts of what is said of these looks; `rename` tells what a subject's value is called elsewhere."""
    first = looks[0].t
    facts = []
    severities: dict[str, str] = {}
    for event in events_of(looks):
        found = event.signal.finding
        if event.event == "updated" and severities.get(event.signal.id) == found.severity:
            continue
        severities[event.signal.id] = found.severity
        named = tuple((key, rename(key, value)) for key, value in asdict(found.subject).items() if value is not None)
        facts.append(
            Fact(seconds=event.t - first, event=event.event, kind=found.kind, severity=found.severity, subject=named)
        )
    return sorted(facts, key=repr)
