"""One session of the simulated server: what it does, and the row that a look shows of it.

Owns the states of a session and when PostgreSQL changes them. It opens and closes nothing: that is the world's. What a
row shows is worked out when it is looked at, and a row that did not change is the very object of the look before.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batsignal.snapshot import CLIENT_BACKEND, Session

if TYPE_CHECKING:
    from simulator.locks import Ticket

# From the fork of a backend to its first `idle`.
LOGIN_SECONDS = 0.004
# A use is told of so much ahead at most, unless an earlier one still runs.
AHEAD_SECONDS = 0.2
IDLE_IN_TRANSACTION = "idle in transaction"
# After a statement that failed: PostgreSQL shows no start of such a transaction.
ABORTED = "idle in transaction (aborted)"
CLIENT_READ = ("Client", "ClientRead")

Behaviour = Iterator[float]


@lru_cache(maxsize=1000)
def query_id_of(query: str) -> str:
    """Return what a server that computes query ids would say of a statement: a signed number of 64 bits.

    >>> query_id_of("SELECT ?")
    '6787956914539402396'
    """
    low, high = zlib.crc32(query.encode()), zlib.adler32(query.encode()) ^ zlib.crc32(query[::-1].encode())
    return str((high << 32 | low) - 2**63)


@dataclass(slots=True, eq=False)
class Seat:
    """One session of the world.

    `rest` is the state in which it rests: "idle", "idle in transaction" (or ABORTED), "ClientRead" (active, but waiting
    for its client), or None for a process that has no state. Change `rest`, `query` or the transaction's ids only
    together with a use: a row is made anew when something begins or ends.
    """

    pid: int
    start: float
    application: str | None
    user: str | None
    database: str | None
    client: str | None
    rest: str | None
    query: str
    query_id: str | None = None
    backend_type: str = CLIENT_BACKEND
    leader_pid: int | None = None
    backend_xid: str | None = None
    backend_xmin: str | None = None
    tells_query_id: bool = False
    busy_from: float = 0.0
    busy_until: float = 0.0
    rested_at: float = 0.0
    wait: tuple[str, str] | None = None
    """What a statement of it waits for, while it runs."""
    rest_wait: tuple[str, str] | None = CLIENT_READ
    ticket: "Ticket | None" = None
    """Its place in the queue for a lock, while it waits there."""
    uses: int = 0
    commits: int = 0
    closed: bool = False
    transaction_from: float | None = None
    transaction_ended: bool = True
    before: tuple[tuple[Any, ...], ...] = ()
    """What a look may still have to show: the states before uses that are told of and have not begun."""
    shown: tuple[Any, ...] = ()
    row: Session | None = None

    def use(
        self,
        at: float,
        seconds: float,
        *,
        query: str | None = None,
        query_id: str | None = None,
        wait: tuple[str, str] | None = None,
        rest: str | None = None,
        begin: "Callable[[Seat], object] | None" = None,
    ) -> None:
        """Begin a statement; while an earlier one runs, it begins when that one has ended.

        `seconds` may be infinite, and `finish` ends it then. While it runs it waits for `wait`, an event's type and
        name. After it the session rests in the state that `rest` names, as before when that is None. `begin` is called
        at once with the session: a statement that needs a lock asks for it there.
        """
        busy_from = max(at, self.busy_until)
        self.before = self._may_still_show(at - AHEAD_SECONDS)
        if rest is not None:
            self.rest = rest
        self.busy_from = busy_from
        self.busy_until = self.rested_at = busy_from + seconds
        self.wait = wait
        if query is not None:
            self.query, self.query_id = query, query_id
        elif query_id is not None:
            self.query_id = query_id
        if self.transaction_ended:
            self.transaction_from = busy_from
        self.transaction_ended = self.rest != IDLE_IN_TRANSACTION
        self.commits += self.transaction_ended and self.rest != ABORTED
        self.uses += 1
        if begin is not None:
            begin(self)

    def finish(self, at: float) -> None:
        """End the statement that runs, at that instant."""
        self.busy_until = self.rested_at = max(at, self.busy_from)

    def transact(self, at: float, seconds: float, **statement: Any) -> None:
        """Run a statement and stay idle in transaction after it, until `end` or a further `transact`."""
        self.use(at, seconds, rest=IDLE_IN_TRANSACTION, **statement)

    def end(self, at: float, seconds: float = 0.001, query: str = "COMMIT") -> None:
        """End the transaction."""
        self.use(at, seconds, query=query, rest="idle")
        self.backend_xid = None

    @property
    def statement_id(self) -> str | None:
        """Its statement's id as the server tells it, None where it computes none."""
        return self.query_id or (query_id_of(self.query) if self.tells_query_id else None)

    def look(self, t: float) -> Session:
        """Return its row at `t`, which must not be before a look that has been had."""
        if t < self.busy_from and self.before:
            return self._look_back(t)
        ticket = self.ticket
        shown = (self.uses, t >= self.busy_until, None if ticket is None else ticket.version)
        if self.shown != shown:
            self._show(shown, self._row(resting=shown[1]))
        return self.row  # type: ignore[return-value]

    def _show(self, shown: tuple[Any, ...], row: Session) -> None:
        if row != self.row:
            self.row = row
        self.shown = shown

    def _look_back(self, t: float) -> Session:
        """Return the row of before the uses that are still to begin."""
        state = next((one for one in reversed(self.before) if one[1] <= t), self.before[0])
        uses, _, busy_until = state[:3]
        shown = (uses, t >= busy_until, None)
        if self.shown != shown:
            now = self._now()
            self._set(state)
            self._show(shown, self._row(resting=shown[1]))
            self._set(now)
        return self.row  # type: ignore[return-value]

    def _may_still_show(self, since: float) -> tuple[tuple[Any, ...], ...]:
        """Return its states that a look from that instant on can show once a further use is told of."""
        if not self.before or self.busy_from <= since:
            return (self._now(),)
        ends = [*(state[1] for state in self.before[1:]), self.busy_from]
        return (*(state for state, end in zip(self.before, ends, strict=True) if end > since), self._now())

    def _now(self) -> tuple[Any, ...]:
        return (
            *(self.uses, self.busy_from, self.busy_until, self.rested_at, self.query, self.query_id),
            *(self.wait, self.rest, self.transaction_from),
        )

    def _set(self, state: tuple[Any, ...]) -> None:
        self.uses, self.busy_from, self.busy_until, self.rested_at, self.query, self.query_id = state[:6]
        self.wait, self.rest, self.transaction_from = state[6:]

    def _row(self, *, resting: bool) -> Session:
        stuck = resting and self.rest == "ClientRead"
        state = "active" if stuck or not resting else self.rest
        ticket = None if resting else self.ticket
        wait = ticket.wait if ticket is not None else self.rest_wait if resting else self.wait
        in_transaction = state in {"active", IDLE_IN_TRANSACTION}
        return Session(
            pid=self.pid,
            backend_start=self.start,
            state=state,
            datname=self.database,
            usename=self.user,
            application_name=self.application,
            client_addr=self.client,
            query_start=self.busy_from if self.uses else None,
            xact_start=self.transaction_from if in_transaction and self.uses else None,
            # A statement that waits for its client has been `active` since it began.
            state_change=self.busy_from if state == "active" else self.rested_at,
            wait_event_type=wait[0] if wait else None,
            wait_event=wait[1] if wait else None,
            query=self.query if self.uses else None,
            query_id=self.statement_id if self.uses else None,
            blocked_by=ticket.blocked_by if ticket is not None else (),
            backend_type=self.backend_type,
            leader_pid=self.leader_pid,
            backend_xid=self.backend_xid if in_transaction else None,
            backend_xmin=self.backend_xmin if in_transaction else None,
        )
