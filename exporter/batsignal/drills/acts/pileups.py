"""Acts of pile-ups: a statement that a deploy brought, an old one whose plan turned bad, and one behind a storm.

Owns the statements and what makes them slow. They are slow for real: the new one waits inside the server, the old one
reads a table again and again since its index is gone. Nothing here ends a statement but the drill's end.
"""

import queue
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.act import ActSpec, DeployRef, OnsetFacts, Pace, Subject, Tell
from batsignal.drills.actors.clients import BORROW_SECONDS, LOOK_SECONDS, Calm, Clients, Traffic, run
from batsignal.drills.actors.service import Service
from batsignal.drills.acts.storms import CALM_SECONDS, Gateway, begin_gateway, stop_pooling
from batsignal.drills.ground import Ground

SERVICE, OLD_VERSION, NEW_VERSION = "search", "3.1.0", "3.2.0"
POOL_MINIMUM = 5
TABLE_ROWS = 1000
QUICK_PER_SECOND = 6.0
QUICK_AT_ONCE = 10
STATEMENT_SECONDS = 1800.0
BEHIND_SECONDS = 12.0
PILEUP_PER_SECOND = 2.0
STORM_PER_SECOND = 25.0
# By the index the old statement takes some 20 ms. Without it each of the 4,000 orders of a customer reads all lines:
# about a minute of one core.
ORDERS, CUSTOMERS, LINES = 40_000, 10, 400_000


@dataclass(frozen=True, slots=True)
class _Search:
    """The service in its calm: a pool under steady, quick requests."""

    service: Service
    table: str


@dataclass(frozen=True, slots=True)
class _Reports:
    """A service that lives on one statement, and the index that the statement lives on."""

    traffic: Traffic
    statement: str
    index: str


class _Stuck:
    """Counts the requests that do not come back, and tells the onset by the first of them."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._first: queue.SimpleQueue[tuple[float, Connection]] = queue.SimpleQueue()

    def run(self, session: Connection, statement: str, parameters: tuple[Any, ...], *, is_counted: bool = True) -> None:
        """Run what will not end; it counts for the rate that is told."""
        at = time.time()
        self._first.put((at, session))
        if is_counted:
            self._clients.tell.lost(at)
        run(session, statement, parameters)

    def tell_onset(self, *, version: str, deploy: DeployRef | None) -> None:
        """Wait for the first request and name its statement as the daemon would."""
        while not self._clients.ground.stopped.is_set():
            try:
                at, session = self._first.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            query_id = self._clients.statement_of(session)
            if query_id is None:
                continue  # that one was lost on the way: the next one tells
            subject = Subject(application=SERVICE, version=version, query_id=query_id)
            self._clients.tell.onset(OnsetFacts(kind="query_pileup", subject=subject, deploy=deploy, at=at))
            return


def pile_up_new(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Deploy a version whose new statement takes half an hour; `rate` requests a second need it, `size` at most."""
    search = _SEARCH.of(ground)
    with Clients(ground, tell) as clients:
        _deploy_slow_statement(clients, search, pace)
        clients.await_stop()


