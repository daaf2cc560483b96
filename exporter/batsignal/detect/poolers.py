"""Says when a PgBouncer pool has nothing left to lend: its clients wait, and all its server sessions are taken.

Signature (docs/detection.md): for seconds on end nobody in the queue is served, or the queue only becomes longer, while
every server session of the pool is lent. A peak looks like it for a moment, and its queue becomes shorter; a PgBouncer
that is paused or that connects anew lends no session at all.

Owns the judgement over the rows of SHOW POOLS. Whose sessions they are it reads off the server's own rows.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batsignal.detect import wording
from batsignal.detect.blame import versions_of
from batsignal.detect.signal import Finding, Subject
from batsignal.detect.window import Window
from batsignal.snapshot import PoolerPool, Session, Snapshot

# The console itself is shown as a pool.
CONSOLE = "pgbouncer"
# PgBouncer serves its queue in order: who waits longest has waited so long in spite of all that came back meanwhile.
# Requests that users wait for take less, and half the bound is left.
WAIT_SECONDS = 8.0
# A queue that moves, but never ends, and does not become shorter: more is asked than is lent.
QUEUE_SECONDS = 10.0
QUEUE_WAIT_SECONDS = 3.0
QUEUE_MEMORY_SECONDS = 5.0
# Over when nobody had to wait so long for a while.
CLEAR_WAIT_SECONDS = 1.0
CLEAR_SECONDS = 10.0
# A session lent for so long is one of those that are missing.
HELD_SECONDS = 2.0
POOLS_MOST = 2000


@dataclass(slots=True)
class _Queue:
    """One pool's queue, from look to look."""

    since: float | None = None
    """Since when somebody has waited at every look."""
    lengths: deque[tuple[float, int]] = field(default_factory=deque)
    calm_since: float | None = None
    lit: Finding | None = None

    def take_in(self, row: PoolerPool, t: float) -> None:
        waiting, wait_seconds = row.cl_waiting or 0, row.maxwait_seconds
        if not waiting or not _is_taken(row):
            self.since = None
            self.lengths.clear()
        else:
            # The one at its head says when the queue began, at the latest.
            self.since = min(self.since if self.since is not None else t, t - (wait_seconds or 0.0))
            self.lengths.append((t, waiting))
            while self.lengths[0][0] < t - QUEUE_MEMORY_SECONDS:
                self.lengths.popleft()
        is_calm = not waiting or (wait_seconds is not None and wait_seconds < CLEAR_WAIT_SECONDS)
        self.calm_since = (self.calm_since if self.calm_since is not None else t) if is_calm else None

    def is_starved(self, row: PoolerPool, t: float) -> bool:
        if self.since is None:
            return False
        if row.maxwait_seconds is None:
            return t - self.since >= QUEUE_SECONDS and self._holds()
        if row.maxwait_seconds >= WAIT_SECONDS:
            return True
        is_long = t - self.since >= QUEUE_SECONDS and row.maxwait_seconds >= QUEUE_WAIT_SECONDS
        return is_long and self._holds()

    def _holds(self) -> bool:
        """Whether the queue has not become shorter of late."""
        return self.lengths[-1][1] >= self.lengths[0][1]


def _is_taken(row: PoolerPool) -> bool:
    """Whether all server sessions of a pool are lent, as far as its row says; one that logs in is about to be free."""
    free = (row.sv_idle or 0) + (row.sv_used or 0) + (row.sv_tested or 0) + (row.sv_login or 0)
    return free == 0 and row.sv_active != 0


