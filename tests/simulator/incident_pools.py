"""Pools that have nothing left to lend while the server has slots to spare: a client's own, or a pooler's.

Owns the rows of starved pools. What a client sees of it (waits, failed probes) comes from the pool that starves.
"""

from dataclasses import dataclass, field

from batsignal.detect.signal import DeployRef, Subject
from batsignal.drills.truth import BOUND_SECONDS, POOLER_WAIT_BOUND_SECONDS, Truth, leak_bound_seconds
from batsignal.snapshot import PoolerPool
from simulator.pools import Pool
from simulator.scenario import Builder, Play
from simulator.scene import Scene
from simulator.seats import Behaviour, Seat
from simulator.world import START

HANGING = "SELECT * FROM invoices WHERE body LIKE ?"


def pool_starvation(seed: int, quick: bool) -> Play:
    """A leak inside bounded pools: of each, session after session is lent and never given back."""
    scene = Scene("pool-starvation", seed, quick=quick)
    world = scene.world
    hosts, size = scene.pick("pods", (1, 1, 2, 4)), scene.number("pool_size", 6, 18)
    # A deploy doubles its pools for a moment, and even then there are slots to spare.
    scene.room(*(most for most in (100, 200, 300, 500) if 4 * hosts * size <= most))
    onset = scene.calm()
    every = scene.amount("every_seconds", 1.5, 20.0)
    starved = every * size * hosts
    seconds = onset + 1.4 * starved + 60 + scene.amount("lasts_seconds", 180, 420)
    wait = scene.pick("pool_timeout_seconds", (3.0, 10.0, 30.0))
    least = scene.pick("pool_minimum", (0, 2, size))
    rest = scene.pick("lost_sessions_rest", ("idle", "idle", "idle in transaction"))
    app = scene.app(
        hosts=hosts,
        seconds=seconds,
        rate=(3.0, 12.0),
        least=least,
        most=size,
        wait_seconds=wait,
        order=scene.draw.choice(("lifo", "fifo")),
        grows_by=scene.draw.choice(("caller", "worker")),
    )
    scene.neighbours(seconds, most=5, share=0.3)
    deploy = scene.deployed(app, onset)
    endpoint = scene.watch_health(app)
    lag = scene.amount("first_after_seconds", 1.0, 20.0)

    def lose() -> Behaviour:
        while True:
            pool = app.pools[world.chance.choice(app.hosts)]
            # What is lost keeps the state it was left in.
            pool.lose(world.chance.expovariate(1 / 0.03), rest=rest)
            yield every * world.chance.expovariate(1)

    world.run(lose(), scene.at(onset + lag))

    def truths_of() -> tuple[Truth, ...]:
        lost_at = sorted(at for pool in app.pools.values() for at, _ in pool.lost)
        first = app.pools[app.hosts[0]]
        troubled = [(kind, at) for name, kind, at in world.troubled if name == endpoint and at >= lost_at[0]]
        failed_at = next(at for kind, at in troubled if kind == "endpoint_down")
        # It starves when what is left no longer does for the requests: with the last session lent, if not before.
        emptied_at = [at for at, _ in first.lost][size - 1 :]
        starved_at = min(troubled[0][1], *emptied_at)
        subject = app.subject()
        return (
            scene.truth(
                "pool_starvation",
                subject,
                starved_at,
                deploy=deploy,
                bound_seconds=failed_at - starved_at + BOUND_SECONDS["pool_starvation"],
            ),
            _leak_inside(scene, subject, lost_at),
            *scene.symptoms(lost_at[0]),
        )

    return scene.ready(seconds, truths_of)


def _leak_inside(scene: Scene, subject: Subject, lost_at: list[float]) -> Truth:
    """Return that it is a leak as well, though a pool and not the server runs out: who says so is not wrong."""
    bound = leak_bound_seconds(lost_at[0], lost_at)
    return scene.truth("leak", subject, lost_at[0], bound_seconds=bound, optional=True)


