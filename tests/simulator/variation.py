"""One variation of a row of everyday life while it is being made: its world, its draws, and the facts for the table.

Owns what all those rows share: names, addresses, the time before the first look, and how many slots the server has.
It knows no row and no detector. Chance that says *what* a variation is (`draw`) is apart from the world's own, so that
a change in how sessions behave leaves the drawn sizes alone.
"""

import random
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from batsignal.drills.truth import Truth
from batsignal.snapshot import Slots
from simulator.scenario import Play
from simulator.seats import Seat
from simulator.world import World

if TYPE_CHECKING:
    from simulator.pools import Pool

SLOTS_OFFERED = (100, 200, 300, 500, 800)
# Everyday life leaves room: what it takes at most of the usable slots, by its maker's estimate.
SHARE_LEAST_RATIO = 0.35
SHARE_MOST_RATIO = 0.66
# Names that drivers give, or nothing at all.
DRIVERS = (None, "", "PostgreSQL JDBC Driver", "psycopg", "node-postgres")
QUERIES = (
    "SELECT * FROM orders WHERE id = ?",
    "SELECT name, price FROM products WHERE category_id = ? ORDER BY name LIMIT ?",
    "UPDATE carts SET touched_at = now() WHERE id = ?",
    "INSERT INTO events (kind, body) VALUES (?, ?)",
    "SELECT count(*) FROM invoices WHERE customer_id = ?",
    "COMMIT",
)

Choice = TypeVar("Choice")


class Variation:
    """What is drawn for one variation, and the world that is made of it.

    All times given to it and to its helpers are seconds after the first look; the world runs `warm_seconds` before,
    because a daemon is started into a life that goes on.
    """

    def __init__(self, row: str, seed: int, *, quick: bool, warm_seconds: float = 600.0) -> None:
        self.row = row
        self.seed = seed
        self.quick = quick
        self.warm_seconds = warm_seconds
        self.draw = random.Random(f"{row} {seed}")  # noqa: S311 - chance that can be repeated
        self.world = World(seed=zlib.crc32(f"{row} {seed}".encode()))
        self.facts: dict[str, Any] = {}
        self.traps: list[str] = []
        self.moments: list[float] = []
        """When something is on: the moments at which a restart of the daemon is hardest."""
        self.processes: list[Pool] = []
        """The pools of processes that live on, idle or not: whose sessions are nobody's loss."""
        self._expected = 3
        self._nets = 0

    # -- draws -----------------------------------------------------------------------------------------------------

    def pick(self, name: str, choices: Sequence[Choice]) -> Choice:
        """Draw one of these and note it among the facts."""
        self.facts[name] = chosen = self.draw.choice(choices)
        return chosen

    def number(self, name: str, least: int, most: int) -> int:
        """Draw a whole number and note it among the facts."""
        self.facts[name] = drawn = self.draw.randint(least, most)
        return drawn

    def amount(self, name: str, least: float, most: float) -> float:
        """Draw a number and note it among the facts."""
        self.facts[name] = drawn = round(self.draw.uniform(least, most), 3)
        return drawn

    def length(self, full_seconds: float, quick_seconds: float) -> float:
        """Return how long a stretch of pure waiting lasts."""
        return quick_seconds if self.quick else full_seconds

    # -- names and places ------------------------------------------------------------------------------------------

    def hosts(self, count: int) -> list[str]:
        """Return addresses of a network of their own."""
        self._nets += 1
        return [f"10.{20 + self._nets}.{n // 200}.{n % 200 + 10}" for n in range(count)]

    def identity(self, service: str, *, versioned: bool = False) -> tuple[str | None, dict[str, Any]]:
        """Draw how a service says who it is: its `application_name`, and the rest of its place on the server."""
        user = self.draw.choice((service, service, "app"))
        database = self.draw.choice(("shop", "shop", service))
        place = {"user": user, "database": database, "query": self.draw.choice(QUERIES)}
        if versioned:
            return f"{service}@{self.version()}", place
        form = self.draw.randrange(10)
        if form < 5:
            return f"{service}@{self.version()}", place
        if form < 7:
            return service, place
        return self.draw.choice(DRIVERS), place | {"user": service}

    def version(self) -> str:
        return f"{self.draw.randint(1, 9)}.{self.draw.randint(0, 20)}.{self.draw.randint(0, 9)}"

    # -- the world -------------------------------------------------------------------------------------------------

    def at(self, seconds: float) -> float:
        """Return the world's time, so many seconds after the first look."""
        return self.warm_seconds + seconds

    def expect(self, sessions: float) -> None:
        """Note how many sessions something adds at its height."""
        self._expected += round(sessions)

    def knock(self, application: str | None, **place: Any) -> Seat | None:
        """Open a session; None when the server is down or full, as a client that tries again later takes it."""
        return self.world.open(application, **place)

    def truths(self) -> tuple[Truth, ...]:
        """Return what must be said: of everyday life nothing."""
        return ()

    def play(self, seconds: float, *, starts: Sequence[float] = (0.0,)) -> Play:
        """Return the variation, ready to run; the time before the first look is over by then."""
        share = self.draw.uniform(SHARE_LEAST_RATIO, SHARE_MOST_RATIO)
        most = next((most for most in SLOTS_OFFERED if self._expected <= share * (most - 3)), 1000)
        self.world.slots = Slots(max=most, superuser_reserved=3)
        self.world.tells_query_ids = self.pick("tells_query_ids", (True, True, True, False))
        self.world.tells_refusals = self.pick("tells_refusals", (True, False))
        self.world.ping_spread = self.pick("ping_spread", (0.0, 0.2, 0.5))
        for _ in self.world.looks(self.warm_seconds, interval=self.warm_seconds or 1.0):
            pass
        facts = self.facts | {
            "slots": most,
            "traps": sorted(self.traps),
            "moments": [round(moment, 1) for moment in sorted(self.moments) if 0 <= moment < seconds],
        }
        return Play(
            row=self.row,
            seed=self.seed,
            facts=facts,
            world=self.world,
            seconds=seconds,
            truths_of=self.truths,
            starts=tuple(0.0 if start == 0 else self.at(start) for start in starts),
        )
