"""Every session that a drill holds: opened within the share, known to the janitor, ended with the drill.

Owns the opening and the common end, and counts what the server refused. It must not know what a session is for.
"""

import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg2

from batsignal.drills import seats
from batsignal.drills.seats import BudgetSpentError, DrillSession, Reaper, Seats

if TYPE_CHECKING:
    import socket


class Sessions:
    """Opens sessions against `budget`; `began` and `ended` are told the pid of each one's server process."""

    def __init__(self, budget: Seats, *, began: Callable[[int], None], ended: Callable[[int], None]) -> None:
        self.seats = budget
        self.refused = 0
        self.last_refusal = ""
        self._began = began
        self._reaper = Reaper(budget, ended)
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._opening = 0
        self._is_over = False
        self._open: weakref.WeakSet[DrillSession] = weakref.WeakSet()

    def open(self, dsn: str, *, is_counted_first: bool, autocommit: bool) -> DrillSession:
        """Open a session. Raises psycopg2.OperationalError as the server said it, BudgetSpentError.

        `is_counted_first`: its seat is taken before it is asked for, because the server would not hold the bound.
        """
        with self._lock:
            if self._is_over:
                raise BudgetSpentError("the drill has ended")
            self._opening += 1
        try:
            return self._open_one(dsn, is_counted_first=is_counted_first, autocommit=autocommit)
        finally:
            with self._lock:
                self._opening -= 1
                self._arrived.notify_all()

    def _open_one(self, dsn: str, *, is_counted_first: bool, autocommit: bool) -> DrillSession:
        if is_counted_first:
            self.seats.take()
        try:
            session = seats.connect(dsn, autocommit=autocommit)
        except BaseException as exc:
            if is_counted_first:
                self._reaper.add(None, 0)
            self._note_refusal(exc)
            raise
        if not is_counted_first:
            self.seats.take()
        self._began(session.server_pid)
        session.on_close = self._closed
        with self._lock:
            self._open.add(session)
        if self._is_over:  # it came too late for `end` to see it
            session.close()
            raise BudgetSpentError("the drill has ended")
        return session

    def end(self, deadline: float, *, is_server_lost: bool) -> None:
        """Close all of them, whatever they are doing, and wait for the server to notice until the deadline."""
        with self._lock:
            self._is_over = True
            # One that is on its way would show up on the server after everything is said to be gone.
            self._arrived.wait_for(
                lambda: not self._opening, 0.0 if is_server_lost else max(deadline - time.monotonic(), 0.0) / 2
            )
            sessions = list(self._open)
        for session in sessions:
            session.hang_up()
        # A session that another thread uses is closed only once that thread's statement has ended.
        closers = [threading.Thread(target=session.close, daemon=True) for session in sessions]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(max(deadline - time.monotonic(), 0.0))
        self._reaper.end(time.monotonic() if is_server_lost else deadline)

    def _closed(self, session: DrillSession, stream: "socket.socket | None") -> None:
        self._reaper.add(stream, session.server_pid)

    def _note_refusal(self, exc: BaseException) -> None:
        # libpq gives no SQLSTATE here. The severity stands in every refusal by the server itself, and in nothing that
        # libpq says of a server that is not there.
        text = str(exc).strip()
        if isinstance(exc, psycopg2.Error) and "FATAL" in text:
            with self._lock:
                self.refused += 1
                self.last_refusal = text.splitlines()[-1]
