"""Endpoints that fail or become slow while the database is fine, and a database that goes away and stays away.

Owns the rows of health endpoints and of the server that cannot be reached.
"""

from batsignal.detect.signal import Subject
from batsignal.drills.truth import Truth
from batsignal.snapshot import PollFailure
from simulator.probes import TIMEOUT_SECONDS, Answer, ask_pool
from simulator.scenario import INTERVAL_SECONDS, Builder, Play
from simulator.scene import CALM_SECONDS, Scene
from simulator.world import START

FAULTS = {
    "crashed": Answer(status=None, reason="connection refused"),
    "answers 500": Answer(seconds=0.01, status=500),
    "answers 503": Answer(seconds=0.02, status=503),
    "hangs": Answer(seconds=float("inf")),
    "name gone": Answer(seconds=0.004, status=None, reason="name or service not known"),
}
FAILURES = {
    "host gone": PollFailure(reason="timeout", text="no answer in time"),
    "server stopped": PollFailure(reason="refused", text="nothing listens there"),
    "recovery that does not end": PollFailure(
        reason="not_accepting", sqlstate="57P03", text="the database system is not accepting connections"
    ),
    "network gone": PollFailure(reason="unreachable", text="no route to host"),
}


def endpoint_down(seed: int, quick: bool) -> Play:
    scene = Scene("endpoint-down", seed, quick=quick)
    world = scene.world
    scene.room(100, 200, 500)
    onset = scene.calm()
    seconds = onset + scene.amount("lasts_seconds", 120, 400)
    app = scene.app(seconds=seconds, rate=(1.0, 10.0), versioned=scene.draw.random() < 0.7)
    fault = scene.pick("fault", tuple(FAULTS))
    scene.neighbours(seconds, most=5)
    begins = scene.at(onset)

    def health() -> Answer:
        return app.health() if world.elapsed < begins else FAULTS[fault]

    endpoint = f"{app.service}-health"
    scene.probe(endpoint, app.service, health)
    if fault == "crashed":
        # Its sessions end with it; else the rest of it works on.
        for client in app.hosts:
            world.call(begins, lambda client=client: app.pools[client].close())

    def truths_of() -> tuple[Truth, ...]:
        failed = [at for name, kind, at in world.troubled if (name, kind) == (endpoint, "endpoint_down")]
        # On the third in a row: it has answered or timed out by then, and the look after it shows it.
        bound = failed[2] - failed[0] + TIMEOUT_SECONDS + INTERVAL_SECONDS
        return (scene.truth("endpoint_down", Subject(endpoint=endpoint), failed[0], bound_seconds=bound),)

    return scene.ready(seconds, truths_of)


def endpoint_slow(seed: int, quick: bool) -> Play:
    """What it waits for is not the database: a cache that is gone, a service of somebody else."""
    scene = Scene("endpoint-slow", seed, quick=quick)
    world = scene.world
    scene.room(100, 200, 500)
    onset = scene.calm(CALM_SECONDS + 15, 1200.0, quick=CALM_SECONDS + 60)
    seconds = onset + scene.amount("lasts_seconds", 150, 400)
    app = scene.app(seconds=seconds, rate=(1.0, 10.0))
    usual = scene.amount("usual_seconds", 0.01, 0.08)
    slow = scene.amount("slow_seconds", 0.5, 1.3)
    ramp = scene.pick("ramp_seconds", (0.0, 0.0, 20.0))
    scene.neighbours(seconds, most=5)
    begins = scene.at(onset)

    def health() -> Answer:
        asked = ask_pool(world, app.pools[app.hosts[0]])
        late = world.elapsed - begins
        middle = usual if late < 0 else slow if not ramp else usual + (slow - usual) * min(1.0, late / ramp)
        return Answer(
            seconds=asked.seconds + min(middle * world.chance.lognormvariate(0, 0.15), 1.8), status=asked.status
        )

    endpoint = f"{app.service}-health"
    scene.probe(endpoint, app.service, health)

    def truths_of() -> tuple[Truth, ...]:
        first = world.trouble(START + begins)[endpoint, "endpoint_slow"]
        return (scene.truth("endpoint_slow", Subject(endpoint=endpoint), first),)

    return scene.ready(seconds, truths_of)


def database_unreachable(seed: int, quick: bool) -> Play:
    scene = Scene("database-unreachable", seed, quick=quick)
    world = scene.world
    scene.room(100, 200, 500)
    onset = scene.calm()
    seconds = onset + scene.amount("lasts_seconds", 90, 400)
    app = scene.app(seconds=seconds, rate=(1.0, 10.0))
    cause = scene.pick("cause", tuple(FAILURES))
    scene.neighbours(seconds, most=5)
    scene.watch_health(app)
    begins = scene.at(onset) + scene.draw.random()
    world.fail(begins, float("inf"), FAILURES[cause])
    began = START + begins

    def truths_of() -> tuple[Truth, ...]:
        return (scene.truth("database_unreachable", Subject(), began), *scene.symptoms(began))

    return scene.ready(seconds, truths_of)


BUILDERS: dict[str, Builder] = {
    "endpoint-down": endpoint_down,
    "endpoint-slow": endpoint_slow,
    "database-unreachable": database_unreachable,
}