def pile_up_old(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Drop the index that a quick statement lives on; `rate` requests a second need it, `size` at most.

    The statement's text, and so its id, stays what it was in the calm. No deploy comes before it.
    """
    reports = _REPORTS.of(ground)
    with reports.traffic.clients as clients:
        clients.tell = tell
        stuck = _Stuck(clients)
        ground.execute(f"DROP INDEX {reports.index}")
        tell.note("an index is gone: the statement that lived on it reads whole tables now")
        reports.traffic.change(
            pace.rate_per_second or PILEUP_PER_SECOND,
            lambda session: stuck.run(session, reports.statement, _a_customer()),
            at_once=pace.size or QUICK_AT_ONCE,
        )
        stuck.tell_onset(version=OLD_VERSION, deploy=None)
        clients.await_stop()


def pile_up_behind_storm(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Begin a storm of `rate` sessions a second, and 12 s later a pile-up of up to `size` sessions somewhere else."""
    search, gateway = _BOTH.of(ground)
    with Clients(ground, tell) as clients:
        stop_pooling(clients, gateway, pace.rate_per_second or STORM_PER_SECOND, at_once=QUICK_AT_ONCE)
        if clients.sleep(BEHIND_SECONDS):
            behind = Pace(rate_per_second=PILEUP_PER_SECOND, size=pace.size)
            _deploy_slow_statement(clients, search, behind, is_counted=False)
            clients.await_stop()


def _deploy_slow_statement(clients: Clients, search: _Search, pace: Pace, *, is_counted: bool = True) -> None:
    """Replace the service by its next version, and tell the onset once the first request is stuck."""
    pool = clients.pool(f"{SERVICE}@{NEW_VERSION}", minimum=POOL_MINIMUM, maximum=clients.ground.budget)
    deploy = clients.tell.deployed(SERVICE, NEW_VERSION, OLD_VERSION)
    search.service.stop()
    stuck = _Stuck(clients)

    def quick() -> None:
        with pool.lend(timeout_seconds=BORROW_SECONDS) as session:
            run(session, *_lookup(search.table))

    clients.arrive(QUICK_PER_SECOND, quick, at_once=QUICK_AT_ONCE)
    # A search for what is in no index, and a service far away that the new version waits for in the same statement.
    slow = f"SELECT s.id, s.body FROM {search.table} AS s, pg_sleep(%s) WHERE s.body LIKE %s ORDER BY s.body"

    def ask() -> None:
        with pool.lend(timeout_seconds=BORROW_SECONDS) as session:
            stuck.run(session, slow, (STATEMENT_SECONDS, "%ab%"), is_counted=is_counted)

    clients.arrive(pace.rate_per_second or PILEUP_PER_SECOND, ask, at_once=pace.size or QUICK_AT_ONCE)
    stuck.tell_onset(version=NEW_VERSION, deploy=deploy)


def _begin_search(ground: Ground) -> _Search:
    table = ground.table("articles", TABLE_ROWS)
    service = Service(
        ground,
        SERVICE,
        OLD_VERSION,
        minimum=POOL_MINIMUM,
        maximum=2 * POOL_MINIMUM,
        requests_per_second=QUICK_PER_SECOND,
        work=lambda session: run(session, *_lookup(table)),
    )
    service.start()
    return _Search(service, table)


def _lookup(table: str) -> tuple[str, tuple[int]]:
    return f"SELECT body FROM {table}, pg_sleep(0.02) WHERE id = %s", (random.randint(1, TABLE_ROWS),)  # noqa: S311 - no secret


def _begin_reports(ground: Ground) -> _Reports:
    """Fill two tables and let the service ask its statement, quick as long as the index is there."""
    orders, lines, index = (f'"{ground.schema}".{name}' for name in ("orders", "order_lines", "order_lines_order"))
    for statement in (
        f"CREATE TABLE {orders} AS SELECT n AS id, n % {CUSTOMERS} AS customer FROM generate_series(1, {ORDERS}) AS n",
        f"CREATE INDEX ON {orders} (customer)",
        f"CREATE TABLE {lines} AS SELECT n % {ORDERS} AS order_id, n % 99 AS amount FROM generate_series(1, {LINES}) n",
        f"CREATE INDEX order_lines_order ON {lines} (order_id)",
        f"GRANT SELECT ON {orders}, {lines} TO PUBLIC",
        f"ANALYZE {orders}, {lines}",
    ):
        ground.execute(statement)
    statement = (
        f"SELECT o.id, (SELECT sum(l.amount) FROM {lines} AS l WHERE l.order_id = o.id) AS amount"
        f" FROM {orders} AS o WHERE o.customer = %s ORDER BY amount DESC LIMIT 10"
    )
    traffic = Traffic(
        ground,
        f"{SERVICE}@{OLD_VERSION}",
        minimum=POOL_MINIMUM,
        per_second=QUICK_PER_SECOND,
        work=lambda session: run(session, statement, _a_customer()),
    )
    return _Reports(traffic, statement, index)


def _a_customer() -> tuple[int]:
    return (random.randrange(CUSTOMERS),)  # noqa: S311 - no secret


_SEARCH: Calm[_Search] = Calm(_begin_search)
_REPORTS: Calm[_Reports] = Calm(_begin_reports)
_BOTH: Calm[tuple[_Search, Gateway]] = Calm(lambda ground: (_begin_search(ground), begin_gateway(ground)))

ACTS: Mapping[str, ActSpec] = {
    "query-pileup": ActSpec(
        run=pile_up_new,
        rate_per_second=PILEUP_PER_SECOND,
        size=60,
        duration_seconds=45.0,
        least_slots=40,
        prepare=_SEARCH.prepare,
    ),
    "query-pileup-old": ActSpec(
        run=pile_up_old,
        rate_per_second=PILEUP_PER_SECOND,
        size=60,
        duration_seconds=45.0,
        least_slots=40,
        prepare=_REPORTS.prepare,
    ),
    "pileup-behind-storm": ActSpec(
        run=pile_up_behind_storm,
        rate_per_second=STORM_PER_SECOND,
        size=40,
        duration_seconds=90.0,
        calm_seconds=CALM_SECONDS,
        least_slots=40,
        prepare=_BOTH.prepare,
    ),
}
