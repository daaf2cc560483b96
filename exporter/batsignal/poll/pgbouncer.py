"""Looks at PgBouncer's own pools through its admin console, on one kept connection.

It asks `SHOW POOLS` and reads the columns by name, for they differ from version to version. It has a thread of its own
and deadlines on everything: a PgBouncer that is down, or hangs, never holds up the look at the server behind it; until
it answers again, nothing is known of its pools. It must not judge, and changes nothing: the console takes commands.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2
import structlog

from batsignal.names import legible
from batsignal.poll.conninfo import redacted
from batsignal.poll.entrance import Entrance
from batsignal.poll.guarded import DeadlineError, GuardedSession
from batsignal.poll.refusal import Refusal
from batsignal.poll.resolve import ResolveError, Resolver
from batsignal.poll.startup_error import server_message
from batsignal.snapshot import PoolerPool

CONSOLE = "pgbouncer"
LOOK_SECONDS = 1.0
CONNECT_SECONDS = 2.0
# How long an answer is waited for before the connection is given up and a new one is tried.
PATIENCE_SECONDS = 6.0
# What was seen longer ago says nothing of now.
FRESH_SECONDS = 3.0
SECONDS_DIGITS = 6

_COUNTS = ("cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerLook:
    """What one look returned: the pools, None when it failed, and then why; `seconds` is how long it took."""

    pools: tuple[PoolerPool, ...] | None
    failure: str | None = None
    seconds: float = 0.0


class PgBouncerPoller:
    """Polls one PgBouncer. `run` and `look` are called by one thread at a time; `latest` and `close` by any."""

    def __init__(
        self,
        *,
        server: str,
        dsn: str,
        resolver: Resolver,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._monotonic = monotonic
        self._entrance = Entrance(dsn, resolver, monotonic=monotonic, dbname=CONSOLE)
        self._busy = threading.Lock()
        self._closing = False
        self._session: GuardedSession | None = None
        self._stuck_since: float | None = None
        self._failure: str | None = None
        self._latest: tuple[float, PoolerLook] | None = None
        self._told: str | None = ""

    def run(self) -> None:
        """Look once and keep what was seen; a change between seen and not seen is logged once."""
        with self._busy:
            if self._closing:
                return
            look = self.look()
            self._latest = (self._monotonic(), look)
            if self._closing:  # `close` has not waited for us
                self._drop()
        if (look.failure is None) != (self._told is None):
            if look.failure is None:
                log.info("pgbouncer seen", server=self._server, pools=len(look.pools or ()))
            else:
                log.warning("pgbouncer not seen", server=self._server, reason=look.failure)
            self._told = look.failure

    def latest(self) -> PoolerLook:
        """Return the last look, as a failed one when it is too old to count or there was none yet."""
        if self._latest is None:
            return PoolerLook(pools=None, failure="not asked yet")
        at, look = self._latest
        if self._monotonic() - at > FRESH_SECONDS:
            return PoolerLook(pools=None, failure="it does not answer", seconds=look.seconds)
        return look

    def look(self) -> PoolerLook:
        """Look once. Never raises for what PgBouncer or the way to it does."""
        started = self._monotonic()
        pools = self._look()
        seconds = round(self._monotonic() - started, SECONDS_DIGITS)
        return PoolerLook(pools=pools, failure=self._failure if pools is None else None, seconds=seconds)

    def close(self, wait_seconds: float = 0.0) -> None:
        """Give the connection back; a look that hangs longer than this keeps it until its own end."""
        self._closing = True
        if self._busy.acquire(timeout=wait_seconds):
            self._drop()
            self._busy.release()

    def _look(self) -> tuple[PoolerPool, ...] | None:
        if self._session is None:
            self._session = self._enter()
        session = self._session
        if session is None:
            return None
        try:
            return self._ask(session)
        except DeadlineError:
            self._be_patient()
        except psycopg2.Error as exc:
            self._give_up(_said(exc, session.password))
        return None

    def _enter(self) -> GuardedSession | None:
        if not self._entrance.may_try:
            return None
        wait_seconds = LOOK_SECONDS if self._entrance.is_under_way else CONNECT_SECONDS
        entered = self._entrance.enter(wait_seconds, lambda session, _deadline: session)
        if not isinstance(entered, Refusal):
            return entered
        match entered.error:
            case DeadlineError():
                self._failure = f"no answer within {CONNECT_SECONDS:g} s"
            case ResolveError() as exc:
                self._failure = str(exc)
            case exc:
                self._failure = _said(exc, entered.password)
        return None

    def _ask(self, session: GuardedSession) -> tuple[PoolerPool, ...]:
        deadline = self._monotonic() + LOOK_SECONDS
        if session.in_flight:
            session.finish(deadline)
        rows = session.query("SHOW POOLS", {}, deadline)
        names = session.columns
        self._stuck_since = None
        return tuple(read_pool(dict(zip(names, row, strict=True))) for row in rows)

    def _be_patient(self) -> None:
        now = self._monotonic()
        self._failure = f"no answer within {LOOK_SECONDS:g} s"
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        if now - self._stuck_since > PATIENCE_SECONDS:
            self._give_up(self._failure)

    def _give_up(self, failure: str) -> None:
        self._failure = failure
        self._drop()
        self._entrance.failed()

    def _drop(self) -> None:
        self._entrance.leave()
        session, self._session = self._session, None
        if session is not None and self._stuck_since is not None:
            session.abort()
        elif session is not None:
            session.close()
        self._stuck_since = None


def _said(error: Exception, password: str | None) -> str:
    return server_message(redacted(str(error), password)) or type(error).__name__


def read_pool(row: Mapping[str, Any]) -> PoolerPool:
    """Return a row of `SHOW POOLS` as a value; a column that this version does not have is None.

    >>> read_pool({"database": "shop", "user": "web", "maxwait": 2, "maxwait_us": 500000}).maxwait_seconds
    2.5
    """
    seconds = row.get("maxwait")
    return PoolerPool(
        database=legible(str(row["database"])),
        user=legible(str(row["user"])),
        # Whole seconds, and the microseconds beyond them from 1.8 on.
        maxwait_seconds=None if seconds is None else int(seconds) + int(row.get("maxwait_us") or 0) / 1e6,
        pool_mode=row.get("pool_mode"),
        **{name: None if row.get(name) is None else int(row[name]) for name in _COUNTS},
    )
