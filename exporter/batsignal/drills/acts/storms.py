"""Acts of storms: a service that stops pooling, clients that a full server refuses, and reconnects after a crash.

Owns who opens sessions, how often, and why they do not stop. Every session is opened, used and closed, or refused by
the server itself; nothing is only counted. How many the machine made of the rate asked for is told with each of them.
"""

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg2

from batsignal.drills.act import ActSpec, DeployRef, OnsetFacts, Pace, Subject, Tell
from batsignal.drills.actors.clients import Calm, Clients, run
from batsignal.drills.actors.service import Service
from batsignal.drills.ground import Ground

SERVICE, OLD_VERSION, NEW_VERSION = "gateway", "3.1.0", "3.2.0"
# What is usual takes five minutes to learn (scenarios: a baseline needs at least 5 min of calm).
CALM_SECONDS = 310.0
HOSTS = 3
TABLE_ROWS = 1000
CALM_PER_SECOND = 9.0
STORM_PER_SECOND = 30.0
STORM_AT_ONCE = 20
REFUSED_PER_SECOND = 60.0
# More clients than slots, each with a session for this long.
CROWD_RATIO = 1.3
HOLD_SECONDS = 3.0
FULL_WITHIN_SECONDS = 15.0
RECONNECT_PER_SECOND = 40.0
RECONNECTING = ("accounts", "basket", "mail", "prices")
RECONNECTING_CLIENTS = 40
DOWN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """The service in its calm: on each of its hosts a pool under steady requests."""

    services: Sequence[Service]
    table: str


