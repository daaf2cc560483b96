"""Everyday life of the server itself: autovacuum, replication, index builds, and the short waits for locks.

Owns those rows. Processes that are no client's take no slot; who waits for a lock here waits for seconds.
"""

from collections.abc import Callable
from typing import Any

from simulator.background import draw_service, set_background
from simulator.scenario import Play
from simulator.seats import Behaviour, Seat
from simulator.variation import Variation

WAIT_SECONDS = 4.0
SERVER_PROCESSES = (
    ("checkpointer", "CheckpointerMain"),
    ("background writer", "BgwriterHibernate"),
    ("walwriter", "WalWriterMain"),
    ("autovacuum launcher", "AutovacuumMain"),
    ("logical replication launcher", "LogicalLauncherMain"),
)
# What an administrator runs, and what it has to wait for now and then: an index that is built beside the writers waits
# for their transactions to end, a vacuum for who has locked the table against it.
WRITES = "UPDATE orders SET state = ? WHERE id = ?"
BUILDS = {
    "CREATE INDEX CONCURRENTLY orders_day_idx ON orders (day)": ("virtualxid:importer", WRITES),
    "REINDEX INDEX CONCURRENTLY orders_pkey": ("virtualxid:importer", WRITES),
    "VACUUM (ANALYZE) orders": ("orders", "LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE"),
}


def maintenance(seed: int, quick: bool) -> Play:
    v = Variation("maintenance", seed, quick=quick)
    seconds = v.length(2700, 1100)
    for kind, event in SERVER_PROCESSES:
        process = _process(v, kind)
        if process is not None:
            process.rest_wait = ("Activity", event)
    for n in range(v.number("standbys", 0, 4)):
        v.world.run(_sender(v, f"standby{n + 1}", "START_REPLICATION", float("inf")), 0.3 * n)
    if v.pick("base_backup", (True, False)):
        copies = v.at(v.draw.uniform(0.1, 0.5) * seconds)
        for name in ("pg_basebackup", "pg_basebackup"):
            v.world.run(_sender(v, name, "BASE_BACKUP", v.draw.uniform(200, 500)), copies)
    tables = v.number("autovacuum_tables", 2, 12)
    for _ in range(v.number("autovacuum_workers", 1, 3)):
        v.world.run(autovacuum(v, tables, v.draw.uniform(20, 240)), v.draw.uniform(0, 60))
    onset = v.amount("build_seconds_in", 120, 300)
    lasts = v.amount("build_seconds", 180, 600)
    waits = [round(v.draw.uniform(1.2, WAIT_SECONDS), 2) for _ in range(v.number("build_waits", 1, 4))]
    statement = v.pick("statement", tuple(BUILDS))
    v.world.run(build(v, statement, lasts, waits), v.at(onset))
    v.moments += [onset + 5, onset + lasts / 2]
    v.expect(4)
    _web(v, seconds)
    return v.play(seconds)


def _process(v: Variation, kind: str) -> Seat | None:
    """Open one of the server's own processes: it has no user, no client and no state."""
    return v.knock(None, user=None, database=None, client=None, rest=None, backend_type=kind)


def _sender(v: Variation, name: str, query: str, seconds: float) -> Behaviour:
    """Send WAL or a copy of the files to another server, for so long."""
    place = {"user": "replicator", "database": None, "client": v.hosts(1)[0], "backend_type": "walsender"}
    seat = v.knock(name, **place)
    if seat is not None:
        seat.use(v.world.now + 0.01, seconds, query=query, wait=("Activity", "WalSenderMain"))
        yield min(seconds, 1e6)
        v.world.close(seat)


def autovacuum(v: Variation, tables: int, mean_seconds: float) -> Behaviour:
    """Vacuum one table after the other, each in a process of its own, with rests between them."""
    while True:
        yield v.world.chance.expovariate(1 / mean_seconds)
        seat = v.knock(
            "", user=None, client=None, rest=None, backend_type="autovacuum worker", query="autovacuum: VACUUM"
        )
        if seat is not None:
            table = v.world.chance.randrange(tables)
            lasts = v.world.chance.expovariate(1 / mean_seconds)
            seat.backend_xmin = "80112"
            seat.use(
                v.world.now, lasts, query=f"autovacuum: VACUUM public.table_{table}", wait=("Timeout", "VacuumDelay")
            )
            yield lasts
            v.world.close(seat)


