"""The services that work in the background of everyday life: pools of pods that each do a little.

Owns the drawing of ordinary services. It knows no row; what is treacherous stands in `traps`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulator.pool_kinds import hikari_pool, minimum_pool, psycopg_pool, queue_pool
from simulator.traps import set_traps
from simulator.variation import Variation

SERVICES = ("web", "checkout", "search", "billing", "mail", "auth", "catalog", "stock", "reviews", "shipping")
# What a variation may cost: requests are simulated one by one.
REQUESTS_MOST = 60_000

Rate = float | Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service as it was drawn: its name, place, pods and the pool that each pod has."""

    application: str | None
    place: dict[str, Any]
    hosts: list[str]
    kind: str
    pool: dict[str, Any]
    rate: float
    """Requests a second of all its pods together."""
    seconds: float
    """How long a request holds its session, in the mean."""
    parts: list[Any] = field(default_factory=list)

    @property
    def busy(self) -> float:
        """Sessions at work at once in one pod, at a height that is seldom passed."""
        mean = self.rate * self.seconds / len(self.hosts)
        return mean + 4 * math.sqrt(mean) + 2

    def sessions(self) -> float:
        """Return how many sessions it holds at its height, about."""
        return len(self.hosts) * min(self.pool["most"], max(self.pool["least"], self.busy))

    def start(self, v: Variation, *, at: float = 0.0, rate: Rate | None = None, gap_seconds: float = 0.0) -> None:
        """Start its pods, `at` so many seconds of the world's time, one every `gap_seconds`."""
        for n, client in enumerate(self.hosts):
            self.parts.append(self.pod(v, client, at=at + n * gap_seconds, rate=rate))

    def pod(self, v: Variation, client: str, *, at: float, rate: Rate | None = None) -> Any:
        """Start one pod's pool, with its share of the work."""
        share = self.rate / len(self.hosts) if rate is None else rate
        place = self.place | {"client": client}
        pool = v.world.pool(self.application, work=share, at=at, place=place, seconds=self.seconds, **self.pool)
        v.processes.append(pool)
        return pool


KINDS = ("hikari", "psycopg", "minimum", "queue", "plain")


def draw_service(
    v: Variation,
    name: str,
    *,
    rate: float,
    pods: int | None = None,
    least: tuple[int, int] = (1, 5),
    kinds: Sequence[str] = KINDS,
    versioned: bool = False,
) -> Service:
    """Draw one ordinary service that takes `rate` requests a second in all."""
    application, place = v.identity(name, versioned=versioned)
    low = v.draw.randint(*least)
    kind = v.draw.choice(kinds)
    return Service(
        application=application,
        place=place,
        hosts=v.hosts(pods if pods is not None else v.draw.randint(1, 6)),
        kind=kind,
        pool=_draw_pool(v, kind, low),
        rate=rate,
        seconds=v.draw.choice((0.005, 0.02, 0.05, 0.2)),
    )


def _draw_pool(v: Variation, kind: str, low: int) -> dict[str, Any]:
    """Draw the facts of a pool of that kind whose size at rest is `low`."""
    most = low + v.draw.choice((0, 2, 5, 10, 20))
    life = v.draw.choice((None, None, 300.0, 600.0, 1800.0))
    idle = v.draw.choice((None, 60.0, 300.0, 600.0))
    facts = {
        "fill_gap_seconds": v.draw.choice((0.01, 0.05, 0.3)),
        "connect_seconds": v.draw.choice((0.003, 0.01, 0.04)),
        "overhead_seconds": v.draw.choice((0.0, 0.002, 0.01)),
    }
    if kind == "hikari":
        return hikari_pool(least=low, most=most, lifetime_seconds=life, idle_seconds=idle, **facts)
    if kind == "psycopg":
        return psycopg_pool(least=low, most=most, lifetime_seconds=life, idle_seconds=idle, **facts)
    if kind == "minimum":
        return minimum_pool(least=low, most=most, idle_seconds=idle, **facts)
    if kind == "queue":
        return queue_pool(size=low, overflow=most - low, recycle_seconds=life, lifo=v.draw.random() < 0.5, **facts)
    return {
        "least": low,
        "most": most,
        "order": v.draw.choice(("lifo", "fifo")),
        "lifetime_seconds": life,
        "idle_seconds": idle,
        **facts,
    }


def wave(rate: float, *, period_seconds: float, depth_ratio: float, offset: float) -> Callable[[float], float]:
    """Return a rate that goes up and down around `rate`."""
    return lambda t: rate * (1 + depth_ratio * math.sin((t / period_seconds + offset) * 2 * math.pi))


def set_background(
    v: Variation,
    seconds: float,
    *,
    traps: int = 3,
    without: tuple[str, ...] = (),
    services: tuple[int, int] = (1, 6),
    requests: int = REQUESTS_MOST,
    endpoint: bool = True,
) -> None:
    """Draw one to six services that work all the time, one perhaps with a health endpoint, and none to three traps."""
    count = v.draw.randint(*services)
    v.facts["background_services"] = count
    budget = requests / (v.warm_seconds + seconds) / max(count, 1)
    for name in v.draw.sample(SERVICES[1:], count):
        rate = v.draw.uniform(0.1, 1.0) * min(budget, 40.0)
        service = draw_service(v, name, rate=rate)
        share = rate / len(service.hosts)
        shape: Rate = share
        if v.draw.random() < 0.5:
            shape = wave(
                share,
                period_seconds=v.draw.uniform(300, 3600),
                depth_ratio=v.draw.uniform(0.2, 0.9),
                offset=v.draw.random(),
            )
        service.start(v, rate=shape)
        v.expect(service.sessions())
        # Where a pool has room enough, its health endpoint is well all the time.
        if endpoint and service.pool["most"] >= 2 * service.busy + 2 and "endpoint" not in v.facts:
            v.facts["endpoint"] = name
            v.world.endpoint(name, name, service.parts[0], at=v.draw.uniform(0, 5))
    set_traps(v, seconds, most=traps, without=without)
