"""How an incident went, read off its recording: slots, the culprit's sessions, refusals and probes, from tick to tick.

Owns the sums over the ticks. It must not judge: what the detectors said stands in the incident's timeline.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from batsignal.config import APPLICATION_PATTERN
from batsignal.names import ApplicationPattern
from batsignal.record.recording import read
from batsignal.snapshot import Snapshot


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """An endpoint's probes while the incident was lit."""

    probes: int = 0
    failures: int = 0
    slowest_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Course:
    """The incident in numbers. Counts are None where no look saw any; `full_seconds` is how long no slot was free.

    `held_before`, `held_peak` and `held_last` are the culprit's sessions: at the onset, at most, and at the last look.
    """

    begins: float
    ends: float
    usable: int | None = None
    used_before: int | None = None
    used_peak: int | None = None
    used_peak_at: float = 0.0
    full_seconds: float = 0.0
    held_before: int | None = None
    held_peak: int | None = None
    held_last: int | None = None
    refused: int = 0
    blind_seconds: float = 0.0
    blocked_peak: int = 0
    slowest_ping_seconds: float = 0.0
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    others: tuple[tuple[str, int], ...] = ()
    """Who else held sessions at the peak, the largest first."""


OTHERS_MOST = 5


def course(path: Path, *, subject: Mapping[str, object], begins: float, ends: float) -> Course | None:
    """Return how an incident went between two instants; None for a recording that holds nothing.

    Raises RecordingError for one that cannot be read to its end: half of it would be told as the whole.
    """
    header, ticks = read(path)
    pattern = ApplicationPattern(re.compile(header.application_pattern or APPLICATION_PATTERN))
    return _summed(ticks, pattern, subject, Course(begins=begins, ends=ends))


def _summed(
    ticks: Iterable[Snapshot], pattern: ApplicationPattern, subject: Mapping[str, object], found: Course
) -> Course | None:
    before: Snapshot | None = None
    ticked = False
    for tick in ticks:
        ticked = True
        if tick.t < found.begins:
            if tick.failure is None:
                found.used_before, found.held_before = tick.used, _held(tick, pattern, subject)
        elif tick.t <= found.ends:
            _add(found, tick, before, pattern, subject)
        before = tick
    return found if ticked else None


def _add(
    found: Course, tick: Snapshot, before: Snapshot | None, pattern: ApplicationPattern, subject: Mapping[str, object]
) -> None:
    elapsed = 0.0 if before is None else max(tick.t - max(before.t, found.begins), 0.0)
    found.refused += tick.refused or 0
    for probe in tick.probes:
        endpoint = found.endpoints.setdefault(probe.endpoint, Endpoint())
        endpoint.probes += 1
        endpoint.failures += not probe.up
        endpoint.slowest_seconds = max(endpoint.slowest_seconds, probe.seconds)
    if tick.failure is not None:
        found.blind_seconds += elapsed
        found.full_seconds += elapsed if tick.failure.reason == "slots_full" else 0.0
        return
    usable = tick.slots.usable if tick.slots else None
    found.usable = usable if usable is not None else found.usable
    found.full_seconds += elapsed if usable is not None and tick.used >= usable else 0.0
    found.held_last = _held(tick, pattern, subject)
    found.held_peak = max(found.held_peak or 0, found.held_last)
    found.blocked_peak = max(found.blocked_peak, sum(1 for one in tick.sessions if one.wait_event_type == "Lock"))
    found.slowest_ping_seconds = max(found.slowest_ping_seconds, tick.ping_seconds or 0.0)
    if found.used_peak is None or tick.used > found.used_peak:
        found.used_peak, found.used_peak_at = tick.used, tick.t
        found.others = _others(tick, pattern)


def _held(tick: Snapshot, pattern: ApplicationPattern, subject: Mapping[str, object]) -> int:
    """Count the sessions that the incident's subject names."""
    wanted = {key: subject.get(key) for key in ("application", "version", "user", "database", "client")}
    if all(value is None for value in wanted.values()):
        return sum(1 for one in tick.sessions if one.is_client)
    count = 0
    for one in tick.sessions:
        who = pattern.split(one.application_name)
        is_it = {
            "application": who.service,
            "version": who.version,
            "user": one.usename,
            "database": one.datname,
            "client": one.client_addr,
        }
        count += one.is_client and all(value is None or is_it[key] == value for key, value in wanted.items())
    return count


def _others(tick: Snapshot, pattern: ApplicationPattern) -> tuple[tuple[str, int], ...]:
    counts: Counter[str] = Counter()
    for one in tick.sessions:
        if not one.is_client:
            continue
        who = pattern.split(one.application_name)
        name = who.service or (f"user {one.usename}" if one.usename else "an unnamed user")
        counts[f"{name}@{who.version}" if who.version else name] += 1
    return tuple(counts.most_common(OTHERS_MOST))
