"""Who waits for whom: the sessions that wait for a lock, and at the root of each queue the one that waits for nobody.

Owns the graph of one look, and since when each root has stood in others' way. It judges nothing and names nobody.

A root is one transaction of one session: who blocks for a moment in each of many transactions is a different root each
time, and so it is with a hot row that is handed on from waiter to waiter. One queue has one root: of several readers
that an ALTER TABLE waits for, the one that has blocked longest.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from batsignal.detect.window import Window
from batsignal.snapshot import Session

# A root that blocks nobody at one look, and somebody at the next, has gone on blocking: a look may fall between one
# waiter that gave up and the next one.
CONTINUOUS_SECONDS = 3.0
# The pid that PostgreSQL gives for a transaction that was prepared and belongs to no session.
PREPARED = 0

RootKey = tuple[int | None, float | None, float | None]
"""Pid, start of the session, start of its transaction. The pid is None where nobody tells who blocks."""
SessionKey = tuple[int, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blockade:
    """One root and all who wait for it, directly or not.

    `since` is when the first of them began to wait, `seconds` how long we have seen it last without a break.
    `session` is None for a prepared transaction and for a blocker that no look shows.
    """

    key: RootKey
    session: Session | None
    waiters: tuple[Session, ...]
    since: float
    seconds: float

    @property
    def pid(self) -> int | None:
        return self.key[0]


@dataclass(slots=True)
class _Held:
    since: float
    last: float


@dataclass(slots=True)
class _Queues:
    """Who stands behind whom at one look, before anybody asks since when."""

    waiting: tuple[Session, ...] = ()
    roots: list[tuple[int | None, Session | None, tuple[Session, ...]]] = field(default_factory=list)


def is_waiting(session: Session) -> bool:
    """Whether a session waits for a lock, by its own word or by that of those who block it."""
    return session.wait_event_type == "Lock" or bool(session.blocked_by)


def is_polite(session: Session) -> bool:
    """Whether a session waits in nobody's way, as its statement is made to do.

    What runs CONCURRENTLY waits for other transactions to end and lets everybody pass meanwhile, for minutes if it has
    to; VACUUM and ANALYZE ask for a lock that no reader or writer minds.
    """
    if session.wait_event == "virtualxid":
        return True
    statement = (session.query or "")[:200].upper()
    return " CONCURRENTLY" in statement or statement.startswith(("VACUUM", "ANALYZE"))


class Blocking:
    """The queues for locks on one server through time. Shared by the detectors that judge them."""

    def __init__(self) -> None:
        self._began_waiting: dict[SessionKey, float] = {}
        self._told_until: dict[SessionKey, float] = {}
        self._waited_until: dict[SessionKey, float] = {}
        self._held: dict[RootKey, _Held] = {}
        self._queues = _Queues()
        self._t: float | None = None
        self.blockades: tuple[Blockade, ...] = ()
        """Of the last look that succeeded, the oldest first."""

    def add(self, window: Window) -> None:
        """Take in the next look. A look that failed changes nothing."""
        snapshot = window.snapshot
        if snapshot is None or window.t != snapshot.t or self._t == window.t:
            return
        if window.began == window.t:
            self._began_waiting.clear()
            self._told_until.clear()
            self._waited_until.clear()
            self._held.clear()
        before, self._t = self._t, window.t
        waiting = tuple(
            session
            for session in snapshot.sessions
            if (session.wait_event_type == "Lock" or session.blocked_by) and session.is_client
        )
        self._note_begins(waiting, window, before)
        if not _same(waiting, self._queues.waiting):
            self._queues = _Queues(waiting, _roots(waiting, snapshot.sessions) if waiting else [])
        self.blockades = tuple(sorted(self._blockades(window), key=lambda one: one.since))
        self._forget(window)

    def waits_since(self, session: Session) -> float:
        """Return when a session that waits began to, in Unix seconds."""
        return self._began_waiting.get(session.key, self._t or 0.0)

    def _note_begins(self, waiting: Sequence[Session], window: Window, before: float | None) -> None:
        """Note when each began to wait: at the begin of its statement, or since the last look, whichever is later."""
        began: dict[SessionKey, float] = {}
        for session in waiting:
            known = self._began_waiting.get(session.key)
            start = session.query_start
            if known is not None and (start is None or start <= known):
                began[session.key] = known
                continue
            # At our own first look nobody knows better than the statement's begin.
            seen = -1.0 if before is None or window.began == window.t else before
            began[session.key] = min(max(seen if start is None else start, seen), window.t)
            if began[session.key] < 0:
                began[session.key] = window.t
        self._began_waiting = began
        # Whom it matters of: those who stopped while somebody who still waits already did.
        oldest = min(began.values(), default=window.t)
        waited = {key: t for key, t in self._waited_until.items() if t > oldest}
        self._waited_until = waited | dict.fromkeys(began, window.t)

    def _blockades(self, window: Window) -> Iterable[Blockade]:
        claimed: set[SessionKey] = set()
        found = []
        for pid, session, waiters in self._queues.roots:
            key: RootKey = (pid, None, None) if session is None else (pid, session.backend_start, session.xact_start)
            held = self._held.get(key)
            first = min(self._behind_it_since(one, pid) for one in waiters)
            if session is not None:
                # Who has waited itself until a moment ago, in the same queue maybe, was in nobody's way before.
                first = max(first, self._waited_until.get(session.key, first))
            since = first if held is None else min(held.since, first)
            found.append((since, key[2] or since, -len(waiters), key, session, waiters))
        told = {one.key: window.t for _, _, _, key, _, waiters in found if key[0] is not None for one in waiters}
        self._told_until = {key: t for key, t in self._told_until.items() if key in self._began_waiting} | told
        # Whoever has blocked longest takes the queue; of those that began at once, the oldest transaction.
        for since, _, _, key, session, waiters in sorted(found, key=lambda one: one[:3]):
            self._held[key] = _Held(since, window.t)
            mine = tuple(one for one in waiters if one.key not in claimed)
            claimed.update(one.key for one in mine)
            if mine:
                seconds = window.t - max(since, window.began)
                yield Blockade(key=key, session=session, waiters=mine, since=since, seconds=seconds)

    def _behind_it_since(self, waiter: Session, pid: int | None) -> float:
        """Return since when one waits behind a root.

        A blocker that ends wakes its queue: a look at that moment sees it wait, and for nobody. Nobody has blocked it
        for only as long as nobody is told.
        """
        began = self._began_waiting[waiter.key]
        return began if pid is not None else max(began, self._told_until.get(waiter.key, began))

    def _forget(self, window: Window) -> None:
        patience = max(CONTINUOUS_SECONDS, 1.5 * (window.looked_seconds or 0.0))
        for key in [key for key, held in self._held.items() if window.t - held.last > patience]:
            del self._held[key]


def _same(now: Sequence[Session], before: Sequence[Session]) -> bool:
    return len(now) == len(before) and all(one is other for one, other in zip(now, before, strict=True))


def _roots(
    waiting: Sequence[Session], sessions: Iterable[Session]
) -> list[tuple[int | None, Session | None, tuple[Session, ...]]]:
    """Return each root with its session and all who wait behind it; a root of None where nobody tells who blocks."""
    blocked = {session.pid: session for session in waiting if session.blocked_by}
    by_pid = {session.pid: session for session in sessions}
    behind: dict[int, list[Session]] = defaultdict(list)
    for session in blocked.values():
        for pid in session.blocked_by:
            behind[_leader(pid, by_pid)].append(session)
    found: list[tuple[int | None, Session | None, tuple[Session, ...]]] = []
    told: set[int] = set()
    for pid in behind:
        root = by_pid.get(pid)
        # Who waits itself is no root; where nobody was asked whom it waits for, nothing is known of those behind it.
        if pid in blocked or (root is not None and is_waiting(root)):
            continue
        waiters = _all_behind(pid, behind)
        told.update(one.pid for one in waiters)
        hurt = tuple(one for one in waiters if not is_polite(one))
        if hurt:
            found.append((pid, root, hurt))
    untold = tuple(session for session in waiting if session.pid not in told and not is_polite(session))
    if not untold:
        return found
    if len(found) == 1:  # the queue was too long to ask all of it: they wait for the one that is known
        pid_, root_, waiters = found[0]
        return [(pid_, root_, waiters + untold)]
    return [*found, (None, None, untold)]


def _leader(pid: int, by_pid: Mapping[int, Session]) -> int:
    session = by_pid.get(pid)
    return pid if session is None or session.leader_pid is None else session.leader_pid


def _all_behind(pid: int, behind: Mapping[int, Sequence[Session]]) -> tuple[Session, ...]:
    """Return who waits for a pid, for somebody who waits for it, and so on, each once."""
    seen: dict[int, Session] = {}
    queue = [pid]
    while queue:
        for session in behind.get(queue.pop(), ()):
            if session.pid not in seen:
                seen[session.pid] = session
                queue.append(session.pid)
    return tuple(seen.values())
