"""What a regular expression costs at worst on an application's name, found out before a name comes that costs it.

Python's `re` backtracks, and holds everything up while it does: with a pattern such as `(a+)+@` one hostile name of 63
characters would stop the watch for years. Nobody can end a match from outside, so names that make a pattern
backtrack are made from it here, and tried in a process that may be ended. It is no proof, but it finds what people
write by mistake. It must not judge what a pattern is for.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from re import _constants as code  # type: ignore[attr-defined]  # the parser of `re` itself
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

NAME_LONGEST = 63
MATCH_SECONDS_MOST = 0.05
_WAIT_SECONDS = 60.0
_NAMES_MOST = 200
_REPEATS_MANY = 8

# Prints each name's number before it is tried; SIGPROF ends the process when that has taken too much processor.
_TRIAL = f"""
import json, re, signal, sys
pattern, names = json.load(sys.stdin)
regex = re.compile(pattern)
for number, name in enumerate(names):
    print(number, flush=True)
    signal.setitimer(signal.ITIMER_PROF, {MATCH_SECONDS_MOST})
    regex.search(name)
"""

_REPEATS = frozenset({code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT})
_CHARACTERS = frozenset({code.LITERAL, code.NOT_LITERAL, code.ANY, code.IN})
_REPEATS_PLAIN = 3
_SAMPLES = "a0-_./: @A~!"
_CATEGORIES = {
    "CATEGORY_DIGIT": "0",
    "CATEGORY_SPACE": " ",
    "CATEGORY_WORD": "a",
    "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_NOT_SPACE": "a",
    "CATEGORY_NOT_WORD": "-",
}
_CLASSES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_NOT_WORD": r"\W",
}
# What a name ends with: one of these, most likely, is not what the pattern wants there.
_ENDS = ("!", "@", " ", "a", "0")


@lru_cache(maxsize=64)
def costly_name(pattern: str) -> str | None:
    """Return a name on which the pattern takes longer than `MATCH_SECONDS_MOST` of processor, None if none is found.

    The pattern must compile.
    """
    if _is_plain(pattern):
        return None
    names = list(dict.fromkeys(_names(pattern)))[:_NAMES_MOST]
    if not names:
        return None
    try:
        tried = subprocess.run(  # noqa: S603 - our own interpreter, and what it runs stands above
            [sys.executable, "-I", "-S", "-c", _TRIAL],
            input=json.dumps([pattern, names]),
            capture_output=True,
            text=True,
            timeout=_WAIT_SECONDS,
            check=False,
        )
        is_well, told = tried.returncode == 0, tried.stdout
    except subprocess.TimeoutExpired as exc:
        is_well, told = False, exc.stdout.decode() if isinstance(exc.stdout, bytes) else exc.stdout or ""
    numbers = told.split()
    return names[int(numbers[-1])] if numbers and not is_well else None


def _is_plain(pattern: str) -> bool:
    """Whether it repeats single characters only, and few times: then there are not many ways to try.

    With three repeats and any start, at most 63 over 4, some 600,000, steps.
    """
    repeats = 0
    todo = [parser.parse(pattern)]
    while todo:
        for operation, argument in todo.pop():
            if operation in _REPEATS:
                repeats += 1
                if repeats > _REPEATS_PLAIN or any(inner not in _CHARACTERS for inner, _ in argument[2]):
                    return False
            todo += _inside(operation, argument)
    return True


def _names(pattern: str) -> Iterator[str]:
    """Yield names that repeat what the pattern repeats, and end as it does not expect."""
    for prefix, body in _repeats(parser.parse(pattern), ""):
        for end in _ENDS:
            if body:
                room = max(NAME_LONGEST - 1 - len(prefix), 1)
                yield (prefix + body * (room // len(body) + 1))[: NAME_LONGEST - 1] + end


def _repeats(parsed: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each part that may be repeated often, and what comes before it."""
    for operation, argument in parsed:
        if operation in _REPEATS:
            _, most, body = argument
            if most >= _REPEATS_MANY:
                for sample in _samples(body):
                    yield prefix, sample
            yield from _repeats(body, prefix)
        for inner in _inside(operation, argument):
            yield from _repeats(inner, prefix)
        prefix += next(_samples([(operation, argument)]))


def _inside(operation: Any, argument: Any) -> list[Any]:
    if operation is code.SUBPATTERN:
        return [argument[-1]]
    if operation is code.ATOMIC_GROUP:
        return [argument]
    if operation is code.BRANCH:
        return list(argument[1])
    return []


def _samples(parsed: Any) -> Iterator[str]:
    """Yield texts that match, by each of the ways that the first branch of it offers."""
    texts = [""]
    for operation, argument in parsed:
        texts = [text + more for text in texts for more in _of(operation, argument)][:4]
    yield from texts


def _of(operation: Any, argument: Any) -> list[str]:
    if operation is code.LITERAL:
        return [chr(argument)]
    if operation is code.NOT_LITERAL:
        return ["a" if chr(argument) != "a" else "b"]
    if operation is code.ANY:
        return ["a"]
    if operation is code.IN:
        return [_member(argument)]
    if operation in _REPEATS:
        least, _, body = argument
        return [sample * min(max(least, 1), NAME_LONGEST) for sample in _samples(body)]
    inside = _inside(operation, argument)
    return [sample for one in inside for sample in _samples(one)] or [""]


def _member(items: Any) -> str:
    """Return a character of a set."""
    if items and items[0][0] is code.NEGATE:
        excluded = {character for character in _SAMPLES if _is_in(character, items[1:])}
        return next((character for character in _SAMPLES if character not in excluded), "a")
    kind, value = items[0]
    if kind is code.LITERAL:
        return chr(value)
    if kind is code.RANGE:
        return chr(value[0])
    return _CATEGORIES.get(str(value), "a")


def _is_in(character: str, items: Any) -> bool:
    for kind, value in items:
        if kind is code.LITERAL and ord(character) == value:
            return True
        if kind is code.RANGE and value[0] <= ord(character) <= value[1]:
            return True
        if kind is code.CATEGORY and re.fullmatch(_CLASSES.get(str(value), "(?!)"), character):
            return True
    return False
