"""Pile-ups: one statement that holds more and more sessions, new with a deploy or old with a plan turned bad.

Owns the rows of statements. The pile is what the pools of the application have, and jobs of the same code beyond them.
"""

from batsignal.detect.signal import Subject
from batsignal.drills.truth import Truth
from simulator.pool_kinds import queue_pool
from simulator.scenario import Builder, Play
from simulator.scene import CALM_SECONDS, Scene
from simulator.seats import Behaviour

BAD_QUERIES = (
    "SELECT p.*, (SELECT count(*) FROM reviews r WHERE r.product_id = p.id) FROM products p WHERE p.name ILIKE ?",
    "SELECT o.* FROM orders o LEFT JOIN shipments s ON s.order_ref = o.ref WHERE s.id IS NULL AND o.customer_id = ?",
    "UPDATE stock SET reserved = reserved + ? WHERE sku IN (SELECT sku FROM bundles WHERE bundle_id = ?)",
    "SELECT DISTINCT c.id FROM customers c, logins l WHERE l.email = c.email AND l.at > now() - ?::interval",
)


def query_pileup(seed: int, quick: bool) -> Play:
    return _query_pileup(Scene("query-pileup", seed, quick=quick), is_new=True)


def query_pileup_old(seed: int, quick: bool) -> Play:
    return _query_pileup(Scene("query-pileup-old", seed, quick=quick), is_new=False)


def _query_pileup(scene: Scene, *, is_new: bool) -> Play:
    world = scene.world
    scene.room(100, 200, 500)
    onset = scene.calm(
        *(() if is_new else (CALM_SECONDS + 15, 1200.0)), **({} if is_new else {"quick": CALM_SECONDS + 60})
    )
    seconds = onset + scene.amount("lasts_seconds", 180, 420)
    size, overflow = scene.number("pool_size", 4, 10), scene.pick("pool_overflow", (2, 5, 10))
    app = scene.app(hosts=(2, 3, 5, 8), seconds=seconds, rate=(5.0, 20.0), **queue_pool(size=size, overflow=overflow))
    query = scene.pick("query", BAD_QUERIES)
    rate = scene.amount("statements_per_second", 1.5, 6.0)
    takes = scene.amount("statement_seconds", 45, 600)
    beyond_share = scene.pick("share_beyond_the_pool", (0.0, 0.2, 0.5))
    wait = scene.pick("wait", (None, ("IO", "DataFileRead"), ("IO", "BufFileWrite")))
    scene.neighbours(seconds, most=5, share=0.3)
    endpoint_watched = scene.pick("health_watched", (True, True, False))
    deploy = scene.deployed(app, onset) if is_new else None
    if endpoint_watched:
        scene.watch_health(app)
    starts: list[float] = []
    flips_at = scene.at(onset) + (scene.amount("first_after_seconds", 0.5, 20) if is_new else 0.0)

    def beyond(client: str, busy: float) -> Behaviour:
        # A job of the same code that has no pool: it takes a session of its own.
        seat = world.open(app.application, **app.place | {"client": client, "query": query})
        if seat is None:
            return
        seat.use(world.now + 0.006, busy, wait=wait)
        yield busy + 0.02
        world.close(seat)

    def statements() -> Behaviour:
        chance = world.chance
        while True:
            yield chance.expovariate(rate)
            if world.elapsed < flips_at:
                if not is_new:
                    app.pools[chance.choice(app.hosts)].request(chance.expovariate(1 / 0.02), query=query)
                continue
            starts.append(world.now)
            client, busy = chance.choice(app.hosts), takes * chance.lognormvariate(0, 0.35)
            if chance.random() < beyond_share:
                world.run(beyond(client, busy))
            else:
                app.pools[client].request(busy, query=query, wait=wait)

    world.run(statements(), scene.at(0.0) if not is_new else flips_at)

    def truths_of() -> tuple[Truth, ...]:
        began = starts[0]
        subject = Subject(application=app.service, query_id=scene.query_id(query))
        return (
            scene.truth("query_pileup", subject, began, exhaustion=scene.full_at, deploy=deploy),
            *scene.symptoms(began),
        )

    return scene.ready(seconds, truths_of)


BUILDERS: dict[str, Builder] = {
    "query-pileup": query_pileup,
    "query-pileup-old": query_pileup_old,
}
