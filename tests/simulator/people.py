"""Everyday life of people: analysts, their tools, and the sessions those leave open all day.

Owns the rows of tools parked idle and of analysts who arrive one after the other. What a person opens, that person's
tool can use again until it is closed: nothing of it is lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.background import draw_service, set_background
from simulator.scenario import Play
from simulator.seats import Behaviour, Seat
from simulator.variation import Variation

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """How a tool names its sessions: those of its start, and one more for each window that is opened."""

    start: tuple[str | None, ...]
    window: str | None
    windows_most: int
    keeps_alive: bool = False
    """Whether it asks something in its sessions by itself now and then."""


TOOLS = {
    "psql": Tool(start=("psql",), window="psql", windows_most=3),
    "DBeaver": Tool(
        start=("DBeaver 23.1.0 - Main", "DBeaver 23.1.0 - Metadata"),
        window="DBeaver 23.1.0 - SQLEditor <Script-{n}.sql>",
        windows_most=3,
    ),
    "pgAdmin": Tool(start=("pgAdmin 4 - DB:shop",), window="pgAdmin 4 - CONN:{n}", windows_most=3, keeps_alive=True),
    "DataGrip": Tool(start=("DataGrip 2023.3",), window="DataGrip 2023.3", windows_most=3, keeps_alive=True),
    "notebook": Tool(start=("",), window="", windows_most=4),
    "driver": Tool(start=("PostgreSQL JDBC Driver",), window="PostgreSQL JDBC Driver", windows_most=3),
    "Tableau": Tool(start=(None,), window=None, windows_most=2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One analyst of one day."""

    tool: Tool
    user: str
    client: str
    sessions: int
    comes: float
    leaves: float
    asks_every_seconds: float
    """While at work on something: the mean time between two statements."""
    parked: bool = False
    """Whether all windows are open by the time we begin to look."""


def _day_of(v: Variation, person: Person) -> Behaviour:
    """Open the tool, now and then a window, ask a few things, and park; close all at the end of the day."""
    chance, world = v.world.chance, v.world
    seats: list[Seat] = []
    ends = v.at(person.leaves)

    def window(name: str | None) -> Seat | None:
        name = None if name is None else name.format(n=chance.randrange(1, 10**6))
        seat = v.knock(name, user=person.user, database="shop", client=person.client, query="SELECT * FROM sales")
        if seat is not None:
            seat.use(world.now + 0.01, chance.uniform(0.01, 0.3))
            seats.append(seat)
        return seat

    for name in person.tool.start[: person.sessions]:
        window(name)
        yield chance.uniform(0.2, 2.0)
    further = person.sessions - len(seats)
    spread = 60.0 if person.parked else 0.7 * (ends - world.elapsed)
    opens = sorted(world.elapsed + chance.uniform(0, spread) for _ in range(further))
    while world.elapsed < ends:
        if opens and opens[0] <= world.elapsed:
            opens.pop(0)
            window(person.tool.window)
        if seats and chance.random() < 0.6:
            # A spell of work in one of the windows, then the phone rings.
            seat = chance.choice(seats)
            for _ in range(chance.randint(1, 6)):
                seat.use(world.now, min(chance.expovariate(1 / 3.0), 60.0))
                yield chance.expovariate(1 / person.asks_every_seconds)
        next_window = opens[0] if opens else ends
        pause = chance.expovariate(1 / (0.7 * HOUR))
        yield max(min(pause, next_window - world.elapsed, ends - world.elapsed), 0.5)
    for seat in seats:
        world.close(seat)


def _keep_alive(v: Variation, user: str, every_seconds: float) -> Behaviour:
    """Ask `SELECT 1` in all of a user's idle sessions, as tools with a keep-alive setting do."""
    while True:
        yield every_seconds
        for seat in v.world.seats.values():
            if seat.user == user and seat.busy_until <= v.world.now:
                seat.use(v.world.now, 0.001)


