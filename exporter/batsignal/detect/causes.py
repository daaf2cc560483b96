"""Causes before symptoms: which lit finding explains which other, so that one incident is one page.

Owns the table of what brings about what, and the conditions under which that holds between two findings of one server.
It judges no session and words nothing. A symptom is silenced only by a cause that wakes whom the symptom would wake,
and in the moments after its end: a health check needs two good answers to be well again.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from batsignal.detect.signal import Finding, Key, Kind

ENDPOINTS: frozenset[Kind] = frozenset({"endpoint_down", "endpoint_slow"})
WITHIN_A_SERVICE: frozenset[Kind] = frozenset({"pool_starvation", "leak", "endpoint_down"})
# An onset is found looking back, and may be told a little late.
ONSET_SLACK_SECONDS = 120.0
# What outlives its cause for longer than some probes take has another cause as well.
AFTERMATH_SECONDS = 30.0
OUTLIVING: frozenset[Kind] = ENDPOINTS | {"pool_starvation"}
# More are lost than an empty pool has when they are so many times as many: what a full one holds is told a little late.
LOST_PAST_FACTOR = 1.25
# An empty pool beside a leak that is said already and goes on is what it comes to once it has been empty for so long:
# one that was about to open another session is empty for some seconds, again and again.
EMPTY_SECONDS = 20.0

# What a cause explains, where application, user and database agree as far as both are known. It goes one way only, so
# that behind every symptom stands a cause that is said.
EXPLAINS: Mapping[Kind, frozenset[Kind]] = {
    "database_unreachable": ENDPOINTS | {"pool_starvation"},
    "lock_pileup": ENDPOINTS | {"saturation", "pool_starvation", "query_pileup", "idle_in_transaction"},
    "query_pileup": ENDPOINTS | {"saturation", "pool_starvation"},
    "storm": ENDPOINTS | {"saturation"},
    # A leak inside a bounded pool is told as what it does: that pool is empty, and the server is not. One that more is
    # lost to than any one pool has goes on as a leak.
    "pool_starvation": ENDPOINTS | {"leak", "idle_in_transaction"},
    "leak": ENDPOINTS | {"saturation", "idle_in_transaction"},
    "saturation": ENDPOINTS,
    "endpoint_down": frozenset({"endpoint_slow"}),
}


class Causes:
    """Remembers what was silenced a moment ago, so that no cause's end is a page about its symptoms."""

    def __init__(self) -> None:
        self._silenced: dict[Key, tuple[Key, float]] = {}
        """By what, and when at last."""
        self._empty_since: dict[Key, float] = {}
        self._said: frozenset[Key] = frozenset()
        self._causes: dict[Key, tuple[Finding, float]] = {}
        """What may have brought about an endpoint's failures, and when it was there at last."""

    def first(self, found: Sequence[Finding], t: float) -> tuple[list[Finding], dict[Key, Key]]:
        """Return what is to be said at `t`, and for each silenced finding the one that explains it now."""
        empty = [(finding.kind, finding.key) for finding in found if finding.kind == "pool_starvation"]
        self._empty_since = {key: min(self._empty_since.get(key, t), t) for key in empty}
        lasting = [key for key in empty if key in self._said or t - self._empty_since[key] >= EMPTY_SECONDS]
        kept, superseded = causes_first(found, lasting)
        outlive = {(finding.kind, finding.key) for finding in kept if _may_outlive(finding)}
        there = {(finding.kind, finding.key) for finding in found}
        self._silenced = {
            key: (cause, at)
            for key, (cause, at) in self._silenced.items()
            if key in outlive and (key[0] in ENDPOINTS or cause not in there) and 0 <= t - at <= AFTERMATH_SECONDS
        }
        kept = [
            finding
            for finding in kept
            if (finding.kind, finding.key) not in self._silenced and not self._is_aftermath(finding, t)
        ]
        self._remember(found, t)
        self._said = frozenset((finding.kind, finding.key) for finding in kept)
        self._silenced |= {key: (cause, t) for key, cause in superseded.items()}
        return kept, superseded

    def _is_aftermath(self, finding: Finding, t: float) -> bool:
        """Whether an endpoint is found to fail only now, of what is over: its third probe came a moment later."""
        key = (finding.kind, finding.key)
        if finding.kind not in ENDPOINTS or key in self._said:
            return False
        gone = [(cause, at) for cause, at in self._causes.values() if 0 <= t - at <= AFTERMATH_SECONDS]
        return any(finding.since <= at and explains(cause, finding) for cause, at in gone)

    def _remember(self, found: Iterable[Finding], t: float) -> None:
        known = {key: one for key, one in self._causes.items() if 0 <= t - one[1] <= AFTERMATH_SECONDS}
        now = {(one.kind, one.key): (one, t) for one in found if ENDPOINTS & EXPLAINS.get(one.kind, frozenset())}
        self._causes = known | now


