"""How many sessions a drill holds, counted so that its share of the slots is never exceeded, not even for a moment.

Owns the count, and the session that gives its seat back. A seat is taken before a session is asked for and given back
only once the server's process has ended: the server closes its end of the socket last, so the end of the stream is the
proof. It must not know what a drill does with its sessions.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

CLOSING_WAIT_SECONDS = 3.0
# A session that was refused after its login holds a slot until its process ends, and there is no stream to wait for.
REFUSED_LINGER_SECONDS = 0.1
REAP_SECONDS = 0.02


class BudgetSpentError(psycopg2.OperationalError):
    """The share of the slots that the drill may take is taken. An application meets it as it would meet a refusal."""


class Seats:
    """Counts seats against a budget. When not `strict`, the server itself holds the bound and nothing is withheld."""

    def __init__(self, budget: int, *, strict: bool) -> None:
        self.budget = budget
        self.strict = strict
        self._held = 0
        self._closing = 0
        self._withheld = 0
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Seats that are taken, those included whose session is still ending."""
        return self._held

    @property
    def withheld(self) -> int:
        """How often a seat was asked for when none was left."""
        return self._withheld

    def take(self, count: int = 1) -> None:
        """Take seats, and wait a little for those that are being given back. Raises BudgetSpentError."""
        deadline = time.monotonic() + CLOSING_WAIT_SECONDS
        with self._changed:
            while self.strict and self._held + count > self.budget:
                left = deadline - time.monotonic()
                if not self._closing or left <= 0:
                    self._withheld += 1
                    raise BudgetSpentError(
                        f"the drill's share of the slots is taken: {self._held} of {self.budget} sessions"
                    )
                self._changed.wait(left)
            self._held += count

    def closing(self) -> None:
        """Note that a seat will be given back shortly."""
        with self._changed:
            self._closing += 1

    def give_back(self, count: int = 1, *, was_closing: bool = False) -> None:
        """Give seats back."""
        with self._changed:
            self._held -= count
            self._closing -= was_closing
            self._changed.notify_all()


class DrillSession(Connection):
    """A session of a drill. Closing it, or losing it, gives its seat back as soon as the server's process is gone."""

    on_close: "Callable[[DrillSession, socket.socket | None], None] | None" = None
    cancel_by: "Callable[[int], object] | None" = None
    server_pid: int = 0

    def cancel(self) -> None:
        """Ask the server to end the statement that another thread runs here.

        psycopg2 asks while it holds the interpreter's lock, under which the relay of `hosts` could never answer: of a
        session that came through it, `cancel_by` asks.
        """
        if self.cancel_by is None:
            super().cancel()
        else:
            self.cancel_by(self.server_pid)

    def close(self) -> None:
        """Close the session; a second time does nothing."""
        on_close, self.on_close = self.on_close, None
        stream = self.stream() if on_close is not None else None
        try:
            super().close()
        finally:
            if on_close is not None:
                on_close(self, stream)

    def stream(self) -> socket.socket | None:
        """Return a second handle of the session's socket, or None when it is closed already."""
        try:
            return socket.socket(fileno=os.dup(self.fileno()))
        except (psycopg2.Error, OSError):
            return None

    def hang_up(self) -> None:
        """Let the server see the client's end, whatever another thread is doing with the session."""
        stream = self.stream()
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_WR)
            stream.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class Reaper:
    """Waits for the ends of closed sessions, in one thread, and gives their seats back."""

    def __init__(self, seats: Seats, on_end: Callable[[int], None]) -> None:
        self._seats = seats
        self._on_end = on_end
        self._pending: list[tuple[socket.socket | None, float, int]] = []
        self._changed = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="drill-reaper", daemon=True)
        self._thread.start()

    def add(self, stream: socket.socket | None, server_pid: int) -> None:
        """Give a seat back once `stream` ends; without one, a moment later."""
        self._seats.closing()
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_WR)
        with self._changed:
            self._pending.append((stream, time.monotonic() + REFUSED_LINGER_SECONDS, server_pid))
            self._changed.notify()

    def end(self, deadline: float) -> bool:
        """Wait until nothing is pending; return whether it came to that before the deadline (monotonic)."""
        with self._changed:
            while self._pending and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.1))
            is_empty = not self._pending
            self._is_ending = True
            self._changed.notify()
        self._thread.join(CLOSING_WAIT_SECONDS)
        return is_empty

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._is_ending:
                    self._changed.wait()
                if self._is_ending:
                    for stream, _, _ in self._pending:
                        if stream is not None:
                            stream.close()
                    return
                pending = list(self._pending)
            self._reap(pending)

    def _reap(self, pending: list[tuple[socket.socket | None, float, int]]) -> None:
        poll = select.poll()
        for stream, _, _ in pending:
            if stream is not None:
                poll.register(stream, select.POLLIN | select.POLLHUP)
        ready = {descriptor for descriptor, _ in poll.poll(REAP_SECONDS * 1000)}
        now = time.monotonic()
        for entry in pending:
            stream, linger_until, server_pid = entry
            if now < linger_until if stream is None else stream.fileno() not in ready or not _has_ended(stream):
                continue
            if stream is not None:
                stream.close()
            with self._changed:
                self._pending.remove(entry)
                self._changed.notify_all()
            self._on_end(server_pid)
            self._seats.give_back(was_closing=True)


def _has_ended(stream: socket.socket) -> bool:
    """Read what is left of a stream; True once there is nothing more to come."""
    try:
        while True:
            if not stream.recv(65536, socket.MSG_DONTWAIT):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def connect(dsn: str, *, autocommit: bool, **parameters: Any) -> DrillSession:
    """Open a session; the caller has taken its seat. Raises psycopg2.OperationalError as libpq said it."""
    session: DrillSession = psycopg2.connect(dsn, connection_factory=DrillSession, **parameters)
    session.autocommit = autocommit
    session.server_pid = session.info.backend_pid
    return session
