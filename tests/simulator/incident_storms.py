"""Storms: sessions opened far faster than usual, by an application that stopped pooling or by clients that try again.

Owns the rows of storms. Each is preceded by enough calm to know what is usual. What a client does after a refusal is
part of the storm: it tries again.
"""

from collections.abc import Callable, Sequence
from typing import Any

from batsignal.detect.signal import DeployRef, Subject
from batsignal.drills.truth import Truth
from simulator.apps import App
from simulator.scenario import Builder, Play
from simulator.scene import CALM_SECONDS, Scene
from simulator.seats import Behaviour
from simulator.world import START


def _calm(scene: Scene) -> float:
    return scene.calm(CALM_SECONDS + 15, 1200.0, quick=CALM_SECONDS + 60)


def visit(scene: Scene, app: App, client: str, hold_seconds: float, **place: Any) -> Behaviour:
    """Open a session for one request, and close it after it."""
    world = scene.world
    seat = world.open(app.application, **app.place | {"client": client} | place)
    if seat is None:
        return
    busy = world.chance.expovariate(1 / hold_seconds)
    seat.use(world.now + 0.005, busy)
    yield 0.006 + busy + world.chance.uniform(0.0, 0.01)
    world.close(seat)


def visits(scene: Scene, app: App, rate: Callable[[float], float], hold_seconds: float) -> Behaviour:
    """Take requests without a pool; `rate` is told how long it has been going on."""
    world = scene.world
    began = world.elapsed
    while True:
        yield world.chance.expovariate(rate(world.elapsed - began))
        world.run(visit(scene, app, world.chance.choice(app.hosts), hold_seconds))


def stop_pooling(scene: Scene, app: App, at: float) -> DeployRef | None:
    """Deploy a version that has no pool: the old pods' pools close as the new ones come, and none is opened."""
    world = scene.world
    announced = scene.pick("announced", (True, False))

    def switch() -> None:
        app.release()
        for pool in app.pools.values():
            pool.close()

    world.call(scene.at(at), switch)
    version = app.version or scene.version()
    world.deploy(app.service, version, scene.at(at), previous=app.previous, announced=announced)
    if not (app.version or announced):
        return None
    return DeployRef(service=app.service, version=version, at=START + scene.at(at), previous=app.previous)


def storm(seed: int, quick: bool) -> Play:
    scene = Scene("storm", seed, quick=quick)
    scene.room(100, 200, 500)
    onset = _calm(scene)
    lasts = scene.amount("lasts_seconds", 120, 300)
    seconds = onset + lasts
    app = scene.app(hosts=(1, 2, 4, 8), seconds=seconds, rate=(8.0, 40.0), versioned=scene.draw.random() < 0.8)
    rate = scene.amount("sessions_per_second", 25, 90)
    hold = scene.pick("session_seconds", (0.02, 0.08, 0.25))
    ramp = scene.pick("ramp_seconds", (0.0, 0.0, 3.0))
    scene.neighbours(seconds, most=5)
    deploy = stop_pooling(scene, app, onset)

    def per_second(t: float) -> float:
        return rate * (min(1.0, 0.3 + t / ramp) if ramp else 1.0)

    scene.world.run(visits(scene, app, per_second, hold), scene.at(onset))
    began = START + scene.at(onset)

    def truths_of() -> tuple[Truth, ...]:
        return (
            scene.truth("storm", app.subject(), began, exhaustion=scene.full_at, deploy=deploy),
            *scene.symptoms(began),
        )

    return scene.ready(seconds, truths_of)


def storm_refused(seed: int, quick: bool) -> Play:
    """Workers that each want a session of their own for a job; far more of them are started than there are slots."""
    scene = Scene("storm-refused", seed, quick=quick)
    world = scene.world
    usable = scene.room(100, 100, 200)
    world.tells_refusals = scene.pick("tells_refusals", (True, True, True, False))
    onset = _calm(scene)
    seconds = onset + scene.amount("lasts_seconds", 90, 200)
    app = scene.app(
        scene.pick("service", ("worker", "jobs", "renderer")), hosts=(1, 3, 6), seconds=seconds, least=1, most=2
    )
    few = scene.number("workers_before", 2, 10)
    many = scene.number("workers_after", usable + 20, usable + 200)
    retry = scene.amount("retry_seconds", 0.4, 1.5)
    job = scene.amount("job_seconds", 0.5, 4.0)
    rest = scene.amount("rest_seconds", 5.0, 20.0)
    scene.neighbours(seconds, most=4, share=0.25)

    def worker(client: str, pause_seconds: float) -> Behaviour:
        chance = world.chance
        name = app.application
        # A deploy ends the workers of the version before it, each when its job is done.
        while app.application == name:
            seat = world.open(name, **app.place | {"client": client})
            if seat is None:
                yield retry * chance.uniform(0.7, 1.3)
                continue
            busy = job * chance.uniform(0.3, 1.7)
            seat.use(world.now + 0.006, busy)
            yield busy + 0.01
            world.close(seat)
            yield pause_seconds * chance.uniform(0.5, 1.5) + 0.02

    for n in range(few):
        world.run(worker(app.hosts[n % len(app.hosts)], rest), 2.0 + n * rest / few)
    deploy = scene.deployed(app, onset, announced=True)
    began = START + scene.at(onset)
    burst = scene.amount("started_within_seconds", 0.5, 5.0)
    for n in range(many):
        world.run(worker(app.hosts[n % len(app.hosts)], 0.1), scene.at(onset) + 0.1 + n * burst / many)

    def truths_of() -> tuple[Truth, ...]:
        return (
            scene.truth("storm", app.subject(), began, exhaustion=scene.full_at, deploy=deploy),
            *scene.symptoms(began),
        )

    return scene.ready(seconds, truths_of)