def causes_first(found: Sequence[Finding], lasting: Collection[Key] = ()) -> tuple[list[Finding], dict[Key, Key]]:
    """Return what is to be said, and for each silenced finding the one that explains it.

    `lasting` are pools that have been empty for long, or were said to be.
    """
    superseded: dict[Key, Key] = {}
    kept = []
    for finding in found:
        cause = next((other for other in found if explains(other, finding, lasting)), None)
        if cause is None:
            kept.append(finding)
        else:
            superseded[finding.kind, finding.key] = (cause.kind, cause.key)
    return kept, {symptom: _said_for(symptom, superseded) for symptom in superseded}


def _may_outlive(finding: Finding) -> bool:
    """Whether it is there for some moments after the end of what silenced it: of a leak, what its pool had lost."""
    lost = finding.kind == "leak" and (finding.severity == "warning" or finding.exhaustion_seconds == math.inf)
    return finding.kind in OUTLIVING or lost


def _said_for(symptom: Key, superseded: Mapping[Key, Key]) -> Key:
    """Follow the causes up to the one that is said: what explains a symptom may itself be explained."""
    cause = superseded[symptom]
    while cause in superseded:
        cause = superseded[cause]
    return cause


def explains(cause: Finding, symptom: Finding, lasting: Collection[Key] = ()) -> bool:
    """Whether a cause silences a symptom: it eats into that very thing, and wakes whom the symptom would have woken."""
    if symptom.kind not in _explained_by(cause, symptom, lasting):
        return False
    if symptom.severity == "critical" and cause.severity != "critical" and not _wakes_for(cause, symptom):
        return False
    return _reaches_endpoint(cause, symptom) if symptom.kind in ENDPOINTS else _is_of_the_same(cause, symptom)


def _wakes_for(cause: Finding, symptom: Finding) -> bool:
    """Whether the page that a cause becomes by itself, if it lasts, is soon enough for a health check."""
    return cause.wakes_if_it_lasts and symptom.kind in ENDPOINTS


def _explained_by(cause: Finding, symptom: Finding, lasting: Collection[Key]) -> frozenset[Kind]:
    """Return what a cause may explain. A pooler bounds what piles up in its own pool: that pool is what is empty."""
    explained = EXPLAINS.get(cause.kind, frozenset())
    if cause.kind == "query_pileup" and symptom.subject.pool is not None:
        return explained - {"pool_starvation"} if _is_in_pool(cause, symptom) else explained
    if cause.kind == "pool_starvation" and symptom.kind == "leak" and _is_lost_past(cause, symptom, lasting):
        return explained - {"leak"}
    if cause.kind == "leak" and symptom.kind == "pool_starvation" and _is_lost_past(symptom, cause, lasting):
        return explained | {"pool_starvation"}
    return explained | {"query_pileup"} if _is_in_pool(symptom, cause) else explained


def _is_in_pool(piled_up: Finding, starved: Finding) -> bool:
    """Whether all the sessions that pile up are lent by a pooler's pool that is empty."""
    if piled_up.kind != "query_pileup" or starved.kind != "pool_starvation" or starved.subject.pool is None:
        return False
    ours, theirs = piled_up.subject, starved.subject
    return None not in (ours.database, ours.user) and (ours.database, ours.user) == (theirs.database, theirs.user)


def _is_lost_past(starved: Finding, leak: Finding, lasting: Collection[Key]) -> bool:
    """Whether more sessions are lost than the empty pools have, and more go on to be lost: no pool bounds them."""
    if starved.subject.pool is not None:
        return leak.sessions > starved.sessions
    if (starved.kind, starved.key) in lasting or (leak.severity == "warning" and starved.severity == "critical"):
        return False
    return leak.sessions > LOST_PAST_FACTOR * starved.sessions and 0 < leak.exhaustion_seconds < math.inf


def _reaches_endpoint(cause: Finding, symptom: Finding) -> bool:
    """Whether an endpoint may suffer from a cause; one that failed long before has another."""
    if symptom.since < cause.since - ONSET_SLACK_SECONDS:
        return False
    # A cause that takes everybody's slots, locks or way in hurts every service; one inside a service only its own.
    return cause.kind not in WITHIN_A_SERVICE or _agree(cause.subject.application, symptom.subject.application)


def _is_of_the_same(cause: Finding, symptom: Finding) -> bool:
    """Whether both are about the same client in the same database, as far as that is known."""
    ours, theirs = cause.subject, symptom.subject
    if not _agree(ours.database, theirs.database):
        return False
    if cause.kind == "lock_pileup" and symptom.kind != "idle_in_transaction":
        return True  # its subject is the blocker, and whoever waits for it is somebody else
    if symptom.kind == "idle_in_transaction" and not _agree(ours.blocker, theirs.blocker):
        return False
    return _agree(ours.application, theirs.application) and _agree(ours.user, theirs.user)


def _agree(ours: str | int | None, theirs: str | int | None) -> bool:
    return ours is None or theirs is None or ours == theirs
