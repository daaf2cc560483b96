"""Queues of sessions behind a lock, and the transaction that is left open.

Owns the rows of locks. The blocker that is true is the root of the chain: the session for which the others wait,
directly or not, and which waits for nobody. Behind DDL that is the long reader and not the DDL, which is the first of
the blocked; to end either one frees the queue.
"""

from collections.abc import Callable
from typing import Any

from batsignal.detect.signal import Subject
from batsignal.drills.truth import BLOCKING_BOUND_SECONDS, BOUND_SECONDS, Truth
from simulator.apps import App
from simulator.pool_kinds import queue_pool
from simulator.scenario import Builder, Play
from simulator.scene import Scene
from simulator.seats import Behaviour, Seat

FOREVER = float("inf")
# Statements that want a table for themselves: whoever reads it blocks them, and they block whoever comes after them.
# It is a table that none of the neighbours reads.
DDL = (
    "ALTER TABLE deliveries ADD COLUMN note text",
    "ALTER TABLE deliveries ALTER COLUMN weight TYPE numeric(?)",
    "DROP INDEX deliveries_by_customer",
    "TRUNCATE deliveries_staging, deliveries",
    "ALTER TABLE deliveries ADD CONSTRAINT deliveries_weight_positive CHECK (weight > ?) NOT VALID",
)
READS = (
    "SELECT count(*), sum(weight) FROM deliveries WHERE created_at > ?",
    "COPY public.deliveries (id, customer_id, weight) TO stdout",
    "SELECT d.* FROM deliveries d JOIN parcels p ON p.delivery_id = d.id ORDER BY d.created_at",
)
NEEDS_TABLE = (
    "SELECT id, state FROM deliveries WHERE customer_id = ?",
    "INSERT INTO deliveries (customer_id, weight) VALUES (?, ?)",
    "UPDATE deliveries SET state = ? WHERE id = ?",
)


def _waiter(
    scene: Scene, lock: str, timeout: float, *, exclusive: bool, blocked: list[float]
) -> Callable[[Seat], None]:
    """Return what a statement does at its begin: queue for the lock, and give up after its timeout."""
    world = scene.world

    def begin(seat: Seat) -> None:
        ticket = world.locks.take(lock, seat, exclusive=exclusive)
        blocked.append(world.now)
        if timeout < FOREVER:
            world.call(world.elapsed + timeout, lambda: world.locks.leave(ticket))

    return begin


def _queue(
    scene: Scene, app: App, *, lock: str, exclusive: bool, blocked: list[float], query: str
) -> Callable[[], Behaviour]:
    """Return the requests that need the lock: each waits in a session of its pod's pool until its timeout."""
    world = scene.world
    rate = scene.amount("waiters_per_second", 1.0, 6.0)
    timeout = scene.pick("statement_timeout_seconds", (None, 15.0, 30.0, 60.0))
    until = FOREVER if timeout is None else timeout
    begin = _waiter(scene, lock, until, exclusive=exclusive, blocked=blocked)

    def requests() -> Behaviour:
        while True:
            yield world.chance.expovariate(rate)
            app.pools[world.chance.choice(app.hosts)].request(until, query=query, begin=begin)

    return requests


def _lock_scene(row: str, seed: int, *, quick: bool) -> tuple[Scene, App, float, float]:
    scene = Scene(row, seed, quick=quick)
    scene.room(100, 200, 200, 500)
    onset = scene.calm()
    seconds = onset + scene.amount("lasts_seconds", 180, 480)
    size, overflow = scene.number("pool_size", 3, 10), scene.pick("pool_overflow", (0, 5, 10))
    app = scene.app(hosts=(2, 3, 5, 8), seconds=seconds, rate=(3.0, 12.0), **queue_pool(size=size, overflow=overflow))
    scene.neighbours(seconds, most=5, share=0.3)
    return scene, app, onset, seconds


