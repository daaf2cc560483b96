"""Calls a lock pile-up: sessions queue behind one blocker, and the subject is the blocker.

Signature (docs/detection.md): one transaction stands in the way of several sessions without a break, for longer than
everyday waits last. Who blocks whom, and since when, is `blocking`'s; this module owns the judgement and its words.
It has no clock: time is the snapshot's.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from batsignal.detect import headroom, wording
from batsignal.detect.blame import versions_of
from batsignal.detect.blocking import PREPARED, Blockade, Blocking
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.window import Window
from batsignal.detect.writes import IDLE_IN_TRANSACTION
from batsignal.snapshot import Session

# A lock is waited for 4 s every day, many times and by many; twice that by the same transaction is not every day.
BLOCKED_SECONDS = 8.0
# One who waits is no queue, and two may be a migration and whoever comes after it.
QUEUE_SESSIONS = 3
# But two that have waited for a minute are stuck: somebody should look in the morning.
PAIR_SECONDS = 60.0
# Who takes an advisory lock asked to wait: a leader's stand-bys do so for hours. Of them only many are worth a word.
ADVISORY_SESSIONS = 8
# A queue may be empty for a moment: all in it gave up at once, and come again.
CLEAR_SECONDS = 5.0
STATEMENT_LENGTH = 160


@dataclass(slots=True)
class _Lit:
    """What is remembered of a queue while it is lit."""

    since: float
    severity: Severity
    finding: Finding
    transaction: float | None
    empty_seconds: float = 0.0


class LockDetector:
    """Finds queues behind one blocker."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking
        self._pace = headroom.Pace()
        self._lit: dict[tuple[str, ...], _Lit] = {}
        self._last: tuple[Finding, ...] = ()

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the queues of this tick. A look that failed changes nothing."""
        if window.has_failed:
            return self._last
        if window.begins:
            self._lit.clear()
        self._pace.add(window)
        seen: set[tuple[str, ...]] = set()
        for blockade in self._blocking.blockades:
            key = _key(blockade)
            severity = _severity(blockade)
            lit = self._lit.get(key)
            # A blocker that goes on with another transaction, and blocks for a moment, is everyday life again.
            goes_on = lit is not None and lit.transaction == blockade.key[2]
            if key in seen or (severity is None and not goes_on):
                continue
            seen.add(key)
            since = blockade.since if lit is None else lit.since
            worst: Severity = "critical" if "critical" in {severity, lit.severity if lit else None} else "warning"
            finding = replace(
                _finding(blockade, since, window, self._pace.exhaustion_seconds(window, since)), key=key, severity=worst
            )
            self._lit[key] = _Lit(since, worst, finding, blockade.key[2])
        self._fade(seen, window)
        self._last = tuple(lit.finding for lit in self._lit.values())
        return self._last

    def _fade(self, seen: set[tuple[str, ...]], window: Window) -> None:
        """Hold for a moment what nobody waits for any more. Time in which nobody looked does not count."""
        for key in [key for key in self._lit if key not in seen]:
            lit = self._lit[key]
            lit.empty_seconds += min(window.looked_seconds or 0.0, CLEAR_SECONDS / 2)
            lit.finding = replace(lit.finding, fading=True)
            if lit.empty_seconds >= CLEAR_SECONDS:
                del self._lit[key]


def _severity(blockade: Blockade) -> Severity | None:
    """Return how bad a queue is by itself, None when it is everyday life so far.

    A blocker that rests in its transaction wakes somebody from the first waiter on (`transactions`): nothing is to be
    warned of beside it.
    """
    advisory = sum(1 for session in blockade.waiters if session.wait_event == "advisory")
    queue = len(blockade.waiters) - advisory
    if queue >= QUEUE_SESSIONS and blockade.seconds >= BLOCKED_SECONDS:
        return "critical"
    if blockade.session is not None and blockade.session.state == IDLE_IN_TRANSACTION:
        return None
    if queue >= QUEUE_SESSIONS - 1 and blockade.seconds >= PAIR_SECONDS:
        return "warning"
    return "warning" if advisory >= ADVISORY_SESSIONS and blockade.seconds >= BLOCKED_SECONDS else None


def _key(blockade: Blockade) -> tuple[str, ...]:
    """Return the blocker's identity: the session, not the transaction, which may not be told at first."""
    if blockade.pid is None:
        return ("unknown",)
    started = "" if blockade.session is None else f"{blockade.session.backend_start}"
    return ("blocker", str(blockade.pid), started)


