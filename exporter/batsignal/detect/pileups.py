"""Calls a query pile-up: one statement holds many sessions at once, and does not end.

Signature (docs/detection.md): executions of one statement, of a service that was at work before, began one after the
other, age together, and next to none of them ends; more come, or there is no session left for one. What runs, and what
is usual, is `statements`'; this module owns the judgement and its words. It has no clock: time is the snapshot's.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from batsignal.detect import headroom, wording
from batsignal.detect.blame import versions_of
from batsignal.detect.memory import Memory
from batsignal.detect.services import Services
from batsignal.detect.signal import Finding, Severity
from batsignal.detect.statements import LONG_SECONDS, Execution, Statement, StatementKey, Statements
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
# The onset: a gap this many times the usual one, and no shorter than that, is before it.
GAP_FACTOR = 6.0
GAP_LEAST_SECONDS = 5.0
# A batch that is started bit by bit looks like a pile-up of a service that nobody knew: it warns when it has grown for
# so long, and wakes somebody when the slots are going.
BATCH_SESSIONS = 12
BATCH_SECONDS = 60.0
HEADROOM_RATIO = 0.8
HEADROOM_SLACK_RATIO = 0.05
# At our own start nobody knows what is usual: so many more must have come before our eyes as make a pile, or so long
# must we have seen for ourselves that none ends.
WATCHED_SECONDS = 60.0
CLEAR_SECONDS = 10.0
STATEMENT_LENGTH = 200


@dataclass(slots=True)
class _Lit:
    """What is remembered of a pile-up while it is lit. `is_batch`: it may as well be a batch of a service unknown."""

    since: float
    harmless_at: float | None
    is_batch: bool
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
        by_size = sorted(moved, key=lambda one: (one.key not in self._lit, -len(one.long), one.key))
        seen = {one.key for one in by_size if self._judge(one, everything, window)}
        self._fade(seen, window)
        self._last = tuple(lit.finding for lit in self._lit.values() if lit.finding is not None)
        return self._last

    def remembered(self) -> Memory:
        """Return what is usual of statements, for the next life of the daemon."""
        return self._statements.remembered({key: lit.since for key, lit in self._lit.items()})

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered; raises ValueError, TypeError or KeyError when it does not fit."""
        self._statements.recall(memory)

    # -- the judgement ---------------------------------------------------------------------------------------------

    def _judge(self, statement: Statement, everything: Sequence[float], window: Window) -> bool:
        """Judge one statement; return whether something is said of it now."""
        lit = self._lit.get(statement.key)
        if lit is None:
            lit = self._raised(statement, everything, window)
            if lit is None:
                return False
            self._lit[statement.key] = lit
        elif len(statement.long) < PILE_SESSIONS / 2:
            return False
        lit.count, lit.fewer_seconds = len(statement.long), 0.0
        lit.finding = self._finding(statement, lit, window)
        return True

    def _raised(self, statement: Statement, everything: Sequence[float], window: Window) -> _Lit | None:
        """Return what is to be remembered of a statement that piles up; None while it is everyday life."""
        if len(statement.long) < PILE_SESSIONS:
            return None
        pile = _pile(statement.long)
        since = pile[0].start
        if not self._is_pile(statement, pile, everything, window):
            return None
        is_batch = not self._services.were_at_work(statement.key[0], since)
        if (is_batch and not self._is_long_batch(pile, window)) or self._is_brought_about(statement, len(pile)):
            return None
        return _Lit(since=since, harmless_at=self._statements.quick(statement.key[1], since), is_batch=is_batch)

    def _is_pile(
        self, statement: Statement, pile: Sequence[Execution], everything: Sequence[float], window: Window
    ) -> bool:
        """Whether so many are more than usual, old, more all the time or all there can be, and do not end."""
        t, since = window.t, pile[0].start
        # Just before the first of the pile became long, none of it was: what was long then is what there usually is.
        usual = max(statement.usual(since), statement.count_before(since + LONG_SECONDS))
        least = max(PILE_SESSIONS, USUAL_FACTOR * usual + USUAL_SLACK)
        ended = statement.ended_since(since)
        if len(pile) < least or t - since < PILE_SECONDS or ended > ENDED_RATIO * (len(pile) + ended):
            return False
        if len(pile) < SHARE_OF_LONG_RATIO * sum(1 for start in everything if start >= since):
            return False
        if since < window.began and not self._is_seen(statement, len(pile), window):
            return False
        newest = max(one.start for one in statement.running.values())
        if t - newest <= NEWEST_SECONDS and newest - since >= SPREAD_SECONDS:
            return True
        return t - since >= BURST_SECONDS and _whole_pool_ratio(statement) >= WHOLE_POOL_RATIO

    @staticmethod
    def _is_seen(statement: Statement, count: int, window: Window) -> bool:
        """Whether enough of it happened before our eyes: that it grew, or that for long none ended."""
        if count - statement.at_start >= PILE_SESSIONS:
            return True
        return window.t - window.began >= WATCHED_SECONDS and not statement.ended_since(-math.inf)

    @staticmethod
    def _is_long_batch(pile: Sequence[Execution], window: Window) -> bool:
        if headroom.used_ratio(window, [one.session for one in pile]) >= HEADROOM_RATIO:
            return True
        return len(pile) >= BATCH_SESSIONS and pile[-1].start - pile[0].start >= BATCH_SECONDS

    def _is_brought_about(self, statement: Statement, count: int) -> bool:
        """Whether another pile-up that is lit explains this one: it slows everything down, its own service first."""
        return any(
            key != statement.key and (key[0] == statement.key[0] or lit.count > count) for key, lit in self._lit.items()
        )

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

    def _finding(self, statement: Statement, lit: _Lit, window: Window) -> Finding:
        sessions = [one.session for one in statement.long]
        group, name = statement.key
        subject = replace(headroom.subject_of(window, sessions), query_id=_statement_id(statement))
        exhaustion = self._pace.exhaustion_seconds(window)
        who, count = wording.culprit(subject), len(statement.running)
        share = headroom.share(window, count)
        return Finding(
            kind="query_pileup",
            key=(*group, fingerprint(name)),
            severity=self._severity(sessions, lit, window),
            subject=subject,
            since=lit.since,
            sessions=count,
            exhaustion_seconds=exhaustion,
            evidence=tuple(_evidence(statement, lit, window)),
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
        if not lit.is_batch:
            return "critical"
        was_critical = lit.finding is not None and lit.finding.severity == "critical"
        slack = HEADROOM_SLACK_RATIO if was_critical else 0.0
        used = headroom.used_ratio(window, sessions)
        return "critical" if used >= HEADROOM_RATIO - slack else "warning"


def _pile(long: Sequence[Execution]) -> list[Execution]:
    """Return those that came one after the other up to the newest: what ran for long before is not of the pile."""
    gaps = [later.start - earlier.start for earlier, later in pairwise(long)]
    longest = max(GAP_FACTOR * median(gaps), GAP_LEAST_SECONDS) if gaps else GAP_LEAST_SECONDS
    begin = next((index + 1 for index in range(len(gaps) - 1, -1, -1) if gaps[index] > longest), 0)
    return list(long[begin:])


def _whole_pool_ratio(statement: Statement) -> float:
    """Return the share that runs the statement, of all sessions of the origins in which it runs: usually of pools."""
    origins = {id(one.track.origin): one.track.origin for one in statement.running.values()}
    held = sum(len(origin.tracks) for origin in origins.values())
    return len(statement.running) / held if held else 0.0


def _statement_id(statement: Statement) -> str | None:
    """Return the id that all of its executions have; those that are being planned have none yet, and do not count."""
    ids = Counter(one.session.query_id for one in statement.long if one.session.query_id is not None)
    if len(ids) == 1:
        return next(iter(ids))
    return None if ids else statement.long[0].session.statement_id if statement.long else None


def _evidence(statement: Statement, lit: _Lit, window: Window) -> Iterable[str]:
    oldest = wording.duration(window.t - min(one.start for one in statement.running.values()))
    yield (
        f"{wording.sessions(len(statement.running))} run it, {len(statement.long)} for more than "
        f"{wording.duration(LONG_SECONDS)}, the oldest for {oldest}; {statement.ended_since(lit.since)} have ended"
    )
    text = next((one.session.query for one in statement.long if one.session.query), None)
    if text:
        yield f"the statement: {text[:STATEMENT_LENGTH]}"
    if lit.harmless_at is not None:
        yield f"until {wording.clock_time(lit.harmless_at)} it was seen to end quickly"
    waits = Counter(one.session.wait_event or "the processor" for one in statement.long).most_common(2)
    yield "it waits for: " + ", ".join(f"{name} {count}" for name, count in waits)
    hosts = {one.session.client_addr for one in statement.long if one.session.client_addr}
    if len(hosts) > 1:
        yield f"from {len(hosts)} client addresses"


def _undo(who: str, lit: _Lit) -> str:
    if lit.is_batch:
        return f"Ask who runs {who} whether it is a batch; if it is not, stop it."
    if lit.harmless_at is not None:
        return "The statement is an old one: undo what changed its plan (a dropped index, statistics, much more data)."
    return f"Undo what brought this statement into {who}."
