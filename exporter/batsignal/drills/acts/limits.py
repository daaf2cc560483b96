"""Acts of limits: services that grow honestly into the server's, a role's or a database's limit; a leak beside a batch.

Owns the growth and the truth about the limit. Each session is there because there is work for it, and is used again and
again: nobody leaks, and only the sum is too much. The leak beside the batch is `lost`'s own.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batsignal.drills.act import ActSpec, OnsetFacts, Pace, Subject, Tell
from batsignal.drills.actors.clients import BORROW_SECONDS, FAILED_REQUEST, Calm, Clients, beats, run
from batsignal.drills.actors.pool import Pool
from batsignal.drills.acts import lost
from batsignal.drills.ground import Ground

NEAR_RATIO = 0.9
"""From which share of a limit on it is about to be reached (scenarios: saturation within 10 s of 90 %)."""
WATCH_SECONDS = 0.2
SERVICES = ("accounts@5.2.1", "basket@1.9.0", "mail@0.8.4", "prices@2.2.0", "ratings@1.0.3", "stock@4.4.2")
ROLE, ROLE_SERVICES = "ledger", ("ledger@2.0.1", "invoices@3.3.0")
DATABASE, DATABASE_SERVICES = "support", ("tickets@1.5.0", "chat@0.9.2", "surveys@2.1.0")
MINIMUM_EACH = 2
WORK_SECONDS = 0.4
REST_SECONDS = 0.1
# Workers for each session of the limit: they rest between two requests, and growth does not stop where a limit stands.
BEYOND_RATIO = 1.3
GROW_PER_SECOND = 1.5
LIMIT_SIZE = 24
BATCH_SIZE = 30
BATCH_STEP_SECONDS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """A limit and how its use is counted."""

    name: str
    sessions: int
    used: Callable[[], int]


def saturate_server(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let six services have more and more to do, `rate` sessions a second, up to `size` or until no slot is left."""
    growth = _SERVICES.of(ground)
    with growth.clients as clients:
        clients.tell = tell
        limit = _Limit(name="server", sessions=ground.slots.usable, used=ground.used)
        if ground.seats.strict and ground.used() + ground.room < NEAR_RATIO * limit.sessions:
            tell.note(
                f"the drill may hold {ground.budget} of {limit.sessions} slots: its share keeps the server under"
                f" {NEAR_RATIO:.0%}; a share of 1.0 does not"
            )
        _grow_into(clients, growth, limit, pace, most=pace.size or _beyond(limit.sessions))


