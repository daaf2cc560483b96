"""A whole day of everyday life on one server: everything the other rows play alone, mixed, from midnight to midnight.

Owns what happens when on a day: traffic that follows the sun, batches every ten minutes, a dump at night, deploys while
people are at work, analysts, pods that come in the morning and leave in the evening, index builds, locks that are held
for seconds, on some days a restart of the server. No row of the table: a day costs half a minute. Each seed is
another server with other services.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from simulator.background import KINDS, Service, draw_service
from simulator.jobs import BATCH_QUERY, DUMP_JOBS, DUMP_SECONDS
from simulator.maintenance import Crew, autovacuum, build
from simulator.people import draw_people, metabase
from simulator.probes import Answer, ask_pool
from simulator.restarts import STARTING
from simulator.scenario import Play
from simulator.seats import Behaviour
from simulator.traffic import visit_without_pool
from simulator.traps import set_traps
from simulator.variation import Variation

HOUR = 3600.0
DAY_SECONDS = 24 * HOUR
NAMES = ("web", "checkout", "search", "billing", "mail", "auth")
# Requests a second of all services together, at the height of the day: they are simulated one by one.
REQUESTS_PER_SECOND = 4.0
NIGHT_RATIO = 0.04
DOUBLED_SECONDS = 120.0


def daylight(t: float) -> float:
    """Return how busy it is, of 1, `t` seconds after midnight: little at night, less at noon than around it.

    >>> daylight(3 * 3600.0), daylight(11 * 3600.0) > 0.5
    (0.04, True)
    """
    hour = t / HOUR % 24
    if not 6 < hour < 23:
        return NIGHT_RATIO
    lunch = 0.2 * math.exp(-(((hour - 12.5) / 0.7) ** 2))
    return max(math.sin((hour - 6) / 17 * math.pi) - lunch, NIGHT_RATIO)


def day(seed: int) -> Play:
    """Return a day of that seed, from midnight on, ready to run."""
    v = Variation("day", seed, quick=False, warm_seconds=300.0)
    fleets = _fleets(v)
    for fleet in fleets:
        _deploys(v, fleet)
    _autoscaling(v, fleets[0])
    _batches(v)
    _dump(v)
    _people(v)
    _upkeep(v)
    if v.draw.random() < 0.7:
        _visitors(v)
    if v.draw.random() < 0.25:
        down = v.amount("down_seconds", 2, 35)
        v.world.fail(v.at(v.amount("restart_at", 0, DAY_SECONDS)), down, STARTING)
    set_traps(v, DAY_SECONDS, most=2)
    own = [v.draw.uniform(HOUR, DAY_SECONDS - HOUR)] if v.draw.random() < 0.3 else []
    v.facts["our_restart"] = own
    return v.play(DAY_SECONDS, starts=(0.0, *own))


# -- services ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Pod:
    """One process of a service; traffic goes to it while it is served."""

    pool: Any = None
    is_served: bool = True


class Fleet:
    """One service's pods over a day: they come, are replaced by the next version, and go."""

    def __init__(self, v: Variation, service: Service) -> None:
        self._v = v
        self.service = service
        self.pods: list[Pod] = []
        self._share = service.rate / len(service.hosts)
        # For half an hour of some days there is twice the traffic.
        self._doubled_from = v.draw.choice((None, v.draw.uniform(9, 18) * HOUR))

    def add(self, client: str, at: float) -> Pod:
        """Start a pod, `at` so many seconds of the world's time."""
        pod = Pod()

        def rate(t: float) -> float:
            t -= self._v.warm_seconds
            doubled = self._doubled_from is not None and 0 <= t - self._doubled_from < HOUR / 2
            return self._share * daylight(t) * (2.0 if doubled else 1.0) if pod.is_served else 0.0

        pod.pool = self.service.pod(self._v, client, at=at, rate=rate)
        self.pods.append(pod)
        return pod

    def remove(self, pod: Pod, *, idle_seconds: float = 0.0) -> None:
        """Send no more traffic to a pod, and end it later."""
        pod.is_served = False
        if pod in self.pods:
            self.pods.remove(pod)
            self._v.world.call(self._v.world.elapsed + idle_seconds, pod.pool.close)

    def answer(self) -> Answer:
        """Return what a health endpoint answers that asks the newest pod."""
        return ask_pool(self._v.world, self.pods[-1].pool)

    def deploy(self, version: str, *, idle_seconds: float, announced: bool, gap: float) -> None:
        """Start pods of another version one after the other; each takes over from an old one, which stays a while."""
        v = self._v
        name, says_version, _ = (self.service.application or "").partition("@")
        if says_version:
            self.service = replace(self.service, application=f"{name}@{version}")
            v.world.deploy(name, version, v.world.elapsed, announced=announced)
        for n, (old, client) in enumerate(zip(tuple(self.pods), v.hosts(len(self.pods)), strict=True)):
            at = v.world.elapsed + gap * n + 0.01
            v.world.call(at, partial(self.add, client, at))
            v.world.call(at + 5.0, partial(self.remove, old, idle_seconds=idle_seconds))


