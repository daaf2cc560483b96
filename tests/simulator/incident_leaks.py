"""Leaks: sessions taken, used once and never given back, by an application that also has a pool which works.

Owns the rows of leaks. A refused attempt to take one more is made again with the next request; nothing is ever closed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batsignal.drills.truth import Truth, leak_bound_seconds
from simulator.apps import App
from simulator.jobs import BATCH_SESSIONS, EVERY_SECONDS
from simulator.scenario import Builder, Play
from simulator.scene import Scene
from simulator.seats import ABORTED, IDLE_IN_TRANSACTION, Behaviour, Seat

FAST_SECONDS, SLOW_SECONDS, CRAWL_SECONDS = 2.0, 45.0, 240.0
AROUND = 0.3
# What its client never finished: a message half sent, rows not fetched, data not delivered.
HALF_SENT = (
    "SELECT id, body FROM documents WHERE owner_id = ?",
    "INSERT INTO uploads (name, content) VALUES (?, ?)",
    "SELECT * FROM orders WHERE customer_id = ? ORDER BY created_at",
    "UPDATE profiles SET picture = ? WHERE user_id = ?",
    "SELECT export_rows(?)",
    "COPY prices FROM STDIN",
)


@dataclass(eq=False)
class Leak:
    """One leak as it goes on: what was lost so far."""

    scene: Scene
    app: App
    every_seconds: float
    rest: str = "idle"
    query: str | None = None
    regular: float | None = None
    """How far a gap may be off, as a share of it; None: as requests arrive, by chance."""
    curve: Callable[[float], float] = lambda _t: 1.0
    seats: list[Seat] = field(default_factory=list)

    @property
    def lost_at(self) -> list[float]:
        return [seat.start for seat in self.seats]

    def go(self) -> Behaviour:
        chance = self.scene.world.chance
        hosts = list(self.app.hosts)
        # As a balancer hands out requests: each pod in its turn, or any of them.
        in_turn = self.scene.draw.random() < 0.5
        while True:
            client = hosts[len(self.seats) % len(hosts)] if in_turn else chance.choice(hosts)
            self.scene.world.run(self._lose(client))
            gap = self.every_seconds / max(self.curve(self.scene.world.elapsed), 0.02)
            yield gap * (
                chance.expovariate(1) if self.regular is None else chance.uniform(1 - self.regular, 1 + self.regular)
            )

    def _lose(self, client: str) -> Behaviour:
        world, chance = self.scene.world, self.scene.world.chance
        place = self.app.place | {"client": client}
        if self.query is not None:
            place["query"] = self.query
        seat = world.open(self.app.application, **place)
        if seat is None:
            return
        self.seats.append(seat)
        uses = chance.choice((1, 1, 1, 2, 3))
        for n in range(uses):
            yield chance.uniform(0.005, 0.05)
            if seat.closed:
                return
            # Only the last statement is left as it is.
            rest = self.rest if n == uses - 1 else None
            seat.use(world.now, chance.expovariate(1 / self.app.hold_seconds), rest=rest)

    def exhaustion(self) -> float | None:
        """Return when the slots ran out, or will if it goes on as it did on the whole."""
        full_at = self.scene.full_at
        if full_at is not None or len(self.seats) < 2 or self.scene.world.slots is None:
            return full_at
        pace = (self.seats[-1].start - self.seats[0].start) / (len(self.seats) - 1)
        return self.seats[-1].start + pace * max(self.scene.world.slots.usable - self.scene.world.used, 0)


def _around(scene: Scene, seconds: float) -> float:
    return scene.amount("every_seconds", (1 - AROUND) * seconds, (1 + AROUND) * seconds)


def _seconds(scene: Scene, every: float, usable: int, *, least: float = 300.0) -> float:
    """Return how long a leak lasts until the slots are gone, with time to see what fires after that."""
    full = (usable - scene.resting) * every * 1.12
    if scene.quick:
        # Hours of the same are waiting: what must be said has been said by then.
        full = min(full, max(1800.0, 20 * every))
    return max(full, 12 * every, least) + (150.0 if scene.quick else 330.0)


def _play(
    scene: Scene,
    app: App,
    every: float,
    usable: int,
    *,
    neighbours: tuple[int, int] = (1, 6),
    share: float = 0.35,
    extra: Callable[[float], None] | None = None,
    curve_depth: float | None = None,
    **facts: Any,
) -> Play:
    onset = scene.calm()
    regular = scene.pick("gaps", (None, None, 0.05, 0.3))
    lag = scene.amount("first_after_seconds", 0.5, min(1.5 * every, 60.0))
    seconds = onset + lag + _seconds(scene, every, usable)
    scene.neighbours(seconds, least=neighbours[0], most=neighbours[1], share=share)
    seconds = min(onset + lag + _seconds(scene, every, usable), 8 * 3600.0)
    curve = scene.day_curve(1.0, seconds, depth=curve_depth) if curve_depth is not None else facts.pop("curve", None)
    if curve is not None:
        app.curve = curve
    deploy = scene.deployed(app, onset) if app.version or app.named else None
    leak = Leak(scene, app, every, regular=regular, curve=curve or (lambda _t: 1.0), **facts)
    scene.world.run(leak.go(), scene.at(onset + lag))
    scene.watch_health(app)
    if extra is not None:
        extra(seconds)

    def truths_of() -> tuple[Truth, ...]:
        first = leak.lost_at[0]
        users = {"user": app.place["user"], "database": app.place["database"]} if app.named else {}
        return (
            scene.truth(
                "leak",
                app.subject(**users),
                first,
                bound_seconds=leak_bound_seconds(first, leak.lost_at),
                exhaustion=leak.exhaustion(),
                deploy=deploy,
            ),
            *scene.symptoms(first),
        )

    return scene.ready(seconds, truths_of)


def leak(seed: int, quick: bool) -> Play:
    scene = Scene("leak", seed, quick=quick)
    every = _around(scene, FAST_SECONDS)
    usable = scene.room(100, 100, 200, 500)
    return _play(scene, scene.app(seconds=1500), every, usable)


def leak_slow(seed: int, quick: bool) -> Play:
    scene = Scene("leak-slow", seed, quick=quick)
    every = _around(scene, SLOW_SECONDS)
    usable = scene.room(100, 100, 100, 200)
    app = scene.app(seconds=usable * every, versioned=scene.draw.random() < 0.8)
    return _play(scene, app, every, usable, share=0.45)


def leak_crawl(seed: int, quick: bool) -> Play:
    scene = Scene("leak-crawl", seed, quick=quick)
    every = _around(scene, CRAWL_SECONDS)
    usable = scene.room(100, 100, 100, 200)
    app = scene.app(hosts=(1, 1, 2, 3), seconds=8 * 3600.0, versioned=scene.draw.random() < 0.8)
    depth = scene.amount("traffic_swing_ratio", 0.3, 0.9)
    return _play(scene, app, every, usable, share=0.5, curve_depth=depth)


def leak_in_transaction(seed: int, quick: bool) -> Play:
    scene = Scene("leak-in-transaction", seed, quick=quick)
    every = _around(scene, scene.pick("pace", (FAST_SECONDS, 8.0, 20.0, SLOW_SECONDS)))
    usable = scene.room(100, 100, 200)
    app = scene.app(seconds=usable * every, versioned=scene.draw.random() < 0.8)
    query = scene.pick(
        "statement",
        ("SELECT * FROM orders WHERE id = ? FOR SHARE", "INSERT INTO audit (body) VALUES (?)", app.statement),
    )
    # A statement that failed leaves its transaction as well, when nobody rolls it back.
    rest = scene.pick("left", (IDLE_IN_TRANSACTION, IDLE_IN_TRANSACTION, IDLE_IN_TRANSACTION, ABORTED))
    return _play(scene, app, every, usable, rest=rest, query=query)


def leak_client_read(seed: int, quick: bool) -> Play:
    scene = Scene("leak-client-read", seed, quick=quick)
    every = _around(scene, scene.pick("pace", (FAST_SECONDS, 8.0, 20.0, SLOW_SECONDS)))
    usable = scene.room(100, 100, 200)
    app = scene.app(seconds=usable * every, versioned=scene.draw.random() < 0.8)
    query = scene.pick("statement", HALF_SENT)
    return _play(scene, app, every, usable, rest="ClientRead", query=query)


def leak_unnamed(seed: int, quick: bool) -> Play:
    scene = Scene("leak-unnamed", seed, quick=quick)
    every = _around(scene, scene.pick("pace", (FAST_SECONDS, FAST_SECONDS, 10.0, SLOW_SECONDS)))
    usable = scene.room(100, 100, 200)
    app = scene.app(scene.pick("service", ("legacy", "importer", "crm")), hosts=1, named=False, seconds=usable * every)
    scene.facts |= {"user": app.place["user"]}
    return _play(scene, app, every, usable)


def leak_many_pods(seed: int, quick: bool) -> Play:
    scene = Scene("leak-many-pods", seed, quick=quick)
    every = _around(scene, scene.pick("pace", (FAST_SECONDS, 4.0, 10.0)))
    usable = scene.room(200, 300, 500)
    hosts = scene.draw.randint(12, min(60, usable // 5))
    return _play(scene, scene.app(hosts=hosts, seconds=usable * every), every, usable, share=0.2)


def leak_during_batch(seed: int, quick: bool) -> Play:
    scene = Scene("leak-during-batch", seed, quick=quick)
    every = _around(scene, scene.pick("pace", (FAST_SECONDS, 5.0, 12.0)))
    usable = scene.room(200, 200, 300)
    app = scene.app(seconds=usable * every)
    sessions = scene.number("batch_sessions", BATCH_SESSIONS - 8, BATCH_SESSIONS + 8)
    lasts = scene.amount("batch_seconds", 60, 280)
    # The batch runs when the leak begins, or begins a moment after it.
    ahead = scene.amount("batch_ahead_seconds", -20, 0.8 * lasts)
    within = scene.amount("batch_opened_within_seconds", 0.3, 20)

    def batches(seconds: float) -> None:
        name = scene.draw.choice(("nightly-import", "reports@2.1.0", "billing-run"))
        place = {
            "user": "batch",
            "database": "shop",
            "client": scene.hosts(1)[0],
            "query": "INSERT INTO totals SELECT day, sum(total) FROM orders WHERE day = ? GROUP BY day",
        }
        first = scene.facts["calm_seconds"] - ahead
        for n in range(-1, int(seconds / EVERY_SECONDS) + 2):
            at = scene.at(first + n * EVERY_SECONDS)
            if at >= 0:
                scene.world.run(_batch(scene, name, place, sessions=sessions, lasts=lasts, within=within), at)

    return _play(scene, app, every, usable, neighbours=(1, 3), share=0.2, extra=batches)


def _batch(scene: Scene, name: str, place: dict[str, Any], *, sessions: int, lasts: float, within: float) -> Behaviour:
    world, chance = scene.world, scene.world.chance

    def worker(ends: float) -> Behaviour:
        seat = world.open(name, **place)
        if seat is None:
            return
        while world.elapsed < ends:
            busy = chance.expovariate(1 / 3.0)
            seat.use(world.now + 0.01, min(busy, ends - world.elapsed))
            yield busy + 0.05
        world.close(seat)

    ends = world.elapsed + lasts
    for _ in range(sessions):
        world.run(worker(ends + chance.uniform(-0.2, 0.0) * lasts))
        yield within / sessions * chance.uniform(0.5, 1.5)


BUILDERS: dict[str, Builder] = {
    "leak": leak,
    "leak-slow": leak_slow,
    "leak-crawl": leak_crawl,
    "leak-in-transaction": leak_in_transaction,
    "leak-client-read": leak_client_read,
    "leak-unnamed": leak_unnamed,
    "leak-many-pods": leak_many_pods,
    "leak-during-batch": leak_during_batch,
}