def _finding(blockade: Blockade, since: float, window: Window, exhaustion: float) -> Finding:
    blocker = blockade.session if blockade.pid is not None else _suspect(blockade, window)
    count = len(blockade.waiters)
    subject = _subject(blockade, blocker, window)
    who = _who(blockade, blocker, subject)
    waits = wording.duration(window.t - since)
    return Finding(
        kind="lock_pileup",
        key=(),
        severity="warning",
        subject=subject,
        since=since,
        sessions=count,
        exhaustion_seconds=exhaustion,
        evidence=tuple(_evidence(blockade, blocker, window)),
        summary=f"{who} blocks {wording.sessions(count)} that wait for its locks, for {waits} by now"
        f"{headroom.left(window, exhaustion)}",
        action=_action(blockade, blocker, who, window),
        versions=versions_of((subject.version,)),
    )


def _suspect(blockade: Blockade, window: Window) -> Session | None:
    """Return who must be the blocker where nobody tells it: the only one whose transaction could hold such a lock.

    A transaction that is left open and has written, begun before the first wait, in the database of those that wait;
    None when there is none or more than one.
    """
    snapshot = window.snapshot
    databases = {session.datname for session in blockade.waiters}
    found = [
        session
        for session in (() if snapshot is None else snapshot.sessions)
        if session.state == "idle in transaction"
        and session.datname in databases
        and (session.state_change or 0.0) <= blockade.since
    ]
    written = [session for session in found if session.backend_xid is not None]
    found = written or found
    return found[0] if len(found) == 1 else None


def _subject(blockade: Blockade, blocker: Session | None, window: Window) -> Subject:
    if blocker is not None:
        return replace(headroom.subject_of(window, (blocker,)), blocker=blocker.pid)
    # All that is known of a prepared transaction, or of a blocker that is hidden: it is where those are that wait.
    return Subject(database=wording.common(one.datname for one in blockade.waiters), blocker=blockade.pid)


def _who(blockade: Blockade, blocker: Session | None, subject: Subject) -> str:
    if blockade.pid == PREPARED:
        return "a prepared transaction"
    if blocker is None:
        return "a blocker that cannot be seen" if blockade.pid is None else "a session that is shown nowhere"
    if not blocker.is_client:
        article = "an" if (blocker.backend_type or "")[:1] in "aeiou" else "a"
        return f"{article} {blocker.backend_type or 'process of the server'}"
    return wording.culprit(subject)


def _evidence(blockade: Blockade, blocker: Session | None, window: Window) -> Iterable[str]:
    if blocker is not None:
        yield f"the blocker is pid {blocker.pid}, {_doing(blocker)}"
        if blocker.xact_start is not None:
            yield f"its transaction began at {wording.clock_time(blocker.xact_start)}"
        if blocker.query:
            yield f"its last statement: {blocker.query[:STATEMENT_LENGTH]}"
        if blockade.pid is None:
            yield "nobody tells who blocks: it is the only one that could"
    blocked = Counter(
        wording.culprit(headroom.subject_of(window, (session,))) for session in blockade.waiters
    ).most_common(3)
    yield "blocked: " + ", ".join(f"{name} {count}" for name, count in blocked)
    first = _first(blockade)
    if first is not None and first.query:
        who = wording.culprit(headroom.subject_of(window, (first,)))
        yield f"first in the queue: {who}, {first.query[:STATEMENT_LENGTH]}"


def _doing(blocker: Session) -> str:
    since = "" if blocker.state_change is None else f" since {wording.clock_time(blocker.state_change)}"
    return f"{blocker.state or blocker.backend_type or 'in an unknown state'}{since}"


def _first(blockade: Blockade) -> Session | None:
    """Return who stands at the head of the queue: the first of those that wait for the blocker itself."""
    direct = [session for session in blockade.waiters if blockade.pid in session.blocked_by]
    return min(direct, key=lambda one: one.query_start or 0.0, default=None)


def _action(blockade: Blockade, blocker: Session | None, who: str, window: Window) -> str:
    if blockade.pid == PREPARED:
        return (
            "Commit or roll back the prepared transaction (pg_prepared_xacts lists them), and find out who forgot it."
        )
    if blocker is None:
        return "Find the blocker with pg_blocking_pids() (runbook), and end its transaction."
    if blocker.state is not None and blocker.state.startswith("idle"):
        since = "" if blocker.state_change is None else f" since {wording.clock_time(blocker.state_change)}"
        return f"End the transaction that {who} has left open{since} (runbook), and undo what makes it forget them."
    first = _first(blockade)
    if first is not None and len(first.blocked_by) and any(first.pid in one.blocked_by for one in blockade.waiters):
        next_in_line = wording.culprit(headroom.subject_of(window, (first,)))
        if next_in_line != who:
            return (
                f"Cancel what {who} runs, or what waits for it in everybody's way: the statement of {next_in_line}. "
                "Either frees the queue (runbook)."
            )
    return f"Cancel what {who} runs: the queue goes on at once (runbook). Undo what started it."
