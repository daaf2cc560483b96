"""Calls a query pile-up: one statement holds many sessions at once, and does not end.

Signature (docs/detection.md): executions of one statement, of a service that was at work before, began one after the
other, age together, and next to none of them ends; more come, or there is no session left for one. What runs, and what
is usual, is `statements`', which services run it together `crowds`'; this module owns the judgement and its words. It
has no clock: time is the snapshot's.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from batsignal.detect import headroom, wording
from batsignal.detect.blame import versions_of
from batsignal.detect.crowds import Crowd, GroupKey, crowds, train_of
from batsignal.detect.memory import Memory
from batsignal.detect.services import Services
from batsignal.detect.signal import Finding, Severity
from batsignal.detect.statements import LONG_SECONDS, Execution, StatementKey, Statements
from batsignal.detect.window import Window
from batsignal.snapshot import Session, fingerprint

# Many: more than anybody runs by hand or in a few reports at once. A pool of the smallest kind has as many.
PILE_SESSIONS = 6
# And clearly more than there usually are: traffic that doubles must not do.
USUAL_FACTOR = 2.0
USUAL_SLACK = 2
# The oldest of them. A report that ten people ask for at once is over by then; the bound leaves four seconds.
PILE_SECONDS = 10.0
# It grows: the newest came within this time, and the begins are spread over that one.
NEWEST_SECONDS = 5.0
SPREAD_SECONDS = 5.0
# Or it cannot grow: the pools that run it have hardly another session. A burst of them must last a little longer.
WHOLE_POOL_RATIO = 0.7
BURST_SECONDS = 12.0
# Of what began with it, so much may have ended: a few are lucky. What is usual and slow ends as often as it begins.
ENDED_RATIO = 0.25
# When everything is slow, no statement is to blame: of all that became long in the same time, it is the better half.
SHARE_OF_LONG_RATIO = 0.5
# A batch that is started bit by bit looks like a pile-up of a service that nobody knew: it warns when it has grown for
# so long, and wakes somebody when the slots are going.
BATCH_SESSIONS = 12
BATCH_SECONDS = 60.0
HEADROOM_RATIO = 0.8
HEADROOM_SLACK_RATIO = 0.05
# Of a statement that always had some slow ones among many quick ones, more of both are traffic that came back. It is no
# batch either, and is judged as one: by now so many times as many end quickly as begin and do not.
QUICK_FACTOR = 3.0
SLOW_BEFORE = 2
# At our own start nobody knows what is usual: so many more must have come before our eyes as make a pile, or so long
# must we have seen for ourselves that none ends.
WATCHED_SECONDS = 60.0
CLEAR_SECONDS = 10.0
STATEMENT_LENGTH = 200
SERVICES_NAMED = 3


@dataclass(slots=True)
class _Lit:
    """What is remembered of a pile-up while it is lit. `is_batch`: it may as well be a batch of a service unknown.

    `is_mixed`: it may as well be the slow ones among many quick ones that there always were.
    `groups` are the services that run it, the one first that ran most of it at the raise.
    """

    groups: tuple[GroupKey, ...]
    since: float
    harmless_at: float | None
    is_batch: bool
    is_mixed: bool
    finding: Finding | None = None
    count: int = 0
    fewer_seconds: float = 0.0


class PileupDetector:
    """Finds statements that pile up."""

    def __init__(self) -> None:
        self._statements = Statements()
        self._pace = headroom.Pace()
        self._services = Services()
        self._lit: dict[StatementKey, _Lit] = {}
        self._last: tuple[Finding, ...] = ()

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the pile-ups of this tick. A look that failed changes nothing."""
        if window.snapshot is None or window.t != window.snapshot.t:
            return self._last
        if window.began == window.t:
            self._statements.clear()
            self._services.clear()
            self._lit.clear()
        self._pace.add(window)
        self._services.add(window)
        moved = list(self._statements.add(window))
        everything = sorted(one.start for statement in moved for one in statement.long)
        told = {(group, first[1]): first for first, lit in self._lit.items() for group in lit.groups}
        found = [(told.get(one.key, one.key), one) for one in crowds(moved, told, self._services.were_at_work)]
        found.sort(key=lambda item: (item[0] not in self._lit, -len(item[1].long), item[0]))
        seen = {key for key, crowd in found if self._judge(key, crowd, everything, window)}
        self._fade(seen, window)
        self._last = tuple(lit.finding for lit in self._lit.values() if lit.finding is not None)
        return self._last

    def remembered(self) -> Memory:
        """Return what is usual of statements, for the next life of the daemon."""
        harmful = {(group, name): lit.since for (_, name), lit in self._lit.items() for group in lit.groups}
        return self._statements.remembered(harmful)

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered; raises ValueError, TypeError or KeyError when it does not fit."""
        self._statements.recall(memory)

    # -- the judgement ---------------------------------------------------------------------------------------------

    def _judge(self, key: StatementKey, crowd: Crowd, everything: Sequence[float], window: Window) -> bool:
        """Judge what runs of one statement; return whether something is said of it now."""
        lit = self._lit.get(key)
        if lit is None:
            lit = self._raised(key, crowd, everything, window)
            if lit is None:
                return False
            self._lit[key] = lit
        elif len(crowd.long) < PILE_SESSIONS / 2:
            return False
        lit.groups += tuple(group for group in crowd.groups if group not in lit.groups)
        lit.count, lit.fewer_seconds = len(crowd.long), 0.0
        if lit.is_mixed and crowd.whole_pool_ratio >= WHOLE_POOL_RATIO:
            lit.is_mixed = crowd.quick_since(window.t - PILE_SECONDS) > 0  # or they have left those no session
        lit.finding = self._finding(key, crowd, lit, window)
        return True

    def _raised(self, key: StatementKey, crowd: Crowd, everything: Sequence[float], window: Window) -> _Lit | None:
        """Return what is to be remembered of a statement that piles up; None while it is everyday life."""
        if len(crowd.long) < PILE_SESSIONS:
            return None
        pile = train_of(crowd.long)
        since = pile[0].start
        if not self._is_pile(crowd, pile, everything, window):
            return None
        is_batch = not self._services.were_at_work(key[0], since)
        is_mixed = crowd.ended_before(since) >= SLOW_BEFORE and _goes_on_quickly(crowd, window.t)
        may_be_usual = is_batch or is_mixed
        if (may_be_usual and not self._is_long_batch(pile, window)) or self._is_brought_about(crowd, len(pile)):
            return None
        harmless_at = self._statements.quick(key[1], since)
        return _Lit(crowd.groups, since, harmless_at=harmless_at, is_batch=is_batch, is_mixed=is_mixed)

    def _is_pile(self, crowd: Crowd, pile: Sequence[Execution], everything: Sequence[float], window: Window) -> bool:
        """Whether so many are more than usual, old, more all the time or all there can be, and do not end."""
        t, since = window.t, pile[0].start
        # Just before the first of the pile became long, none of it was: what was long then is what there usually is.
        usual = max(crowd.usual(since), crowd.count_before(since + LONG_SECONDS))
        least = max(PILE_SESSIONS, USUAL_FACTOR * usual + USUAL_SLACK)
        ended = crowd.ended_since(since)
        if len(pile) < least or t - since < PILE_SECONDS or ended > ENDED_RATIO * (len(pile) + ended):
            return False
        if len(pile) < SHARE_OF_LONG_RATIO * sum(1 for start in everything if start >= since):
            return False
        if since < window.began and not self._is_seen(crowd, len(pile), window):
            return False
        newest = max(one.start for one in crowd.running.values())
        if t - newest <= NEWEST_SECONDS and newest - since >= SPREAD_SECONDS:
            return True
        return t - since >= BURST_SECONDS and crowd.whole_pool_ratio >= WHOLE_POOL_RATIO

    @staticmethod
    def _is_seen(crowd: Crowd, count: int, window: Window) -> bool:
        """Whether enough of it happened before our eyes: that it grew, or that for long none ended."""
        if count - crowd.at_start >= PILE_SESSIONS:
            return True
        return window.t - window.began >= WATCHED_SECONDS and not crowd.ended_since(-math.inf)

    @staticmethod
    def _is_long_batch(pile: Sequence[Execution], window: Window) -> bool:
        if headroom.used_ratio(window, [one.session for one in pile]) >= HEADROOM_RATIO:
            return True
        return len(pile) >= BATCH_SESSIONS and pile[-1].start - pile[0].start >= BATCH_SECONDS

    def _is_brought_about(self, crowd: Crowd, count: int) -> bool:
        """Whether another pile-up that is lit explains this one: it slows everything down, its own service first."""
        return any(lit.count > count or set(lit.groups) & set(crowd.groups) for lit in self._lit.values())

    def _fade(self, seen: set[StatementKey], window: Window) -> None:
        """Hold for a moment what has become few. Time in which nobody looked does not count."""
        for key in [key for key in self._lit if key not in seen]:
            lit = self._lit[key]
            lit.fewer_seconds += min(window.looked_seconds or 0.0, CLEAR_SECONDS / 4)
            if lit.finding is not None:
                lit.finding = replace(lit.finding, fading=True)
            if lit.fewer_seconds >= CLEAR_SECONDS:
                del self._lit[key]

    # -- the words -------------------------------------------------------------------------------------------------

    def _finding(self, key: StatementKey, crowd: Crowd, lit: _Lit, window: Window) -> Finding:
        sessions = crowd.sessions
        group, name = key
        subject = replace(headroom.subject_of(window, sessions), query_id=crowd.statement_id)
        exhaustion = self._pace.exhaustion_seconds(window, lit.since)
        who, count = _who(crowd, lit, window) or wording.culprit(subject), len(crowd.running)
        share = headroom.share(window, count)
        return Finding(
            kind="query_pileup",
            key=(*group, fingerprint(name)),
            severity=self._severity(sessions, lit, window),
            subject=subject,
            since=lit.since,
            sessions=count,
            exhaustion_seconds=exhaustion,
            evidence=tuple(_evidence(crowd, lit, window)),
            summary=f"one statement of {who} piles up: {wording.sessions(count)} run it at once"
            + (f", {share}" if share else "")
            + headroom.left(window, exhaustion),
            undo=_undo(who, lit),
            action="Then cancel what runs of it (runbook).",
            versions=versions_of(window.who(session).version for session in sessions),
            harmless_at=lit.harmless_at,
        )

    @staticmethod
    def _severity(sessions: Sequence[Session], lit: _Lit, window: Window) -> Severity:
        if not (lit.is_batch or lit.is_mixed):
            return "critical"
        was_critical = lit.finding is not None and lit.finding.severity == "critical"
        slack = HEADROOM_SLACK_RATIO if was_critical else 0.0
        used = headroom.used_ratio(window, sessions)
        return "critical" if used >= HEADROOM_RATIO - slack else "warning"


def _goes_on_quickly(crowd: Crowd, t: float) -> bool:
    """Whether most of what begins of a statement ends as quickly as ever: of what is quick, a look sees a part."""
    since = t - PILE_SECONDS
    begun = sum(1 for one in crowd.running.values() if one.start >= since)
    return crowd.quick_since(since) > QUICK_FACTOR * begun


def _who(crowd: Crowd, lit: _Lit, window: Window) -> str | None:
    """Name the services that run it, in the order in which they were told; None where it is one, as ever."""
    by_service = _by_service(crowd, window)
    names = [by_service[group][0] for group in lit.groups if group in by_service]
    if len(names) <= 1:
        return None
    if len(names) > SERVICES_NAMED:
        names[SERVICES_NAMED - 1 :] = [f"{len(names) - SERVICES_NAMED + 1} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _by_service(crowd: Crowd, window: Window) -> Mapping[GroupKey, tuple[str, int]]:
    """Return of each service that runs it for long its name and how many sessions do."""
    return {
        one.key[0]: (
            wording.culprit(headroom.subject_of(window, (each.session for each in one.long))),
            len(one.long),
        )
        for one in crowd.members
        if one.long
    }


def _evidence(crowd: Crowd, lit: _Lit, window: Window) -> Iterable[str]:
    oldest = wording.duration(window.t - min(one.start for one in crowd.running.values()))
    yield (
        f"{wording.sessions(len(crowd.running))} run it, {len(crowd.long)} for more than "
        f"{wording.duration(LONG_SECONDS)}, the oldest for {oldest}; {crowd.ended_since(lit.since)} have ended"
    )
    counts = dict(_by_service(crowd, window).values())
    if len(counts) > 1:
        yield f"they are of {wording.largest(counts)}"
    text = next((one.session.query for one in crowd.long if one.session.query), None)
    if text:
        yield f"the statement: {text[:STATEMENT_LENGTH]}"
    if lit.harmless_at is not None:
        yield f"until {wording.clock_time(lit.harmless_at)} it was seen to end quickly"
    waits = Counter(one.session.wait_event or "the processor" for one in crowd.long).most_common(2)
    yield "it waits for: " + ", ".join(f"{name} {count}" for name, count in waits)
    hosts = {one.session.client_addr for one in crowd.long if one.session.client_addr}
    if len(hosts) > 1:
        yield f"from {len(hosts)} client addresses"


def _undo(who: str, lit: _Lit) -> str:
    if lit.is_batch:
        return f"Ask who runs {who} whether it is a batch; if it is not, stop it."
    if lit.is_mixed:
        return f"Ask who runs {who} whether it is usual; most of this statement ends as quickly as ever."
    if lit.harmless_at is not None:
        return "The statement is an old one: undo what changed its plan (a dropped index, statistics, much more data)."
    return f"Undo what brought this statement into {who}."
