"""Sees one server, whatever is left of the ways in: once a tick, through the best one that is open.

Owns the order of the ways and the change from one to the next: the kept session, which also takes a reserved slot where
the role may; a walsender by `emergency_dsn`, while no ordinary slot is to be had; the titles of the server's processes,
where it runs on this host; nothing. It must not judge, and it invents nothing: a tick without a way in is a failure.

The ordinary way is tried again all the while (with `PostgresPoller`'s back-off), and every other is left as soon as it
is open. So there are two sessions of ours at the most: a walsender, and the attempt beside it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batsignal.config import ServerConfig
from batsignal.poll.postgres import PostgresPoller, ServerProcess
from batsignal.poll.processes import Processes, Sighting
from batsignal.poll.resolve import Resolver
from batsignal.poll.rows import Names, Row
from batsignal.snapshot import FailureReason, PollFailure, Snapshot

FULL: frozenset[FailureReason] = frozenset({"slots_full", "role_limit", "database_limit"})
# Alive, or in doubt: its processes tell. A server that is away or starts has no sessions to show, and whoever restarts
# it must be seen to do so.
TITLES_TELL: frozenset[FailureReason] = FULL | {"auth_failed", "tls_failed", "no_database", "timeout"}
# From this version on the view shows sessions that still authenticate.
AUTHENTICATING_SHOWN_VERSION_NUM = 180_000
# The postmaster takes twice as many connections as there are slots, and some more for its own processes.
CONNECTIONS_PER_SLOT = 2
KNOCK_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What is left of the ways in should no slot be: tried, not guessed. None where there is no such way."""

    may_use_reserve: bool
    emergency: Snapshot | None
    """The look through a walsender, be it one that failed."""
    processes: Sighting | None


