"""Takes one field after the other out of a JSON object that anybody may have written, and says what is wrong with it.

A field that is missing or null is None (of a list or a mapping: empty), a field of the wrong kind a `Fault`. Nothing
here knows files or lines: the reader puts them in front. Each fault begins with the key and the way to it
(`probes[0].up`), which the reading of what stands inside something adds.
"""

from collections.abc import Callable
from typing import Any, TypeVar

# No calendar goes further back than the year 1; some years are left for what is reckoned back from an instant.
INSTANT_LEAST = -6.2e10
# Further away than any instant in seconds, nearer than one in milliseconds; and a number past which floats count in
# steps of more than one.
INSTANT_MOST = 1e11
NUMBER_MOST = 2**63
# Thirty years: no ping, wait or interval takes that long.
SECONDS_MOST = 1e9
# PostgreSQL's numbers of slots, limits and processes are no larger.
INT4_MOST = 2**31 - 1
# What an instant is likely to be counted in that is too far away for seconds: up to this, in that.
_UNITS = ((1e14, " (milliseconds?)"), (1e17, " (microseconds?)"), (1e20, " (nanoseconds?)"))
SHOWN_CHARACTERS = 40
LABEL_CHARACTERS_MOST = 200
# What JSON gives is of these very types; truth values are no numbers.
_OBJECT = {dict}
_NUMBERS = {int, float}

Fields = dict[str, Any]
T = TypeVar("T")


class Fault(Exception):  # noqa: N818 - not an error of ours: what is wrong with a line
    """What is wrong with a line, without the line's number."""


def expected(key: str, what: str, value: Any) -> Fault:
    """Return the fault of a field that is not what it should be; a value that goes on and on is cut short."""
    return Fault(f"{key}: expected {what}, got {repr(value)[:SHOWN_CHARACTERS]}")


def inside(place: str, read: Callable[[Fields], T], fields: Fields) -> T:
    """Return what `read` makes of an object; a fault in it says where the object stands."""
    try:
        return read(fields)
    except Fault as fault:
        raise Fault(f"{place}.{fault}") from None


def each(source: Fields, key: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
    """Return what `read` makes of each object of a list; a fault says in which of them it is, counted from 0."""
    return tuple(inside(f"{key}[{index}]", read, one) for index, one in enumerate(objects(source, key)))


def missing(key: str, what: str) -> Fault:
    """Return the fault of a field that must be there."""
    return Fault(f"{key}: missing; expected {what}")


def _number(source: Fields, key: str, what: str, least: float, most: float) -> float | None:
    value = source.get(key)
    if value is None:
        return None
    # Infinity, as JSON's 1e999 is read, is out of any bounds.
    if type(value) not in _NUMBERS or not least <= value <= most:
        raise expected(key, what, value)
    return float(value)


def seconds(source: Fields, key: str) -> float | None:
    """Return a length of time in seconds, 0 and more."""
    return _number(source, key, f"a number of seconds from 0 to {SECONDS_MOST:.0f}", 0, SECONDS_MOST)


def ratio(source: Fields, key: str) -> float | None:
    """Return a ratio, 0 to 1."""
    return _number(source, key, "a ratio from 0 to 1", 0, 1)


def load(source: Fields, key: str) -> float | None:
    """Return how many processes want to run, on average."""
    return _number(source, key, f"a number from 0 to {INT4_MOST}", 0, INT4_MOST)


def instant(source: Fields, key: str) -> float | None:
    """Return an instant in Unix seconds; a number so large that it must be milliseconds is a fault."""
    value = source.get(key)
    if value is None:
        return None
    if type(value) not in _NUMBERS:
        raise expected(key, "Unix seconds", value)
    if not INSTANT_LEAST < value < INSTANT_MOST:
        hint = next((unit for most, unit in _UNITS if INSTANT_MOST <= abs(value) < most), "")
        hint = " (before any calendar)" if INSTANT_LEAST >= value > -INSTANT_MOST else hint
        got = f"{value:.0f}" if hint else repr(value)[:SHOWN_CHARACTERS]
        raise Fault(f"{key}: expected Unix seconds, got {got}{hint}")
    return float(value)


def whole(source: Fields, key: str, least: int = 0, most: int = NUMBER_MOST - 1) -> int | None:
    """Return a whole number within bounds."""
    return _whole(source, key, f"a whole number from {least} to {most}", least, most)


def process(source: Fields, key: str) -> int | None:
    """Return the number of a process."""
    return _whole(source, key, "the number of a process", 0, INT4_MOST)


def _whole(source: Fields, key: str, what: str, least: int, most: int) -> int | None:
    value = source.get(key)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise expected(key, what, value)
    return value


def text(source: Fields, key: str) -> str | None:
    """Return a text."""
    value = source.get(key)
    if value is not None and not isinstance(value, str):
        raise expected(key, "text", value)
    return value


def label(source: Fields, key: str) -> str | None:
    """Return a text that is told in sentences, without blanks around it.

    It is cut where it goes on and on: nobody's name or reason is that long.
    """
    value = text(source, key)
    return None if value is None else value[:LABEL_CHARACTERS_MOST].strip()


def truth(source: Fields, key: str) -> bool | None:
    """Return true or false."""
    value = source.get(key)
    if value is not None and not isinstance(value, bool):
        raise expected(key, "true or false", value)
    return value


def mapping(source: Fields, key: str) -> Fields:
    """Return an object."""
    value = source.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise expected(key, "an object", value)
    return value


def objects(source: Fields, key: str) -> list[Fields]:
    """Return a list of objects."""
    value = source.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not _OBJECT.issuperset(map(type, value)):
        raise expected(key, "a list of objects", value)
    return value


def pids(source: Fields, key: str) -> tuple[int, ...]:
    """Return a list of process numbers."""
    value = source.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(one) is int and 0 <= one <= INT4_MOST for one in value):
        raise expected(key, "a list of pids", value)
    return tuple(value)


def each_of(source: Fields, key: str, read: Callable[[Fields, str], T | None]) -> dict[str, T]:
    """Return an object whose values are all of the kind that `read` reads, those that are null left out."""
    return inside(
        key,
        lambda values: {name: value for name in values if (value := read(values, name)) is not None},
        mapping(source, key),
    )