class PoolerDetector:
    """Watches the queues of all pools of one PgBouncer."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._last: tuple[Finding, ...] = ()

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the pools that have nothing to lend. Without rows, or a look at the server, nothing changes."""
        snapshot = window.snapshot
        if snapshot is None or snapshot.t != window.t:
            return self._last
        if window.began == window.t:
            self._queues.clear()
        if snapshot.pools is None:
            return self._last
        rows = {(row.database, row.user): row for row in snapshot.pools if row.database != CONSOLE}
        for key in [key for key in self._queues if key not in rows]:
            del self._queues[key]
        asked = {key: row for key, row in sorted(rows.items())[:POOLS_MOST] if row.cl_waiting or key in self._queues}
        lent = _lent(asked, snapshot)
        found = (self._judge(row, window, lent.get(key, ())) for key, row in asked.items())
        self._last = tuple(finding for finding in found if finding is not None)
        return self._last

    def _judge(self, row: PoolerPool, window: Window, lent: Sequence[Session]) -> Finding | None:
        key = (row.database, row.user)
        queue = self._queues.get(key)
        if queue is None:
            if (row.cl_waiting or 0) <= 0:
                return None
            queue = self._queues[key] = _Queue()
        queue.take_in(row, window.t)
        is_starved = queue.is_starved(row, window.t)
        if queue.lit is None and not is_starved:
            if queue.calm_since is not None:
                del self._queues[key]
            return None
        if queue.calm_since is not None and window.t - queue.calm_since >= CLEAR_SECONDS:
            del self._queues[key]
            return None
        if queue.since is not None:  # while it lasts, with what is known now
            since = queue.since if queue.lit is None else queue.lit.since
            before = None if queue.lit is None else queue.lit.subject
            found = _finding(row, since, window, lent)
            # Whoever is served for a moment while others wait is not at fault.
            queue.lit = replace(found, subject=found.subject.settled(before))
        return queue.lit


def _lent(pools: Collection[tuple[str, str]], snapshot: Snapshot) -> Mapping[tuple[str, str], Sequence[Session]]:
    """Return the server's own sessions of these pools."""
    lent: dict[tuple[str | None, str | None], list[Session]] = {pool: [] for pool in pools}
    for session in snapshot.sessions if pools else ():
        mine = lent.get((session.datname, session.usename))
        if mine is not None:
            mine.append(session)
    return {pool: lent[pool] for pool in pools}


def _finding(row: PoolerPool, since: float, window: Window, server_side: Sequence[Session]) -> Finding:
    pool = f"{row.database}/{row.user}"
    held = [one for one in server_side if _lent_seconds(one, window.t) >= HELD_SECONDS]
    applications = [window.who(one) for one in held]
    waiting = row.cl_waiting or 0
    longest = row.maxwait_seconds if row.maxwait_seconds is not None else window.t - since
    clients = "1 client waits" if waiting == 1 else f"{waiting} clients wait"
    active = max(row.sv_active or 0, 0)
    taken = f"all {wording.sessions(active)} of its own are taken" if active else "none is free"
    return Finding(
        kind="pool_starvation",
        key=("pool", row.database, row.user),
        severity="critical",
        subject=Subject(
            application=wording.common(one.service for one in applications),
            version=wording.common(one.version for one in applications),
            user=row.user if server_side else None,
            database=row.database if server_side else None,
            query_id=wording.common(one.statement_id for one in held if one.state == "active"),
            pool=pool,
        ),
        since=since,
        sessions=active or len(held),
        evidence=tuple(_evidence(row, held, window)),
        summary=f"PgBouncer's pool {pool} has nothing left to lend: {clients}, the longest for"
        f" {wording.duration(longest)}; {taken}",
        undo=_undo(held, window),
        action="A larger pool only moves the queue to the server.",
        versions=versions_of(one.version for one in applications),
    )


def _lent_seconds(session: Session, t: float) -> float:
    """Return for how long a server session has been lent: since its transaction began, or its statement."""
    if session.state is None or session.state == "idle":
        return 0.0
    began = session.xact_start if session.xact_start is not None else session.query_start
    return 0.0 if began is None else t - began


def _evidence(row: PoolerPool, held: Sequence[Session], window: Window) -> Iterable[str]:
    yield (
        f"SHOW POOLS: cl_waiting {row.cl_waiting}, sv_active {_known(row.sv_active)}, sv_idle {_known(row.sv_idle)}"
        + (f", {row.pool_mode} mode" if row.pool_mode else "")
    )
    if not held:
        return
    states = wording.counted(session.state or "unknown" for session in held)
    yield ", ".join(f"{count} {state}" for state, count in states.items()) + (
        f", for up to {wording.duration(max(_lent_seconds(session, window.t) for session in held))}"
    )
    queries = wording.counted(session.query for session in held if session.query)
    if queries:
        query, count = next(iter(queries.items()))
        yield f"the statement of {count} of them: {query[:120]}"


def _known(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _undo(held: Sequence[Session], window: Window) -> str:
    services = wording.counted(window.who(one).service for one in held)
    name = next((service for service in services if service is not None), None)
    return f"Undo the last change of {name or 'whoever uses this pool'}: it keeps the pool's sessions."
