"""One variation of an incident while it is being made: whose it is, who lives beside it, and what will be true of it.

Owns what all incidents share: the application at fault, its deploy, its neighbours, its health endpoint, and the truths
that follow from what the world did. It knows no row and no detector.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from batsignal.detect.signal import DeployRef, Kind, Subject
from batsignal.drills.truth import BOUND_SECONDS, Truth
from batsignal.snapshot import Slots, fingerprint
from simulator.apps import App, Curve
from simulator.background import SERVICES, draw_service
from simulator.pool_kinds import psycopg_pool, queue_pool
from simulator.scenario import Play
from simulator.seats import query_id_of
from simulator.traps import set_traps
from simulator.variation import Variation
from simulator.world import START, Meter

QUERIES = (
    "SELECT * FROM orders WHERE customer_id = ? ORDER BY created_at DESC LIMIT ?",
    "SELECT id, name, price FROM products WHERE category_id = ?",
    "UPDATE carts SET touched_at = now() WHERE id = ?",
    "INSERT INTO events (kind, body) VALUES (?, ?)",
    "SELECT balance FROM accounts WHERE id = ? FOR UPDATE",
    "SELECT u.id, u.email FROM users u JOIN tokens t ON t.user_id = u.id WHERE t.hash = ?",
)
# What is taken at most, of all slots, while nothing is wrong.
CALM_MOST_RATIO = 0.7
# Traffic swings up to so much above its mean, and a pool that is well is at work to this share at most, in the mean.
SWING_MOST = 1.8
LOAD_MOST_RATIO = 0.25
# At least so much of the past is needed to know what is usual.
CALM_SECONDS = 300.0
LONGEST_SECONDS = 8 * 3600.0
# What an application and its neighbours may cost: requests are simulated one by one.
REQUESTS_MOST = 24_000


class Scene(Variation):
    """A variation with an application at fault; its times, as a variation's, are seconds after the first look."""

    def __init__(self, row: str, seed: int, *, quick: bool) -> None:
        super().__init__(row, seed, quick=quick, warm_seconds=60.0)
        self.world.tells_query_ids = self.pick("tells_query_ids", (True, True, True, False))
        self.world.server_version_num = self.draw.choice((140015, 150010, 160006, 170002, 180000))
        self.slots = 0
        self.resting = 0.0
        """How many sessions are there at least when nothing is wrong."""
        self.taken_names: set[str] = set()
        self.full: Meter | None = None

    def calm(self, least: float = 90.0, most: float = 600.0, *, quick: float = 120.0) -> float:
        """Draw how long all is well before the onset."""
        drawn = self.draw.random()
        top = max(min(most, quick), least) if self.quick else most
        self.facts["calm_seconds"] = round(least + drawn * (top - least), 1)
        return float(self.facts["calm_seconds"])

    def room(self, *choices: int) -> int:
        """Draw how many slots the server has; return those an ordinary role can take."""
        self.slots = self.pick("slots", choices or (100, 100, 200, 500))
        self.world.slots = Slots(
            max=self.slots,
            superuser_reserved=3,
            reserved=self.draw.choice((0, 0, 5)) if (self.world.server_version_num or 0) >= 160000 else 0,
        )
        self.full = self.world.meter("server", 1.0)
        return self.world.slots.usable

    def app(
        self,
        service: str = "web",
        *,
        hosts: int | Sequence[int] = (1, 2, 3, 4),
        named: bool = True,
        versioned: bool = True,
        rate: tuple[float, float] = (1.0, 12.0),
        seconds: float = 3600.0,
        **pool: Any,
    ) -> App:
        """Draw the application at fault. `seconds` is how long it will work: the more, the fewer requests a second."""
        service = self.draw.choice((service, "checkout", "api", "shop-backend")) if service == "web" else service
        self.taken_names.add(service)
        old = self.version()
        major, minor, patch = old.split(".")
        new = self.draw.choice((f"{major}.{minor}.{int(patch) + 1}", f"{major}.{int(minor) + 1}.0"))
        count = hosts if isinstance(hosts, int) else self.draw.choice(hosts)
        kind = self.draw.choice(("queue", "psycopg", "minimum"))
        if not pool:
            size = self.draw.randint(2, 6) if count < 10 else self.draw.randint(1, 2)
            pool = {
                "queue": queue_pool(size=size, overflow=self.draw.choice((2, 5, 10)), lifo=self.draw.random() < 0.5),
                "psycopg": psycopg_pool(least=size, most=size + self.draw.choice((0, 4))),
                "minimum": {"least": size, "most": size + 5, "lifetime_seconds": 1800.0},
            }[kind]
        user = service if not named else self.draw.choice((service.replace("-", "_"), "app"))
        place = {
            "user": user,
            "database": self.draw.choice(("shop", "shop", service.replace("-", "_"))),
            "query": self.draw.choice(QUERIES),
        }
        hold_seconds = self.draw.choice((0.005, 0.02, 0.05, 0.15))
        rate_most = min(REQUESTS_MOST / 2 / seconds, LOAD_MOST_RATIO * count * pool["most"] / hold_seconds)
        app = App(
            self,
            service,
            new if named and versioned else None,
            old if named and versioned else None,
            place,
            self.hosts(count),
            pool,
            min(self.draw.uniform(*rate), rate_most),
            hold_seconds,
            driver=None
            if named
            else self.draw.choice((None, "", "psycopg2", "node-postgres", "PostgreSQL JDBC Driver")),
            named=named,
        )
        self.facts |= {
            "application": app.name(app.version),
            "hosts": count,
            "pool": {name: value for name, value in pool.items() if name in {"least", "most", "kept", "order"}},
            "requests_per_second": round(app.rate, 3),
        }
        self.resting += count * (pool.get("least", 0) or min(pool.get("kept") or 1, 2))
        app.start_all()
        return app

    def deployed(self, app: App, at: float, *, announced: bool | None = None) -> DeployRef | None:
        """Deploy the application's new version; return what a signal must say of that, None if nobody can know."""
        announced = self.draw.random() < 0.4 if announced is None else announced
        self.facts["announced"] = announced
        rolling = self.draw.choice((0.0, 1.0, 4.0))
        app.deploy(
            self.at(at),
            rolling_seconds=min(rolling, 20.0 / len(app.hosts)),
            overlap_seconds=self.draw.choice((0.2, 3.0, 10.0)),
        )
        version = app.version or self.version()
        self.world.deploy(app.service, version, self.at(at), previous=app.previous, announced=announced)
        if not app.named or not (app.version or announced):
            return None
        return DeployRef(service=app.service, version=version, at=START + self.at(at), previous=app.previous)

    def neighbours(self, seconds: float, *, least: int = 1, most: int = 6, share: float = 0.35, traps: int = 1) -> None:
        """Draw the services beside it, so that they take no more than a share of the slots, and work for so long."""
        count = self.draw.randint(least, most)
        # A deploy doubles the pools of the application for a while: that, too, must leave room.
        budget = min(share * self.slots, CALM_MOST_RATIO * self.slots - 2 * self.resting)
        names = [name for name in SERVICES if name not in self.taken_names]
        rate_most = min(8.0, REQUESTS_MOST / 2 / count / seconds)
        placed = 0
        for name in self.draw.sample(names, min(count, len(names))):
            service = draw_service(
                self, name, rate=self.draw.uniform(0.2, 1.0) * rate_most, pods=self.draw.randint(1, 3)
            )
            # A pool that is too small for its traffic would be an incident of its own.
            service.pool["most"] = max(service.pool["most"], math.ceil(SWING_MOST * service.busy))
            if service.sessions() > budget:
                continue
            budget -= service.sessions()
            placed += 1
            self.resting += len(service.hosts) * service.pool["least"]
            service.start(self, rate=self.day_curve(service.rate / len(service.hosts), seconds))
            if self.draw.random() < 0.4:
                self.probe(f"{name}-health", name, service.parts[0])
        self.facts["neighbours"] = placed
        if traps and self.slots >= 200:
            set_traps(self, seconds, most=traps)
            self.facts["traps"] = sorted(self.traps)

    def day_curve(self, rate: float, seconds: float, *, depth: float | None = None) -> Curve:
        """Return a rate that swings around `rate`, as traffic does; flat now and then."""
        if depth is None and self.draw.random() < 0.4:
            return lambda _t: rate
        depth = self.draw.uniform(0.2, 0.8) if depth is None else depth
        period, offset = self.draw.uniform(0.3, 1.2) * max(seconds, 600.0), self.draw.random() * 2 * math.pi
        return lambda t: rate * (1 + depth * math.sin(t / period * 2 * math.pi + offset))

    def probe(self, endpoint: str, service: str, asked: Any) -> None:
        """Watch a health endpoint."""
        interval = self.draw.choice((2.0, 5.0, 5.0, 10.0))
        self.world.endpoint(
            endpoint, service, asked, interval_seconds=interval, at=2.0 + self.draw.uniform(0, interval)
        )

    def watch_health(self, app: App) -> str:
        """Watch the health endpoint of the application at fault; return the endpoint's name."""
        endpoint = f"{app.service}-health"
        self.probe(endpoint, app.service, app.health)
        return endpoint

    def query_id(self, query: str) -> str:
        """Return how a statement is told: by the server's id, else by the fingerprint of its text."""
        return query_id_of(query) if self.world.tells_query_ids else fingerprint(query)

    # -- truths ----------------------------------------------------------------------------------------------------

    def truth(
        self,
        kind: Kind,
        subject: Subject,
        onset: float,
        *,
        bound_seconds: float | None = None,
        exhaustion: float | None = None,
        deploy: DeployRef | None = None,
        optional: bool = False,
    ) -> Truth:
        """Return a truth; `onset` and `exhaustion` are instants."""
        return Truth(
            kind=kind,
            subject=subject,
            onset=onset,
            bound_seconds=BOUND_SECONDS[kind] if bound_seconds is None else bound_seconds,
            exhaustion=exhaustion,
            deploy=deploy,
            optional=optional,
        )

    @property
    def full_at(self) -> float | None:
        """The instant at which no slot was left for the first time."""
        return None if self.full is None else self.full.first_at

    def symptoms(self, since: float) -> tuple[Truth, ...]:
        """Return the health endpoints that really fail or are slow because of the incident: they may be told."""
        return tuple(
            self.truth(kind, Subject(endpoint=endpoint), at, optional=True)
            for (endpoint, kind), at in sorted(self.world.trouble(since).items())
        )

    def ready(self, seconds: float, truths_of: Callable[[], tuple[Truth, ...]]) -> Play:
        """Return the variation, ready to run; the time before the first look is over by then."""
        for _ in self.world.looks(self.warm_seconds, interval=self.warm_seconds):
            pass
        return Play(
            row=self.row,
            seed=self.seed,
            facts=dict(self.facts),
            world=self.world,
            seconds=min(seconds, LONGEST_SECONDS),
            truths_of=truths_of,
        )
