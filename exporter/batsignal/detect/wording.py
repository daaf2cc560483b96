"""What the detectors say at 3 a.m., and with which words; how numbers are spelled is `spelling`'s. Decides nothing."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from batsignal.detect.signal import Subject
from batsignal.names import printable
from batsignal.spelling import clock_time, date, duration, latency, taken

_T = TypeVar("_T")

__all__ = [
    "clock_time",
    "code_paths",
    "common",
    "counted",
    "culprit",
    "date",
    "duration",
    "largest",
    "latency",
    "nearly_common",
    "rate",
    "sessions",
    "taken",
]


def rate(per_second: float) -> str:
    """Spell a rate in the unit that keeps it readable.

    >>> [rate(r) for r in (0.5, 12, 1234.5, 1 / 45, 1 / 240)]
    ['0.5/s', '12/s', '1234/s', '1.3/min', '15/h']
    """
    if per_second >= 10:  # noqa: PLR2004 - two digits before the point are enough
        return f"{per_second:.0f}/s"
    if per_second >= 0.1:  # noqa: PLR2004 - below it, a rate a second has only zeros to show
        return f"{per_second:.2g}/s"
    if per_second * 60 >= 1:
        return f"{per_second * 60:.2g}/min"
    return f"{per_second * 3600:.2g}/h"


def sessions(count: int) -> str:
    """Count sessions in words.

    >>> sessions(1), sessions(2)
    ('1 session', '2 sessions')
    """
    return f"{count} session" if count == 1 else f"{count} sessions"


def culprit(subject: Subject) -> str:
    """Name whom a signal is about, by the best name there is.

    >>> culprit(Subject(application="web", version="2.4.0"))
    'web@2.4.0'
    >>> culprit(Subject(user="app", client="10.0.0.4"))
    'user app from 10.0.0.4'
    >>> culprit(Subject(user="  ", client=" "))
    'an unnamed user'
    """
    if subject.application is not None:
        return f"{subject.application}@{subject.version}" if subject.version else subject.application
    # A role may be called anything, even by a line break.
    user, client = printable(subject.user or ""), printable(subject.client or "")
    name = f"user {user}" if user else "an unnamed user"
    return f"{name} from {client}" if client else name


def largest(holders: Mapping[str, int]) -> str:
    """Name the three that hold most.

    >>> largest({"mail": 3, "web@2.4.0": 40, "jobs": 3, "api": 1})
    'web@2.4.0 40, jobs 3, mail 3'
    """
    return ", ".join(
        f"{name} {count}" for name, count in sorted(holders.items(), key=lambda one: (-one[1], one[0]))[:3]
    )


def code_paths(codes: Iterable[str | None]) -> str | None:
    """Say which code the sessions' statements come from, the two most frequent; None when no statement tells.

    >>> code_paths(["controller=users", "controller=users"])
    'code path: controller=users'
    >>> code_paths(["job=Mail", "controller=users", None, "job=Mail"])
    'code path: job=Mail (2 of 4), controller=users (1 of 4)'
    """
    counted = Counter(codes)
    total = counted.total()
    del counted[None]
    if not counted:
        return None
    often = counted.most_common(2)
    if often[0][1] == total:
        return f"code path: {often[0][0]}"
    return "code path: " + ", ".join(f"{code} ({count} of {total})" for code, count in often)


def common(values: Iterable[_T]) -> _T | None:
    """Return the one value that all agree on, else None."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def nearly_common(values: Iterable[_T], share: float) -> _T | None:
    """Return the value that at least this share of all has, else None.

    >>> nearly_common([*"aaaaaaaaab"], 0.9), nearly_common("aaab", 0.9), nearly_common([], 0.9)
    ('a', None, None)
    """
    counts = Counter(values)
    value, count = next(iter(counts.most_common(1)), (None, 0))
    return value if count and count >= share * counts.total() else None


def counted(values: Iterable[_T]) -> Mapping[_T, int]:
    """Count equal values, the most frequent first.

    >>> counted("abbcb")
    {'b': 3, 'a': 1, 'c': 1}
    """
    return dict(Counter(values).most_common())
