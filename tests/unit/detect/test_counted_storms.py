"""Storms whose sessions are too short to be seen: the server's own count tells them, and nobody is named."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.unseen import Flood, Unseen
from batsignal.snapshot import Counters, Slots, Snapshot

T = 1_760_000_000.0
ONSET = 340.0
BOUND = 10.0
SERVICES = ("accounts", "basket", "mail", "prices")
BLINK = 0.002


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world(slots=Slots(max=200, superuser_reserved=3))


def visits(
    world: Any, application: str, *, rate: float, at: float = 0.0, until: float = 1e9, hold: float = BLINK
) -> None:
    """Open a session for each request, and close it at once."""

    def visit() -> Iterator[float]:
        seat = world.open(application, client=f"10.0.0.{1 + len(application)}")
        if seat is not None:
            seat.use(world.now + hold / 4, hold / 2)
            yield hold
            world.close(seat)

    def go() -> Iterator[float]:
        while world.elapsed < until:
            yield world.chance.expovariate(rate)
            if world.elapsed < until:
                world.run(visit())

    world.run(go(), at)


def counted_every(looks: Iterable[Snapshot], seconds: float, *, is_repeated: bool = True) -> Iterator[Snapshot]:
    """Let the counter be read now and then only; between two readings the last one stands, or none."""
    read_at, counters = -1e9, None
    for look in looks:
        if look.failure is None and look.t - read_at >= seconds - 0.1:
            read_at, counters = look.t, look.counters
            yield look
        else:
            yield replace(look, counters=counters if is_repeated and look.failure is None else None)


def storms(watcher: Any) -> list[Any]:
    return list(watcher.raised("storm"))


def after_restart(world: Any, rate: float, until: float = 1e9) -> None:
    """Four services whose server restarts; their clients come back and throw each session away."""
    for name in SERVICES:
        pool = world.pool(f"{name}@1", least=4, most=6, work=2)
        world.call(ONSET - 4, pool.close)  # the restart has ended its sessions
        visits(world, f"{name}@1", rate=rate / len(SERVICES), at=ONSET, until=until)
    world.restart(ONSET - 5, 5.0)


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_everybody_reconnecting_in_a_blink_after_a_restart_is_told_and_nobody_is_named(
    world: Any, make_watcher: Any, seconds: float
) -> None:
    after_restart(world, 40.0)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 90), seconds))
    (event,) = storms(watcher)
    found = event.signal.finding
    assert 0 <= event.t - T - ONSET <= BOUND
    assert found.subject.application is None
    assert found.severity == "warning"
    assert abs(found.since - T - ONSET) <= 3
    now = watcher.at(ONSET + 90, "storm")
    assert now.severity == "critical"
    assert any("had just come back" in line for line in now.evidence)
    assert 30 <= float(now.summary.split(" open ")[1].split()[0]) <= 50


def test_where_the_counter_stands_in_a_file_it_takes_two_readings(world: Any, make_watcher: Any) -> None:
    after_restart(world, 40.0)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 60), 10.0))
    (event,) = storms(watcher)
    assert event.t - T - ONSET <= 32


def test_a_counter_that_is_not_told_at_each_look_is_still_a_counter(world: Any, make_watcher: Any) -> None:
    after_restart(world, 40.0)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 60), 2.0, is_repeated=False))
    (event,) = storms(watcher)
    assert event.t - T - ONSET <= BOUND


def test_reconnects_that_end_are_at_most_a_warning_and_are_over_soon(world: Any, make_watcher: Any) -> None:
    after_restart(world, 40.0, until=ONSET + 20)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 120), 2.0))
    assert {event.signal.finding.severity for event in storms(watcher)} <= {"warning"}
    assert "critical" not in {finding.severity for _, finding in watcher.said}
    assert not watcher.now


def test_reconnects_of_a_moment_are_dark(world: Any, make_watcher: Any) -> None:
    after_restart(world, 60.0, until=ONSET + 1.5)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 60), 2.0))
    assert not storms(watcher)


def test_what_nobody_sees_is_told_without_a_restart_too(world: Any, make_watcher: Any) -> None:
    visits(world, "web@1", rate=80.0, at=ONSET, hold=0.0001)
    world.pool("billing@1", least=4, most=6, work=2)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 90), 2.0))
    (event,) = storms(watcher)
    assert event.t - T - ONSET <= BOUND
    assert event.signal.finding.summary.startswith("clients whose sessions are too short to be seen open ")
    assert watcher.at(ONSET + 89, "storm").severity == "critical"


def test_one_service_that_is_glimpsed_now_and_then_is_what_is_named_in_the_end(world: Any, make_watcher: Any) -> None:
    visits(world, "web@1", rate=120.0, at=ONSET, hold=0.008)
    world.pool("billing@1", least=4, most=6, work=2)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 90), 2.0))
    (event,) = storms(watcher)
    assert event.t - T - ONSET <= BOUND
    subject = watcher.at(ONSET + 89, "storm").subject
    assert (subject.application, subject.version) == ("web", "1")


def gives_up_its_pool(world: Any, name: str, *, rate: float, hold: float = 0.01) -> None:
    """A deploy that opens a session for each request instead of keeping some."""
    pool = world.pool(f"{name}@1", least=4, most=6, work=2)
    world.call(ONSET, pool.close)
    visits(world, f"{name}@2", rate=rate, at=ONSET, hold=hold)


@pytest.mark.parametrize("seed", range(5))
def test_deploy_without_the_pool_it_had_is_named_from_two_glimpses_and_wakes_somebody_once_it_lasts(
    make_world: Any, make_watcher: Any, seed: int
) -> None:
    world = make_world(seed=seed, slots=Slots(max=100, superuser_reserved=3))
    visits(world, "reports@3", rate=1.0, hold=0.01)
    world.pool("billing@1", least=4, most=6, work=2)
    gives_up_its_pool(world, "shop", rate=16.0)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 90), 1.0))
    (event,) = storms(watcher)
    assert event.t - T - ONSET <= BOUND + 2
    found = watcher.at(ONSET + 60, "storm")
    assert (found.subject.application, found.subject.version) == ("shop", "2")
    assert watcher.at(ONSET + 80, "storm").severity == "critical"


@pytest.mark.parametrize("seed", range(5))
def test_two_that_gave_up_their_pools_at_once_are_not_told_as_one(
    make_world: Any, make_watcher: Any, seed: int
) -> None:
    world = make_world(seed=seed, slots=Slots(max=100, superuser_reserved=3))
    for name in ("shop", "web"):
        gives_up_its_pool(world, name, rate=12.0)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 90), 1.0))
    (event,) = storms(watcher)
    assert event.signal.finding.subject.application is None
    assert watcher.at(ONSET + 80, "storm").subject.application is None


def test_applications_that_never_pool_are_dark_whatever_restarts(world: Any, make_watcher: Any) -> None:
    for name in SERVICES:
        visits(world, f"{name}@1", rate=10.0)
    world.restart(ONSET, 6.0)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 300), 2.0))
    assert not storms(watcher), watcher.sentences()


def test_a_script_that_opens_one_session_after_the_other_wakes_nobody(world: Any, make_watcher: Any) -> None:
    def script() -> Iterator[float]:
        while world.elapsed < ONSET + 200:
            seat = world.open("migrate@1", client="10.0.0.9")
            seat.use(world.now + 0.01, 0.004)
            yield 0.02
            world.close(seat)
            yield 0.02

    world.pool("billing@1", least=4, most=6, work=2)
    world.run(script(), ONSET)
    watcher = make_watcher().follow(counted_every(world.looks(ONSET + 240), 2.0))
    assert "critical" not in {finding.severity for _, finding in watcher.said}


def test_batch_of_thirty_that_comes_and_goes_in_a_blink_is_dark(world: Any, make_watcher: Any) -> None:
    for minute in (2, 6, 10):
        visits(world, "cron@1", rate=30.0, at=60.0 * minute, until=60.0 * minute + 1)
    watcher = make_watcher().follow(counted_every(world.looks(700), 2.0))
    assert not watcher.events, watcher.sentences()


def test_nothing_is_said_before_five_minutes_were_watched(world: Any, make_watcher: Any) -> None:
    visits(world, "web@1", rate=80.0, at=100.0, hold=0.0001)
    watcher = make_watcher().follow(counted_every(world.looks(500), 2.0))
    assert not storms(watcher)


def test_a_counter_that_is_set_back_or_stands_still_says_nothing(world: Any, make_watcher: Any) -> None:
    world.pool("billing@1", least=4, most=6, work=2)
    watcher = make_watcher()
    for n, look in enumerate(world.looks(600)):
        watcher.look(replace(look, counters=Counters(sessions=[10_000_000, 5][n // 300], xact_commit=n)))
    assert not watcher.events, watcher.sentences()


# -- the counts --------------------------------------------------------------------------------------------------------


def counts(*sessions: float, each: float = 2.0) -> Unseen:
    unseen = Unseen()
    for n, count in enumerate(sessions):
        unseen.add(n * each, (n + 1) * each, count)
    return unseen


def test_flood_began_where_every_count_since_is_above_the_pace() -> None:
    assert counts(80, 10, 40, 60, 50).flood(10.0, 15.0) == Flood(began=4.0, per_second=27.5)


@pytest.mark.parametrize("sessions", [(), (100,), (100, 29), (29, 100)])
def test_no_flood_without_two_counts_above_the_pace(sessions: tuple[float, ...]) -> None:
    assert counts(*sessions).flood(2.0 * len(sessions), 15.0) is None


def test_flood_is_over_when_its_newest_count_is_old() -> None:
    unseen = counts(100, 100)
    assert unseen.flood(7.0, 15.0) is not None
    assert unseen.flood(7.1, 15.0) is None
    assert unseen.flood(3.9, 15.0) is None


def test_time_that_stands_still_or_runs_backwards_counts_nothing() -> None:
    unseen = counts(100, 100)
    unseen.add(4.0, 4.0, 50)
    unseen.add(4.0, 3.0, 50)
    assert unseen.flood(4.0, 15.0) == Flood(began=0.0, per_second=50.0)
