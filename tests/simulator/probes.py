"""The health endpoints of the simulated applications: each asks its own pool for a session, as a real one does.

Owns what a probe sees. Whether a session can be had is the pool's and the world's to say.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batsignal.snapshot import ProbeResult
from simulator.pools import Pool

if TYPE_CHECKING:
    from simulator.world import World

OK, ERROR, UNAVAILABLE = 200, 500, 503
# An answer without any waiting: the network, and the application's own work.
LEAST_SECONDS = 0.003
# Nobody waits longer for an answer.
TIMEOUT_SECONDS = 2.0
# A health endpoint that takes so long has to wait for something.
SLOW_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an endpoint answers: after so many seconds, or never; no status when nothing could be said."""

    seconds: float = 0.0
    status: int | None = OK
    reason: str | None = None


Asked = Pool | Callable[[], Answer]


def probe(
    world: "World", endpoint: str, service: str, asked: Asked, *, interval_seconds: float, timeout_seconds: float
) -> Iterator[float]:
    """Ask an endpoint once an interval; what comes of it is shown by the look after it."""
    while True:
        at = world.now
        answer = ask_pool(world, asked) if isinstance(asked, Pool) else asked()
        noise = world.noise.lognormvariate(0, 0.35)
        seconds = answer.seconds + LEAST_SECONDS * noise
        if seconds >= timeout_seconds:
            answer, seconds = Answer(status=None, reason="timed out"), timeout_seconds
        up = answer.status is not None and answer.status < ERROR
        result = ProbeResult(
            endpoint=endpoint,
            service=service,
            at=at,
            up=up,
            seconds=seconds,
            status=answer.status,
            reason=None if up else answer.reason or f"HTTP {answer.status}",
        )
        if not up or seconds >= SLOW_SECONDS:
            world.troubled.append((endpoint, "endpoint_slow" if up else "endpoint_down", at))
        yield seconds
        world.probed.append(result)
        yield interval_seconds - seconds


def ask_pool(world: "World", pool: Pool) -> Answer:
    """Return what an endpoint answers that runs one small statement in a session of this pool."""
    if pool.closing:
        return Answer(status=None, reason="connection refused")
    if world.is_down:
        return Answer(status=UNAVAILABLE, reason=f"HTTP {UNAVAILABLE}")
    wait = pool.seconds_until_lent()
    if wait > 0 and pool.size < pool.most and world.refusal(**_who(pool)) is not None:
        # Who opens for himself is told at once, who waits for a worker is not.
        pool.request(0.001)
        return Answer(seconds=0.005, status=ERROR) if pool.grows_by == "caller" else Answer(seconds=math.inf)
    pool.request(0.001)
    return Answer(seconds=wait)


def _who(pool: Pool) -> dict[str, str]:
    return {name: pool.place[name] for name in ("user", "database") if name in pool.place}