def _fleets(v: Variation) -> list[Fleet]:
    """Set two to five services at work; two of three have a health endpoint."""
    count = v.number("services", 2, 5)
    fleets = []
    for name in NAMES[:count]:
        rate = v.draw.uniform(0.3, 1.0) * REQUESTS_PER_SECOND / count
        service = draw_service(v, name, rate=rate, pods=v.draw.randint(1, 4), kinds=KINDS)
        service.pool["most"] = max(service.pool["most"], math.ceil(3 * service.busy))
        fleet = Fleet(v, service)
        for client in service.hosts:
            fleet.add(client, 0.0)
        v.expect(2 * service.sessions())
        if v.draw.random() < 0.66:
            v.world.endpoint(name, name, fleet.answer, interval_seconds=v.draw.choice((5.0, 10.0)), at=2.0)
        fleets.append(fleet)
    return fleets


def _deploys(v: Variation, fleet: Fleet) -> None:
    """Replace a service's pods a few times, while people are at work; now and then the old ones stay for an hour."""
    at = 8 * HOUR
    for _ in range(v.draw.choice((0, 1, 1, 2))):
        at = v.draw.uniform(at, 20 * HOUR)
        idle = v.draw.choice((DOUBLED_SECONDS, DOUBLED_SECONDS, HOUR))
        facts = {"idle_seconds": idle, "announced": v.draw.random() < 0.5, "gap": v.draw.uniform(1, 30)}
        v.facts.setdefault("deploys", []).append((fleet.service.application, round(at)))
        v.world.call(v.at(at), partial(fleet.deploy, v.version(), **facts))
        at += 1.5 * HOUR


def _autoscaling(v: Variation, fleet: Fleet) -> None:
    """Pods come one by one as the day begins and leave in the evening, whatever version they have by then."""
    more = v.number("pods_more", 0, 5)
    for client in v.hosts(more):
        comes = v.at(v.draw.uniform(8, 11) * HOUR)
        v.world.call(comes, partial(fleet.add, client, comes))
        v.world.call(v.at(v.draw.uniform(18, 22) * HOUR), lambda: fleet.remove(fleet.pods[0]))
        v.expect(fleet.service.pool["least"] + 2)


def _visitors(v: Variation) -> None:
    """An application that never pools."""
    application, place = v.identity("php")
    hosts = v.hosts(v.draw.randint(1, 6))
    rate, hold = v.draw.uniform(0.5, 3.0), v.draw.uniform(0.01, 0.3)

    visit_without_pool(
        v,
        application,
        place,
        hosts=hosts,
        hold_seconds=hold,
        rate=lambda elapsed: rate * daylight(elapsed - v.warm_seconds),
    )
    v.expect(4)


# -- jobs --------------------------------------------------------------------------------------------------------------


