"""The heavyweight locks of the simulated server: who holds one, who waits for it, and whom that one waits for.

Owns the queues. As in PostgreSQL a queue is first in, first out: who is compatible with the holder still waits behind
somebody who is not. What a session does while it waits is the world's.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from simulator.seats import Seat

LockKind = Literal["relation", "row", "virtualxid"]


@dataclass(slots=True, eq=False)
class Ticket:
    """One session's hold of a lock, or its place in the queue for it."""

    lock: "Lock"
    seat: Seat
    exclusive: bool
    then: Callable[[], object] | None = None

    @property
    def version(self) -> int:
        """Changes whenever the queue does."""
        return self.lock.version

    @property
    def blocked_by(self) -> tuple[int, ...]:
        """The sessions it waits for, as pg_blocking_pids() tells them."""
        return self.lock.blockers(self)

    @property
    def wait(self) -> tuple[str, str]:
        """The wait event of somebody in this queue."""
        if self.lock.kind != "row":
            return ("Lock", self.lock.kind)
        return ("Lock", "transactionid" if self.lock.queue[:1] == [self] else "tuple")


@dataclass(slots=True, eq=False)
class Lock:
    """One lock. Of a row's, only the first in the queue waits for the holder; the others wait for that first one."""

    kind: LockKind = "relation"
    holders: list[Ticket] = field(default_factory=list)
    queue: list[Ticket] = field(default_factory=list)
    version: int = 0
    _blockers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _known: int = -1

    def blockers(self, ticket: Ticket) -> tuple[int, ...]:
        if self._known != self.version:
            self._blockers.clear()
            self._known = self.version
        known = self._blockers.get(id(ticket))
        if known is None:
            known = self._blockers[id(ticket)] = tuple(sorted(self._find_blockers(ticket)))
        return known

    def _find_blockers(self, ticket: Ticket) -> set[int]:
        ahead = list(itertools.takewhile(lambda one: one is not ticket, self.queue))
        if self.kind == "row" and ahead:
            return {one.seat.pid for one in ahead}
        return {one.seat.pid for one in (*self.holders, *ahead) if one.exclusive or ticket.exclusive}


def _kind(name: str) -> LockKind:
    return "row" if name.startswith("row:") else "virtualxid" if name.startswith("virtualxid:") else "relation"


class Locks:
    """All locks, by name; a lock comes to be when it is first asked for."""

    def __init__(self) -> None:
        self._locks: dict[str, Lock] = {}

    def __getitem__(self, name: str) -> Lock:
        return self._locks.setdefault(name, Lock(kind=_kind(name)))

    def take(
        self, name: str, seat: Seat, *, exclusive: bool = True, then: Callable[[], object] | None = None
    ) -> Ticket:
        """Take a lock, or queue for it; `then` is called when it is granted.

        A name with `row:` before it is a row, and with `virtualxid:` somebody's transaction.
        """
        lock = self[name]
        ticket = Ticket(lock, seat, exclusive, then)
        lock.queue.append(ticket)
        seat.ticket = ticket
        lock.version += 1
        self._promote(lock)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Let a lock go, or leave the queue for it; does nothing when that has been done."""
        lock = ticket.lock
        for tickets in (lock.holders, lock.queue):
            if ticket in tickets:
                tickets.remove(ticket)
                lock.version += 1
        if ticket.seat.ticket is ticket:
            ticket.seat.ticket = None
        self._promote(lock)

    def leave_all(self, seat: Seat) -> None:
        """Let go whatever a session holds or waits for."""
        for lock in self._locks.values():
            for ticket in [one for one in (*lock.holders, *lock.queue) if one.seat is seat]:
                self.leave(ticket)

    @property
    def waiting(self) -> int:
        """How many sessions wait for a lock now."""
        return sum(len(lock.queue) for lock in self._locks.values())

    def _promote(self, lock: Lock) -> None:
        while lock.queue:
            first = lock.queue[0]
            if any(first.exclusive or one.exclusive for one in lock.holders):
                return
            lock.holders.append(lock.queue.pop(0))
            lock.version += 1
            first.seat.ticket = None
            if first.then is not None:
                first.then()
