"""How durations, latencies, instants and counts are spelled, wherever a person reads them: texts, pages, terminal.

One number has its unit after a space (0.4 ms, 42 s, 5 min); two are closed up (2m46s). Pure; decides nothing.
"""

import math
from datetime import UTC, datetime
from itertools import pairwise

_UNITS = ((86_400, "d", "d"), (3600, "h", "h"), (60, "min", "m"), (1, "s", "s"))
"""The seconds in each unit, and its name alone and beside another."""


def duration(seconds: float) -> str:
    """Spell a duration with its two largest units.

    >>> [duration(s) for s in (0, 9.6, 166, 300, 3_720, 7_200, 90_000, math.inf)]
    ['0 s', '10 s', '2m46s', '5 min', '1h02m', '2 h', '1d01h', 'never']
    """
    if not math.isfinite(seconds):
        return "never"
    whole = max(round(seconds), 0)
    for (size, alone, name), (size_below, _, name_below) in pairwise(_UNITS):
        if whole >= size:
            count, below = whole // size, whole % size // size_below
            return f"{count}{name}{below:02d}{name_below}" if below else f"{count} {alone}"
    return f"{whole} s"


def latency(seconds: float | None) -> str:
    """Spell a short duration, in milliseconds below a second.

    >>> latency(0.0004), latency(0.0521), latency(2.04), latency(None)
    ('0.4 ms', '52 ms', '2.0 s', 'unknown')
    """
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"  # noqa: PLR2004 - 10 ms


def clock_time(instant: float) -> str:
    """Spell an instant as a time of day in UTC.

    >>> clock_time(1760000600.0)
    '09:03:20 UTC'
    """
    return datetime.fromtimestamp(instant, UTC).strftime("%H:%M:%S UTC")


def date(instant: float) -> str:
    """Spell the day of an instant in UTC.

    >>> date(1760000600.0)
    '2025-10-09'
    """
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d")


def moment(instant: float, now: float) -> str:
    """Spell an instant as a time of day in UTC, with its day in front when that is not the day of `now`.

    >>> moment(1760000600.0, 1760000700.0), moment(1760000600.0, 1760100000.0)
    ('09:03:20 UTC', '2025-10-09 09:03:20 UTC')
    """
    day = date(instant)
    return clock_time(instant) if day == date(now) else f"{day} {clock_time(instant)}"


def taken(used: int, usable: int) -> str:
    """Spell how many of the usable slots are taken. Beyond them only reserved ones are, which superusers may take.

    >>> taken(24, 97), taken(98, 97)
    ('24 of 97', '97 of 97 (+1 reserved)')
    """
    beyond = f" (+{used - usable} reserved)" if used > usable else ""
    return f"{min(used, usable)} of {usable}{beyond}"


def count(number: int, noun: str) -> str:
    """Spell how many there are of something.

    >>> count(1, "session"), count(0, "session")
    ('1 session', '0 sessions')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
