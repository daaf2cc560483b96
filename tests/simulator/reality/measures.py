"""Reads off a recording what a pool did, the same way for a real and for a simulated one.

Owns the measures. It knows a pool only as rows of the server's sessions, and must never look inside the model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from batsignal.record import recording
from batsignal.snapshot import Session, Snapshot
from simulator.reality.setups import PHASES, Phase

WINDOW_SECONDS = 9.0
MEASURES = (
    "idle_sessions",
    "idle_age_seconds",
    "opened_per_second",
    "closed_per_second",
    "reused_per_second",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What changed at one application between a look and the one before it."""

    at: float
    """Seconds after the start of the load."""
    seconds: float
    """Since the look before."""
    sessions: int
    idle_ages: tuple[float, ...]
    """In seconds, of every idle session."""
    opened: int
    closed: int
    reused: int
    """Sessions seen before whose `query_start` or `state_change` moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The measures of some looks, by their names in `MEASURES`."""

    begin: float
    values: Mapping[str, float]


def read(path: Path, start_at: float, applications: Iterable[str]) -> dict[str, list[Look]]:
    """Return every look but the first for each application, in order; raises RecordingError."""
    _, snapshots = recording.read(path)
    found: dict[str, list[Look]] = {name: [] for name in applications}
    before: Snapshot | None = None
    for snapshot in snapshots:
        if snapshot.failure is None:
            if before is not None:
                for name, looks in found.items():
                    looks.append(
                        _compare(_sessions(before, name), _sessions(snapshot, name), before, snapshot, start_at)
                    )
            before = snapshot
    return found


def _sessions(snapshot: Snapshot, application: str) -> dict[tuple[int, float | None], Session]:
    return {one.key: one for one in snapshot.sessions if one.application_name == application}


def _compare(
    before: Mapping[tuple[int, float | None], Session],
    now: Mapping[tuple[int, float | None], Session],
    earlier: Snapshot,
    snapshot: Snapshot,
    start_at: float,
) -> Look:
    idle = [one for one in now.values() if one.state == "idle" and one.state_change is not None]
    return Look(
        at=snapshot.t - start_at,
        seconds=snapshot.t - earlier.t,
        sessions=len(now),
        idle_ages=tuple(snapshot.t - one.state_change for one in idle if one.state_change is not None),
        opened=len(now.keys() - before.keys()),
        closed=len(before.keys() - now.keys()),
        reused=sum(_moved(before[key], now[key]) for key in now.keys() & before.keys()),
    )


def _moved(before: Session, now: Session) -> bool:
    return (before.query_start, before.state_change) != (now.query_start, now.state_change)


def windows(looks: list[Look], begin: float, end: float, window_seconds: float = WINDOW_SECONDS) -> list[Window]:
    """Cut the looks between two instants into whole windows."""
    found = []
    while begin + window_seconds <= end + 1e-6:
        inside = [look for look in looks if begin <= look.at < begin + window_seconds]
        if inside:
            found.append(Window(begin=begin, values=_values(inside)))
        begin += window_seconds
    return found


def _values(looks: list[Look]) -> dict[str, float]:
    seconds = sum(look.seconds for look in looks)
    ages = [age for look in looks for age in look.idle_ages]
    return {
        "idle_sessions": fmean(len(look.idle_ages) for look in looks),
        "idle_age_seconds": median(ages) if ages else 0.0,
        "opened_per_second": sum(look.opened for look in looks) / seconds,
        "closed_per_second": sum(look.closed for look in looks) / seconds,
        "reused_per_second": sum(look.reused for look in looks) / seconds,
    }


def by_phase(looks: list[Look], phases: tuple[Phase, ...] = PHASES) -> dict[str, dict[str, float]]:
    """Return the median of each measure over the windows of the phases of one name, by that name.

    Phases are kept apart: the median of a mixture of two loads lies in the gap between them, where nothing is.
    """
    found: dict[str, list[Window]] = {}
    begin = 0.0
    for phase in phases:
        if phase.name != "warm-up":
            found.setdefault(phase.name, []).extend(windows(looks, begin, begin + phase.seconds))
        begin += phase.seconds
    return {
        name: {measure: median(window.values[measure] for window in cut) for measure in MEASURES}
        for name, cut in found.items()
    }