def build(v: Variation, statement: str, lasts: float, waits: list[float]) -> Behaviour:
    """Run one long statement of an administrator, which waits now and then for somebody's transaction to end."""
    place = {"database": "shop", "query": statement}
    admin = v.knock("psql", user="postgres", client=None, **place)
    writer = v.knock("importer", user="importer", client=v.hosts(1)[0], database="shop")
    if admin is None or writer is None:
        return
    lock, holds = BUILDS[statement]
    admin.backend_xmin = "80120"
    admin.use(v.world.now, lasts + sum(waits))
    for wait in waits:
        yield lasts / (len(waits) + 1)
        writer.backend_xid = "80121"
        writer.transact(v.world.now, 0.05, query=holds)
        held = v.world.locks.take(lock, writer)
        waiting = v.world.locks.take(lock, admin)
        yield wait
        v.world.locks.leave(held)
        writer.end(v.world.now)
        v.world.locks.leave(waiting)
    yield lasts / (len(waits) + 1) + 1.0
    v.world.close(admin)
    v.world.close(writer)


def short_lock_waits(seed: int, quick: bool) -> Play:
    v = Variation("short-lock-waits", seed, quick=quick)
    seconds = v.length(1800, 600)
    crew = Crew(v, waiters=v.number("waiters", 1, 5), every=v.amount("every_seconds", 12, 90))
    v.world.run(crew.work(), 0.0)
    v.world.run(crew.episodes(), 5.0)
    v.moments += [seconds / 3, seconds / 2]
    _web(v, seconds)
    return v.play(seconds)


class Crew:
    """The sessions of one application that get into each other's way now and then."""

    def __init__(self, v: Variation, *, waiters: int, every: float) -> None:
        self._v = v
        self._waiters = waiters
        self._every = every
        self._lock = v.pick("lock", ("row:stock", "stock"))
        self._holder_rests = v.pick("holder_rests", (True, False))
        self._application, self._place = v.identity("orders")
        self._place["query"] = "SELECT state FROM stock WHERE id = ?"
        self._hosts = v.hosts(v.number("hosts", 1, 4))
        self._size = waiters + v.draw.randint(3, 8)
        self._seats: list[Seat] = []
        v.expect(self._size)

    def _free(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.busy_until <= self._v.world.now and seat.rest == "idle"]

    def work(self, rate: float = 3.0) -> Behaviour:
        """Open the sessions, then do small things in them, so many a second."""
        world = self._v.world
        for n in range(self._size):
            seat = self._v.knock(self._application, client=self._hosts[n % len(self._hosts)], **self._place)
            if seat is not None:
                self._seats.append(seat)
            yield 0.05
        while True:
            yield world.chance.expovariate(rate)
            free = self._free()
            if free:
                world.chance.choice(free).use(world.now, 0.02, query=self._place["query"])

    def episodes(self) -> Behaviour:
        while True:
            yield max(self._v.world.chance.expovariate(1 / self._every), 6.0)
            self._v.world.run(self._episode())

    def _episode(self) -> Behaviour:
        """Let one hold a lock for about four seconds, and a few wait for it."""
        world, chance = self._v.world, self._v.world.chance
        free = self._free()
        if len(free) <= self._waiters:
            return
        holder, *others = chance.sample(free, self._waiters + 1)
        hold = WAIT_SECONDS * chance.uniform(0.7, 1.05)
        ends = world.elapsed + hold
        ticket = world.locks.take(self._lock, holder)
        holder.backend_xid = str(90_000 + holder.pid)
        busy = 0.02 if self._holder_rests else 0.95 * hold
        holder.transact(world.now, busy, query="UPDATE stock SET reserved = reserved + ? WHERE id = ?")
        for waiter in others:
            yield chance.uniform(0, 0.8 * hold / self._waiters)
            if waiter.busy_until <= world.now:
                world.run_locked(waiter, self._lock, 0.02, query="UPDATE stock SET reserved = ? WHERE id = ?")
        yield max(ends - world.elapsed, 0.01)
        world.locks.leave(ticket)
        holder.end(world.now)


def _web(v: Variation, seconds: float) -> None:
    service = draw_service(v, "web", rate=v.draw.uniform(1, 10))
    service.start(v)
    v.expect(service.sessions())
    set_background(v, seconds, services=(1, 5))


BUILDERS: dict[str, Callable[[int, bool], Any]] = {
    "maintenance": maintenance,
    "short-lock-waits": short_lock_waits,
}
