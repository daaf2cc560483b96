"""The simulated server's door: who gets a session, who is refused and why, and how much of each limit is taken.

Owns slots, limits, refusals and what is counted of sessions. It knows no time but `now`, and nobody's behaviour.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from batsignal.snapshot import CLIENT_BACKEND, FailureReason, PollFailure, Slots
from simulator.locks import Locks
from simulator.seats import CLIENT_READ, LOGIN_SECONDS, Seat

START = 1_760_000_000.0
SLOTS = Slots(max=100, superuser_reserved=3)
# As Linux hands them out by default: one after the other, and from the beginning again.
PID_LEAST, PID_MOST = 1001, 32_767
NO_WAY_IN = frozenset({"refused", "timeout", "unreachable", "not_accepting"})


class Refused(Exception):  # noqa: N818 - what the server says, not a fault of ours
    """The server gives no session; `reason` as a look that failed would name it."""

    def __init__(self, reason: FailureReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True, eq=False)
class Meter:
    """Notes when so many sessions of a limit were first taken. `limit` is as a signal's subject names it."""

    limit: str
    ratio: float
    first_at: float | None = None


class Server:
    """Who may have a session at `now`, and who has one."""

    def __init__(self, *, slots: Slots | None) -> None:
        self.now = START
        self.slots = slots
        self.role_limits: dict[str, int] = {}
        self.database_limits: dict[str, int] = {}
        self.seats: dict[int, Seat] = {}
        self.locks = Locks()
        self.failing: list[tuple[float, float, PollFailure]] = []
        """From when to when it is away, in seconds after the start, and how."""
        self.meters: list[Meter] = []
        self.refusals: Counter[FailureReason] = Counter()
        self.tells_query_ids = False
        self.next_pid = PID_LEAST - 1
        self.processes: Counter[str] = Counter()
        """How many processes that are no client's were ever started, by their type."""
        self.is_watched = True
        """Whether our own seat is taken; lost when the server goes away."""
        self._has_wrapped = False
        self._taken: Counter[str] = Counter()
        self._established = 1
        self._committed = 0
        self._untold_refusals = 0

    @property
    def elapsed(self) -> float:
        return self.now - START

    def open(self, application: str | None, **place: Any) -> Seat | None:
        """Open a session, as `connect` does; None when the server refuses it."""
        try:
            return self.connect(application, **place)
        except Refused:
            return None

    def connect(
        self,
        application: str | None,
        *,
        user: str | None = "app",
        database: str | None = "shop",
        client: str | None = "10.0.0.4",
        rest: str | None = "idle",
        query: str = "SELECT * FROM orders WHERE id = ?",
        query_id: str | None = None,
        backend_type: str = CLIENT_BACKEND,
        leader_pid: int | None = None,
        superuser: bool = False,
    ) -> Seat:
        """Open a session; raises Refused, which is counted. What is no client's backend takes no slot."""
        is_client = backend_type == CLIENT_BACKEND
        reason = self.refusal(user=user, database=database, superuser=superuser) if is_client else None
        if reason is not None:
            self.refusals[reason] += 1
            self._untold_refusals += 1
            raise Refused(reason)
        seat = Seat(
            *(self._free_pid(), self.now, application, user, database, client, rest, query, query_id),
            backend_type=backend_type,
            leader_pid=leader_pid,
            tells_query_id=self.tells_query_ids,
            rested_at=self.now + LOGIN_SECONDS,
            rest_wait=CLIENT_READ if is_client else None,
        )
        self.seats[seat.pid] = seat
        if is_client:
            self._established += 1
            self._count_seat(seat, 1)
        else:
            self.processes[backend_type] += 1
        return seat

    def _free_pid(self) -> int:
        while True:
            self.next_pid += 1
            if self.next_pid > PID_MOST:
                self.next_pid, self._has_wrapped = PID_LEAST, True
            if self.next_pid not in self.seats:
                return self.next_pid

    def close(self, seat: Seat) -> None:
        """End a session and let go of its locks; does nothing when it has ended."""
        if self.seats.get(seat.pid) is not seat:
            seat.closed = True
            return
        del self.seats[seat.pid]
        seat.closed = True
        self._committed += seat.commits
        if seat.backend_type == CLIENT_BACKEND:
            self._count_seat(seat, -1)
        self.locks.leave_all(seat)

    def refusal(
        self, *, user: str | None = "app", database: str | None = "shop", superuser: bool = False
    ) -> FailureReason | None:
        """Return why somebody would be refused a session now; None when he would get one."""
        failure = self._failure()
        if failure is not None and failure.reason in NO_WAY_IN:
            return failure.reason
        if self.slots is not None and self.used >= (self.slots.max if superuser else self.slots.usable):
            return "slots_full"
        if self._is_over(self.role_limits, "role", user):
            return "role_limit"
        return "database_limit" if self._is_over(self.database_limits, "database", database) else None

    def _is_over(self, limits: dict[str, int], kind: str, name: str | None) -> bool:
        most = -1 if name is None else limits.get(name, -1)
        return most >= 0 and self._taken[f"{kind}:{name}"] >= most

    def _count_seat(self, seat: Seat, step: int) -> None:
        for name in ("server", f"role:{seat.user}", f"database:{seat.database}"):
            self._taken[name] += step
        for meter in self.meters:
            if meter.first_at is None and step > 0 and self.taken_ratio(meter.limit) >= meter.ratio:
                meter.first_at = self.now

    def taken_ratio(self, limit: str) -> float:
        """Return how much of a limit (`server`, `role:NAME`, `database:NAME`) is taken; 0 where there is none."""
        kind, _, name = limit.partition(":")
        if kind == "server":
            return 0.0 if self.slots is None else self.used / self.slots.usable
        most = (self.role_limits if kind == "role" else self.database_limits).get(name, -1)
        return self._taken[limit] / most if most > 0 else 0.0

    def meter(self, limit: str, ratio: float) -> Meter:
        """Note from now on when so much of a limit is first taken."""
        self.meters.append(Meter(limit, ratio))
        return self.meters[-1]

    @property
    def used(self) -> int:
        """Slots that are taken, ours among them."""
        return self._taken["server"] + self.is_watched

    @property
    def is_full(self) -> bool:
        """Whether an ordinary role gets no slot."""
        return self.slots is not None and self.used >= self.slots.usable

    @property
    def is_down(self) -> bool:
        failure = self._failure()
        return failure is not None and failure.reason in NO_WAY_IN

    def _failure(self) -> PollFailure | None:
        if not self.failing:
            return None
        elapsed = self.elapsed
        return next((one for start, end, one in self.failing if start <= elapsed < end), None)
