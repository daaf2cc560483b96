"""What must light nothing: not for the daemon that saw it all, nor for one that was started in the middle."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batsignal.snapshot import Slots

HOUR = 3600.0
MANY = Slots(max=1000, superuser_reserved=3)

Dark = Callable[..., None]


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world(slots=MANY)


@pytest.fixture
def stays_dark(look_on: Callable[..., Any]) -> Dark:
    """Look on, with a daemon from the beginning and one that is started in the middle."""

    def check(world: Any, seconds: float, *, interval: float = 1.0) -> None:
        for watcher in look_on(world, seconds, starts=(0.0, 0.43 * seconds), interval=interval):
            assert not watcher.events, watcher.sentences()

    return check


def pods(version: str, count: int) -> list[str]:
    return [f"10.{version}.0.{n}" for n in range(count)]


def step(t: float) -> float:
    return 30 if t < 400 else 60


def ramp(t: float) -> float:
    return 30 + 30 * min(max(t - 400, 0) / 300, 1)


def half_hour_wave(t: float) -> float:
    """Requests a second of one pod of twenty."""
    return (1 + 19 * (0.5 - 0.5 * math.cos(t / 1800 * 2 * math.pi))) / 20


def test_pool_that_fills_in_two_seconds_and_sits_idle_all_night(world: Any, stays_dark: Dark) -> None:
    world.pool("web@1", least=20, most=20, fill_gap_seconds=0.1)
    world.pool("billing", least=5, most=20, at=1.0, fill_gap_seconds=0.4, place={"user": "billing"})
    stays_dark(world, 8 * HOUR, interval=10.0)


@pytest.mark.parametrize("sessions", [10, 30])
def test_idle_pool_that_recycles_its_sessions_by_max_lifetime(world: Any, stays_dark: Dark, sessions: int) -> None:
    world.pool(
        "web@1",
        least=sessions,
        most=sessions,
        lifetime_seconds=1800,
        # Filled over a whole lifetime, as a pool is that recycles since yesterday: one goes every minute or three.
        fill_gap_seconds=1750 / sessions,
    )
    for _ in world.looks(3600, interval=60):
        pass
    stays_dark(world, 2 * HOUR, interval=3.0)


@pytest.mark.parametrize("order", ["lifo", "fifo"])
def test_pool_with_little_work_that_recycles_its_sessions(world: Any, stays_dark: Dark, order: str) -> None:
    for pod in pods("0", 5):
        world.pool("web@1", least=3, work=0.2, order=order, lifetime_seconds=600, place={"client": pod})
    stays_dark(world, HOUR, interval=2.0)


@pytest.mark.parametrize(("least", "work"), [(1, 0.0), (5, 0.0), (1, 2.0), (5, 0.2), (5, 2.0)])
def test_rolling_deploy_that_doubles_pools_for_two_minutes(
    world: Any, stays_dark: Dark, work: float, least: int
) -> None:
    for n, (old_pod, new_pod) in enumerate(zip(pods("1", 8), pods("2", 8), strict=True)):
        old = world.pool("web@1", least=least, work=work, place={"client": old_pod})
        world.pool("web@2", least=least, work=work, at=300 + 15 * n, place={"client": new_pod})
        world.call(420 + 15 * n, old.close)
    stays_dark(world, 1000)


@pytest.mark.parametrize("least", [2, 10])
def test_blue_green_with_the_old_side_idle_for_an_hour(world: Any, stays_dark: Dark, least: int) -> None:
    for blue, green in zip(pods("1", 4), pods("2", 4), strict=True):
        old = world.pool("web@1", least=least, work=lambda t: 5 if t < 600 else 0, place={"client": blue})
        world.pool("web@2", least=least, work=5, at=590, place={"client": green})
        world.call(600 + HOUR, old.close)
    stays_dark(world, 4800, interval=5.0)


@pytest.mark.parametrize(("burst", "work"), [(1, 0.0), (5, 0.0), (1, 2.0), (5, 0.1), (5, 2.0)])
def test_autoscaling_up_and_staying(world: Any, stays_dark: Dark, work: float, burst: int) -> None:
    for n, pod in enumerate(pods("1", 20)):
        world.pool("web@1", least=burst, work=work, at=0 if n < 3 else 300 + 15 * n, place={"client": pod})
    stays_dark(world, 900)


def test_a_few_idle_pods_that_come_one_by_one_behind_one_address(world: Any, stays_dark: Dark) -> None:
    world.pool("web@1", least=5, work=5)
    for n in range(4):
        world.pool("web@1", least=5, at=300 + 8 * n)
    stays_dark(world, 900)


def test_a_hundred_idle_sessions_of_pods_behind_one_address_wake_nobody(
    world: Any, look_on: Callable[..., Any]
) -> None:
    # Nothing tells them from a job that loses five sessions at each run: a warning is right, a page is not.
    world.pool("web@1", least=5, work=5)
    for n in range(20):
        world.pool("web@1", least=5, at=300 + 15 * n)
    for watcher in look_on(world, 900, starts=(0.0, 387.0), interval=1.0):
        assert all(event.signal.finding.severity == "warning" for event in watcher.events), watcher.sentences()


def long_polls(world: Any, mean: float, least: float, most: float, *, end: float = math.inf) -> None:
    """Clients that come by chance, use a session once, hold it and give it back; after `end` they keep it."""

    def visitor() -> Iterator[float]:
        seat = world.open("push@1")
        seat.use(world.now + 0.01, 0.02)
        yield world.chance.uniform(least, most)
        if world.elapsed < end:
            world.close(seat)

    def arrivals() -> Iterator[float]:
        while True:
            yield world.chance.expovariate(1 / mean)
            world.run(visitor())

    world.run(arrivals())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", [(1.0, 20, 60), (4.0, 20, 60), (10.0, 60, 180), (5.0, 180, 600), (15.0, 120, 300)])
def test_sessions_held_for_long_and_given_back_are_no_leak_however_they_swing(
    make_world: Any, look_on: Callable[..., Any], seed: int, shape: tuple[float, float, float]
) -> None:
    # As many come as go, only not at once: ten more than a minute ago are nothing special. We are restarted among them.
    world = make_world(seed=seed, slots=MANY)
    long_polls(world, *shape)
    for _ in world.looks(1000, interval=1000):
        pass
    for watcher in look_on(world, 2500, starts=(1000.0, 1480.0, 1930.0)):
        assert not watcher.raised("leak"), watcher.sentences()


def test_held_sessions_that_double_with_their_traffic_are_no_leak(world: Any, look_on: Callable[..., Any]) -> None:
    long_polls(world, 8.0, 60, 180)
    for _ in world.looks(600, interval=600):
        pass
    world.call(1500.0, lambda: long_polls(world, 8.0, 60, 180))
    (watcher,) = look_on(world, 2400)
    assert not watcher.raised("leak"), watcher.sentences()


def test_workers_of_one_session_that_replace_each_other_one_by_one(world: Any, stays_dark: Dark) -> None:
    def work(version: str, start: float, end: float, client: str) -> None:
        def begin() -> None:
            seat = world.open(f"worker@{version}", client=client)
            seat.use(world.now + 0.01, 0.02)
            world.call(end, lambda: world.close(seat))

        world.call(start, begin)

    for n in range(12):
        work("1", 0.3 * n, 304.0 + 5 * n, f"10.1.0.{n}")
        work("2", 300.0 + 5 * n, 2000.0, f"10.2.0.{n}")
    stays_dark(world, 700)


@pytest.mark.parametrize("order", ["lifo", "fifo"])
@pytest.mark.parametrize("traffic", [step, ramp])
def test_traffic_that_doubles_on_pools_that_reuse_their_sessions(
    world: Any, stays_dark: Dark, order: str, traffic: Callable[[float], float]
) -> None:
    world.pool("web@1", most=60, order=order, work=traffic, seconds=0.2)
    stays_dark(world, 1000)


@pytest.mark.parametrize("seed", [1, 3])
def test_many_small_pools_that_each_need_one_more_now_and_then(make_world: Any, stays_dark: Dark, seed: int) -> None:
    world = make_world(seed=seed, slots=MANY)
    for pod in pods("0", 20):
        # The sessions of the peak rest on the bottom of a stack for long.
        world.pool(
            "web@1",
            least=0,
            most=40,
            work=half_hour_wave,
            seconds=0.2,
            idle_seconds=600,
            lifetime_seconds=600,
            place={"client": pod},
        )
    stays_dark(world, 2000)


def test_cron_batch_of_thirty_sessions_every_ten_minutes(world: Any, stays_dark: Dark) -> None:
    world.pool("web@1", work=5)

    def batch() -> Iterator[float]:
        while True:
            seats = []
            for _ in range(30):
                seats.append(world.open("cron", client="10.0.0.50"))
                seats[-1].use(world.now, world.chance.uniform(20, 60))
                yield 0.1
            yield 70.0
            for seat in seats:
                world.close(seat)
            yield 527.0

    world.run(batch(), 100)
    stays_dark(world, HOUR)


def test_application_that_opens_queries_and_closes(world: Any, stays_dark: Dark) -> None:
    world.visits("php", rate=20)
    stays_dark(world, 900)


def test_night_without_traffic(world: Any, stays_dark: Dark) -> None:
    for pod in pods("1", 6):
        world.pool("web@1", least=5, work=lambda t: 5 if t < 600 else 0, place={"client": pod})
    stays_dark(world, 6 * HOUR, interval=10.0)


def test_dump_with_eight_jobs_for_forty_minutes(world: Any, stays_dark: Dark) -> None:
    world.pool("web@1", work=5)

    def dump() -> Iterator[float]:
        seats = [world.open("pg_dump", client="10.0.7.7") for _ in range(8)]
        for _ in range(4800):
            for seat in seats:
                if seat.busy_until <= world.now:
                    seat.use(world.now, world.chance.expovariate(1 / 60))
            yield 0.5
        for seat in seats:
            world.close(seat)

    world.run(dump(), 100)
    stays_dark(world, 2700, interval=2.0)


@pytest.mark.parametrize("application", ["DBeaver 23.1 - SQLEditor", "psql"])
def test_analysts_whose_tools_are_parked_idle_all_day(world: Any, stays_dark: Dark, application: str) -> None:
    def analyst(n: int) -> Iterator[float]:
        for _ in range(2 + n % 2):
            seat = world.open(application, user="analyst", client=f"10.0.9.{n}")
            for _ in range(1 + n % 3):
                seat.use(world.now, 2.0)
                yield world.chance.expovariate(1 / 200)
            yield world.chance.expovariate(1 / HOUR)

    for n in range(10):
        world.run(analyst(n), world.chance.uniform(0, 3 * HOUR))
    stays_dark(world, 9 * HOUR, interval=10.0)


@pytest.mark.parametrize("work", [0.0, 2.0])
def test_everybody_reconnects_after_a_restart_of_the_server(
    world: Any, look_on: Callable[..., Any], work: float
) -> None:
    down, up = 300.0, 320.0
    world.restart(down, up - down)
    for n, pod in enumerate(pods("1", 20)):
        old = world.pool("web@1", least=5, work=work, place={"client": pod})
        world.call(down, old.close)
        world.pool("web@1", least=5, work=work, at=up + world.chance.uniform(0, 10) + n / 20, place={"client": pod})
    for watcher in look_on(world, 900, starts=(0.0, 340.0)):
        kinds = {event.signal.finding.kind for event in watcher.events}
        assert kinds <= {"database_unreachable"}, watcher.sentences()
        assert all(event.signal.finding.severity == "warning" for event in watcher.events)


def test_gap_in_the_looks_raises_nothing(world: Any, watcher: Any) -> None:
    for pod in pods("1", 5):
        world.pool("web@1", least=3, work=2, place={"client": pod})
    watcher.follow(world.looks(100))
    for _ in world.looks(400):
        pass  # nobody looks
    watcher.follow(world.looks(200))
    assert not watcher.events, watcher.sentences()


def test_pids_that_are_reused_within_a_second_are_other_sessions(world: Any, watcher: Any) -> None:
    def reopen() -> Iterator[float]:
        world.open("php")
        while True:
            yield 0.9
            world.close(next(iter(world.seats.values())))
            world.next_pid -= 1
            world.open("php").use(world.now, 0.01)

    world.run(reopen())
    watcher.follow(world.looks(300))
    assert not watcher.events, watcher.sentences()


def test_clock_that_steps_back_an_hour_raises_nothing_and_a_leak_is_called_after_it(
    world: Any, make_world: Any, watcher: Any
) -> None:
    world.pool("web@1", least=5, work=2)
    for _ in world.looks(HOUR, interval=60):
        pass
    watcher.follow(world.looks(100))
    before = make_world(slots=MANY)
    before.pool("web@1", least=5, work=2)
    before.leak("web@1", every=2, at=100)
    watcher.follow(before.looks(99))
    assert not watcher.events, watcher.sentences()
    watcher.follow(before.looks(60))
    assert watcher.raised("leak")
