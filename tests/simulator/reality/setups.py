"""Which pools are compared, and under what load: the one list that the real side and the simulated side both read.

Owns the parameters of the pools and the plan of requests, drawn from a seed before anything runs: an open loop, whose
requests arrive whatever the pool does. It must not know how a request is made, for real or as a model.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["queue", "psycopg", "minimum"]

LOOK_SECONDS = 0.5
PHASE_SECONDS = 0.37
"""Looks fall this long before the round instants, as the simulated world's do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """So many seconds of requests at one rate; phases of one name are measured together, the warm-up not."""

    name: Literal["warm-up", "quiet", "busy"]
    seconds: float
    requests_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One transaction: a statement, and in some a pause of the client inside it and a second statement."""

    at: float
    """Seconds after the start of the load."""
    busy_seconds: float
    think_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What the machine adds: it is busy or it is not, and the model cannot know."""

    connect_seconds: float = 0.006
    """A login, in the mean."""
    overhead_seconds: float = 0.003
    """How much longer than its statements a session is lent, in the mean: BEGIN, COMMIT, the client's own work."""
    asked_at: tuple[float, ...] | None = None
    """When the pool was really asked for each request of the plan; None: when it was to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One pool and its load. `facts` are the pool's parameters in the words of the model's preset of that kind."""

    application: str
    kind: Kind
    label: str
    """For a picture: the pool, and its parameters in a few words."""
    facts: Mapping[str, float | bool]
    seed: int
    hold_seconds: float = 0.4
    """Mean of a lognormal distribution."""
    hold_sigma: float = 0.6
    thinking_ratio: float = 0.15
    think_seconds: float = 0.1
    """Mean of an exponential distribution."""


PHASES = (
    # A pool that fills does so when its process comes to it, not when we say so.
    Phase(name="warm-up", seconds=2.0, requests_per_second=10.0),
    Phase(name="quiet", seconds=18.0, requests_per_second=10.0),
    Phase(name="busy", seconds=18.0, requests_per_second=30.0),
    Phase(name="quiet", seconds=18.0, requests_per_second=10.0),
)

SETUPS = (
    Setup(
        application="queue-pool",
        kind="queue",
        label="SQLAlchemy QueuePool\n5 kept, 15 overflow,\nrecycled after 6 s",
        facts={"size": 5, "overflow": 15, "recycle_seconds": 6.0, "lifo": False},
        seed=11,
    ),
    Setup(
        application="queue-pool-lifo",
        kind="queue",
        label="SQLAlchemy QueuePool\nlast in, first out,\n8 kept, 12 overflow",
        facts={"size": 8, "overflow": 12, "recycle_seconds": 6.0, "lifo": True},
        seed=14,
    ),
    Setup(
        application="psycopg-pool",
        kind="psycopg",
        label="psycopg_pool\n4 to 20 sessions,\nlifetime 6 s, idle 1 s",
        facts={"least": 4, "most": 20, "lifetime_seconds": 6.0, "idle_seconds": 1.0},
        seed=12,
    ),
    Setup(
        application="minimum-pool",
        kind="minimum",
        label="asyncpg\n6 to 20 sessions,\ninactive 0.6 s",
        facts={"least": 6, "most": 20, "idle_seconds": 0.6},
        seed=13,
    ),
)


def load_seconds(phases: tuple[Phase, ...] = PHASES) -> float:
    """Return how long the load lasts.

    >>> load_seconds((Phase(name="busy", seconds=2.5, requests_per_second=1.0),))
    2.5
    """
    return sum(phase.seconds for phase in phases)


def sent(setup: Setup, times: Times) -> list[Request]:
    """Return the plan as it really came, in the order of asking."""
    plan = requests(setup)
    if times.asked_at is None:
        return plan
    really = [replace(request, at=max(at, 0.0)) for request, at in zip(plan, times.asked_at, strict=True)]
    return sorted(really, key=lambda request: request.at)


def requests(setup: Setup, phases: tuple[Phase, ...] = PHASES) -> list[Request]:
    """Return the plan: Poisson arrivals at each phase's rate, drawn from the setup's seed; the same at every call."""
    chance = random.Random(setup.seed)  # noqa: S311 - chance that can be repeated
    mean_of_log = math.log(setup.hold_seconds) - setup.hold_sigma**2 / 2
    plan = []
    begin = 0.0
    for phase in phases:
        at = begin + chance.expovariate(phase.requests_per_second)
        begin += phase.seconds
        while at < begin:
            thinks = chance.random() < setup.thinking_ratio
            plan.append(
                Request(
                    at=at,
                    busy_seconds=chance.lognormvariate(mean_of_log, setup.hold_sigma),
                    think_seconds=chance.expovariate(1 / setup.think_seconds) if thinks else 0.0,
                )
            )
            at += chance.expovariate(phase.requests_per_second)
    return plan
