"""The model of a client's pool: whom it lends a session, when it opens one more, and when it closes one.

Owns one process's sessions and the queue of those who wait for one. What differs from pool to pool are `PoolRules`;
those of well-known ones stand in `pool_kinds`. It must not know the server: whether a session can be had is for the
world to say. Sessions come back when somebody asks for one; only where a return changes what the server shows (a
session is closed, or handed on at once) is it an event of its own, so that hours of traffic cost seconds.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simulator.pool_rules import PoolRules
from simulator.seats import IDLE_IN_TRANSACTION, Behaviour, Seat

Rate = float | Callable[[float], float]

# BEGIN, the statement and COMMIT are three round trips; until the last is answered the session is not idle.
BUSY_OVERHEAD_RATIO = 2 / 3
NEVER = float("inf")
# Two ways to add up the same instant differ by less; Unix seconds in floats are that coarse.
ROUNDING_SECONDS = 1e-6
# What of its place decides whether the server takes one more.
WHO = ("user", "database")
# From the end of a session to the first one opened in its place.
REFILL_SECONDS = 0.02


@dataclass(slots=True, eq=False)
class Member:
    """One session of a pool, lent or free."""

    seat: Seat
    expires_at: float
    free_since: float = NEVER
    is_timed: bool = True
    """Whether its idle time runs: it stops where the pool is as small as it may be, until the next use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a borrower does with its session: a statement, and with a pause of the client in it, two halves of one."""

    asked_at: float
    seconds: float
    think_seconds: float = 0.0
    is_lost: bool = False
    """Never given back."""
    statement: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Pool(PoolRules):
    """One process's pool; `PoolRules` says what may be set."""

    def __post_init__(self) -> None:
        self._members: list[Member] = []
        self._free: deque[Member] = deque()
        self._out: list[tuple[float, int, Member]] = []
        self._waiting: deque[Job] = deque()
        self._opening = 0
        self._growing = False
        self._filling = False
        self._count = 0
        self._wakes_at = NEVER
        self._idle_watched = False
        self._fewest_free = self.least
        self._housekeeping = False
        self._timed_out = 0

    # -- what can be seen of it ------------------------------------------------------------------------------------

    @property
    def seats(self) -> list[Seat]:
        """Its sessions, in the order in which they were opened."""
        return [member.seat for member in self._members if not member.seat.closed]

    @property
    def size(self) -> int:
        """Sessions that are open or being opened."""
        return len(self._members) + self._opening

    @property
    def waiting(self) -> int:
        """How many wait for a session now."""
        self._settle()
        self._forget_late()
        return len(self._waiting)

    @property
    def timed_out(self) -> int:
        """How many have waited in vain."""
        self._settle()
        self._forget_late()
        return self._timed_out

    def seconds_until_lent(self) -> float:
        """Return how long one who asks now would wait; infinity when it would wait in vain."""
        self._settle()
        self._forget_late()
        place = len(self._waiting) - len(self._free)
        if place < 0:
            return 0.0
        if self.size < self.most:
            is_welcome = self.world.refusal(**{name: self.place[name] for name in WHO if name in self.place}) is None
            if is_welcome or self.grows_by == "caller":
                return self.connect_seconds if is_welcome else NEVER
        returns = heapq.nsmallest(place + 1, (until for until, _, _ in self._out))
        seconds = returns[place] - self.world.now if len(returns) > place else NEVER
        return seconds if seconds <= self.wait_seconds else NEVER

    # -- what an application does with it --------------------------------------------------------------------------

    def fill(self) -> Behaviour:
        """Open sessions until there are `least`; after a refusal, again and again."""
        if self._filling:
            return
        self._filling = True
        retry_seconds = self.retry_seconds
        while self.size < self.least and not self.closing:
            member = self._open()
            if member is None:
                yield self._retry_gap(retry_seconds)
                retry_seconds = min(2 * retry_seconds, self.retry_most_seconds)
            else:
                self._give_back(member, self.world.now)
                self._watch_idle(self.world.now)
                yield self.fill_gap_seconds
        self._filling = False

    def work(self, rate: Rate, seconds: float = 0.02, until: float = NEVER) -> Behaviour:
        """Take requests at `rate` a second (a number, or a function of the seconds since the start)."""
        chance = self.world.chance
        while self.world.elapsed < until and not self.closing:
            now = rate(self.world.elapsed) if callable(rate) else rate
            if now <= 0:
                yield 1.0
                continue
            yield chance.expovariate(now)
            if not self.closing:
                self.request(chance.expovariate(1 / seconds))

    def request(self, seconds: float, *, think_seconds: float = 0.0, **statement: Any) -> None:
        """Borrow a session for one transaction; `statement` is handed on to the session's `use`."""
        self._serve(Job(asked_at=self.world.now, seconds=seconds, think_seconds=think_seconds, statement=statement))

    def lose(self, seconds: float = 0.02, **statement: Any) -> None:
        """Borrow a session for one statement and never give it back."""
        self._serve(Job(asked_at=self.world.now, seconds=seconds, is_lost=True, statement=statement))

    def close(self) -> None:
        """Close every session at once; nothing is served any more."""
        self.closing = True
        for member in self._members:
            self.world.close(member.seat)
        for things in (self._members, self._free, self._out, self._waiting):
            things.clear()

    # -- lending ---------------------------------------------------------------------------------------------------

    def _serve(self, job: Job) -> None:
        if self.closing:
            return
        self._settle()
        self._forget_late()
        member = self._take() if not self._waiting else None
        if member is not None:
            self._lend(member, job, job.asked_at)
        elif self.grows_by == "caller" and self.size < self.most:
            self._open_for(job)
        else:
            self._waiting.append(job)
            if self.grows_by == "worker":
                self._grow()
            self._watch_returns()

    def _take(self) -> Member | None:
        while self._free:
            member = self._free.pop() if self.order == "lifo" else self._free.popleft()
            self._fewest_free = min(self._fewest_free, len(self._free))
            if not member.seat.closed:
                return member
            self._write_off(member)
        return None

    def _open_for(self, job: Job) -> None:
        member = self._open()
        if member is not None:
            self._lend(member, job, self.world.now + self.connect_seconds)

    def _lend(self, member: Member, job: Job, at: float) -> None:
        now = self.world.now
        if self.lifetime_ends == "checkout" and member.expires_at <= now:
            self._drop(member)
            self._open_for(job)
            return
        member.is_timed = True
        self.served += 1
        until = self._use(member.seat, at, job)
        if job.is_lost:
            self.lost.append((at, member.seat))
            return
        self._count += 1
        heapq.heappush(self._out, (until, self._count, member))
        if member.expires_at <= until:
            self._at(until, self._settle)
        self._watch_returns()
        self._watch_idle(until)

    def _use(self, seat: Seat, at: float, job: Job) -> float:
        """Let the session do the job from `at` on; return when it will have done and is back."""
        done = at + job.seconds + job.think_seconds + self.overhead_seconds
        seconds = job.seconds + BUSY_OVERHEAD_RATIO * self.overhead_seconds
        if not job.think_seconds:
            seat.use(at, seconds, **job.statement)
            return done
        half, rest = seconds / 2, seat.rest
        seat.use(at, half, **job.statement | {"rest": IDLE_IN_TRANSACTION})

        def end() -> None:
            seat.use(self.world.now, half, **{"rest": rest} | job.statement)

        self._at(at + half + job.think_seconds, end)
        return done

    # -- giving back -----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Take back what has come back by now."""
        now = self.world.now + ROUNDING_SECONDS
        while self._out and self._out[0][0] <= now:
            until, _, member = heapq.heappop(self._out)
            if member.seat.closed:
                self._write_off(member)
            else:
                self._give_back(member, until)

    def _give_back(self, member: Member, at: float) -> None:
        if self.lifetime_ends != "checkout" and member.expires_at <= at + ROUNDING_SECONDS:
            self._drop(member)
            self._replace()
            return
        self._forget_late()
        if self._waiting:
            self._lend(member, self._waiting.popleft(), at)
        elif self.kept is not None and len(self._free) >= self.kept:
            self._drop(member)
        else:
            member.free_since = at
            self._free.append(member)

    def _forget_late(self) -> None:
        while self._waiting and self._waiting[0].asked_at + self.wait_seconds <= self.world.now:
            self._waiting.popleft()
            self._timed_out += 1

    def _watch_returns(self) -> None:
        """Take the next one back at its very moment, if it is to be closed or handed on."""
        matters = self._waiting or (self.kept is not None and self.size > self.kept)
        if matters and self._out and self._out[0][0] < self._wakes_at:
            self._wakes_at = self._out[0][0]
            self._wake_at(self._wakes_at)

    def _wake_at(self, instant: float) -> None:
        def wake() -> None:
            # An earlier return was awaited since: it has seen to the others after it.
            if instant == self._wakes_at:
                self._wake()

        self._at(instant, wake)

    def _wake(self) -> None:
        self._wakes_at = NEVER
        self._settle()
        self._watch_returns()

    def _at(self, instant: float, act: Callable[[], object]) -> None:
        self.world.call(self.world.elapsed + max(instant - self.world.now, 0.0), act)

    # -- opening and closing ---------------------------------------------------------------------------------------

    def _open(self) -> Member | None:
        """Open a session; None when the server refuses it."""
        seat = self.world.open(self.application, **self.place)
        if seat is None:
            self.refused += 1
            return None
        life = self.lifetime_seconds
        expires_at = (
            NEVER if life is None else self.world.now + life * (1 - self.lifetime_spread * self.world.chance.random())
        )
        member = Member(seat, expires_at)
        self._members.append(member)
        if life is not None and self.lifetime_ends == "timer":
            self._at(expires_at, lambda: self._retire(member))
        if not self._housekeeping and self.idle_seconds is not None and self.idle_rule != "each":
            self._housekeeping = True
            self.world.run(self._keep_house(self.idle_seconds))
        return member

    def _drop(self, member: Member) -> None:
        self._members.remove(member)
        self.world.close(member.seat)

    def _write_off(self, member: Member) -> None:
        """Forget a session that the server ended, which is found out when it comes back or is asked for.

        One that was lost is never found out: it takes its place in the pool for ever.
        """
        self._members.remove(member)
        self._forget_late()
        if self._waiting and self.grows_by == "caller":
            self._open_for(self._waiting.popleft())
        elif self._waiting:
            self._grow()
        self._replace()

    def _retire(self, member: Member) -> None:
        self._settle()
        if member in self._free:
            self._free.remove(member)
            self._drop(member)
            self._replace()

    def _replace(self) -> None:
        if self.lifetime_ends == "return":
            self._opening += 1
            self.world.run(self._add())
        else:
            self._refill()

    def _refill(self) -> None:
        if self.size < self.least and not self.closing:
            self.world.run(self.fill(), self.world.elapsed + REFILL_SECONDS)

    def _add(self) -> Behaviour:
        """Open one session that is counted already, and lend it or keep it; after a refusal, again and again."""
        retry_seconds = self.retry_seconds
        member = None
        while not self.closing and (member := self._open()) is None:
            yield self._retry_gap(retry_seconds)
            retry_seconds = min(2 * retry_seconds, self.retry_most_seconds)
        self._opening -= 1
        yield self.connect_seconds
        if member is not None and not member.seat.closed:
            self._settle()
            self._give_back(member, self.world.now)
            self._watch_idle(self.world.now)

    def _grow(self) -> None:
        if not self._growing and self.size < self.most:
            self._growing = True
            self._opening += 1
            self.world.run(self._grow_on())

    def _grow_on(self) -> Behaviour:
        yield from self._add()
        while self._waiting and self.size < self.most and not self.closing:
            self._opening += 1
            yield from self._add()
        self._growing = False

    def _retry_gap(self, seconds: float) -> float:
        return seconds * self.world.chance.uniform(0.9, 1.1)

    # -- sessions that nobody needs ----------------------------------------------------------------------------------

    def _keep_house(self, idle_seconds: float) -> Behaviour:
        shrinks = self.idle_rule == "shrink"
        while not self.closing:
            yield idle_seconds if shrinks else self.housekeeping_seconds
            self._settle()
            if shrinks:
                never_needed, self._fewest_free = self._fewest_free, len(self._free)
                if never_needed and self._free and self.size > self.least:
                    self._drop(self._free.popleft())
                    self._fewest_free -= 1
            else:
                since = self.world.now - idle_seconds
                while self._free and self._free[0].free_since < since and self.size > self.least:
                    self._drop(self._free.popleft())

    def _watch_idle(self, free_from: float) -> None:
        if self.idle_seconds is not None and self.idle_rule == "each" and not self._idle_watched:
            self._idle_watched = True
            after = free_from + self.idle_seconds - self.world.now
            self.world.run(self._end_idle(self.idle_seconds), self.world.elapsed + after)

    def _end_idle(self, idle_seconds: float) -> Behaviour:
        while not self.closing:
            self._settle()
            now = self.world.now
            late = now - idle_seconds + ROUNDING_SECONDS
            for member in [one for one in self._free if one.is_timed and one.free_since <= late]:
                if self.size > self.least:
                    self._free.remove(member)
                    self._drop(member)
                else:
                    member.is_timed = False
            next_free = next((one.free_since for one in self._free if one.is_timed), NEVER)
            if next_free == NEVER and self._out:
                next_free = self._out[0][0]
            if next_free == NEVER:
                break
            yield next_free + idle_seconds - now
        self._idle_watched = False
