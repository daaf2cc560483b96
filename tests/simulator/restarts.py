"""Everyday life in which the server goes away for seconds and comes back, and everybody with it.

Owns that row: its failures are what a look at a server gets that stops and starts again, and the storm after them ends.
"""

from collections.abc import Callable
from typing import Any

from batsignal.snapshot import PollFailure
from simulator.background import draw_service, set_background
from simulator.scenario import Play
from simulator.seats import Behaviour
from simulator.variation import Variation

REFUSED = PollFailure(reason="refused", text="connection refused: nothing listens there")
STARTING = PollFailure(reason="not_accepting", sqlstate="57P03", text="the database system is starting up")
STOPPING = PollFailure(reason="not_accepting", sqlstate="57P03", text="the database system is shutting down")


def server_restart(seed: int, quick: bool) -> Play:
    v = Variation("server-restart", seed, quick=quick)
    onset = v.amount("onset_seconds", 320, 600)
    down = v.amount("down_seconds", 2, 40)
    how = v.pick("how", ("restart", "crash", "failover"))
    seconds = onset + down + v.length(1200, 300)
    for lasts, failure in _phases(v, how, down):
        v.world.fail(v.at(onset), lasts, failure)
        onset += lasts
    v.facts["up_seconds"] = round(onset, 3)
    _clients(v)
    for name in v.draw.sample(("web", "checkout", "search"), v.draw.randint(1, 3)):
        service = draw_service(v, name, rate=v.draw.uniform(5, 30), least=(1, 10))
        service.start(v)
        v.expect(service.sessions())
    set_background(v, seconds, services=(1, 5), endpoint=False)
    return v.play(seconds)


def _phases(v: Variation, how: str, down: float) -> list[tuple[float, PollFailure]]:
    """Return what a look gets, one after the other, and for how long."""
    starting = v.draw.uniform(0.2, 0.6) * down
    if how == "crash":
        # The postmaster stays; who knocks is told that the server recovers.
        return [(down, STARTING)]
    if how == "failover":
        return [(down - min(starting, 3.0), REFUSED), (min(starting, 3.0), STARTING)]
    stopping = min(v.draw.uniform(0.0, 1.5), 0.2 * down)
    return [(stopping, STOPPING), (down - stopping - starting, REFUSED), (starting, STARTING)]


def _clients(v: Variation) -> None:
    """Set up processes of one session each that knock until they are let in: the storm, and its end."""
    count = v.number("reconnecting_clients", 8, 60)
    hosts = v.hosts(v.pick("reconnecting_hosts", (1, 4, 20)))
    patience = v.pick("retry_seconds", (0.1, 0.5, 2.0, 5.0))
    backs_off = v.pick("backs_off", (True, False))
    rate = v.draw.uniform(0.05, 0.5)
    application, place = v.identity("workers")

    def client(host: str) -> Behaviour:
        chance = v.world.chance
        seat, retry = None, patience
        while True:
            if seat is None or seat.closed:
                seat = v.knock(application, client=host, **place)
                if seat is None:
                    yield retry * chance.uniform(0.5, 1.5)
                    retry = min(2 * retry, 15.0) if backs_off else retry
                    continue
                retry = patience
            seat.use(v.world.now + 0.005, chance.expovariate(1 / 0.03))
            # A client finds out at its next use that its session has gone.
            yield chance.expovariate(rate)

    for n in range(count):
        v.world.run(client(hosts[n % len(hosts)]), v.draw.uniform(0, 60))
    v.expect(count)


BUILDERS: dict[str, Callable[[int, bool], Any]] = {"server-restart": server_restart}