def _batches(v: Variation) -> None:
    """A batch of thirty every ten minutes or every hour, all day."""
    every = v.pick("batch_every_seconds", (600.0, 3600.0))
    sessions = v.number("batch_sessions", 8, 30)
    opening = v.pick("batch_opened_within_seconds", (0.3, 2.0, 10.0))
    lasts = v.amount("batch_seconds", 10, 200)
    application, place = v.identity("import")
    place["query"] = BATCH_QUERY
    hosts = v.hosts(v.pick("batch_hosts", (1, 1, 3)))

    def worker(client: str) -> Behaviour:
        seat = v.knock(application, client=client, **place)
        if seat is None:
            return
        ends = v.world.elapsed + lasts * v.world.chance.uniform(0.5, 1.1)
        while v.world.elapsed < ends:
            busy = v.world.chance.expovariate(1 / 8.0)
            seat.use(v.world.now + 0.01, busy)
            yield busy + v.world.chance.expovariate(1 / 0.5)
        v.world.close(seat)

    def batches() -> Behaviour:
        while True:
            for n in range(sessions):
                v.world.run(worker(hosts[n % len(hosts)]))
                yield opening / sessions * v.world.chance.uniform(0.5, 1.5)
            yield every - opening

    v.world.run(batches(), v.draw.uniform(0, every))
    v.expect(sessions)


def _dump(v: Variation) -> None:
    """A dump with eight jobs in the night."""
    client = v.hosts(1)[0]
    place = {"user": "backup", "database": "shop", "client": client}
    ends = v.at(2 * HOUR + DUMP_SECONDS * v.draw.uniform(0.7, 1.3))

    def worker() -> Behaviour:
        seat = v.knock("pg_dump", **place, query="COPY public.t (id, body) TO stdout", rest="idle in transaction")
        if seat is None:
            return
        seat.backend_xmin = "74211"
        while v.world.elapsed < ends:
            busy = min(v.world.chance.expovariate(1 / 60), ends - v.world.elapsed)
            table = v.world.chance.randrange(60)
            seat.use(v.world.now + 0.01, busy, query=f"COPY public.table_{table} (id, body) TO stdout")
            yield busy + v.world.chance.uniform(0.01, 0.4)
        v.world.close(seat)

    def dump() -> Behaviour:
        leader = v.knock("pg_dump", **place, query="SELECT pg_export_snapshot()", rest="idle in transaction")
        if leader is None:
            return
        leader.backend_xmin = "74211"
        leader.use(v.world.now + 0.01, 5.0)
        yield 5.0
        for _ in range(DUMP_JOBS):
            v.world.run(worker())
            yield 0.1
        yield ends - v.world.elapsed + 0.2
        v.world.close(leader)

    v.world.run(dump(), v.at(2 * HOUR))
    v.expect(DUMP_JOBS + 1)


# -- people and upkeep -------------------------------------------------------------------------------------------------


def _people(v: Variation) -> None:
    """Analysts who come in the morning and leave in the evening, dashboards, and two long queries."""
    count = v.draw.randint(2, 9)
    arrivals = sorted(v.draw.uniform(8, 11) * HOUR for _ in range(count))
    draw_people(v, count, arrivals, lambda _: v.draw.uniform(16, 20) * HOUR)
    if v.draw.random() < 0.4:
        metabase(v)

    def report() -> Behaviour:
        seat = v.knock("Metabase v0.49.3", user="analyst", client=v.hosts(1)[0], query="SELECT sum(total) FROM orders")
        if seat is not None:
            seat.use(v.world.now + 0.01, 1200.0)
            yield 1205.0
            v.world.close(seat)

    for _ in range(2):
        v.world.run(report(), v.at(v.draw.uniform(9, 18) * HOUR))


def _upkeep(v: Variation) -> None:
    """Autovacuum all day, an index that is built beside the writers, and locks that are held for seconds."""
    v.world.run(autovacuum(v, 8, 240.0), 0.0)
    statement = "CREATE INDEX CONCURRENTLY orders_day_idx ON orders (day)"
    waits = [v.draw.uniform(1.2, 4.0) for _ in range(2)]
    v.world.run(build(v, statement, v.draw.uniform(200, 900), waits), v.at(v.draw.uniform(9, 22) * HOUR))
    if v.draw.random() < 0.5:
        crew = Crew(v, waiters=v.draw.randint(1, 4), every=v.draw.uniform(60, 600))
        v.world.run(crew.work(rate=0.3), 0.0)
        v.world.run(crew.episodes(), 5.0)
