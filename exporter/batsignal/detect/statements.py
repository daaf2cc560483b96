"""What runs now, statement by statement, and what each statement was like before.

Owns which sessions run which statement (`Running`), how many long ones there usually are at once, and until when a
statement was seen to end quickly. It judges nothing.

A statement is told by its normalised text, else by the server's id of it: one text has many ids where each tenant has
tables of its own, and a session has no id yet while its statement is being planned.
"""

import math
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from batsignal.detect.memory import Memory
from batsignal.detect.statement_past import StatementPast
from batsignal.detect.tracks import Track
from batsignal.detect.window import Window
from batsignal.snapshot import Session

# From this age on an execution is long: two looks see it, and requests that people wait for are over by then.
LONG_SECONDS = 3.0
# How many run at once is remembered for a day, in steps; of so many statements, those seen last.
STEP_SECONDS = 30.0
STEPS_KEPT = 48
COUNTS_KEPT = 256
QUICK_KEPT = 256
STATEMENTS_MOST = 2_000
QUICK_MOST = 4_000
# A statement that was seen to end quickly over so long a time is an old one: what a deploy brings is newer.
KNOWN_SECONDS = 300.0
# What begins and ends transactions.
_FRAMES = ("COMMIT", "ROLLBACK", "BEGIN", "END", "START TRANSACTION", "ABORT", "SET ", "PREPARE TRANSACTION", "LISTEN")
# Waits for the log to be on disk, here or on a standby: every statement that writes has them when that is slow.
_WRITTEN_DOWN = frozenset({"SyncRep", "WALSync", "WALWrite"})

StatementKey = tuple[tuple[str, ...], str]
"""Whose it is (the origin's group), and which."""
ExecutionKey = tuple[int, float | None, float]
"""The session, and when its statement began."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One session in the middle of a statement. `start` is when it began to run: after its last wait for a lock."""

    track: Track
    start: float

    @property
    def session(self) -> Session:
        return self.track.session

    @property
    def is_paused(self) -> bool:
        """Whether it is not over, but waits for what is not its own doing: its client, a lock, the log."""
        session = self.track.session
        is_there = self.track.origin.tracks.get(session.key) is self.track
        begun = _begun(session)
        return is_there and session.state == "active" and begun is not None and begun <= self.start


@dataclass(slots=True, eq=False)
class Statement:
    """One statement of one group through time: what runs of it, and what did."""

    key: StatementKey
    running: dict[ExecutionKey, Execution] = field(default_factory=dict)
    long: list[Execution] = field(default_factory=list)
    """Those of `running` that are long by now, the oldest first."""
    ended: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=256))
    """Of the long ones that are over: when each began and when it was gone."""
    steps: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=STEPS_KEPT))
    """How many long ones there were at once at the most: the begin of a step of time, and the number."""
    counts: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=COUNTS_KEPT))
    """How many long ones there were, at each look at which that changed."""
    at_start: int = 0
    """How many long ones there were at our own first look."""
    seen_at: float = 0.0
    quick: deque[tuple[float, str | None]] = field(default_factory=lambda: deque(maxlen=QUICK_KEPT))
    """Of those that were seen to be over quickly, since some were long: when each began, and its query id."""

    def usual(self, before: float) -> int:
        """Return how many long ones there were at once at the most, in steps that ended before an instant."""
        return max((most for begin, most in self.steps if begin + STEP_SECONDS <= before), default=0)

    def count_before(self, instant: float) -> int:
        """Return how many long ones there were at the last look before an instant."""
        return next((count for t, count in reversed(self.counts) if t < instant), 0)

    def ended_since(self, since: float) -> int:
        """Return how many began since an instant, became long, and are over."""
        return sum(1 for start, _ in self.ended if start >= since)

    def quick_since(self, since: float, ids: Collection[str | None]) -> int:
        """Return how many began since an instant and were over quickly, of those that are known by one of these ids.

        Tenants with tables of their own have one text and an id each: that the others' are quick says nothing.
        """
        return sum(1 for start, query_id in self.quick if start >= since and (query_id is None or query_id in ids))

    def update(self, running: Mapping[ExecutionKey, Execution], t: float) -> None:
        """Take in what of it runs at a look."""
        for key, one in self.running.items():
            if key not in running and t - one.start >= LONG_SECONDS and not one.is_paused:
                self.ended.append((one.start, t))
        self.running = dict(running)
        self.long = sorted(
            (one for one in running.values() if t - one.start >= LONG_SECONDS), key=lambda one: one.start
        )
        if self.long:
            self.seen_at = t
        if not self.counts or self.counts[-1][1] != len(self.long):
            self.counts.append((t, len(self.long)))
        begin = t - t % STEP_SECONDS
        if self.steps and self.steps[-1][0] == begin:
            self.steps[-1] = (begin, max(self.steps[-1][1], len(self.long)))
        elif self.long:
            self.steps.append((begin, len(self.long)))


