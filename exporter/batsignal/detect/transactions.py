"""Calls a transaction that was left open: its client has gone on to something else, and it still holds what it holds.

Signature (docs/detection.md): a session rests in a transaction that has written, for minutes; or others wait for it.
What merely rests in a transaction holds nothing that hurts: a dump's leader, a tool that begins one with each window,
a pool between two statements. Owns the judgement and its words; who blocks whom is `blocking`'s.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from batsignal.detect import headroom, wording
from batsignal.detect.blame import versions_of
from batsignal.detect.blocking import Blockade, Blocking
from batsignal.detect.signal import Finding, Severity
from batsignal.detect.window import Window
from batsignal.detect.writes import IDLE_IN_TRANSACTION, Writes
from batsignal.snapshot import Session

# A transaction that rests for five minutes and holds the rows that it wrote: nobody is coming back to it.
OPEN_SECONDS = 300.0
# Waits of 4 s for a lock are everyday life; a queue is called after 8 s. In between, one that waits is enough.
BLOCKS_SECONDS = 6.0
# One is left open; more of the same are being lost, and a leak is to be called for that (as soon as it can be).
FORGOTTEN_SESSIONS = 1
LOST_SECONDS = 900.0
# A pool at work rests between two statements for less.
LEFT_SECONDS = 5.0
# Those that it blocked gave up: the next one comes soon, and the page stays until then.
CALM_SECONDS = 15.0
CLEAR_SECONDS = 5.0
STATEMENT_LENGTH = 160
Group = tuple[str, ...]


@dataclass(slots=True)
class _Lit:
    """What is remembered of an application while one of its transactions is lit."""

    since: float
    finding: Finding
    blocked_at: float | None
    blockers: frozenset[tuple[int, float | None]]
    """Those of its sessions for whom others have waited for long enough."""
    over_seconds: float = 0.0


class TransactionDetector:
    """Finds transactions that are left open, application by application."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking
        self._writes = Writes()
        self._lit: dict[Group, _Lit] = {}
        self._last: tuple[Finding, ...] = ()

    def look(self, window: Window) -> Iterable[Finding]:
        """Return what is left open at this tick. A look that failed changes nothing."""
        snapshot = window.snapshot
        if snapshot is None or window.t != snapshot.t:
            return self._last
        if window.begins:
            self._lit.clear()
        self._writes.add(window)
        resting = [session for session in snapshot.sessions if session.state == IDLE_IN_TRANSACTION]
        blocking = {
            (one.session.pid, one.session.backend_start): one
            for one in self._blocking.blockades
            if one.session is not None and one.session.state == IDLE_IN_TRANSACTION
        }
        groups: dict[Group, list[Session]] = defaultdict(list)
        for session in resting:
            groups[window.group_of(session)].append(session)
        seen = set()
        for group, sessions in groups.items():
            blockades = [blocking[session.key] for session in sessions if session.key in blocking]
            if self._judge(group, sessions, blockades, window):
                seen.add(group)
        self._fade(seen, window)
        self._last = tuple(lit.finding for lit in self._lit.values())
        return self._last

    def _judge(self, group: Group, sessions: Sequence[Session], blockades: Sequence[Blockade], window: Window) -> bool:
        """Judge the transactions of one application; return whether something is said of it now."""
        t, lit = window.t, self._lit.get(group)
        # While lit, whoever is behind the same session counts at once; behind another one they wait as every day.
        known = frozenset() if lit is None or lit.blocked_at is None else lit.blockers
        blockers = {
            one.session.key: one
            for one in blockades
            if one.session is not None and (one.seconds >= BLOCKS_SECONDS or one.session.key in known)
        }
        holding = [session for session in sessions if self._holds(session, window)]
        patience = OPEN_SECONDS if len(holding) <= FORGOTTEN_SESSIONS else LOST_SECONDS
        old = [session for session in holding if _rested_seconds(session, t) >= patience]
        if lit is not None and not blockers:  # what it was lit for goes on, blocking or not
            old = old or [one for one in holding if one.state_change is not None and one.state_change <= lit.since]
        culprits = [session for session in sessions if session.key in blockers] or old
        if not culprits:
            return False
        blocked_at = t if blockers else None if lit is None else lit.blocked_at
        still = blocked_at is not None and t - blocked_at <= CALM_SECONDS
        if not blockers and not still and not any(_rested_seconds(one, t) >= OPEN_SECONDS for one in culprits):
            return False
        # Not after this look, whatever a server's clock that was set back has left in its rows.
        changes = [one.state_change for one in culprits if one.state_change is not None]
        since = min([t, *changes]) if lit is None else lit.since
        severity: Severity = "critical" if still else "warning"
        finding = _finding(group, culprits, tuple(blockers.values()), window, since=since, severity=severity)
        self._lit[group] = _Lit(since, finding, blocked_at if still else None, known | blockers.keys())
        return True

    def _holds(self, session: Session, window: Window) -> bool:
        """Return whether it is left, not only between two statements, and holds what it wrote."""
        track = window.track_of(session)
        if track is None or _rested_seconds(session, window.t) < LEFT_SECONDS:
            return False
        return self._writes.holds(track, window)

    def _fade(self, seen: set[Group], window: Window) -> None:
        for group in [group for group in self._lit if group not in seen]:
            lit = self._lit[group]
            lit.over_seconds += min(window.looked_seconds or 0.0, CLEAR_SECONDS / 2)
            lit.finding = replace(lit.finding, fading=True)
            if lit.over_seconds >= CLEAR_SECONDS:
                del self._lit[group]


def _rested_seconds(session: Session, t: float) -> float:
    return 0.0 if session.state_change is None else t - session.state_change


def _finding(
    group: Group,
    culprits: Sequence[Session],
    blockades: Sequence[Blockade],
    window: Window,
    *,
    since: float,
    severity: Severity,
) -> Finding:
    subject = headroom.subject_of(window, culprits)
    if len(culprits) == 1:
        subject = replace(subject, blocker=culprits[0].pid)
    who = wording.culprit(subject)
    blocked = sum(len(one.waiters) for one in blockades)
    what = "a transaction" if len(culprits) == 1 else f"{len(culprits)} transactions"
    it = "it" if len(culprits) == 1 else "them"
    hurts = f"{wording.sessions(blocked)} wait{'s' if blocked == 1 else ''} for {it}"
    return Finding(
        kind="idle_in_transaction",
        key=group,
        severity=severity,
        subject=subject,
        since=since,
        sessions=len(culprits),
        evidence=tuple(_evidence(culprits, blockades, window)),
        summary=f"{who} has left {what} open for {wording.duration(window.t - since)}; "
        + (hurts if blocked else f"nobody waits for {it} yet"),
        undo=f"Find what in {who} forgets to end its transaction.",
        action="End the transaction that is left open (runbook): it is rolled back.",
        versions=versions_of(window.who(session).version for session in culprits),
    )


def _evidence(culprits: Sequence[Session], blockades: Sequence[Blockade], window: Window) -> Iterable[str]:
    for session in culprits[:3]:
        began = (
            "" if session.xact_start is None else f", its transaction began {wording.clock_time(session.xact_start)}"
        )
        yield f"pid {session.pid} rests for {wording.duration(_rested_seconds(session, window.t))}{began}"
    query = wording.common(session.query for session in culprits)
    if query:
        yield f"its last statement: {query[:STATEMENT_LENGTH]}"
    waiters = [session for one in blockades for session in one.waiters]
    if waiters:
        names = sorted({wording.culprit(headroom.subject_of(window, (session,))) for session in waiters})
        yield f"blocked: {', '.join(names[:3])}"