def saturate_role(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let the services of one role grow, `rate` sessions a second, into its own connection limit of `size`."""
    sessions = pace.size or LIMIT_SIZE
    role = ground.role(ROLE, connection_limit=sessions)
    with Clients(ground, tell) as clients:
        limit = _Limit(
            name=f"role:{role}",
            sessions=sessions,
            used=lambda: _count(ground, "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", role),
        )
        _grow_into(clients, _Growth(clients, ROLE_SERVICES, user=role), limit, pace, most=_beyond(sessions))


def saturate_database(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let services of several roles grow, `rate` sessions a second, into their database's own limit of `size`."""
    sessions = pace.size or LIMIT_SIZE
    database = ground.database(DATABASE, connection_limit=sessions)
    with Clients(ground, tell) as clients:
        limit = _Limit(
            name=f"database:{database}",
            sessions=sessions,
            used=lambda: _count(ground, "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", database),
        )
        _grow_into(clients, _Growth(clients, DATABASE_SERVICES, database=database), limit, pace, most=_beyond(sessions))


def leak_during_batch(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let a leak happen as `leak` does, while a batch of 30 sessions works; the batch goes on to the drill's end."""
    with Clients(ground, tell) as clients:
        # A leak needs room of its own on a small share.
        for number in range(min(BATCH_SIZE, max(ground.room // 2, 1))):
            clients.start(lambda number=number: _batch_job(clients, number))  # type: ignore[misc]
        _LEAK.run(ground, pace, tell)
        clients.await_stop()


def _grow_into(clients: Clients, growth: "_Growth", limit: _Limit, pace: Pace, *, most: int) -> None:
    """Grow, and tell when the limit is near and when it is reached; returns when the drill ends."""
    tell = clients.tell
    clients.start(lambda: growth.grow(pace.rate_per_second or GROW_PER_SECOND, most=most))
    while clients.sleep(WATCH_SECONDS):
        used = limit.used()
        if used >= NEAR_RATIO * limit.sessions:
            tell.onset(OnsetFacts(kind="saturation", subject=Subject(limit=limit.name)))
        if used >= limit.sessions:
            tell.exhausted()
            clients.await_stop()


def _beyond(sessions: int) -> int:
    """Return how many workers want more sessions than these, whatever each of them does at the moment.

    >>> _beyond(10)
    13
    """
    return math.ceil(sessions * BEYOND_RATIO)


def _count(ground: Ground, question: str, name: str) -> int:
    [(count,)] = ground.execute(question, (name,))
    return int(count)


def _batch_job(clients: Clients, number: int) -> None:
    """Work through one part of the night's figures, statement by statement in one transaction each."""
    with contextlib.closing(clients.connect("figures")) as session:
        step = "SELECT sum(n) FROM generate_series(1, 20000) AS n, pg_sleep(%s) WHERE n %% %s = 0"
        while clients.sleep(REST_SECONDS):
            run(session, step, (BATCH_STEP_SECONDS, number + 1))


class _Growth:
    """Services whose work grows: each worker borrows a session, works, gives it back, rests a moment, and again."""

    def __init__(self, clients: Clients, services: Sequence[str], **facts: Any) -> None:
        self.clients = clients
        self._facts = facts
        self._pools = [self._pool(service) for service in services]
        self._workers = 0
        self._next = itertools.cycle(self._pools)

    def grow(self, per_second: float, *, most: int) -> None:
        """Add workers at a rate until there are `most` of them."""
        for _ in itertools.islice(beats(self.clients.ground.stopped, per_second), max(most - self._workers, 0)):
            self.add_worker()

    def add_worker(self) -> None:
        """Let one more piece of work be done at all times, by the services in turn."""
        self._workers += 1
        pool = next(self._next)
        self.clients.start(lambda: self._work(pool))

    def _pool(self, service: str) -> Pool:
        return Pool(
            lambda: self._open(service),
            minimum=1,
            maximum=self.clients.ground.slots.max,
            lifetime_seconds=math.inf,
        )

    def _open(self, service: str) -> Any:
        session = self.clients.connect(service, **self._facts)
        self.clients.tell.lost()
        return session

    def _work(self, pool: Pool) -> None:
        while self.clients.sleep(REST_SECONDS):
            # No session in time is an answer too: a request failed, the next one comes.
            with contextlib.suppress(*FAILED_REQUEST), pool.lend(timeout_seconds=BORROW_SECONDS) as session:
                run(session, "SELECT count(*) FROM generate_series(1, 1000) AS n, pg_sleep(%s)", (WORK_SECONDS,))


def _begin_services(ground: Ground) -> _Growth:
    """Start the services as they are in the calm, with little to do each."""
    growth = _Growth(Clients(ground), SERVICES)
    for _ in range(MINIMUM_EACH * len(SERVICES)):
        growth.add_worker()
    return growth


_LEAK = lost.ACTS["leak"]
_SERVICES: Calm[_Growth] = Calm(_begin_services)

ACTS: Mapping[str, ActSpec] = {
    "saturation": ActSpec(
        run=saturate_server, rate_per_second=GROW_PER_SECOND, duration_seconds=90.0, prepare=_SERVICES.prepare
    ),
    "saturation-role": ActSpec(
        run=saturate_role,
        rate_per_second=GROW_PER_SECOND,
        size=LIMIT_SIZE,
        duration_seconds=50.0,
        needs=("role",),
        least_slots=40,
    ),
    "saturation-database": ActSpec(
        run=saturate_database,
        rate_per_second=GROW_PER_SECOND,
        size=LIMIT_SIZE,
        duration_seconds=50.0,
        needs=("database",),
        least_slots=40,
    ),
    "leak-during-batch": ActSpec(
        run=leak_during_batch,
        rate_per_second=_LEAK.rate_per_second,
        size=_LEAK.size,
        duration_seconds=_LEAK.duration_seconds,
        least_slots=60,
    ),
}
