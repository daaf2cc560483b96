"""What is kept of a signal, both ways: JSON in the store, and the values that an incident goes on with.

Owns the reading of a SIGNAL object and what stands beside it (the finding's key, the subject at the raise). It touches
no disk. A signal that another release wrote and this one cannot read is a ValueError.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeGuard

from batsignal.detect.signal import KINDS, SEVERITIES, DeployRef, Finding, Signal, Subject
from batsignal.record.board import PastIncident
from batsignal.snapshot import Deploy

# The event that is none of a signal's own: somebody had sessions ended. Its reason is JSON: who, by what, how many.
RELEASED = "released"

_SUBJECT = frozenset(one.name for one in fields(Subject))


# Some years are left to reckon with on either side of what calendars know.
INSTANT_MOST = 6e10


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What an earlier life of the daemon left of one server: what was lit, when it looked last, what was usual."""

    signals: tuple[Signal, ...] = ()
    ended: tuple[tuple[Signal, float], ...] = ()
    """What had ended so shortly before that its recording may not be made yet, and when."""
    looked_at: float | None = None
    """By the server's clock."""
    usual: str | None = None
    """JSON, as the detectors remember it."""

    @property
    def memory(self) -> dict[str, Any] | None:
        """What was usual, by detector; None when it cannot be read: a damaged file holds anything.

        >>> Left().memory, Left(usual='{"storms":2}').memory, Left(usual='{"st').memory, Left(usual="[1]").memory
        ({}, {'storms': 2}, None, None)
        """
        try:
            memory = json.loads(self.usual or "{}")
        except (ValueError, RecursionError):
            return None
        return memory if isinstance(memory, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """All that an earlier life of the daemon left."""

    servers: Mapping[str, Left] = field(default_factory=dict)
    deploys: tuple[Deploy, ...] = ()
    recent: tuple[PastIncident, ...] = ()


def text(value: object) -> str:
    """Return JSON in ASCII: names from outside may hold what no database takes."""
    return json.dumps(value, separators=(",", ":"))


def key_text(signal: Signal) -> str:
    """Return what makes a signal the same from tick to tick, as JSON."""
    return text(signal.finding.key)


def raised_as_text(signal: Signal) -> str:
    """Return the subject as it was known at the raise, as JSON."""
    return text(asdict(signal.raised_as))


def read_view(signal: str) -> dict[str, Any]:
    """Return a kept SIGNAL object as it was told; raises ValueError for what is none: a damaged file holds anything."""
    try:
        return checked_view(json.loads(signal))
    except (TypeError, RecursionError) as exc:
        raise ValueError(f"not a signal: {exc}") from exc


def checked_view(line: object) -> dict[str, Any]:
    """Return a SIGNAL object that somebody else wrote, a disk or a daemon; raises ValueError for what is none."""
    if not isinstance(line, dict):
        raise ValueError("not a signal: no object")  # noqa: TRY004 - one error for whatever is wrong with it
    wrong = [name for name, fits in _FITS.items() if not fits(line.get(name))]
    if wrong:
        raise ValueError(f"not a signal: {', '.join(wrong)}")
    return line


def is_instant(value: object) -> bool:
    """Whether a kept value is an instant in Unix seconds that a calendar has."""
    return _is_number(value) and abs(value) < INSTANT_MOST


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in {int, float} and math.isfinite(value)  # type: ignore[arg-type]


def is_deploy(value: object) -> bool:
    """Whether a value tells of a deploy: a service, a version, and when."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("service"), str)
        and isinstance(value.get("version"), str)
        and is_instant(value.get("at"))
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# What a SIGNAL object of the contract is made of.
_FITS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("id", "kind", "severity", "server", "summary", "action"), _is_text),
    "subject": lambda value: (
        type(value) is dict and all(one is None or type(one) in {str, int} for one in value.values())
    ),
    "sessions": lambda value: type(value) is int,
    "evidence": lambda value: type(value) is list and all(map(_is_text, value)),
    **dict.fromkeys(("since", "detected"), is_instant),
    "exhaustion_seconds": lambda value: value is None or _is_number(value),
    "deploy": lambda value: value is None or is_deploy(value),
}


def read_signal(signal: str, key: str, raised_as: str) -> Signal:
    """Return a kept signal; raises ValueError when it is not one that this version knows."""
    try:
        line = read_view(signal)
        finding = _finding(line, tuple(json.loads(key)))
        return Signal(
            id=line["id"],
            server=line["server"],
            detected=float(line["detected"]),
            raised_as=_subject(json.loads(raised_as)),
            finding=finding,
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not a signal of this version: {exc!r}") from exc


def read_line(signal: str, worst: str, ended: float | None) -> PastIncident:
    """Return a kept incident in one line; raises ValueError when it is not one that this version knows."""
    line = read_view(signal)
    if worst not in SEVERITIES or not (ended is None or is_instant(ended)):
        raise ValueError(f"not an incident of this version: {worst}, {ended}")
    return PastIncident(
        **{name: line[name] for name in ("id", "server", "kind", "summary")},
        severity=worst,
        since=float(line["since"]),
        detected=float(line["detected"]),
        ended=ended,
    )


def _finding(line: Mapping[str, Any], key: tuple[str, ...]) -> Finding:
    if line["kind"] not in KINDS or line["severity"] not in SEVERITIES:
        raise ValueError(f"not a kind or severity of this version: {line['kind']}, {line['severity']}")
    exhaustion, deploy = line["exhaustion_seconds"], line["deploy"]
    return Finding(
        kind=line["kind"],
        key=key,
        severity=line["severity"],
        subject=_subject(line["subject"]),
        since=float(line["since"]),
        sessions=int(line["sessions"]),
        exhaustion_seconds=math.inf if exhaustion is None else float(exhaustion),
        deploy=None
        if deploy is None
        else DeployRef(service=deploy["service"], version=deploy["version"], at=deploy["at"]),
        database_healthy=line["database_healthy"],
        evidence=tuple(line["evidence"]),
        summary=line["summary"],
        action=line["action"],
    )


def _subject(line: Mapping[str, Any]) -> Subject:
    return Subject(**{name: value for name, value in line.items() if name in _SUBJECT})
