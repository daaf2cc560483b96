"""Looks at one PostgreSQL server once a tick, on one kept session, and returns what it saw as a `Snapshot`.

It never judges and never raises: a look that fails is a `PollFailure`. The session is opened at the start and kept, so
that it still answers when nobody else can get in. While the server does not answer, the statement in flight is waited
for; after some seconds one attempt is made beside it (`entrance`), and whichever answers first is kept: never more than
two, and the seat is not given up for a promise. It is an ordinary session or, for an emergency, a walsender: which one
is looked through is `sight`'s affair.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg2
import structlog

from batsignal.poll.conninfo import redacted
from batsignal.poll.entrance import Entrance
from batsignal.poll.facts import Facts
from batsignal.poll.guarded import GAVE_UP, INSUFFICIENT_PRIVILEGE, DeadlineError, GuardedSession
from batsignal.poll.manners import Host, introduce
from batsignal.poll.queries import sql
from batsignal.poll.refusal import Place, explain, knock
from batsignal.poll.resolve import Resolver
from batsignal.poll.rows import Names, Row, RowReader
from batsignal.poll.startup_error import server_message
from batsignal.snapshot import FailureReason, PollFailure, Session, Snapshot

LOOK_SECONDS = 1.0
CONNECT_SECONDS = 2.0
# How long a statement in flight is waited for before a new session is tried beside it.
PATIENCE_SECONDS = 6.0

BLOCKERS_MAX = 100
# No clock here is better than a microsecond; further digits would only fill recordings.
PING_DIGITS = 6
NO_POOLER = "give dsn the server's own address; a PgBouncer's pools are seen by pgbouncer_dsn"

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class _Kept:
    """The kept session and what is known through it."""

    session: GuardedSession
    host: Host
    facts: Facts
    stuck_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """How to recognise the server among this host's processes."""

    backend_pid: int
    postmaster_start: float
    port: int | None