def lock_pileup(seed: int, quick: bool) -> Play:
    scene, app, onset, seconds = _lock_scene("lock-pileup", seed, quick=quick)
    world = scene.world
    blocked: list[float] = []
    reader_is = scene.pick("reader", ("long query", "long query", "left in transaction"))
    before = scene.amount("reader_began_seconds_before", 20, max(21, min(400, onset)))
    who = scene.pick("reader_is", ("reports", "metabase", "etl@3.2.0", "analyst-shell"))
    place = {"user": "reporting", "database": app.place["database"], "client": scene.hosts(1)[0]}
    ddl = scene.pick("ddl", DDL)
    table = "deliveries"
    query = scene.draw.choice(NEEDS_TABLE)
    requests = _queue(scene, app, lock=table, exclusive=False, blocked=blocked, query=query)
    found: dict[str, Any] = {}

    def read() -> None:
        seat = world.connect(who, **place, query=scene.draw.choice(READS))
        world.locks.take(table, seat, exclusive=False)
        if reader_is == "long query":
            seat.backend_xmin = "90210"
            seat.use(world.now + 0.01, FOREVER, wait=("IO", "DataFileRead"))
        else:
            seat.transact(world.now + 0.01, scene.draw.uniform(0.1, 3.0))
        found["reader"] = seat

    def alter() -> None:
        seat = world.connect("migrate", user="migrator", database=app.place["database"], client=app.hosts[0], query=ddl)
        seat.use(world.now + 0.01, FOREVER)
        world.locks.take(table, seat, exclusive=True)
        found["ddl"] = seat
        found["at"] = world.now

    world.call(max(scene.at(onset - before), 3.0), read)
    world.call(scene.at(onset), alter)
    world.run(requests(), scene.at(onset) + 0.05)
    scene.watch_health(app)

    def truths_of() -> tuple[Truth, ...]:
        reader = found["reader"]
        truths = [scene.truth("lock_pileup", Subject(blocker=reader.pid), found["at"], exhaustion=scene.full_at)]
        if reader_is != "long query":
            truths.append(_left_open(scene, reader, found["at"]))
        return (*truths, *scene.symptoms(found["at"]))

    return scene.ready(seconds, truths_of)


def _left_open(scene: Scene, seat: Seat, blocks_at: float) -> Truth:
    """Return that the blocker is in fact idle in transaction: who says that as well is not wrong."""
    service = (seat.application or "").split("@")[0] or None
    onset = min(seat.rested_at, blocks_at)
    bound = blocks_at - onset + BLOCKING_BOUND_SECONDS
    return scene.truth("idle_in_transaction", Subject(application=service), onset, bound_seconds=bound, optional=True)


def lock_pileup_transaction(seed: int, quick: bool) -> Play:
    scene, app, onset, seconds = _lock_scene("lock-pileup-transaction", seed, quick=quick)
    world = scene.world
    blocked: list[float] = []
    lock, query, held = scene.draw.choice(
        (
            (
                "row:stock",
                "UPDATE stock SET amount = amount - ? WHERE sku = ?",
                "UPDATE stock SET amount = ? WHERE sku = ?",
            ),
            (
                "row:settings",
                "SELECT value FROM settings WHERE key = ? FOR UPDATE",
                "UPDATE settings SET value = ? WHERE key = ?",
            ),
            ("ledger", "INSERT INTO ledger (account, amount) VALUES (?, ?)", "LOCK TABLE ledger IN EXCLUSIVE MODE"),
        )
    )
    scene.facts["lock"] = lock
    who = scene.pick("forgotten_by", ("backoffice", "psql", app.application, "migrate@1.0.2"))
    place = {"user": "ops" if who == "psql" else app.place["user"], "database": app.place["database"]}
    ahead = scene.amount("idle_before_first_waits_seconds", 0.1, 30)
    # Who inserts does not stand in the way of others who do.
    exclusive = lock.startswith("row:")
    requests = _queue(scene, app, lock=lock, exclusive=exclusive, blocked=blocked, query=query)
    found: dict[str, Seat] = {}

    def forget() -> None:
        seat = found["holder"] = world.connect(
            who, **place, client=scene.draw.choice((app.hosts[0], "10.9.0.7")), query=held
        )
        world.locks.take(lock, seat)
        seat.backend_xid = "77001"
        seat.transact(world.now + 0.01, 0.05)

    world.call(scene.at(onset), forget)
    world.run(requests(), scene.at(onset + ahead))
    scene.watch_health(app)

    def truths_of() -> tuple[Truth, ...]:
        holder = found["holder"]
        return (
            scene.truth("lock_pileup", Subject(blocker=holder.pid), blocked[0], exhaustion=scene.full_at),
            *(
                (_left_open(scene, holder, blocked[0]),)
                if who != "psql"
                else (_left_open_by(scene, holder, blocked[0]),)
            ),
            *scene.symptoms(blocked[0]),
        )

    return scene.ready(seconds, truths_of)


