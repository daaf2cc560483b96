"""What fools detectors of leaks and is nobody's incident: services as they are found in the background of any row.

Owns one maker for each trap. A trap gives back all it takes in its own time, or keeps a bounded number of sessions
that its processes can use again; nobody in the room would call it an incident. It knows no row.
"""

from collections.abc import Callable, Mapping
from typing import Any

from simulator.comers import agents, jittered_cron, listeners, long_polls, slow_reports
from simulator.seats import Behaviour, Seat
from simulator.stack import Stack
from simulator.variation import Variation

Trap = Callable[[Variation, float], None]


def lifo_surplus(v: Variation, _seconds: float) -> None:
    """A stack of sessions: the surplus of a rare peak lies at its bottom, unused until the idle timeout."""
    idle = v.draw.choice((180.0, 600.0, 1200.0))
    most = v.draw.randint(8, 20)
    application, place = v.identity("reports")
    stack = Stack(v, application, most=most, idle_seconds=idle, place=place | {"client": v.hosts(1)[0]})
    small = v.draw.randint(2, 4)
    every = v.draw.uniform(20, 90)
    rare = v.draw.uniform(400, 1500)

    def peaks(width: int, mean: float) -> Behaviour:
        while True:
            yield v.world.chance.expovariate(1 / mean)
            for _ in range(v.world.chance.randint(max(width // 2, 1), width)):
                stack.request(v.world.chance.uniform(0.2, 3.0))
                yield v.world.chance.uniform(0, 0.3)

    v.world.run(peaks(small, every), 0.0)
    v.world.run(peaks(most, rare), 0.0)
    v.expect(most)


def prefork_workers(v: Variation, seconds: float) -> None:
    """Dozens of workers behind one address; each opens its session at its own first request, and keeps it."""
    workers = v.draw.choice((12, 16, 24, 32, 48))
    rate = v.draw.uniform(0.3, 4.0)
    # The kernel hands most requests to the same few workers.
    favour = v.draw.choice((0.0, 0.05, 0.12))
    recycles = v.draw.choice((None, None, 200, 1000))
    application, place = v.identity("backoffice")
    place |= {"client": v.hosts(1)[0]}
    seats: list[Seat | None] = [None] * workers
    served = [0] * workers

    def busy(seat: Seat | None) -> bool:
        return seat is not None and seat.busy_until > v.world.now

    def request() -> None:
        chance = v.world.chance
        worker = int(chance.expovariate(favour)) if favour else chance.randrange(workers)
        worker %= workers
        seat = seats[worker]
        if busy(seat):
            return
        if seat is None or seat.closed:
            seat = seats[worker] = v.knock(application, **place)
            served[worker] = 0
        if seat is None:
            return
        seat.use(v.world.now + 0.005, chance.expovariate(1 / 0.15))
        served[worker] += 1
        if recycles is not None and served[worker] > recycles * (1 + worker / workers):
            v.world.call(seat.busy_until - v.world.now + v.world.elapsed + 0.05, lambda: v.world.close(seat))
            seats[worker] = None

    def requests() -> Behaviour:
        while True:
            yield v.world.chance.expovariate(rate)
            request()

    begins = v.draw.choice((0.0, 0.0, v.draw.uniform(0, v.at(0.5 * seconds))))
    v.world.run(requests(), begins)
    v.moments.append(begins - v.warm_seconds + 60)
    v.expect(workers)


def keepalive_pool(v: Variation, _seconds: float) -> None:
    """An idle pool whose driver asks `SELECT 1` in each of its sessions now and then."""
    application, place = v.identity("ledger")
    period = v.draw.choice((30.0, 120.0, 300.0))
    place |= {"query": "SELECT ?"}
    for client in v.hosts(v.draw.randint(1, 4)):
        least = v.draw.randint(2, 8)
        pool = v.world.pool(
            application,
            least=least,
            most=least,
            at=v.draw.uniform(0, 60),
            fill_gap_seconds=v.draw.choice((0.02, 0.1, 0.5)),
            lifetime_seconds=v.draw.choice((None, 1800.0)),
            place=place | {"client": client},
        )

        def ping(pool: Any = pool) -> Behaviour:
            due: dict[int, float] = {}
            while True:
                yield 1.0
                now = v.world.now
                if any(seat.closed for seat in pool.seats):
                    pool.request(0.001)  # finds out that the server ended them, and fills again
                for seat in pool.seats:
                    rest = due.setdefault(seat.pid, period * v.world.chance.uniform(0.8, 1.0))
                    if now - max(seat.busy_until, seat.start) >= rest:
                        seat.use(now, 0.001)
                        del due[seat.pid]

        v.world.run(ping(), 0.0)
        v.expect(least)


def pooler(v: Variation, _seconds: float) -> None:
    """PgBouncer in front of several services: one user, one address, a stack, and names that change with the client."""
    application, place = v.identity("gateway")
    services = [application, "cart@1.4.2", "profile"][: v.draw.randint(1, 3)]
    stack = Stack(
        v,
        application,
        most=v.draw.randint(10, 25),
        idle_seconds=v.draw.choice((60.0, 300.0, 600.0)),
        lifetime_seconds=v.draw.choice((600.0, 3600.0)),
        place=place | {"client": v.hosts(1)[0], "user": "pooled"},
    )
    rate = v.draw.uniform(1.0, 8.0)
    burst = v.draw.randint(3, stack.most)

    def requests() -> Behaviour:
        while True:
            yield v.world.chance.expovariate(rate)
            parallel = burst if v.world.chance.random() < 0.003 else 1
            for _ in range(parallel):
                stack.request(v.world.chance.expovariate(1 / 0.08), application=v.world.chance.choice(services))

    v.world.run(requests(), 0.0)
    v.expect(burst + 4)


def serverless(v: Variation, _seconds: float) -> None:
    """Functions that are frozen after use, with their session, and thrown away minutes later."""
    idle = v.draw.uniform(300, 900)
    many = v.draw.random() < 0.5
    hosts = v.hosts(60 if many else 1)
    application, place = v.identity("functions")
    stack = Stack(
        v,
        application,
        most=v.draw.randint(8, 24),
        idle_seconds=idle,
        place=place,
        clients=hosts,
    )
    wave = v.draw.randint(2, max(stack.most // 2, 3))
    every = v.draw.uniform(30, 240)

    def invocations() -> Behaviour:
        while True:
            yield v.world.chance.expovariate(1 / every)
            for _ in range(v.world.chance.randint(1, wave)):
                stack.request(v.world.chance.uniform(0.1, 4.0))
                yield v.world.chance.expovariate(1 / 0.8)

    v.world.run(invocations(), 0.0)
    v.expect(0.7 * stack.most)


TRAPS: Mapping[str, Trap] = {
    "long polls": long_polls,
    "LIFO surplus": lifo_surplus,
    "prefork workers": prefork_workers,
    "jittered cron": jittered_cron,
    "keep-alive pool": keepalive_pool,
    "pooler": pooler,
    "serverless": serverless,
    "agents": agents,
    "slow reports": slow_reports,
    "listeners": listeners,
}


def set_traps(v: Variation, seconds: float, *, most: int = 3, without: tuple[str, ...] = ()) -> None:
    """Draw none to `most` traps and put them into the background."""
    for name in v.draw.sample([name for name in TRAPS if name not in without], v.draw.randint(0, most)):
        v.traps.append(name)
        TRAPS[name](v, seconds)
