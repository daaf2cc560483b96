"""Says that a limit is reached because we ourselves are refused for it: the server answers, and has no slot to give.

While every look is refused nobody can count, so this goes by the reason of the refusal alone. It owns which limit that
is, since when, and for how long it is held once looks succeed again; what is counted is `saturation`'s, and has the
same keys: one signal goes on from the one to the other. It has no clock and does no I/O.
"""

import math
import re
from collections.abc import Mapping

from batsignal.detect import wording
from batsignal.detect.limits import holders_of
from batsignal.detect.reachability import FULL_REASONS
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.window import Window
from batsignal.snapshot import PollFailure, Snapshot

# As long as 90 % are held before they are said: a peak of a moment is none. Who looks seldom says it at once.
HOLD_SECONDS = 4.0
# At the limit a slot comes free for a moment, and the next look is refused again.
CLEAR_SECONDS = 15.0
# What anybody gives to a monitor's own role or database; we never take more than two.
OWN_LIMIT_MOST = 5
# The server quotes the name of a role or a database, in the quotes of its language.
_QUOTED = re.compile('["\u00ab\u201c\u201e\u300c]\\s?(.+?)\\s?["\u00bb\u201d\u201c\u300d]')
_NAMELESS = "?"
# Turned away though sessions hold no more than this of the slots: it is the postmaster's connections that are taken.
FEW_SESSIONS_RATIO = 0.5


class Lockout:
    """Whether one server refuses our own looks for want of a slot."""

    def __init__(self) -> None:
        self._limit: str | None = None
        self._since = 0.0
        self._refused_at = -math.inf
        self._answered_at: float | None = None
        self._found: Finding | None = None

    def look(self, window: Window, snapshot: Snapshot) -> Finding | None:
        """Return the limit that shuts us out, also for a while after its end. Looks that fail otherwise change nothing.

        A clock that steps back ends it: ages would lie.
        """
        failure, t = snapshot.met, snapshot.t
        if failure is not None and failure.reason in FULL_REASONS:
            self._refuse(failure, snapshot, window)
        elif failure is None:
            self._answered_at = t
            self._found = self._fading(t)
            self._limit = None if self._found is None else self._limit
        return self._found

    def _refuse(self, failure: PollFailure, snapshot: Snapshot, window: Window) -> None:
        t, limit = snapshot.t, _limit_of(failure, snapshot, window)
        if limit != self._limit or t < self._refused_at:
            self._limit, self._since, self._found = limit, t, None
        self._refused_at = t
        # Since the last answer, or else since the first refusal.
        heard_at = self._since if self._answered_at is None else min(self._answered_at, self._since)
        if self._found is None and t - heard_at < HOLD_SECONDS:
            return
        self._found = _finding(limit, self._since, failure, snapshot, window)

    def _fading(self, t: float) -> Finding | None:
        if self._found is None or not 0 <= t - self._refused_at < CLEAR_SECONDS:
            return None
        return Finding(
            kind="saturation",
            key=self._found.key,
            severity=self._found.severity,
            subject=self._found.subject,
            since=self._since,
            summary=f"{_what(self._limit or '')} was reached until a moment ago",
            fading=True,
        )


def _hold_little(now: Snapshot, window: Window) -> bool:
    """Whether sessions that were counted at this very look hold little of what is taken."""
    return now.t == window.t and now.slots is not None and window.used <= FEW_SESSIONS_RATIO * now.slots.usable


def _limit_of(failure: PollFailure, snapshot: Snapshot, window: Window) -> str:
    """Return the limit's name; that of a role or a database is in the server's words, or it is ours."""
    if failure.reason == "slots_full":
        return "server"
    quoted = _QUOTED.search(failure.text)
    known = window.snapshot or snapshot
    if failure.reason == "role_limit":
        return f"role:{quoted.group(1) if quoted else snapshot.role or known.role or _only(known.role_limits)}"
    return f"database:{quoted.group(1) if quoted else _only(known.database_limits)}"


def _only(limits: Mapping[str, int]) -> str:
    return next(iter(limits)) if len(limits) == 1 else _NAMELESS


def _what(limit: str) -> str:
    kind, _, owner = limit.partition(":")
    if not owner:
        return "the server's connection limit"
    return f"the connection limit of {'our ' if owner == _NAMELESS else ''}{kind}" + (
        "" if owner == _NAMELESS else f" {owner}"
    )


def _is_ours_alone(limit: str, refused: Snapshot, known: Snapshot | None) -> bool:
    """Whether nobody but we ourselves is shut out by a limit of which no holder was ever seen.

    A database is shared; a role that refuses us is the one that we log in as, and most likely nobody else does. A limit
    that is larger than anybody gives to a monitor is not filled by one.
    """
    kind, _, owner = limit.partition(":")
    facts = known or refused
    most = (facts.role_limits if kind == "role" else facts.database_limits).get(owner)
    if not owner or (most is not None and most > OWN_LIMIT_MOST):
        return False
    return kind == "role" or known is not None


def _finding(limit: str, since: float, failure: PollFailure, snapshot: Snapshot, window: Window) -> Finding:
    kind, _, owner = limit.partition(":")
    holders = holders_of(window, limit)
    known = window.snapshot
    severity: Severity = "critical"
    action = f"Ask the largest holders first: {wording.largest(holders)}." if holders else ""
    if not holders and _is_ours_alone(limit, snapshot, known):
        # Nobody but we log in by it: nobody else is refused.
        severity, action = "warning", f"Raise the limit of our own {kind}, or find who else looks in with it."
    seen = (f"largest holders when last seen: {wording.largest(holders)}",) if holders else ()
    if limit == "server" and known is not None and _hold_little(known, window):
        action = "Find who connects and does not log in: netstat or ss on the server's port shows their addresses."
        only = wording.sessions(window.used)
        seen = (f"only {only} hold a slot: the rest are connections that have not logged in",)
    none_left = "no slot is left" if not owner else f"{_what(limit)} is reached"
    return Finding(
        kind="saturation",
        key=(limit,),
        severity=severity,
        subject=Subject(
            limit=limit,
            user=owner if kind == "role" and owner != _NAMELESS else None,
            database=owner if kind == "database" and owner != _NAMELESS else None,
        ),
        since=since,
        sessions=sum(holders.values()),
        exhaustion_seconds=0.0,
        evidence=(
            f"since {wording.clock_time(since)} the server answers each of our looks, and refuses it: {failure.text}",
            *seen,
        ),
        summary=f"{none_left}: the server refuses {'more of it' if owner else 'new sessions'}, and is alive",
        action=action,
    )
