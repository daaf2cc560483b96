"""Limits that are reached honestly: the server's slots, a role's or a database's own.

Owns the rows of saturation. Every session that comes is used again and again; there are just too many of them.
"""

from typing import Any

from batsignal.detect.signal import Subject
from batsignal.drills.truth import BOUND_SECONDS, Truth
from simulator.pool_kinds import queue_pool
from simulator.scenario import Builder, Play
from simulator.scene import Scene
from simulator.seats import Behaviour

NAMES = ("web", "api", "checkout", "search", "billing", "mail", "auth", "catalog", "stock", "reviews", "shipping")
# From where on a person may be warned that a limit is near, and where somebody must be told.
NEAR_RATIO, MUST_RATIO = 0.8, 0.9


def _grow(
    scene: Scene,
    names: list[str],
    places: dict[str, dict[str, Any]],
    *,
    growing: float,
    limit: int,
    taken: float,
) -> Behaviour:
    """Add pods to the services until well beyond the limit; each has a pool that its own requests use."""
    world, chance = scene.world, scene.world.chance
    gap = growing / max((limit - taken) / 4.0, 3)
    yield 0.0
    n = 0
    while True:
        name = chance.choice(names)
        size = chance.randint(2, 6)
        n += 1
        place = places[name] | {"client": f"10.{80 + names.index(name)}.1.{n % 250 + 1}"}
        world.pool(
            place.pop("application"),
            work=chance.uniform(0.2, 0.8),
            seconds=0.05,
            at=world.elapsed + 0.01,
            least=size,
            most=size + 4,
            order="fifo",
            fill_gap_seconds=chance.choice((0.02, 0.2)),
            place=place,
        )
        yield gap * chance.uniform(0.4, 1.6)


def _play(scene: Scene, limit: str, names: list[str], place: dict[str, Any], *, most: int) -> Play:
    world = scene.world
    onset = scene.calm()
    growing = scene.amount("grows_over_seconds", 60, 500 if scene.quick else 1500)
    seconds = onset + 1.3 * growing + 60 + (90.0 if scene.quick else 330.0)
    taken = 0.0
    places: dict[str, dict[str, Any]] = {}
    for name in names:
        version = scene.version()
        places[name] = {
            "application": scene.draw.choice((f"{name}@{version}", f"{name}@{version}", name)),
            "user": name,
            "database": "shop",
            "query": scene.draw.choice(
                ("SELECT ?", "SELECT * FROM items WHERE id = ?", "UPDATE visits SET n = n + ? WHERE id = ?")
            ),
        } | place
        size = max(int(scene.draw.uniform(0.25, 0.5) * most / len(names)), 1)
        app = places[name] | {"client": scene.hosts(1)[0]}
        pool = world.pool(
            app.pop("application"),
            work=scene.draw.uniform(0.5, 4.0),
            seconds=0.03,
            place=app,
            **{"least": size, "most": size + 3, "order": "fifo"}
            if scene.draw.random() < 0.5
            else queue_pool(size=size, overflow=3) | {"least": size},
        )
        taken += size
        if len(places) == 1:
            scene.probe(f"{name}-health", name, pool)
    scene.facts |= {"services": len(names), "sessions_before": round(taken)}
    near, must, gone = (world.meter(limit, ratio) for ratio in (NEAR_RATIO, MUST_RATIO, 1.0))
    world.run(_grow(scene, names, places, growing=growing, limit=most, taken=taken), scene.at(onset))

    def truths_of() -> tuple[Truth, ...]:
        assert near.first_at is not None
        assert must.first_at is not None
        bound = must.first_at - near.first_at + BOUND_SECONDS["saturation"]
        return (
            scene.truth(
                "saturation", Subject(limit=limit), near.first_at, bound_seconds=bound, exhaustion=gone.first_at
            ),
            *scene.symptoms(near.first_at),
        )

    return scene.ready(seconds, truths_of)


def saturation(seed: int, quick: bool) -> Play:
    scene = Scene("saturation", seed, quick=quick)
    usable = scene.room(100, 200, 300)
    names = scene.draw.sample(NAMES, scene.draw.randint(5, 10))
    return _play(scene, "server", names, {}, most=usable)


def saturation_role(seed: int, quick: bool) -> Play:
    scene = Scene("saturation-role", seed, quick=quick)
    scene.room(200, 300, 500)
    most = scene.number("role_limit", 20, 80)
    role = scene.pick("role", ("shop_rw", "reporting", "app_rw"))  # none that a neighbour uses
    scene.world.role_limits[role] = most
    if scene.draw.random() < 0.4:
        scene.world.role_limits["batch"] = 50
    scene.neighbours(3600.0, most=4, share=0.3, traps=0)
    names = scene.draw.sample([name for name in NAMES if name not in {"search", "mail"}], scene.draw.randint(1, 3))
    role_names = [f"{name}-{scene.draw.choice(('core', 'edge', 'jobs'))}" for name in names]
    return _play(scene, f"role:{role}", role_names, {"user": role}, most=most)


def saturation_database(seed: int, quick: bool) -> Play:
    scene = Scene("saturation-database", seed, quick=quick)
    scene.room(200, 300, 500)
    most = scene.number("database_limit", 25, 90)
    database = scene.pick("database", ("analytics", "tenant_7", "ledger"))
    scene.world.database_limits[database] = most
    scene.neighbours(3600.0, most=4, share=0.3, traps=0)
    names = scene.draw.sample(("etl", "dashboards", "exports", "ledger-api", "tenant-web"), scene.draw.randint(1, 4))
    return _play(scene, f"database:{database}", names, {"database": database}, most=most)


BUILDERS: dict[str, Builder] = {
    "saturation": saturation,
    "saturation-role": saturation_role,
    "saturation-database": saturation_database,
}