@dataclass(eq=False)
class Pooler:
    """PgBouncer in front of one database and user: a pool of server sessions, and the clients who wait for one."""

    scene: Scene
    pool: Pool
    clients: int
    waited: list[tuple[float, float]] = field(default_factory=list)
    """Of each look, when it was and since when the first client waited; since infinity when none did."""

    def rows(self) -> tuple[PoolerPool, ...]:
        """Return what SHOW POOLS says now."""
        now, waiting = self.scene.world.now, self.pool.waiting
        longest = now - self.pool._waiting[0].asked_at if waiting else 0.0
        self.waited.append((now, now - longest if waiting else float("inf")))
        idle = len(self.pool._free)
        place = self.pool.place
        row = PoolerPool(
            database=place["database"],
            user=place["user"],
            cl_active=max(self.clients - waiting, self.pool.size - idle),
            cl_waiting=waiting,
            sv_active=self.pool.size - idle,
            sv_idle=idle,
            sv_used=0,
            sv_tested=0,
            sv_login=0,
            maxwait_seconds=longest,
            pool_mode="transaction",
        )
        admin = PoolerPool(
            database="pgbouncer",
            user="pgbouncer",
            cl_active=1,
            cl_waiting=0,
            sv_active=0,
            sv_idle=0,
            sv_used=0,
            sv_tested=0,
            sv_login=0,
            maxwait_seconds=0.0,
            pool_mode="statement",
        )
        return (row, admin)

    @property
    def starved_at(self) -> float:
        """When the first client began to wait of those who waited until the end."""
        since = float("inf")
        for _, began in reversed(self.waited):
            if began == float("inf"):
                break
            since = min(since, began)
        return since


def pgbouncer_starvation(seed: int, quick: bool) -> Play:
    """Transactions that do not end, or statements that became slow, take all of PgBouncer's server sessions."""
    scene = Scene("pgbouncer-starvation", seed, quick=quick)
    world = scene.world
    scene.room(100, 200, 500)
    onset = scene.calm()
    size = scene.number("default_pool_size", 8, 30)
    every = scene.amount("every_seconds", 0.5, 6.0)
    cause = scene.pick("cause", ("transactions that stay open", "statements that hang"))
    wait = scene.pick("query_wait_timeout_seconds", (30.0, 120.0, 120.0))
    seconds = onset + 1.5 * every * size + 30 + scene.amount("lasts_seconds", 150, 300)
    app = scene.app(
        hosts=1,
        seconds=seconds,
        rate=(6.0, 15.0),
        least=0,
        most=size,
        order="lifo",
        grows_by="worker",
        wait_seconds=wait,
        idle_seconds=600.0,
        lifetime_seconds=3600.0,
    )
    scene.facts["clients"] = clients = scene.draw.randint(3 * size, 10 * size)
    pooler = Pooler(scene, app.pools.setdefault(app.hosts[0], None), clients)  # type: ignore[arg-type]
    scene.neighbours(seconds, most=4, share=0.3)
    # Behind PgBouncer a deploy closes nothing: the name of the session changes with the client that borrows it.
    version = app.version or scene.version()
    announced = scene.pick("announced", (True, False))
    world.deploy(app.service, version, scene.at(onset), previous=app.previous, announced=announced)
    world.call(scene.at(onset), app.release)
    deploy = DeployRef(service=app.service, version=version, at=START + scene.at(onset), previous=app.previous)
    scene.watch_health(app)

    def rename(seat: Seat) -> None:
        seat.application = app.application

    def stick() -> Behaviour:
        while True:
            pool = app.pools[app.hosts[0]]
            if cause.startswith("transactions"):
                pool.lose(0.02, begin=rename, rest="idle in transaction")
            else:
                pool.request(world.chance.uniform(600, 3000), query=HANGING, begin=rename)
            yield every * world.chance.expovariate(1)

    def look() -> tuple[PoolerPool, ...]:
        pooler.pool = app.pools[app.hosts[0]]
        return pooler.rows()

    world.pooler = look
    world.run(stick(), scene.at(onset) + 1.0)

    def truths_of() -> tuple[Truth, ...]:
        began = pooler.starved_at
        subject = Subject(pool=f"{app.place['database']}/{app.place['user']}")
        lost_at = [at for at, _ in app.pools[app.hosts[0]].lost]
        known = deploy if app.version or announced else None
        truths = [scene.truth("pool_starvation", subject, began, deploy=known, bound_seconds=POOLER_WAIT_BOUND_SECONDS)]
        if lost_at:
            truths.append(_leak_inside(scene, Subject(application=app.service), lost_at))
        else:
            # It piles up as well, within the pool and before that is empty.
            statement = Subject(query_id=scene.query_id(HANGING))
            truths.append(scene.truth("query_pileup", statement, START + scene.at(onset), optional=True))
        return (*truths, *scene.symptoms(START + scene.at(onset)))

    return scene.ready(seconds, truths_of)


BUILDERS: dict[str, Builder] = {
    "pool-starvation": pool_starvation,
    "pgbouncer-starvation": pgbouncer_starvation,
}
