"""A small connection pool that behaves as the pools of real applications do, so that a drill hurts as they do.

Owns the sessions of one process: it keeps a minimum open, lends first-in-first-out or last-in-first-out, recycles each
after its lifetime, makes borrowers wait when nothing is left, and gives up after a time. It must not leak: that is the
shop's new code.
psycopg2's own pool is no model, for it neither waits nor recycles.
"""

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

REFILL_SECONDS = 0.25
LIFETIME_SPREAD = 0.5

Open = Callable[[], Connection]


class PoolExhaustedError(Exception):
    """No session could be borrowed in time."""


@dataclass(slots=True)
class _Seat:
    connection: Connection
    expires: float
    idle_since: float = 0.0


class Pool:
    """Lends sessions made by `open_session`; at least `minimum` and at most `maximum` of them.

    Each lives `lifetime_seconds`, less a random share of up to half, so that they do not all end at once. `overflow`
    more are opened when all are lent, and closed once the pool has its maximum without them. `idle_seconds` ends what
    was not lent for so long, down to the minimum, when `prune` is called; None keeps it.
    """

    def __init__(
        self,
        open_session: Open,
        *,
        minimum: int = 6,
        maximum: int = 12,
        lifetime_seconds: float,
        order: Literal["fifo", "lifo"] = "fifo",
        idle_seconds: float | None = None,
        overflow: int = 0,
    ) -> None:
        self._open_session = open_session
        self._minimum = minimum
        self._maximum = maximum
        self._lifetime_seconds = lifetime_seconds
        self._order = order
        self._idle_seconds = idle_seconds
        self._overflow = overflow
        self._idle: deque[_Seat] = deque()
        self._total = 0
        self._reopen_at = 0.0
        self._refused = 0
        self._changed = threading.Condition()

    @property
    def total(self) -> int:
        """Sessions that are open or being opened."""
        return self._total

    @property
    def refused(self) -> int:
        """How often the server refused a new session."""
        return self._refused

    def fill(self) -> None:
        """Open the minimum. Raises psycopg2.OperationalError when the server refuses."""
        for _ in range(self._minimum):
            seat = self._new_seat()
            with self._changed:
                self._idle.append(seat)
                self._total += 1

    @contextlib.contextmanager
    def lend(self, *, timeout_seconds: float) -> Iterator[Connection]:
        """Lend a session in autocommit mode; a session whose borrower failed is closed, not given back.

        Raises PoolExhaustedError when none could be had within `timeout_seconds`.
        """
        seat = self._take(time.monotonic() + timeout_seconds)
        try:
            yield seat.connection
        except BaseException:
            self._discard(seat)
            raise
        self._give_back(seat)

    def prune(self) -> None:
        """End sessions that nobody needed for `idle_seconds`, the longest unused first."""
        if self._idle_seconds is None:
            return
        too_old = time.monotonic() - self._idle_seconds
        ended = []
        with self._changed:
            while self._idle and self._total > self._minimum and self._idle[0].idle_since < too_old:
                ended.append(self._idle.popleft())
                self._total -= 1
        for seat in ended:
            seat.connection.close()

    def close(self) -> None:
        """Close every idle session."""
        with self._changed:
            seats, self._idle = list(self._idle), deque()
            self._total -= len(seats)
        for seat in seats:
            seat.connection.close()

    def _give_back(self, seat: _Seat) -> None:
        seat.idle_since = time.monotonic()
        with self._changed:
            is_one_too_many = len(self._idle) >= self._maximum
            if is_one_too_many:
                self._total -= 1
            else:
                self._idle.append(seat)
            self._changed.notify()
        if is_one_too_many:
            seat.connection.close()

    def _take(self, deadline: float) -> _Seat:
        while True:
            seat = self._reserve(deadline)
            if seat is None:
                try:
                    return self._new_seat()
                except psycopg2.OperationalError:
                    self._refused += 1
                    self._forget_one()
            elif seat.expires > time.monotonic():
                return seat
            else:
                seat.connection.close()
                self._forget_one()

    def _forget_one(self) -> None:
        """Count one session less. It is replaced a little later: a pool fills itself at its own pace, not at once."""
        with self._changed:
            self._total -= 1
            self._reopen_at = time.monotonic() + REFILL_SECONDS
            self._changed.notify()

    def _reserve(self, deadline: float) -> _Seat | None:
        """Return an idle seat, or None when the caller has the right to open one (already counted)."""
        with self._changed:
            while True:
                now = time.monotonic()
                may_open = self._total < self._maximum + self._overflow and now >= self._reopen_at
                if may_open and (self._total < self._minimum or not self._idle):
                    self._total += 1
                    return None
                if self._idle:
                    return self._idle.popleft() if self._order == "fifo" else self._idle.pop()
                if now >= deadline:
                    raise PoolExhaustedError(f"no session in time: {self._total} of {self._maximum} open, none idle")
                wake = deadline if self._reopen_at <= now else min(deadline, self._reopen_at)
                self._changed.wait(wake - now)

    def _new_seat(self) -> _Seat:
        connection = self._open_session()
        connection.autocommit = True
        spread = random.uniform(1 - LIFETIME_SPREAD, 1.0)  # noqa: S311 - no secret
        now = time.monotonic()
        return _Seat(connection, now + self._lifetime_seconds * spread, now)

    def _discard(self, seat: _Seat) -> None:
        seat.connection.close()
        self._forget_one()
