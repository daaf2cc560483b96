"""What a modelled pool is told, and what it counts: its size, order, growth, lifetime, idle time, and the patience of
those who wait.

Owns the parameters and their meaning; what a pool does by them stands in `pools`, well-known sets of them in
`pool_kinds`.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from simulator.seats import Seat

if TYPE_CHECKING:
    from simulator.world import World


@dataclass(eq=False)
class PoolRules:
    """The rules of one process's pool. All times are in seconds.

    Size: it opens `least` sessions on its own (0: none, it fills as it is asked) and at most `most`. A session that
    comes back while `kept` are free is closed.
    Order: it lends the session that came back last ("lifo") or that has been free for longest ("fifo").
    Growth: when no session is free, the one who asks opens one itself ("caller"), or waits while a worker opens one
    after the other ("worker"). Opening takes `connect_seconds`. Who cannot have one waits for `wait_seconds` at most.
    Refused by the server, a caller fails; a worker tries again after `retry_seconds`, twice as long each time.
    Lifetime: a session ends after `lifetime_seconds`, less a random share of up to `lifetime_spread`: as soon as it is
    free ("timer"), when it comes back ("return"), or when it is asked for ("checkout"). The last two replace it.
    Idle: sessions beyond `least` that were free for `idle_seconds` are closed by a look at all of them every
    `housekeeping_seconds` ("housekeeping"), each at its own time ("each"), or one in every `idle_seconds` if as many
    were never needed in that time ("shrink").
    """

    world: "World"
    application: str | None
    least: int = 2
    most: int = 10
    order: Literal["lifo", "fifo"] = "lifo"
    lifetime_seconds: float | None = None
    idle_seconds: float | None = None
    fill_gap_seconds: float = 0.05
    place: dict[str, Any] = field(default_factory=dict)
    kept: int | None = None
    grows_by: Literal["caller", "worker"] = "caller"
    connect_seconds: float = 0.005
    wait_seconds: float = 30.0
    retry_seconds: float = 1.0
    retry_most_seconds: float = 60.0
    lifetime_spread: float = 1 / 40
    lifetime_ends: Literal["timer", "return", "checkout"] = "timer"
    idle_rule: Literal["housekeeping", "each", "shrink"] = "housekeeping"
    housekeeping_seconds: float = 30.0
    overhead_seconds: float = 0.0
    """How much longer than its statements a session is lent: round trips, the work of the client."""

    closing: bool = False
    served: int = 0
    """How many were lent a session."""
    refused: int = 0
    """How often the server refused this pool a session."""
    lost: list[tuple[float, Seat]] = field(default_factory=list)
    """Sessions that were never given back, and when they were taken."""
