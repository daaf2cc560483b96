"""Takes one field after the other out of a JSON object that anybody may have written, and says what is wrong with it.

A field that is missing or null is None (of a list or a mapping: empty), a field of the wrong kind a `Fault`. Nothing
here knows files or lines: the reader puts them in front.
"""

from typing import Any

# No calendar goes further back than the year 1; some years are left for what is reckoned back from an instant.
INSTANT_LEAST = -6.2e10
# Further away than any instant in seconds, nearer than one in milliseconds; and a number past which floats count in
# steps of more than one.
INSTANT_MOST = 1e11
NUMBER_MOST = 2**63
SHOWN_CHARACTERS = 40
LABEL_CHARACTERS_MOST = 200
# What JSON gives is of these very types; truth values are no numbers.
_OBJECT = {dict}
_NUMBERS = {int, float}

Fields = dict[str, Any]


class Fault(Exception):  # noqa: N818 - not an error of ours: what is wrong with a line
    """What is wrong with a line, without the line's number."""


def expected(key: str, what: str, value: Any) -> Fault:
    """Return the fault of a field that is not what it should be; a value that goes on and on is cut short."""
    return Fault(f"{key}: expected {what}, got {repr(value)[:SHOWN_CHARACTERS]}")


def number(source: Fields, key: str) -> float | None:
    """Return a number, finite and within 64 bits."""
    value = source.get(key)
    if value is None:
        return None
    if type(value) not in _NUMBERS or not abs(value) < NUMBER_MOST:
        raise expected(key, "a number", value)
    return float(value)


def instant(source: Fields, key: str) -> float | None:
    """Return an instant in Unix seconds; a number so large that it must be milliseconds is a fault."""
    value = number(source, key)
    if value is not None and not INSTANT_LEAST < value < INSTANT_MOST:
        hint = " (milliseconds?)" if abs(value) >= INSTANT_MOST else " (before any calendar)"
        raise Fault(f"{key}: expected Unix seconds, got {value:.0f}{hint}")
    return value


def whole(source: Fields, key: str) -> int | None:
    """Return a whole number within 64 bits."""
    value = source.get(key)
    if value is None:
        return None
    if type(value) is not int or abs(value) >= NUMBER_MOST:
        raise expected(key, "a whole number", value)
    return value


def count(source: Fields, key: str, of: str = "") -> int | None:
    """Return a whole number, 0 and more; `of` is what a fault says in front of the key."""
    value = source.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < NUMBER_MOST):
        raise expected(f"{of}{key}", "a whole number, 0 and more", value)
    return value


def text(source: Fields, key: str) -> str | None:
    """Return a text."""
    value = source.get(key)
    if value is not None and not isinstance(value, str):
        raise expected(key, "text", value)
    return value


def label(source: Fields, key: str) -> str | None:
    """Return a text that is told in sentences, cut where it goes on and on: nobody's name or reason is that long."""
    value = text(source, key)
    return None if value is None else value[:LABEL_CHARACTERS_MOST]


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
    if not isinstance(value, list) or not all(type(one) is int and abs(one) < NUMBER_MOST for one in value):
        raise expected(key, "a list of pids", value)
    return tuple(value)


def numbers(source: Fields, key: str) -> dict[str, float]:
    """Return an object of numbers, those that are null left out."""
    values = mapping(source, key)
    return {name: value for name in values if (value := number(values, name)) is not None}


def wholes(source: Fields, key: str) -> dict[str, int]:
    """Return an object of whole numbers, those that are null left out."""
    values = mapping(source, key)
    return {name: value for name in values if (value := whole(values, name)) is not None}
