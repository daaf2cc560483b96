"""How a session is come by: one attempt at a time, waited for over as many looks as it takes.

Owns the dialling (names resolved, addresses in turn, pauses between attempts) and the one attempt that may be under
way. It must never have two connections open, and does not judge a refusal: `refusal` does.

A server that hangs takes connections all the same, for its kernel does; so does one whose catalogs are locked, and
lets each wait inside for ever. Whoever gives such an attempt up and dials again leaves a row of them, which then take
every slot there is (others' monitors did). So an attempt that was taken is waited for; only one that reached nobody, or
that nobody has answered for minutes, makes room for the next.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg2
import structlog

from batsignal.poll.backoff import Backoff
from batsignal.poll.conninfo import connect_parameters
from batsignal.poll.guarded import DeadlineError, GuardedSession
from batsignal.poll.refusal import Place, Refusal, places_of
from batsignal.poll.resolve import ResolveError, Resolver

RESOLVE_SECONDS = 1.0
# How long a first attempt that was taken is waited for. PostgreSQL itself ends one that cannot log in after 60 s
# (authentication_timeout); behind a middlebox that answers for a dead server nobody ever would.
HOLD_FIRST_SECONDS, HOLD_MOST_SECONDS = 120.0, 900.0
LEFT_BEHIND_MOST = 16
# PgBouncer's words, unless its `ignore_startup_parameters` says otherwise. What we need is not in the options.
_REFUSES_OPTIONS = "unsupported startup parameter: options"

Entered = TypeVar("Entered")
log = structlog.get_logger(__name__)

Introduce = Callable[[GuardedSession, float], Entered]
"""Called with an open session and a deadline until it returns; raises as `GuardedSession.query` does."""


@dataclass(slots=True)
class _Attempt:
    session: GuardedSession
    began: float
    parameters: Mapping[str, str]
    password: str | None = field(repr=False)
    is_open: bool = False


class Entrance:
    """The way into one server. Not thread-safe: one owner."""

    def __init__(
        self,
        dsn: str,
        resolver: Resolver,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        dbname: str | None = None,
        replication: bool = False,
    ) -> None:
        """`dbname` is where to when the connection string does not say; with `replication` a walsender is asked for."""
        self._dsn = dsn
        self._resolver = resolver
        self._monotonic = monotonic
        self._replication = replication
        self._defaults = {} if dbname is None else {"dbname": dbname}
        self._backoff = Backoff()
        self._attempt: _Attempt | None = None
        self._turn = 0
        self._held = 0
        self._leaves_out: dict[str, str] = {}
        self.places: tuple[Place, ...] = ()
        """Where the connection string led to at the last attempt."""
        self.left_behind: deque[int] = deque(maxlen=LEFT_BEHIND_MOST)
        """Our TCP ports of what was given up: the server may not have learnt of it, and still keep a session there."""

    @property
    def is_under_way(self) -> bool:
        """Whether an attempt is waited for."""
        return self._attempt is not None

    @property
    def may_try(self) -> bool:
        """Whether `enter` would do something now rather than wait out its pause."""
        return self._attempt is not None or self._backoff.may_try(self._monotonic())

    def enter(self, wait_seconds: float, introduce: Introduce[Entered]) -> Entered | Refusal:
        """Begin an attempt or go on with the one under way; return what `introduce` made of the session, or why not.

        The refusal's error is DeadlineError while the server has not answered, ResolveError when it has no address.
        """
        attempt = self._attempt
        if attempt is None:
            begun = self._begin()
            if isinstance(begun, Refusal):
                return begun
            attempt = self._attempt = begun
        deadline = self._monotonic() + wait_seconds
        try:
            entered = self._wait(attempt, deadline, introduce)
        except (DeadlineError, psycopg2.Error) as exc:
            if _REFUSES_OPTIONS in str(exc) and not self._leaves_out:
                log.warning("options of the connection string are left out: a pooler refuses them")
                self._leaves_out = {"options": ""}
                self.leave()
                return self.enter(wait_seconds, introduce)
            refusal = Refusal(error=exc, parameters=attempt.parameters, password=attempt.password)
            if not isinstance(exc, DeadlineError) or not self._is_worth_waiting_for(attempt):
                self.leave()
                self.failed(is_address_at_fault=isinstance(exc, DeadlineError))
            return refusal
        self._attempt = None
        self._held = 0
        self._backoff.succeeded()
        return entered

    def failed(self, *, is_address_at_fault: bool = False) -> None:
        """Wait a little before the next attempt, and begin that with another address when this one is at fault."""
        self._turn += is_address_at_fault
        self._backoff.failed(self._monotonic())

    def hurry(self) -> None:
        """Try again at the next chance: what stood in the way is seen to be gone."""
        self._backoff.succeeded()

    def leave(self) -> None:
        """Give up the attempt under way."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self.give_up(attempt.session)

    def give_up(self, session: GuardedSession) -> None:
        """Drop a session that nobody answers on, and keep in mind that the server may not learn of it."""
        port = session.local_port
        if port is not None:
            self.left_behind.append(port)
        session.abort()

    def _begin(self) -> _Attempt | Refusal:
        parameters: dict[str, str] = {}
        try:
            parameters = connect_parameters(
                self._dsn, self._resolver, RESOLVE_SECONDS, self._turn, replication=self._replication
            )
            self.places = places_of(parameters)
            session = GuardedSession({**self._defaults, **parameters, **self._leaves_out}, monotonic=self._monotonic)
        except (ResolveError, psycopg2.Error) as exc:
            self.failed()
            return Refusal(error=exc, parameters=parameters, password=parameters.get("password"))
        self.places = places_of(session.parameters)
        return _Attempt(session, self._monotonic(), session.parameters, session.password)

    @staticmethod
    def _wait(attempt: _Attempt, deadline: float, introduce: Introduce[Entered]) -> Entered:
        session = attempt.session
        if not attempt.is_open:
            session.open(deadline)
            attempt.is_open = True
        if session.in_flight:
            session.finish(deadline)
        return introduce(session, deadline)

    def _is_worth_waiting_for(self, attempt: _Attempt) -> bool:
        if not attempt.session.is_taken:
            return False
        hold_seconds = min(HOLD_FIRST_SECONDS * 2 ** min(self._held, 8), HOLD_MOST_SECONDS)
        if self._monotonic() - attempt.began <= hold_seconds:
            return True
        self._held += 1
        return False
