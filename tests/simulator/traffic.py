"""Everyday life in which traffic changes, or in which pools only do what pools do.

Owns the rows of doubling traffic, of the night, of recycling pools and of the application that never pools.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simulator.background import draw_service, set_background
from simulator.scenario import Play
from simulator.seats import Behaviour
from simulator.variation import Variation

HOUR = 3600.0
TRICKLE_RATIO = 0.15


def traffic_step(seed: int, quick: bool) -> Play:
    v = Variation("traffic-step", seed, quick=quick, warm_seconds=120.0)
    return _doubling(v, over_seconds=0.0)


def traffic_ramp(seed: int, quick: bool) -> Play:
    v = Variation("traffic-ramp", seed, quick=quick, warm_seconds=120.0)
    return _doubling(v, over_seconds=v.amount("ramp_seconds", 60, 900))


def _doubling(v: Variation, *, over_seconds: float) -> Play:
    onset = v.amount("onset_seconds", 300, 500)
    seconds = onset + over_seconds + v.length(900, 300)
    factor = v.amount("factor", 1.7, 2.5)
    pods = v.number("pods", 1, 10)
    rate = v.amount("rate_per_second", 8, 35)
    # Requests of one page come together: what makes a pool grow though most of its sessions rest.
    parallel = v.number("parallel_requests", 1, 6)
    service = draw_service(v, "web", rate=rate, pods=pods, least=(1, 6))
    service.pool["most"] = max(v.pick("pool_most", (10, 20, 40)), service.pool["least"])
    v.facts |= {"pool_kind": service.kind, "hosts": service.hosts}
    hold = v.pick("request_seconds", (0.02, 0.06, 0.2))
    # The client works between the two statements of a transaction: its session is taken, and shows no statement.
    thinks = v.pick("think_seconds", (0.0, 0.0, 0.01, 0.1))

    def now(t: float) -> float:
        grown = min(max((t - v.at(onset)) / over_seconds, 0.0), 1.0) if over_seconds else float(t >= v.at(onset))
        return rate / pods * (1 + (factor - 1) * grown)

    def work(pool: Any) -> Behaviour:
        chance = v.world.chance
        while True:
            yield chance.expovariate(now(v.world.elapsed) / parallel)
            for _ in range(chance.randint(1, 2 * parallel - 1)):
                think = chance.expovariate(1 / thinks) if thinks and chance.random() < 0.3 else 0.0
                pool.request(chance.expovariate(1 / hold), think_seconds=think)

    for client in service.hosts:
        pool = service.pod(v, client, at=0.0, rate=0.0)
        v.world.run(work(pool), 1.0)
    v.moments += [onset + 5, onset + over_seconds / 2, onset + over_seconds + 20]
    v.expect(
        pods * min(service.pool["most"], service.pool["least"] + 3 * parallel + factor * rate * (hold + thinks) / pods)
    )
    set_background(v, seconds)
    return v.play(seconds)


def quiet_night(seed: int, quick: bool) -> Play:
    v = Variation("quiet-night", seed, quick=quick)
    evening = v.amount("evening_seconds", 300, 900)
    night = v.length(v.amount("night_seconds", 4.5 * HOUR, 6.5 * HOUR), 2400)
    ramp = v.amount("ramp_seconds", 30, 600)
    seconds = evening + night + ramp + v.length(1800, 600)
    services = v.number("services", 2, 6)

    def day(rate: float) -> Callable[[float], float]:
        def now(t: float) -> float:
            t -= v.warm_seconds
            falling = 1 - (t - evening) / ramp
            rising = (t - evening - night) / ramp
            level = min(max(falling, rising), 1.0)
            # The last who are awake go to bed, rather than ask once in an hour all night.
            return rate * level if level > TRICKLE_RATIO else 0.0

        return now

    total = v.amount("rate_per_second", 4, 12)
    v.facts["hosts"] = []
    for name in v.draw.sample(("web", "checkout", "search", "billing", "mail", "auth"), services):
        service = draw_service(v, name, rate=total / services, least=(2, 8))
        v.facts["hosts"] += service.hosts
        service.start(v, rate=day(service.rate / len(service.hosts)))
        v.expect(service.sessions())
    v.moments += [evening + ramp, evening + night / 2, evening + night + ramp / 2]
    set_background(v, seconds, services=(0, 1), traps=2, requests=15_000)
    return v.play(seconds)


def no_pool_steady(seed: int, quick: bool) -> Play:
    v = Variation("no-pool-steady", seed, quick=quick, warm_seconds=300.0)
    rate = v.amount("sessions_per_second", 20, 60)
    hold = v.amount("session_seconds", 0.005, 0.06)
    seconds = v.length(1200, 420)
    hosts = v.hosts(v.number("hosts", 1, 8))
    application, place = v.identity("php")
    v.facts["named"] = application

    visit_without_pool(v, application, place, hosts=hosts, hold_seconds=hold, rate=lambda _elapsed: rate)
    v.moments += [60.0, seconds / 2]
    v.expect(rate * hold + 6)
    set_background(v, seconds, requests=15_000)
    return v.play(seconds)


def visit_without_pool(
    v: Variation,
    application: str | None,
    place: Mapping[str, Any],
    *,
    hosts: Sequence[str],
    hold_seconds: float,
    rate: Callable[[float], float],
) -> None:
    """Let a service open a session for each request and close it after it, `rate(elapsed)` times a second."""
    world = v.world

    def visit(client: str) -> Behaviour:
        seat = v.knock(application, client=client, **place)
        if seat is not None:
            busy = world.chance.expovariate(1 / hold_seconds)
            seat.use(world.now + 0.004, busy)
            yield 0.006 + busy
            world.close(seat)

    def visits() -> Behaviour:
        while True:
            yield world.chance.expovariate(rate(world.elapsed))
            world.run(visit(world.chance.choice(hosts)))

    world.run(visits(), 0.0)


def pool_recycling(seed: int, quick: bool) -> Play:
    v = Variation("pool-recycling", seed, quick=quick)
    life = v.pick("lifetime_seconds", (60.0, 120.0, 300.0, 600.0, 1800.0, 1800.0))
    # It has recycled since yesterday: whatever its fill was, it is over.
    v.warm_seconds = 600.0 + 2 * life
    seconds = v.length(min(max(4 * life, 1800.0), 2 * HOUR), min(max(2 * life, 600.0), 1500.0))
    pods = v.number("pods", 1, 8)
    each = v.number("pool_least", 3, 20 if pods > 3 else 40)
    rate = v.pick("rate_per_second", (0.0, 0.05, 0.5, 4.0))
    service = draw_service(v, "web", rate=rate, pods=pods, kinds=("hikari", "psycopg", "plain"))
    v.facts |= {"pool_kind": service.kind, "hosts": service.hosts}
    service.pool.update(
        least=each,
        most=each + v.draw.choice((0, 5)),
        lifetime_seconds=life,
        idle_seconds=v.draw.choice((None, 600.0)),
        # Its sessions go one after the other all the time, or all within a moment.
        fill_gap_seconds=v.pick("fill_gap_seconds", (0.05, 0.95 * life / each)),
    )
    service.start(v, gap_seconds=v.draw.uniform(0, life / pods / 2))
    v.moments += [seconds / 3, min(life, seconds - 60)]
    v.expect(pods * service.pool["most"])
    set_background(v, seconds)
    return v.play(seconds)


BUILDERS = {
    "traffic-step": traffic_step,
    "traffic-ramp": traffic_ramp,
    "quiet-night": quiet_night,
    "no-pool-steady": no_pool_steady,
    "pool-recycling": pool_recycling,
}