def draw_people(v: Variation, count: int, arrivals: Sequence[float], leaves: Callable[[float], float]) -> list[Person]:
    tools = v.draw.sample(sorted(TOOLS), v.draw.randint(1, len(TOOLS)))
    shared_user = v.pick("shared_user", (True, False))
    one_address = v.pick("behind_one_address", (True, False))
    hosts = v.hosts(count)
    people = []
    for n in range(count):
        tool = TOOLS[v.draw.choice(tools)]
        sessions = v.draw.randint(1, 4)
        people.append(
            Person(
                tool=tool,
                user="analyst" if shared_user else f"analyst_{n}",
                client=hosts[0 if one_address else n],
                sessions=min(sessions, len(tool.start) + tool.windows_most),
                comes=arrivals[n],
                leaves=leaves(arrivals[n]),
                asks_every_seconds=v.draw.choice((15.0, 60.0, 240.0)),
                parked=arrivals[n] < 0,
            )
        )
    v.facts["tools"] = sorted(tools)
    v.facts["people"] = count
    v.facts["sessions"] = sum(person.sessions for person in people)
    v.expect(v.facts["sessions"])
    for person in people:
        v.world.run(_day_of(v, person), v.at(person.comes))
        if person.tool.keeps_alive and not shared_user and v.draw.random() < 0.5:
            v.world.run(_keep_alive(v, person.user, v.draw.choice((60.0, 300.0))), v.at(person.comes))
    return people


def metabase(v: Variation) -> None:
    """A server of dashboards: a pool that grows to its fifteen while people look, and shrinks over lunch."""
    pool = v.world.pool(
        "Metabase v0.49.3 [8c1d]",
        least=1,
        most=15,
        lifetime_seconds=v.draw.choice((None, 10_800.0)),
        idle_seconds=v.draw.choice((1800.0, 10_800.0)),
        place={"user": "metabase", "client": v.hosts(1)[0]},
    )

    def dashboards() -> Behaviour:
        while True:
            yield v.world.chance.expovariate(1 / 900)
            for _ in range(v.world.chance.randint(2, 12)):
                pool.request(v.world.chance.expovariate(1 / 2.0))
                yield v.world.chance.uniform(0, 0.2)

    v.world.run(dashboards(), 5.0)
    v.expect(13)


def analysts_idle(seed: int, quick: bool) -> Play:
    v = Variation("analysts-idle", seed, quick=quick)
    # A day; or an hour and a half out of it: who came before is there, who would come later is not seen.
    day = v.amount("day_seconds", 6.5 * HOUR, 8 * HOUR)
    seconds = v.length(day, 1.5 * HOUR)
    begins = v.draw.uniform(0, 0.6) * (day - seconds)
    count = v.number("people_drawn", 4, 14)
    early = v.pick("already_parked", (0.0, 0.3, 0.8))
    arrivals = [(0.0 if n < early * count else v.draw.uniform(0, 0.8 * day)) - begins for n in range(count)]
    arrivals = [max(at, -v.draw.uniform(100, v.warm_seconds)) for at in arrivals if at < seconds]
    draw_people(v, len(arrivals), arrivals, lambda _: day - begins + v.draw.uniform(-0.15 * day, 600))
    if v.pick("metabase", (True, False)):
        metabase(v)
    v.moments += [*v.draw.sample([at + 20 for at in arrivals], min(2, len(arrivals))), seconds / 2]
    _office(v, seconds)
    return v.play(seconds)


def analysts_arriving(seed: int, quick: bool) -> Play:
    v = Variation("analysts-arriving", seed, quick=quick)
    people = v.number("people_drawn", 6, 9) if quick else v.number("people_drawn", 8, 14)
    gap = v.amount("gap_seconds", 240, 900)
    seconds = gap * (people + 1) + v.length(HOUR, 600)
    arrivals = [gap * (n + v.draw.uniform(0.1, 0.9)) for n in range(people)]
    draw_people(v, people, arrivals, lambda _: seconds + 600)
    v.moments += [gap * people / 2, gap * people]
    _office(v, seconds)
    return v.play(seconds)


def _office(v: Variation, seconds: float) -> None:
    """A service at work and little else: hours of it must stay cheap."""
    service = draw_service(v, "web", rate=v.draw.uniform(0.5, 1.5))
    service.start(v)
    v.expect(service.sessions())
    set_background(v, seconds, services=(0, 3), traps=2, requests=12_000)


BUILDERS: dict[str, Callable[[int, bool], Any]] = {
    "analysts-idle": analysts_idle,
    "analysts-arriving": analysts_arriving,
}
