"""Records the modelled pools under the very requests that the real ones get, seen at the same instants.

Owns how a setup becomes a pool of the model. It must not be fitted to what a pool did: what it takes from reality are
the rules of the pools, the requests as they really came, and how fast the machine is.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from batsignal.record.recording import RecordingWriter
from simulator.pool_kinds import minimum_pool, psycopg_pool, queue_pool
from simulator.pools import Pool
from simulator.reality.setups import LOOK_SECONDS, SETUPS, Kind, Request, Setup, Times, load_seconds, sent
from simulator.world import START, World

KINDS: Mapping[Kind, Callable[..., dict[str, Any]]] = {
    "queue": queue_pool,
    "psycopg": psycopg_pool,
    "minimum": minimum_pool,
}
IDLE_MACHINE = Times()


def record(
    path: Path, *, setups: tuple[Setup, ...] = SETUPS, times: Mapping[str, Times] | None = None, seed: int = 1
) -> float:
    """Record all setups in one world, into one file; return the Unix time at which their load began.

    `times` are the machine's, by application. `seed` is for what the pools draw themselves; the requests were drawn
    from each setup's own.
    """
    world = World(seed=seed)
    for setup in setups:
        facts = KINDS[setup.kind](**setup.facts)
        machine = (times or {}).get(setup.application, IDLE_MACHINE)
        pool = world.pool(
            setup.application,
            connect_seconds=machine.connect_seconds,
            overhead_seconds=machine.overhead_seconds,
            fill_gap_seconds=0.002,
            **facts,
        )
        world.run(_send(world, pool, sent(setup, machine)))
    writer = RecordingWriter(path, server="simulated", interval_seconds=LOOK_SECONDS)
    try:
        for snapshot in world.looks(load_seconds(), LOOK_SECONDS):
            writer.write(snapshot)
    finally:
        writer.close()
    return START


def _send(world: World, pool: Pool, plan: list[Request]) -> Iterator[float]:
    for request in plan:
        yield request.at - world.elapsed
        pool.request(request.busy_seconds, think_seconds=request.think_seconds)
