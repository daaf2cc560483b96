"""One PostgreSQL server and everybody on it, simulated: deterministic, and true to what real servers and pools show."""

from simulator.pools import Pool, Rate
from simulator.probes import Answer
from simulator.seats import LOGIN_SECONDS, Behaviour, Seat
from simulator.world import PHASE_SECONDS, SLOTS, START, Refused, World

__all__ = [
    "LOGIN_SECONDS",
    "PHASE_SECONDS",
    "SLOTS",
    "START",
    "Answer",
    "Behaviour",
    "Pool",
    "Rate",
    "Refused",
    "Seat",
    "World",
]
