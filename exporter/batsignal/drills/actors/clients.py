"""The client side of an act: threads that hold sessions, run statements, and end together.

Owns the pace of requests and their end: a thread may sit in a statement that waits for a lock for hours, and only
another thread can call it off. It must not decide what a client does, and it must not open a session by itself: that is
the ground's.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.act import Tell
from batsignal.drills.actors.pool import Pool, PoolExhaustedError
from batsignal.drills.ground import DrillSession, Ground
from batsignal.poll.statements import normalise
from batsignal.snapshot import fingerprint

# What is due but not done is made up for within this time, later it is lost: the pace is what the machine can make.
BACKLOG_SECONDS = 1.0
CANCEL_SECONDS = 0.1
# When a statement could not be cancelled for this long, the server does not answer, and the socket is cut.
CUT_SECONDS = 1.5
GIVE_UP_SECONDS = 4.0
SEEN_SECONDS = 10.0
LOOK_SECONDS = 0.05
BORROW_SECONDS = 1.0
LIFETIME_SECONDS = 3600.0

FAILED_REQUEST = (psycopg2.Error, PoolExhaustedError)

Setting = TypeVar("Setting")


def beats(stopped: threading.Event, per_second: float) -> Iterator[float]:
    """Yield the instant (Unix seconds) of each beat, the first at once, until stopped.

    The pace is kept by the clock: a beat that came late does not delay the next. Beats that are more than
    `BACKLOG_SECONDS` late are left out.
    """
    due = time.monotonic()
    while not stopped.wait(max(due - time.monotonic(), 0.0)):
        yield time.time()
        due = max(due + 1.0 / per_second, time.monotonic() - BACKLOG_SECONDS)


class Clients:
    """All clients of one act, in a `with` block; leaving it ends the drill, and every statement that still runs."""

    def __init__(self, ground: Ground, tell: Tell | None = None) -> None:
        self.ground = ground
        self.tell = tell or Tell()
        self._lock = threading.Lock()
        self._sessions: WeakSet[DrillSession] = WeakSet()
        self._threads: set[threading.Thread] = set()
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, exc: BaseException | None, _traceback: object) -> bool:
        had_ended = self.ground.stopped.is_set()
        self.ground.stopped.set()
        self._end()
        # What fails because the drill has ended is how it ends, wherever the act was.
        return had_ended and isinstance(exc, FAILED_REQUEST)

    def connect(self, application: str | None, **facts: Any) -> DrillSession:
        """Open a session as `Ground.connect` does; it is closed with the act at the latest.

        Raises psycopg2.OperationalError once the drill has ended: what its end frees must not be taken anew.
        """
        if self.ground.stopped.is_set():
            raise psycopg2.OperationalError("the drill has ended")
        session = self.ground.connect(application, **facts)
        if self.ground.stopped.is_set():
            session.close()
            raise psycopg2.OperationalError("the drill has ended")
        with self._lock:
            self._sessions.add(session)
        return session

    def start(self, work: Callable[[], object]) -> None:
        """Do `work` in a thread. That a request fails is life; the first time it is noted."""
        thread = threading.Thread(target=self._work, args=(work,), daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def arrive(self, per_second: float, request: Callable[[], object], *, at_once: int) -> threading.Event:
        """Let requests arrive at a rate until the drill ends, each in a thread, at most `at_once` at a time.

        Set the event that comes back to end them sooner.
        """
        ended = threading.Event()
        self.start(lambda: self._arrivals(per_second, request, at_once, ended))
        return ended

    def pool(self, application: str, *, minimum: int, maximum: int, **facts: Any) -> Pool:
        """Return a filled pool of an application; each session is the drill's to end."""
        pool = Pool(
            lambda: self.connect(application, **facts),
            minimum=minimum,
            maximum=maximum,
            lifetime_seconds=LIFETIME_SECONDS,
        )
        pool.fill()
        return pool

    def sleep(self, seconds: float) -> bool:
        """Wait; return whether the drill goes on."""
        return not self.ground.stopped.wait(seconds)

    def await_stop(self) -> None:
        """Wait for the end of the drill."""
        self.ground.stopped.wait()

    def await_rows(self, question: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Ask until there is an answer; no rows when the drill ends first, or after `SEEN_SECONDS`."""
        deadline = time.monotonic() + SEEN_SECONDS
        while time.monotonic() < deadline:
            rows = self.ground.execute(question, parameters)
            if rows:
                return rows
            if not self.sleep(LOOK_SECONDS):
                break
        return []

    def statement_of(self, session: Connection) -> str | None:
        """Return what the daemon calls the statement that a session runs now.

        The server's `query_id`, else a fingerprint of the normalised text; None when it is not seen running.
        """
        # A statement has no id yet while it is being parsed; our own question shows whether this server gives any.
        rows = self.await_rows(
            "SELECT to_jsonb(a) ->> 'query_id', a.query FROM pg_stat_activity AS a, pg_stat_activity AS own"
            " WHERE a.pid = %(pid)s AND a.state = 'active' AND a.query <> '' AND own.pid = pg_backend_pid()"
            " AND (to_jsonb(a) ->> 'query_id' IS NULL) = (to_jsonb(own) ->> 'query_id' IS NULL)",
            pid=session.info.backend_pid,
        )
        return rows[0][0] or fingerprint(normalise(rows[0][1])) if rows else None

    def _arrivals(self, per_second: float, request: Callable[[], object], at_once: int, ended: threading.Event) -> None:
        room = threading.Semaphore(at_once)

        def serve() -> None:
            try:
                request()
            finally:
                room.release()

        for _ in beats(self.ground.stopped, per_second):
            while not room.acquire(timeout=LOOK_SECONDS) and not self.ground.stopped.is_set():
                pass
            # The drill's end makes room, too: what it calls off must not be followed by more.
            if ended.is_set() or self.ground.stopped.is_set():
                return
            self.start(serve)

    def _work(self, work: Callable[[], object]) -> None:
        try:
            work()
        except FAILED_REQUEST as exc:
            if not self._failed and not self.ground.stopped.is_set():
                self._failed = True
                self.tell.note(f"the first request failed: {str(exc).strip().splitlines()[0]}")
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _end(self) -> None:
        """Call off what runs until every thread has ended, then close every session."""
        began = time.monotonic()
        while True:
            with self._lock:
                threads, sessions = list(self._threads), list(self._sessions)
            waited_seconds = time.monotonic() - began
            if not threads or waited_seconds > GIVE_UP_SECONDS:
                break
            self._call_off([session for session in sessions if is_busy(session)], cut=waited_seconds > CUT_SECONDS)
            deadline = time.monotonic() + CANCEL_SECONDS
            for thread in threads:
                thread.join(max(deadline - time.monotonic(), 0.0))
        for session in sessions:
            with contextlib.suppress(psycopg2.Error):
                session.close()

    def _call_off(self, sessions: Sequence[DrillSession], *, cut: bool) -> None:
        """End the statements that run in sessions: ask the server, or `cut` the lines to it.

        The driver's own way to cancel holds up every thread of this process until the server answers. A request that
        comes a moment before the statement is lost; whoever needs the end asks again.
        """
        if cut:
            for stream in filter(None, (session.stream() for session in sessions)):
                with stream, contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
        elif sessions:
            with contextlib.suppress(psycopg2.Error):
                pids = [session.server_pid for session in sessions]
                self.ground.execute("SELECT pg_cancel_backend(pid) FROM unnest(%s) AS pid", (pids,))


class Calm(Generic[Setting]):
    """What an act finds at work when its run begins: set up by `prepare` before the calm, else at the run."""

    def __init__(self, set_up: Callable[[Ground], Setting]) -> None:
        self._set_up = set_up
        self._kept: WeakKeyDictionary[Ground, Setting] = WeakKeyDictionary()

    def prepare(self, ground: Ground) -> Mapping[str, Any]:
        """Set it up; the daemon needs to know nothing of it. For `ActSpec.prepare`."""
        self._kept[ground] = self._set_up(ground)
        return {}

    def of(self, ground: Ground) -> Setting:
        """Return what was set up for this ground."""
        return self._kept.pop(ground) if ground in self._kept else self._set_up(ground)


class Traffic:
    """A service whose pool grows with what is asked of it: steady requests in the calm, others once they `change`."""

    def __init__(
        self, ground: Ground, application: str, *, minimum: int, per_second: float, work: Callable[[Connection], None]
    ) -> None:
        self.clients = Clients(ground)
        self._pool = self.clients.pool(application, minimum=minimum, maximum=ground.budget)
        self._ended = self.clients.arrive(per_second, lambda: self._request(work), at_once=minimum)

    def change(self, per_second: float, work: Callable[[Connection], None], *, at_once: int) -> None:
        """Let requests of another kind come from now on, at most `at_once` at a time."""
        self._ended.set()
        self._ended = self.clients.arrive(per_second, lambda: self._request(work), at_once=at_once)

    def _request(self, work: Callable[[Connection], None]) -> None:
        with self._pool.lend(timeout_seconds=BORROW_SECONDS) as session:
            work(session)


def is_busy(session: Connection) -> bool:
    """Tell whether another thread runs a statement in a session."""
    with contextlib.suppress(psycopg2.Error):
        return not session.closed and session.info.transaction_status == TRANSACTION_STATUS_ACTIVE
    return False


def run(session: Connection, statement: str, parameters: Any = None) -> None:
    """Run a statement and take its rows."""
    with session.cursor() as cursor:
        cursor.execute(statement, parameters)
        if cursor.description is not None:
            cursor.fetchall()