def storm(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Deploy a version without a pool: `rate` times a second it opens a session, reads a row and closes it again."""
    gateway = _GATEWAY.of(ground)
    with Clients(ground, tell) as clients:
        stop_pooling(clients, gateway, pace.rate_per_second or STORM_PER_SECOND, at_once=pace.size or STORM_AT_ONCE)
        clients.await_stop()


def storm_refused(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Deploy a version without a pool and with more clients (`size`) than slots; those refused try again at once.

    Together the refused try `rate` times a second: that is what counts for the achieved rate. Each client keeps its
    session for 3 s and then wants another.
    """
    gateway = _GATEWAY.of(ground)
    if ground.seats.strict:
        tell.note(
            f"the drill may hold {ground.budget} of {ground.slots.usable} slots: its share keeps the server from"
            " refusing anybody; a share of 1.0 lets it"
        )
    with Clients(ground, tell) as clients:
        deploy = _deploy(clients, gateway)
        count = pace.size or round(CROWD_RATIO * ground.slots.usable)
        crowd = _Crowd(clients, gateway.table, (pace.rate_per_second or REFUSED_PER_SECOND), count)
        _tell_storm(tell, Subject(application=SERVICE, version=NEW_VERSION), deploy)
        crowd.start()
        if clients.sleep(FULL_WITHIN_SECONDS) and not ground.refusals and not ground.seats.strict:
            tell.note(f"the server has a slot for each of the {count} clients: only more clients will be refused")
        clients.await_stop()


def storm_reconnect(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Crash the server: `size` clients of four services connect again, `rate` times a second, for their check fails.

    What they check is a row of an unlogged table, which PostgreSQL empties after a crash: the session is thrown away
    and the next one tried.
    """
    services, table = _RECONNECTING.of(ground)
    with Clients(ground, tell) as clients:
        clients_each = max((pace.size or RECONNECTING_CLIENTS) // len(RECONNECTING), 1)
        # The clients of all services share the rate, as they share what holds each of them up.
        gap_seconds = clients_each * len(RECONNECTING) / (pace.rate_per_second or RECONNECT_PER_SECOND)
        with ground.away() as server:
            away_at = time.time()
            server.stop("immediate")
            for service in services:
                service.stop()
            ground.stopped.wait(DOWN_SECONDS)
        tell.note("the server crashed and is back, and every client of four services finds its check failing")
        # Four services in four names: nobody alone is to be named.
        _tell_storm(tell, Subject(), None)
        # A crash is no way in, for some seconds: that may be said.
        tell.onset(OnsetFacts(kind="database_unreachable", subject=Subject(), at=away_at, optional=True))
        for number, name in enumerate(RECONNECTING):
            for client in range(clients_each):
                host = (number + client) % HOSTS + 1
                clients.start(lambda name=name, host=host: _reconnect(clients, name, host, table, gap_seconds))  # type: ignore[misc]
        clients.await_stop()


def stop_pooling(clients: Clients, gateway: Gateway, per_second: float, *, at_once: int) -> None:
    """Deploy the version that opens a session for each request, on every host in turn, and tell the onset."""
    deploy = _deploy(clients, gateway)

    def request() -> None:
        session = clients.connect(f"{SERVICE}@{NEW_VERSION}", host=random.randint(1, HOSTS))  # noqa: S311 - no secret
        with contextlib.closing(session):
            clients.tell.lost()
            run(session, *_read(gateway.table))

    _tell_storm(clients.tell, Subject(application=SERVICE, version=NEW_VERSION), deploy)
    clients.arrive(per_second, request, at_once=at_once)


def begin_gateway(ground: Ground) -> Gateway:
    """Start the service as it is in the calm."""
    table = ground.table("routes", TABLE_ROWS)
    services = [
        Service(
            ground,
            SERVICE,
            OLD_VERSION,
            minimum=2,
            maximum=4,
            requests_per_second=CALM_PER_SECOND / HOSTS,
            host=host,
            work=lambda session: run(session, *_read(table)),
        )
        for host in range(1, HOSTS + 1)
    ]
    for service in services:
        service.start()
    return Gateway(services, table)


class _Crowd:
    """Clients that want a session each, all the time, and share one pace for trying again when they are refused."""

    def __init__(self, clients: Clients, table: str, retries_per_second: float, count: int) -> None:
        self._clients = clients
        self._table = table
        self._retries_per_second = retries_per_second
        self._count = count
        self._held = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Let them all come, within the time that their number takes at the pace."""
        for number in range(self._count):
            first_seconds = number / self._retries_per_second
            host = number % HOSTS + 1
            self._clients.start(lambda first=first_seconds, host=host: self._live(first, host))  # type: ignore[misc]

    def _live(self, first_seconds: float, host: int) -> None:
        pause_seconds = first_seconds
        while self._clients.sleep(pause_seconds):
            pause_seconds = 0.0
            try:
                session = self._clients.connect(f"{SERVICE}@{NEW_VERSION}", host=host)
            except psycopg2.Error:
                self._clients.tell.lost()
                pause_seconds = self._retry_seconds()
                continue
            with contextlib.closing(session), self._holding():
                run(session, f"SELECT body FROM {self._table}, pg_sleep(%s) WHERE id = 1", (HOLD_SECONDS,))

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1

    def _retry_seconds(self) -> float:
        """Return how long a refused client waits, so that all who wait keep the pace together."""
        waiting = max(self._count - self._held, 1)
        return random.uniform(0.5, 1.5) * waiting / self._retries_per_second  # noqa: S311 - no secret


def _deploy(clients: Clients, gateway: Gateway) -> DeployRef:
    deploy = clients.tell.deployed(SERVICE, NEW_VERSION, OLD_VERSION)
    for service in gateway.services:
        service.stop()
    return deploy


def _tell_storm(tell: Tell, subject: Subject, deploy: DeployRef | None) -> None:
    tell.onset(OnsetFacts(kind="storm", subject=subject, deploy=deploy))


def _read(table: str) -> tuple[str, tuple[int]]:
    return f"SELECT body FROM {table}, pg_sleep(0.02) WHERE id = %s", (random.randint(1, TABLE_ROWS),)  # noqa: S311 - no secret


def _begin_reconnecting(ground: Ground) -> tuple[Sequence[Service], str]:
    """Start four services whose sessions are good as long as an unlogged table has its row."""
    table = f'"{ground.schema}".leases'
    ground.execute(f"CREATE UNLOGGED TABLE {table} AS SELECT 1 AS id")
    ground.execute(f"GRANT SELECT ON {table} TO PUBLIC")
    # The scratch server commits to memory only: the crash would take the table itself away.
    ground.execute("CHECKPOINT")
    services = [
        Service(
            ground,
            name,
            OLD_VERSION,
            minimum=4,
            maximum=6,
            requests_per_second=CALM_PER_SECOND / len(RECONNECTING),
            host=number % HOSTS + 1,
            work=lambda session: run(session, f"SELECT id FROM {table}, pg_sleep(0.02)"),
        )
        for number, name in enumerate(RECONNECTING)
    ]
    for service in services:
        service.start()
    return services, table


def _reconnect(clients: Clients, name: str, host: int, table: str, gap_seconds: float) -> None:
    """Connect, check, throw the session away, again and again; a session whose check holds is kept."""
    while clients.sleep(random.uniform(0.5, 1.5) * gap_seconds):  # noqa: S311 - no secret
        try:
            session = clients.connect(f"{name}@{OLD_VERSION}", host=host)
        except psycopg2.Error:
            continue
        with contextlib.closing(session), session.cursor() as cursor:
            clients.tell.lost()
            cursor.execute(f"SELECT id FROM {table}")
            if cursor.fetchall():
                clients.await_stop()


_GATEWAY: Calm[Gateway] = Calm(begin_gateway)
_RECONNECTING: Calm[tuple[Sequence[Service], str]] = Calm(_begin_reconnecting)

ACTS: Mapping[str, ActSpec] = {
    "storm": ActSpec(
        run=storm,
        rate_per_second=STORM_PER_SECOND,
        size=STORM_AT_ONCE,
        duration_seconds=85.0,
        calm_seconds=CALM_SECONDS,
        prepare=_GATEWAY.prepare,
    ),
    "storm-refused": ActSpec(
        run=storm_refused, rate_per_second=REFUSED_PER_SECOND, duration_seconds=45.0, prepare=_GATEWAY.prepare
    ),
    "storm-reconnect": ActSpec(
        run=storm_reconnect,
        rate_per_second=RECONNECT_PER_SECOND,
        size=RECONNECTING_CLIENTS,
        duration_seconds=85.0,
        calm_seconds=CALM_SECONDS,
        needs=("restart",),
        prepare=_RECONNECTING.prepare,
    ),
}
