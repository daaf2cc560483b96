"""Traps that come and go: who opens sessions for a while and gives them back, or replaces one with another.

Owns one maker for each; `traps` says what all of them have in common.
"""

from typing import Any

from simulator.seats import Behaviour
from simulator.stack import Stack
from simulator.variation import Variation


def long_polls(v: Variation, _seconds: float) -> None:
    """Clients that each hold a session for minutes and then give it back: as many come as go."""
    least, most = v.draw.choice(((20, 60), (60, 180), (120, 300)))
    held = v.draw.randint(5, 16)
    every = (least + most) / 2 / held
    application, place = v.identity("push")
    place |= {"client": v.hosts(1)[0], "query": "LISTEN orders"}

    def visitor(share: float = 1.0) -> Behaviour:
        seat = v.knock(application, **place)
        if seat is not None:
            seat.use(v.world.now + 0.01, 0.02)
            yield share * v.world.chance.uniform(least, most)
            v.world.close(seat)

    def arrivals() -> Behaviour:
        # As many as there always are: until the first of them goes, somebody who begins looks like a leak.
        for _ in range(held):
            v.world.run(visitor(v.world.chance.random()))
        while True:
            yield v.world.chance.expovariate(1 / every)
            v.world.run(visitor())

    v.world.run(arrivals(), 0.0)
    v.expect(1.7 * held)


def jittered_cron(v: Variation, _seconds: float) -> None:
    """Small jobs, each at its own time and never quite on it; each closes what it opened."""
    for n in range(v.draw.randint(3, 8)):
        every = v.draw.choice((60.0, 120.0, 300.0, 600.0))
        sessions = v.draw.randint(1, 4)
        application = v.draw.choice((f"job-{n}", "cron", "psql"))
        place = {"user": "jobs", "client": v.hosts(1)[0], "query": f"CALL job_{n}(?)"}
        jitter = v.draw.uniform(0.02, 0.4) * every
        lasts = v.draw.uniform(3, min(45, every / 3))
        job = _job(v, application, place, every=every, jitter=jitter, sessions=sessions, lasts=lasts)
        v.world.run(job, v.draw.uniform(0, every))
        v.expect(0.5 * sessions)


def _job(
    v: Variation,
    application: str,
    place: dict[str, Any],
    *,
    every: float,
    jitter: float,
    sessions: int,
    lasts: float,
) -> Behaviour:
    while True:
        late = v.world.chance.uniform(0, jitter)
        yield late
        held = [seat for _ in range(sessions) if (seat := v.knock(application, **place)) is not None]
        for seat in held:
            seat.use(v.world.now + 0.01, v.world.chance.uniform(0.2, lasts))
        yield lasts
        for seat in held:
            v.world.close(seat)
        # Of the lateness, the next run may have made good everything: jobs keep to the clock.
        yield max(every - late - lasts, 1.0)


def agents(v: Variation, _seconds: float) -> None:
    """Monitoring agents and health checks that open a session, ask, and close it: every minute or few seconds."""
    for n in range(v.draw.randint(1, 4)):
        every = v.draw.choice((2.0, 10.0, 15.0, 60.0, 60.0))
        lasts = v.draw.uniform(0.005, 1.0)
        application = v.draw.choice(("zabbix", "telegraf", f"check-{n}", "", None))
        place = {"user": "monitor", "client": v.hosts(1)[0], "query": "SELECT * FROM pg_stat_database"}

        def agent(
            every: float = every, lasts: float = lasts, application: str | None = application, place: Any = place
        ) -> Behaviour:
            yield v.world.chance.uniform(0, every)
            while True:
                seat = v.knock(application, **place)
                if seat is not None:
                    seat.use(v.world.now + 0.005, lasts)
                    yield lasts + 0.01
                    v.world.close(seat)
                yield every

        v.world.run(agent(), 0.0)
    v.expect(2)


def slow_reports(v: Variation, _seconds: float) -> None:
    """A report that takes a minute or two, run by somebody now and then, seldom by three at once."""
    application, place = v.identity("bi")
    place |= {"client": v.hosts(1)[0], "query": "SELECT region, sum(total) FROM sales GROUP BY region"}
    every = v.draw.uniform(60, 240)
    lasts = v.draw.uniform(20, 90)
    stack = Stack(v, application, most=3, idle_seconds=300.0, place=place)

    def runs() -> Behaviour:
        while True:
            yield v.world.chance.expovariate(1 / every)
            stack.request(lasts * v.world.chance.uniform(0.7, 1.5))

    v.world.run(runs(), 0.0)
    v.expect(3)


def listeners(v: Variation, seconds: float) -> None:
    """Workers that each listen on a session they never use again, and replace each other one by one at a deploy."""
    workers = v.draw.randint(4, 14)
    gap = v.draw.uniform(2, 20)
    overlap = v.draw.uniform(1, 10)
    deploy = v.draw.uniform(0.1, 0.6) * seconds
    place = {"user": "worker", "database": "shop", "query": "LISTEN jobs"}
    versions = v.draw.choice((("worker@1.0.3", "worker@1.1.0"), ("worker", "worker"), (None, None)))

    def listener(version: int, client: str, ends: float) -> Behaviour:
        seat = None
        while v.world.elapsed < ends:
            if seat is None or seat.closed:
                seat = v.knock(versions[version], client=client, **place)
                if seat is not None:
                    seat.use(v.world.now + 0.01, 0.002)
            yield min(5.0, max(ends - v.world.elapsed, 0.01))
        if seat is not None:
            v.world.close(seat)

    for n, (old, new) in enumerate(zip(v.hosts(workers), v.hosts(workers), strict=True)):
        comes = v.at(deploy) + gap * n
        v.world.run(listener(0, old, comes + overlap), 0.3 * n)
        v.world.run(listener(1, new, float("inf")), comes)
    v.moments.append(deploy + gap * workers / 2)
    v.expect(workers + 3)