class PostgresPoller:
    """Polls one server. Owned by one thread; `look` takes at most about `CONNECT_SECONDS` + 2 `LOOK_SECONDS`."""

    def __init__(
        self,
        *,
        server: str,
        dsn: str,
        resolver: Resolver,
        replication: bool = False,
        names: Names | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`names` are those of the server's roles and databases, where several ways to it share them."""
        self._server = server
        self._resolver = resolver
        self._replication = replication
        self._clock = clock
        self._monotonic = monotonic
        self._entrance = Entrance(dsn, resolver, monotonic=monotonic, replication=replication)
        self._kept: _Kept | None = None
        self._names = names or Names()
        self._rows = RowReader(self._names)
        self._failure: PollFailure | None = None
        self._refused = 0
        self._told_of_pooler = False
        self._told_denied: set[str] = set()
        # Server's clock less ours, so that a failed look is timed on the same clock as the good ones.
        self._clock_offset = 0.0

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the connection string led to at the last attempt."""
        return self._entrance.places

    @property
    def may_use_reserve(self) -> bool:
        """Whether our role may take a slot that ordinary ones are kept out of; False while there is no session."""
        return self._kept is not None and self._kept.facts.may_use_reserve

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler stands between us and the server, so that no seat there is ours."""
        return self._kept is not None and self._kept.host.is_pooled

    @property
    def denied(self) -> Mapping[str, str]:
        """What we may not read on the server, by query, in its words."""
        return {} if self._kept is None else self._kept.facts.denied

    @property
    def process(self) -> ServerProcess | None:
        """How to find the server on this host; None until the first session."""
        if self._kept is None:
            return None
        return ServerProcess(
            backend_pid=self._kept.host.pid,
            postmaster_start=self._kept.host.postmaster_start,
            port=self._kept.facts.port,
        )

    def look(self) -> Snapshot:
        """Look once. Never raises: what went wrong is in `failure`."""
        started = self._monotonic()
        self._refused = 0
        snapshot = self._look()
        self._failure = snapshot.failure
        return replace(snapshot, refused=self._refused, poll_seconds={"sessions": self._monotonic() - started})

    def ask(self, query: str, arguments: Mapping[str, Any], deadline: float) -> list[Row] | None:
        """Ask something else than a look, through the kept session and between two looks; None when there is none.

        Raises DeadlineError (the next look waits for the answer) and psycopg2.Error.
        """
        kept = self._kept
        if kept is None:
            return None
        try:
            if kept.session.in_flight:
                self._finish(kept, deadline)
            return kept.session.query(sql(query, kept.host.server_version_num), arguments, deadline)
        except psycopg2.OperationalError as exc:
            if exc.pgcode not in GAVE_UP:
                self._broken(exc)
            raise

    def knock(self) -> PollFailure | None:
        """Return why nobody like us would be let in beside the session that is open; None if somebody would."""
        kept = self._kept
        return None if kept is None else knock(kept.session.parameters, kept.session.password, self._resolver)

    def hurry(self) -> None:
        """Try to get in at the next look, whatever the last attempts met."""
        self._entrance.hurry()

    def close(self) -> None:
        """Give the seat back."""
        self._entrance.leave()
        if self._kept is not None:
            self._kept.session.close()
            self._kept = None

    def _look(self, *, again: bool = True) -> Snapshot:
        if self._kept is None:
            refused = self._enter(LOOK_SECONDS if self._entrance.is_under_way else CONNECT_SECONDS)
            if refused is not None:
                return self._failed(refused)
        try:
            return self._look_through_session(self._monotonic() + self._patience_left())
        except DeadlineError:
            return self._failed(self._stuck())
        except psycopg2.Error as exc:
            failure = self._broken(exc)
        if self._kept is None:
            if again:  # the session was ended from outside (pg_terminate_backend, a restart): a new one may do
                return self._look(again=False)
            self._entrance.failed()
        return self._failed(failure)

    def _failed(self, failure: PollFailure) -> Snapshot:
        kept = self._kept
        return Snapshot(
            server=self._server,
            t=self._clock() + self._clock_offset,
            failure=failure,
            view="none",
            slots=kept.facts.slots if kept else None,
            own_sessions=self._seats if kept else 0,
            server_version_num=kept.host.server_version_num if kept else None,
        )

    @property
    def _seats(self) -> int:
        """How many of the clients' slots our session takes: a walsender has a place of its own."""
        return 0 if self._replication else 1

    # -- the kept session ------------------------------------------------------------------------------------------

    def _enter(self, wait_seconds: float) -> PollFailure | None:
        """Try to have a session, in place of the one that is stuck if there is one; return why there is none."""
        if self._failure is not None and not self._entrance.may_try:
            return self._failure
        entered = self._entrance.enter(wait_seconds, self._introduce)
        if isinstance(entered, _Kept):
            if self._kept is not None:
                self._entrance.give_up(self._kept.session)
            self._kept = entered
            self._tell_of_pooler(entered.host)
            return None
        failure = explain(entered, self._resolver)
        if failure.reason == "timeout" and self._told_of_pooler:
            failure = replace(failure, by_pooler=True)  # it was one that let us in the last time
        if failure.reason == "unreachable":
            self._entrance.failed(is_address_at_fault=True)
        self._refused += failure.reason in {"slots_full", "role_limit", "database_limit"}
        return failure

    def _introduce(self, session: GuardedSession, deadline: float) -> _Kept:
        host = introduce(session, deadline)
        version = host.server_version_num
        self._rows.forget()

        def ask(query: str, wanted: Mapping[str, Any], until: float) -> list[Row]:
            return session.query_often(sql(query, version), wanted, until)

        facts = Facts(names=self._names, ask=ask, monotonic=self._monotonic, server_version_num=version)
        return _Kept(session=session, host=host, facts=facts)

    def _tell_of_pooler(self, host: Host) -> None:
        if host.is_pooled and not self._told_of_pooler:
            log.warning("a pooler answers: when its pool is empty nothing is seen", server=self._server, mend=NO_POOLER)
        self._told_of_pooler = host.is_pooled

    def _tell_of_denied(self, denied: Mapping[str, str]) -> None:
        if denied.keys() != self._told_denied:
            for query in denied.keys() - self._told_denied:
                log.warning("not allowed to read", server=self._server, what=query, reason=denied[query])
            self._told_denied = set(denied)

    def _patience_left(self) -> float:
        """Return how long a look waits for the kept session, in seconds: half as long once another is tried too."""
        kept = self._kept
        if kept is None or kept.stuck_since is None:
            return LOOK_SECONDS
        is_over = self._monotonic() - kept.stuck_since > PATIENCE_SECONDS
        return LOOK_SECONDS / 2 if is_over else LOOK_SECONDS

    def _stuck(self) -> PollFailure:
        """Say that the answer is late, and try another session beside this one once it has been late for too long."""
        now = self._monotonic()
        kept = self._kept
        is_pooled = kept is not None and kept.host.is_pooled
        who = "the pooler lent no session, or the server" if is_pooled else "the server"
        late = PollFailure(
            reason="timeout", text=f"{who} did not answer within {LOOK_SECONDS:g} s", by_pooler=is_pooled
        )
        if kept is None:
            return late
        kept.stuck_since = now if kept.stuck_since is None else kept.stuck_since
        # Beside a walsender the ordinary way is tried already: another walsender would be the third of us.
        if self._replication or now - kept.stuck_since <= PATIENCE_SECONDS:
            return late
        refused = self._enter(LOOK_SECONDS / 2)
        is_as_late = refused is not None and refused.reason == "timeout" and kept.host.is_pooled
        return late if refused is None or is_as_late else refused

    def _broken(self, error: psycopg2.Error) -> PollFailure:
        """Return what an error on the kept session means; the session is given up unless it still serves."""
        text = self._text(error)
        if error.pgcode in GAVE_UP:
            return PollFailure(reason="timeout", sqlstate=error.pgcode, text=text)
        if self._kept is not None:
            self._entrance.give_up(self._kept.session)
            self._kept = None
        reason: FailureReason = "unreachable"
        if error.pgcode in {"57P01", "57P02", "57P03"}:
            reason = "not_accepting"
        elif error.pgcode == INSUFFICIENT_PRIVILEGE:
            reason = "auth_failed"
        return PollFailure(reason=reason, sqlstate=error.pgcode, text=text)

    def _text(self, error: psycopg2.Error) -> str:
        said = error.diag.message_primary or str(error)
        text = redacted(said, self._kept.session.password if self._kept else None)
        return server_message(text) or type(error).__name__

    # -- the look --------------------------------------------------------------------------------------------------

    def _look_through_session(self, deadline: float) -> Snapshot:
        kept = self._kept
        if kept is None:
            raise RuntimeError("no session to look through")
        if kept.session.in_flight:
            self._finish(kept, deadline)
        if kept.stuck_since is not None:
            kept.stuck_since = None
            self._entrance.leave()
        asked = self._monotonic()
        ((t,),) = kept.session.query_often(sql("clock", kept.host.server_version_num), {}, deadline)
        ping_seconds = self._monotonic() - asked
        self._clock_offset = t - self._clock()
        if self._entrance.left_behind and not kept.host.is_pooled:
            kept.facts.ask_calmly("leave", {"ports": list(self._entrance.left_behind)}, deadline)
        # Of a pooler's sessions none is known by a port of ours.
        self._entrance.left_behind.clear()
        privileged = kept.facts.privileged
        kept.facts.refresh(deadline)
        if kept.facts.privileged != privileged:
            self._rows.forget()  # texts that were hidden until now are wanted
        sessions = self._sessions(kept, t, deadline)
        self._tell_of_denied(kept.facts.denied)
        return Snapshot(
            server=self._server,
            t=t,
            sessions=sessions,
            own_sessions=self._seats,
            view="walsender" if self._replication else "session",
            slots=kept.facts.slots,
            role_limits=self._names.role_limits,
            database_limits=self._names.database_limits,
            counters=kept.facts.counters,
            ping_seconds=round(ping_seconds, PING_DIGITS),
            privileged=kept.facts.privileged,
            role=kept.facts.role or kept.session.parameters.get("user"),
            server_version_num=kept.host.server_version_num,
        )

    @staticmethod
    def _finish(kept: _Kept, deadline: float) -> None:
        """Wait for the statement that an earlier look gave up; what became of it does not matter now."""
        try:
            kept.session.finish(deadline)
        except psycopg2.Error as exc:
            if exc.pgcode not in GAVE_UP:
                raise

    def _sessions(self, kept: _Kept, t: float, deadline: float) -> tuple[Session, ...]:
        text = sql("activity", kept.host.server_version_num)
        rows = kept.session.query_often(text, {"since": self._rows.texts_since}, deadline)
        kept.facts.notice(hidden=self._rows.are_hidden(rows))
        kept.facts.learn_names(rows, deadline)
        waiting = self._rows.waiting(rows)[:BLOCKERS_MAX]
        blocked_by: dict[int, tuple[int, ...]] = {}
        if waiting:
            answer = kept.facts.ask_calmly("blockers", {"pids": waiting}, deadline) or []
            blocked_by = {pid: tuple(dict.fromkeys(blockers)) for pid, blockers in answer}
        return self._rows.read(rows, t=t, blocked_by=blocked_by)
