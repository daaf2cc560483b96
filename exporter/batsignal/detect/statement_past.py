"""What an earlier life of the daemon knew of statements: how many ran at once, and which were seen to end quickly.

Owns the JSON shape of it, bounded, and the look-up by statement. A statement's text is not in it, only its fingerprint:
what was asked of a database is nobody's baseline. It judges nothing and has no clock.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from batsignal.detect.memory import Memory
from batsignal.snapshot import fingerprint

# Of so many statements, those seen last; for a day, as long as a daily job may stay away.
USUAL_MOST = 1_000
QUICK_MOST = 2_000
DAY_SECONDS = 86_400.0

Name = tuple[tuple[str, ...], str]
"""Whose statement it is, and its fingerprint."""
Pair = tuple[float, float]


class StatementPast:
    """The baselines of statements, from life to life."""

    def __init__(self) -> None:
        self._usual: dict[Name, tuple[float, int]] = {}
        self._quick: dict[str, Pair] = {}

    def usual(self, group: tuple[str, ...], name: str) -> tuple[float, int] | None:
        """Return a statement's busiest step: when it began and how many long ones ran at once; None if unknown."""
        return self._usual.get((group, fingerprint(name))) if self._usual else None

    def quick(self, name: str) -> Pair | None:
        """Return when a statement was seen to end quickly, first and last; None if it never was."""
        return self._quick.get(fingerprint(name)) if self._quick else None

    def remembered(
        self, t: float, usual: Iterable[tuple[tuple[str, ...], str, float, int]], quick: Mapping[str, Pair]
    ) -> Memory:
        """Return what is worth keeping of both lives, as JSON values.

        `usual` is group, statement, begin and count of each statement's busiest step of this life.
        """
        steps = dict(self._usual)
        for group, name, begin, most in usual:
            key = (group, fingerprint(name))
            before = steps.pop(key, (begin, 0))
            steps[key] = before if before[1] > most and t - before[0] <= DAY_SECONDS else (begin, most)
        spans = dict(self._quick)
        for name, (first, last) in quick.items():
            known = spans.pop(fingerprint(name), (first, last))
            spans[fingerprint(name)] = (min(known[0], first), max(known[1], last))
        young = [(key, step) for key, step in steps.items() if t - step[0] <= DAY_SECONDS]
        known_quick = sorted((item for item in spans.items() if t - item[1][1] <= DAY_SECONDS), key=_last)
        return {
            "usual": [[list(group), name, *step] for (group, name), step in sorted(young, key=_begin)[-USUAL_MOST:]],
            "quick": [[name, *span] for name, span in known_quick[-QUICK_MOST:]],
        }

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered; raises ValueError, TypeError or KeyError when it does not fit."""
        usual = {
            (_group(group), _word(name)): (_instant(begin), _count(most))
            for group, name, begin, most in memory["usual"][-USUAL_MOST:]
        }
        quick = {_word(name): (_instant(first), _instant(last)) for name, first, last in memory["quick"][-QUICK_MOST:]}
        self._usual, self._quick = usual, quick


def _begin(item: tuple[Name, tuple[float, int]]) -> float:
    return item[1][0]


def _last(item: tuple[str, Pair]) -> float:
    return item[1][1]


def _instant(value: Any) -> float:
    """Return Unix seconds, be they before 1970: that is where a clock may stand that was never set."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"no instant of a statement's past: {value!r}")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"no count of a statement's past: {value!r}")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"no name of a statement's past: {value!r}")
    return value


def _group(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"no group of a statement's past: {value!r}")
    return tuple(_word(part) for part in value)