class Statements:
    """Every statement that was seen to run for long, of one server."""

    def __init__(self) -> None:
        self._known: dict[StatementKey, Statement] = {}
        self._slow: set[str] = set()
        """The names of those, whoever runs them: of most statements that end quickly it need not be asked who did."""
        self._quick: dict[str, tuple[float, float]] = {}
        """Of each statement seen to end quickly: when first and when last. By statement, whoever ran it."""
        self._waited: dict[ExecutionKey, float] = {}
        """Of what runs or waits: when it was last seen to wait for a lock."""
        self._t: float | None = None
        self._past = StatementPast()

    def remembered(self, harmful_since: Mapping[StatementKey, float]) -> Memory:
        """Return what is usual of statements, for the next life; without what those that do harm now did since then."""
        usual = []
        for key, known in self._known.items():
            until = harmful_since.get(key, math.inf)
            steps = [(most, begin) for begin, most in known.steps if begin + STEP_SECONDS <= until]
            if steps:
                most, begin = max(steps)
                usual.append((*key, begin, most))
        return self._past.remembered(self._t or 0.0, usual, self._quick)

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered; raises ValueError, TypeError or KeyError when it does not fit."""
        self._past.recall(memory)

    def clear(self) -> None:
        """Forget all of this life: it begins, or the clock stepped back."""
        self._known.clear()
        self._slow.clear()
        self._quick.clear()
        self._waited.clear()
        self._t = None

    def add(self, window: Window) -> Iterable[Statement]:
        """Take in a look; return the statements of which something runs for long, or did at the look before."""
        t = window.t
        running = self._sort(window)
        self._t = t
        moved = []
        for key, executions in running.items():
            known = self._known.get(key)
            if known is None:
                if not any(t - one.start >= LONG_SECONDS for one in executions.values()):
                    continue
                known = self._known[key] = Statement(key)
                self._slow.add(key[1])
                past = self._past.usual(*key)
                if past is not None:
                    known.steps.append(past)
            known.update(executions, t)
            if t == window.began:
                known.at_start = len(known.long)
            moved.append(known)
        for key, known in self._known.items():
            if known.running and key not in running:
                known.update({}, t)
                moved.append(known)
        self._bound()
        return moved

    def _sort(self, window: Window) -> Mapping[StatementKey, Mapping[ExecutionKey, Execution]]:
        """Return what runs by statement; note by the way what has ended quickly since the last look."""
        running: dict[StatementKey, dict[ExecutionKey, Execution]] = defaultdict(dict)
        waited, self._waited = self._waited, {}
        since = -math.inf if self._t is None else self._t
        for session in () if window.snapshot is None else window.snapshot.sessions:
            if session.state != "active":
                if session.state_change is not None and session.state_change > since:
                    self._note_quick(session, window)
                continue
            start, name, track = _begun(session), session.query or session.query_id, window.track_of(session)
            if start is None or name is None or track is None:
                continue
            key = (session.pid, session.backend_start, start)
            if session.wait_event_type == "Lock" or session.blocked_by:
                self._waited[key] = window.t
                continue
            if key in waited:  # what comes free all at once, when a queue for a lock ends, is as old as that
                self._waited[key] = start = waited[key]
            if _runs(session):
                running[track.origin.key.group, name][key] = Execution(track, start)
        return running

    def quick(self, name: str, before: float) -> float | None:
        """Return when a statement was last seen to end quickly, at most `before`; None unless it is an old one."""
        spans = [span for span in (self._past.quick(name), self._quick.get(name)) if span is not None]
        if not spans:
            return None
        first, last = min(first for first, _ in spans), min(max(last for _, last in spans), before)
        return last if last - first >= KNOWN_SECONDS else None

    def _note_quick(self, session: Session, window: Window) -> None:
        """Note the statement that ended last in a session that rests, if it was quick."""
        start, end = session.query_start, session.state_change
        if start is None or end is None or not 0 <= end - start < LONG_SECONDS:
            return
        name = session.query or session.query_id
        if name is not None:
            known = self._quick.get(name)
            if known is None:
                self._quick[name] = (end, end)
            elif end > known[1]:
                self._quick[name] = (known[0], end)
            elif end < known[0]:
                self._quick[name] = (end, known[1])
            if name in self._slow:
                track = window.track_of(session)
                slow = None if track is None else self._known.get((track.origin.key.group, name))
                if slow is not None:
                    slow.quick.append((start, session.query_id))

    def _bound(self) -> None:
        """Forget what was seen longest ago."""
        if len(self._known) > STATEMENTS_MOST:
            by_age = sorted(self._known.values(), key=lambda one: one.seen_at)
            for known in by_age[: len(by_age) - STATEMENTS_MOST * 3 // 4]:
                del self._known[known.key]
            self._slow = {name for _, name in self._known}
        if len(self._quick) > QUICK_MOST:
            kept = sorted(self._quick.items(), key=lambda item: item[1][1])[-QUICK_MOST * 3 // 4 :]
            self._quick = dict(kept)


def _begun(session: Session) -> float | None:
    return session.query_start if session.query_start is not None else session.state_change


def _runs(session: Session) -> bool:
    """Whether the server works on a session's statement, and on nothing that others have to do for it."""
    if session.wait_event_type == "Client" or session.wait_event in _WRITTEN_DOWN:
        return False
    return session.query is None or not (_is_frame(session.query) or _is_fed(session.query))


@lru_cache(maxsize=4096)
def _is_fed(query: str) -> bool:
    """Whether a statement lasts as long as its client feeds it, also where nobody tells what it waits for.

    >>> _is_fed("COPY t (a) FROM STDIN"), _is_fed("copy t from stdin with (format csv)"), _is_fed("COPY t TO STDOUT")
    (True, True, False)
    """
    head = query[:200].upper()
    return head.startswith("COPY") and " FROM STDIN" in head


@lru_cache(maxsize=4096)
def _is_frame(query: str) -> bool:
    """Whether a statement only begins or ends a transaction, or sets something: what takes long then is not its own.

    >>> _is_frame("COMMIT"), _is_frame("BEGIN; SELECT pg_sleep(?)"), _is_frame("SELECT ?")
    (True, False, False)
    """
    return query[:20].upper().startswith(_FRAMES) and ";" not in query.rstrip("; ")