class Sight:
    """All ways to see one server. Owned by one thread; `look` takes at most about five seconds, most often ms."""

    def __init__(
        self,
        *,
        server: str,
        dsn: str,
        resolver: Resolver,
        emergency_dsn: str | None = None,
        data_directory: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        names = Names()

        def poller(dsn: str, *, replication: bool) -> PostgresPoller:
            return PostgresPoller(
                server=server,
                dsn=dsn,
                resolver=resolver,
                replication=replication,
                names=names,
                clock=clock,
                monotonic=monotonic,
            )

        self._ordinary = poller(dsn, replication=False)
        self._emergency = None if emergency_dsn is None else poller(emergency_dsn, replication=True)
        self._processes = Processes(data_directory=data_directory, names=names, monotonic=monotonic)
        self._clock = clock
        self._monotonic = monotonic
        self._proved_at: object = None
        """Where the connection string led to when the server was last looked for among this host's processes."""
        self._last_seen: Snapshot | None = None
        """The last look through a session: what holds for longer than a tick is taken from it."""
        self._seat: int | None = None
        """The backend of the kept session, and whether it sits in a slot that ordinary roles are kept out of."""
        self._is_reserved = False
        self._turned_away: PollFailure | None = None
        self._knock_due = float("-inf")

    @classmethod
    def of(
        cls,
        config: ServerConfig,
        resolver: Resolver,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> "Sight":
        """Return the sight of a server as it is configured."""
        emergency_dsn = config.emergency_dsn
        return cls(
            server=config.name,
            dsn=config.dsn.get_secret_value(),
            resolver=resolver,
            emergency_dsn=None if emergency_dsn is None else emergency_dsn.get_secret_value(),
            data_directory=config.data_directory,
            clock=clock,
            monotonic=monotonic,
        )

    @property
    def process(self) -> ServerProcess | None:
        """How to find the server on this host; None while there is no session."""
        return self._ordinary.process or (self._emergency.process if self._emergency else None)

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler stands in the ordinary way, so that no seat on the server is ours."""
        return self._ordinary.is_pooled

    @property
    def denied(self) -> Mapping[str, str]:
        """What we may not read on the server, by query, in its words."""
        return self._ordinary.denied

    def look(self) -> Snapshot:
        """Look once. Never raises: what went wrong is in `failure`, what stands in the ordinary way in `refusal`."""
        started = self._monotonic()
        snapshot = self._look()
        return replace(snapshot, poll_seconds={"sessions": self._monotonic() - started})

    def try_ways(self) -> Ways:
        """Try every way beside the ordinary one, after a look. Takes a second session for a moment, at the most."""
        emergency = None
        if self._emergency is not None:
            emergency = self._emergency.look()
            self._leave_emergency()
        return Ways(
            may_use_reserve=self._ordinary.may_use_reserve,
            emergency=emergency,
            processes=self._look_at_processes(born_before=self._clock()),
        )

    def ask(self, query: str, arguments: Mapping[str, Any], deadline: float) -> list[Row] | None:
        """Ask something else than a look, through whatever session there is; None when there is none.

        Raises DeadlineError (the next look waits for the answer) and psycopg2.Error.
        """
        if self._ordinary.process is None and self._emergency is not None:
            return self._emergency.ask(query, arguments, deadline)
        return self._ordinary.ask(query, arguments, deadline)

    def close(self) -> None:
        """Give every seat back."""
        self._ordinary.close()
        self._leave_emergency()

    def _look(self) -> Snapshot:
        began = self._clock()
        snapshot = self._ordinary.look()
        if snapshot.failure is None:
            self._leave_emergency()
            return self._seated(self._completed(snapshot, self._ordinary))
        seen = self._seen_another_way(snapshot, snapshot.failure, born_before=began)
        has_room = seen.slots is not None and seen.used < seen.slots.usable
        if seen.failure is None and snapshot.failure.reason == "slots_full" and has_room:
            self._ordinary.hurry()
        return seen

    def _seen_another_way(self, refused: Snapshot, refusal: PollFailure, *, born_before: float) -> Snapshot:
        seen = self._seen_by_walsender(refused, refusal)
        # While the kept session is only late, its answer is waited for.
        if seen.failure is None or refusal.reason not in TITLES_TELL or self._ordinary.process is not None:
            return seen
        sighting = self._look_at_processes(born_before=born_before)
        return seen if sighting is None else self._seen_by_titles(seen, seen.failure, sighting)

    # -- the kept session ------------------------------------------------------------------------------------------

    def _completed(self, snapshot: Snapshot, poller: PostgresPoller) -> Snapshot:
        """Take in a look through a session, and add the sessions that no view shows."""
        process = poller.process
        if process is not None:
            self._processes.prove_by_session(backend_pid=process.backend_pid, postmaster_start=process.postmaster_start)
            self._proved_at = frozenset(self._ordinary.places)
        authenticating, unborn = self._processes.count_unseen(snapshot.sessions)
        if (snapshot.server_version_num or 0) < AUTHENTICATING_SHOWN_VERSION_NUM:
            snapshot = replace(snapshot, authenticating=authenticating)
        self._last_seen = snapshot
        self._processes.remember(snapshot.sessions)
        return self._knocked(snapshot, snapshot.used + unborn) if poller is self._ordinary else snapshot

    def _knocked(self, snapshot: Snapshot, connections: int) -> Snapshot:
        """Say that nobody else gets in, where the postmaster has all connections it takes, and slots to spare.

        How many it takes is twice the slots and some more, by its version. So it is asked, at those numbers only.
        """
        slots, now, refused = snapshot.slots, self._monotonic(), 0
        if slots is None or connections < CONNECTIONS_PER_SLOT * slots.max:
            self._turned_away = None
        elif now >= self._knock_due:
            self._knock_due = now + KNOCK_SECONDS
            self._turned_away = self._ordinary.knock()
            refused = 1
        if self._turned_away is None or self._turned_away.reason not in FULL:
            return snapshot
        return replace(snapshot, refusal=self._turned_away, refused=refused)

    def _seated(self, snapshot: Snapshot) -> Snapshot:
        """Say whether the session sits in a reserved slot: it got in when no other was left, and none is free yet."""
        pid = self._ordinary.process.backend_pid if self._ordinary.process else None
        is_beyond = snapshot.slots is not None and snapshot.used > snapshot.slots.usable
        self._is_reserved = is_beyond and (self._is_reserved if pid == self._seat else self._ordinary.may_use_reserve)
        self._seat = pid
        return replace(snapshot, view="reserved") if self._is_reserved else snapshot

    # -- the other ways --------------------------------------------------------------------------------------------

    def _seen_by_walsender(self, refused: Snapshot, refusal: PollFailure) -> Snapshot:
        """Return what a walsender sees; without one, the refusal, with what stands in the walsender's way."""
        emergency = self._emergency
        if emergency is None or not (refusal.reason in FULL or emergency.process is not None):
            return refused
        if self._ordinary.process is not None:
            return refused  # it is only late, and an attempt is made beside it: a walsender would be the third
        look = emergency.look()
        if look.failure is None:
            return replace(self._completed(look, emergency), refusal=refusal, refused=refused.refused)
        text = f"{refusal.text}; emergency_dsn: {look.failure.text}"
        return replace(refused, failure=replace(refusal, text=text))

    def _leave_emergency(self) -> None:
        if self._emergency is not None:
            self._emergency.close()

    def _look_at_processes(self, *, born_before: float) -> Sighting | None:
        places = frozenset(self._ordinary.places)
        if self._proved_at != places:
            self._processes.forget()
            self._proved_at = places
        if not self._processes.prove_by_place(places):
            return None
        return self._processes.look(born_before=born_before)

    def _seen_by_titles(self, refused: Snapshot, refusal: PollFailure, sighting: Sighting) -> Snapshot:
        before = self._last_seen
        seen = replace(
            refused,
            failure=None,
            refusal=refusal,
            view="process_titles",
            sessions=sighting.sessions,
            authenticating=sighting.authenticating,
        )
        if before is None:
            return seen
        return replace(
            seen,
            slots=before.slots,
            role_limits=before.role_limits,
            database_limits=before.database_limits,
            privileged=before.privileged,
            role=before.role,
            server_version_num=before.server_version_num,
        )