def _left_open_by(scene: Scene, seat: Seat, blocks_at: float) -> Truth:
    bound = blocks_at - seat.rested_at + BLOCKING_BOUND_SECONDS
    return scene.truth(
        "idle_in_transaction",
        Subject(user=seat.user),
        min(seat.rested_at, blocks_at),
        bound_seconds=bound,
        optional=True,
    )


def idle_in_transaction(seed: int, quick: bool) -> Play:
    scene = Scene("idle-in-transaction", seed, quick=quick)
    world = scene.world
    scene.room(100, 200, 500)
    onset = scene.calm()
    waiters = scene.pick("waiters", (0, 0, 1, 2, 3))
    after = scene.amount("blocks_after_seconds", 5, 200)
    seconds = onset + BOUND_SECONDS["idle_in_transaction"] + scene.amount("lasts_seconds", 60, 600)
    app = scene.app(seconds=seconds, rate=(1.0, 8.0))
    scene.neighbours(seconds, most=5)
    who = scene.pick("left_open_by", ("backoffice", "psql", "DBeaver 23.1.0 - Main", app.application))
    place = {
        "user": "ops" if who == "psql" else "back_office",
        "client": scene.hosts(1)[0],
        "database": app.place["database"],
    }
    query = scene.pick("query", ("UPDATE prices SET amount = ? WHERE id = ?", "DELETE FROM baskets WHERE id = ?"))
    found: dict[str, Seat] = {}
    blocked: list[float] = []

    def leave_open() -> None:
        seat = found["holder"] = world.connect(who, **place, query=query)
        seat.backend_xid = "77002"
        world.locks.take("row:prices", seat)
        seat.transact(world.now + 0.01, scene.draw.uniform(0.01, 2.0))

    def want() -> None:
        # Each waits in a session of its own, as a job does, and is not given up.
        seat = world.connect("pricing", user="pricing", database=app.place["database"], query=query)
        seat.use(world.now + 0.01, FOREVER)
        world.locks.take("row:prices", seat)
        blocked.append(world.now)

    world.call(scene.at(onset), leave_open)
    for n in range(waiters):
        world.call(scene.at(onset + after) + 3.0 * n, want)

    def truths_of() -> tuple[Truth, ...]:
        holder = found["holder"]
        service = None if who == "psql" else (who or "").split("@")[0]
        subject = Subject(application=service, user=place["user"])
        began = holder.rested_at
        # Whoever waits for five minutes to be over sees it at the look after them.
        bound = BOUND_SECONDS["idle_in_transaction"] + BLOCKING_BOUND_SECONDS
        truths = []
        if blocked:
            bound = min(bound, blocked[0] - began + BLOCKING_BOUND_SECONDS)
            truths.append(scene.truth("lock_pileup", Subject(blocker=holder.pid), blocked[0], optional=True))
        return (
            scene.truth("idle_in_transaction", subject, began, bound_seconds=bound),
            *truths,
            *scene.symptoms(began),
        )

    return scene.ready(seconds, truths_of)


BUILDERS: dict[str, Builder] = {
    "lock-pileup": lock_pileup,
    "lock-pileup-transaction": lock_pileup_transaction,
    "idle-in-transaction": idle_in_transaction,
}