def storm_reconnect(seed: int, quick: bool) -> Play:
    """A restart; then one service's clients give up on each session after moments, and come again, all of them."""
    scene = Scene("storm-reconnect", seed, quick=quick)
    world = scene.world
    scene.room(100, 200, 200, 500)
    world.tells_refusals = scene.pick("tells_refusals", (True, False))
    restart = _calm(scene)
    down = scene.amount("down_seconds", 2.0, 25.0)
    onset = restart + down
    seconds = onset + scene.amount("lasts_seconds", 120, 240)
    app = scene.app(hosts=(4, 8, 16), seconds=seconds, versioned=scene.draw.random() < 0.8)
    clients = scene.number("clients", 40, 150)
    patience = scene.amount("patience_seconds", 0.3, 1.5)
    scene.neighbours(seconds, most=5, share=0.25)
    world.restart(scene.at(restart), down)

    def stop() -> None:
        for pool in app.pools.values():
            pool.close()

    world.call(scene.at(restart), stop)

    def client(host: str) -> Behaviour:
        chance = world.chance
        yield chance.uniform(0.0, 0.6)
        while True:
            seat = world.open(app.application, **app.place | {"client": host})
            if seat is not None:
                # Everybody warms up at once: what should take a moment does not end in time, and is given up.
                held = patience * chance.uniform(0.5, 1.2)
                seat.use(world.now + 0.006, held)
                yield held + 0.01
                world.close(seat)
            yield chance.uniform(0.1, 0.8)

    for n in range(clients):
        world.run(client(app.hosts[n % len(app.hosts)]), scene.at(onset) + 0.01)
    away, began = START + scene.at(restart), START + scene.at(onset)

    def truths_of() -> tuple[Truth, ...]:
        return (
            scene.truth("storm", app.subject(), began, exhaustion=scene.full_at),
            scene.truth("database_unreachable", Subject(), away, optional=True),
            *scene.symptoms(away),
        )

    return scene.ready(seconds, truths_of)


def pileup_behind_storm(seed: int, quick: bool) -> Play:
    """An application without a pool; after a while its statement no longer ends, and the sessions stay."""
    scene = Scene("pileup-behind-storm", seed, quick=quick)
    world = scene.world
    scene.room(200, 200, 500)
    onset = _calm(scene)
    after = scene.amount("pile_up_after_seconds", 20, 60)
    seconds = onset + after + scene.amount("lasts_seconds", 120, 240)
    app = scene.app(hosts=(2, 4, 8), seconds=seconds, rate=(8.0, 30.0))
    rate = scene.amount("sessions_per_second", 25, 60)
    share = scene.amount("share_that_hangs", 0.06, 0.5)
    takes = scene.amount("statement_seconds", 60, 600)
    query = (
        "SELECT d.* FROM discounts d JOIN baskets b ON b.id = d.basket_id WHERE b.token = ? AND d.valid_until > now()"
    )
    scene.facts["query"] = query
    scene.neighbours(seconds, most=4, share=0.25)
    deploy = stop_pooling(scene, app, onset)
    began, piled = START + scene.at(onset), START + scene.at(onset + after)
    starts: list[float] = []

    def hang(client: str) -> Behaviour:
        seat = world.open(app.application, **app.place | {"client": client, "query": query})
        if seat is None:
            return
        starts.append(world.now)
        busy = takes * world.chance.lognormvariate(0, 0.3)
        seat.use(world.now + 0.005, busy, wait=world.chance.choice((None, ("IO", "DataFileRead"))))
        yield busy + 0.02
        world.close(seat)

    def requests(hosts: Sequence[str]) -> Behaviour:
        while True:
            yield world.chance.expovariate(rate)
            client = world.chance.choice(hosts)
            hangs = world.now >= piled and world.chance.random() < share
            world.run(hang(client) if hangs else visit(scene, app, client, 0.06))

    world.run(requests(app.hosts), scene.at(onset))

    def truths_of() -> tuple[Truth, ...]:
        return (
            scene.truth("storm", app.subject(), began, deploy=deploy),
            scene.truth(
                "query_pileup",
                app.subject(query_id=scene.query_id(query)),
                starts[0],
                exhaustion=scene.full_at,
                deploy=deploy,
            ),
            *scene.symptoms(began),
        )

    return scene.ready(seconds, truths_of)


BUILDERS: dict[str, Builder] = {
    "storm": storm,
    "storm-refused": storm_refused,
    "storm-reconnect": storm_reconnect,
    "pileup-behind-storm": pileup_behind_storm,
}
