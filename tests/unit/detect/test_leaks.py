import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batsignal.detect.leak_telling import PAUSE_SECONDS
from batsignal.snapshot import PollFailure, Slots

PODS = [f"10.0.1.{n}" for n in range(20)]
ONSET = 60.0


def small(usable: int) -> Slots:
    return Slots(max=usable + 3, superuser_reserved=3)


def first(watcher: Any, start: float, kind: str = "leak") -> tuple[float, Any]:
    """When a kind was first called, in seconds after the start, and what was said."""
    raised = watcher.raised(kind)
    assert raised, watcher.sentences()
    return raised[0].t - start, raised[0].signal.finding


def follow_until_full(world: Any, watcher: Any, most: float, interval: float = 1.0) -> float:
    """Look on until no slot is left and return when that was, in seconds after the start."""
    for snapshot in world.looks(most, interval):
        watcher.look(snapshot)
        if world.is_full:
            return float(world.elapsed)
    raise AssertionError("the slots did not run out")


# -- what must be called -----------------------------------------------------------------------------------------------


def test_fast_leak_of_a_new_version_is_called_in_time_with_service_version_and_deploy(
    world: Any, watcher: Any, start: float
) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=ONSET)
    full = follow_until_full(world, watcher, 300)
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.subject.application == "web"
    assert found.subject.version == "2.4.0"
    assert (found.subject.user, found.subject.database, found.subject.client) == ("app", "shop", "10.0.0.4")
    assert found.severity == "critical"
    assert found.since - start == pytest.approx(ONSET, abs=3)
    assert (found.deploy.service, found.deploy.version, found.deploy.previous) == ("web", "2.4.0", "2.3.9")
    assert found.deploy.at - start == pytest.approx(ONSET, abs=3)
    assert found.database_healthy is True
    half_way = (ONSET + full) / 2
    said = watcher.at(half_way).exhaustion_seconds
    assert (full - half_way) / 1.5 <= said <= (full - half_way) * 1.5


def test_the_texts_say_who_how_many_and_what_to_undo(world: Any, watcher: Any) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=ONSET, jitter=0)
    watcher.follow(world.looks(110))
    found = watcher.at(110)
    assert found.summary.startswith(f"web@2.4.0 leaks connections: {found.sessions} held, +0.5/s; slots run out in ")
    assert found.action == "Roll back web to 2.3.9. Do not restart the database: it is healthy."
    told = " | ".join(found.evidence)
    assert f"{found.sessions} sessions opened since 08:54:20 UTC, each used once and never again" in told
    assert "last statement of each: SELECT * FROM orders WHERE id = ?" in told
    assert "web@2.4.0 was deployed" in told
    assert "ping 0.4 ms, no lock waits" in told


@pytest.mark.parametrize(("every", "usable"), [(45.0, 60), (240.0, 32)], ids=["1/45s", "1/240s"])
def test_slow_leak_is_called_after_ten_sessions_at_most(
    make_world: Any, watcher: Any, start: float, every: float, usable: int
) -> None:
    world = make_world(slots=small(usable))
    world.pool("web@2.4.0", work=10, least=8)
    world.leak("web@2.4.0", every=every, at=ONSET)
    full = follow_until_full(world, watcher, 3 * 3600, interval=3.0)
    called, found = first(watcher, start)
    assert called - ONSET <= 10 * every + 15
    assert (found.subject.application, found.subject.version) == ("web", "2.4.0")
    assert found.since - start == pytest.approx(ONSET, abs=3)
    half_way = (ONSET + full) / 2
    said = watcher.at(half_way).exhaustion_seconds
    assert (full - half_way) / 1.5 <= said <= (full - half_way) * 1.5


def test_crawling_leak_goes_on_being_called_for_hours(world: Any, look_on: Callable[..., Any]) -> None:
    world.pool("web@2.4.0", work=5, least=8)
    world.leak("web@2.4.0", every=240, at=ONSET, jitter=0.9)
    (watcher,) = look_on(world, 5 * 3600, interval=10.0)
    assert len(watcher.raised("leak")) == 1, watcher.sentences()
    assert not watcher.cleared("leak")
    assert watcher.now[0].sessions >= 60


def test_windows_left_open_at_some_time_of_the_day_are_a_leak_only_once_they_are_twice_as_many(
    world: Any, watcher: Any, start: float
) -> None:
    every = 1500.0
    world.pool(None, work=0.05, least=2, place={"user": "analyst"})
    world.leak(None, every=every, at=ONSET, clients=PODS[:3], user="analyst")
    watcher.follow(world.looks(22 * every, interval=15.0))
    called, found = first(watcher, start)
    assert 14 * every < called - ONSET < 20 * every
    assert found.severity == "warning"


def test_leak_without_an_application_name_is_told_by_user_and_client(world: Any, watcher: Any, start: float) -> None:
    world.leak("psql", every=2.0, at=ONSET, user="batch", clients=["10.0.0.77"])
    watcher.follow(world.looks(110))
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.subject.application is None
    assert (found.subject.user, found.subject.client) == ("batch", "10.0.0.77")
    assert found.since - start == pytest.approx(ONSET, abs=3)
    assert found.summary.startswith("user batch from 10.0.0.77 leaks connections")
    assert found.action.startswith("Find the application of user batch from 10.0.0.77 and restart it")


@pytest.mark.parametrize("order", ["lifo", "fifo"])
def test_leak_spread_over_known_pods_is_one_signal_of_the_service(
    world: Any, watcher: Any, start: float, order: str
) -> None:
    for pod in PODS:
        world.pool("web@2.4.0", work=2, least=2, order=order, place={"client": pod})
    world.leak("web@2.4.0", every=2.0, at=ONSET, clients=PODS)
    watcher.follow(world.looks(120))
    assert len(watcher.raised("leak")) == 1
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.subject.application == "web"
    assert found.subject.client is None
    assert found.since - start == pytest.approx(ONSET, abs=3)


def test_leak_spread_over_fresh_pods_is_called_in_time_and_counts_the_first_session_of_each(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(397))
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=ONSET, clients=PODS, jitter=0)
    watcher.follow(world.looks(120))
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.since - start == pytest.approx(ONSET, abs=3)
    lost = int((called - ONSET) / 2)
    assert lost - 4 <= found.sessions <= lost + 1
    left = (397 - 8 - lost) * 2.0
    assert left / 1.2 <= found.exhaustion_seconds <= left * 1.2


def test_what_pods_open_beside_the_first_that_each_of_them_lost_speaks_against_no_leak(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(397))
    for n, pod in enumerate(PODS):  # each loses one before its pool has opened any, and works little
        place = {"client": pod}
        world.call(ONSET + 2.0 * n, lambda place=place: world.open("web@2.4.0", **place).use(world.now + 0.01, 0.02))
        world.pool("web@2.4.0", work=0.12, least=0, most=5, at=ONSET + 2.0 * n + 4.0, place=place)
        world.call(ONSET + 2.0 * n + 11.0, lambda place=place: world.open("web@2.4.0", **place).use(world.now, 0.02))
    watcher.follow(world.looks(ONSET + 60))
    assert first(watcher, start)[0] - ONSET <= 40


@pytest.mark.parametrize("sessions", [1, 2])
def test_pods_that_start_one_after_the_other_and_wait_for_their_turn_are_no_leak(
    make_world: Any, watcher: Any, sessions: int
) -> None:
    world = make_world(slots=small(397))
    world.pool("web@2.3.9", work=10, least=8)
    for n, pod in enumerate(PODS):
        world.pool("web@2.4.0", least=sessions, at=ONSET + 2.0 * n, place={"client": pod})
    watcher.follow(world.looks(400))
    assert not watcher.raised("leak"), watcher.sentences()


@pytest.mark.parametrize("rest", ["idle in transaction", "ClientRead"])
def test_leak_that_leaves_its_sessions_in_transaction_or_stuck_is_called(
    world: Any, watcher: Any, start: float, rest: str
) -> None:
    world.pool("web@2.4.0", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=ONSET, rest=rest)
    watcher.follow(world.looks(110))
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.subject.application == "web"
    assert found.since - start == pytest.approx(ONSET, abs=3)
    assert any("idle in transaction" in line or "active" in line for line in found.evidence)


@pytest.mark.parametrize("rest", ["idle in transaction", "idle in transaction (aborted)"])
def test_sessions_that_a_pool_lent_for_long_and_gets_back_no_more_are_lost_once_left_in_a_transaction(
    make_world: Any, watcher: Any, start: float, rest: str
) -> None:
    world = make_world(slots=small(197))
    world.pool("web", least=4)

    def lent(ends: float) -> Any:
        seat = world.open("web")
        while world.elapsed < ends:
            seat.use(world.now, 0.2)
            yield 0.5
        seat.use(world.now, 0.01, rest=rest)

    for n in range(40):
        world.run(lent(200.0 + 3 * n), 1.0 * n)
    watcher.follow(world.looks(260))
    called, found = first(watcher, start)
    assert 0 < called - 200 <= 45
    assert found.since - start == pytest.approx(200, abs=4)


def drained(row: Callable[..., Any], t: float, *, rests: float) -> Any:
    """A full pool that nobody had used for ten minutes; every two seconds one is lent, and rests in its transaction."""
    for n in range(30):
        begin = 100.0 + 2.0 * n
        if begin <= t < begin + rests:
            yield row(100 + n, "idle in transaction", at=begin, opened=-500.0, xact_start=begin)
        else:
            yield row(100 + n, "idle", at=-499.0 if t < begin else begin + rests, opened=-500.0)


def test_leak_that_drains_a_pool_of_sessions_that_had_lain_there_for_long_is_called_in_time(
    row: Callable[..., Any], show: Callable[..., Any], watcher: Any, start: float
) -> None:
    show(watcher, lambda t: drained(row, t, rests=math.inf), 160)
    called, found = first(watcher, start)
    assert 0 < called - 100 <= 45
    assert found.subject.application == "web"


def test_pauses_of_nine_seconds_in_transactions_of_a_pool_are_no_leak(
    row: Callable[..., Any], show: Callable[..., Any], watcher: Any
) -> None:
    show(watcher, lambda t: drained(row, t, rests=9.0), 200)
    assert not watcher.raised("leak"), watcher.sentences()


def test_leak_through_a_pool_that_may_grow_is_called_though_its_sessions_had_been_lent_for_long(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(67))
    pool = world.pool("web", least=4, most=80, work=8, seconds=0.2, order="fifo")
    for n in range(60):
        world.call(300 + 10.0 * n, pool.lose)
    watcher.follow(world.looks(300 + 10 * 10 + 60))
    called, found = first(watcher, start)
    assert 0 < called - 300 <= 10 * 10 + 60
    assert found.subject.application == "web"
    # It may be several pools behind one address, so it wakes nobody while there is room.
    assert found.severity == "warning"
    watcher.follow(world.looks(500))
    assert watcher.now[0].severity == "critical"
    assert len(watcher.raised("leak")) == 1, watcher.sentences()


@pytest.mark.parametrize("order", ["lifo", "fifo"])
def test_leak_through_a_pool_whose_sessions_had_lain_unused_for_minutes_is_called_in_time(
    make_world: Any, watcher: Any, start: float, order: str
) -> None:
    world = make_world(slots=small(197))
    pool = world.pool("web", least=12, most=150, work=lambda t: 0.05 if t < 300 else 8, seconds=0.2, order=order)
    for n in range(40):
        world.call(320 + 4.0 * n, pool.lose)
    watcher.follow(world.looks(320 + 110))
    called, found = first(watcher, start)
    assert 320 < called <= 320 + 10 * 4 + 15
    assert found.since - start == pytest.approx(320, abs=8)


def test_leak_through_a_pool_that_had_lost_some_by_the_end_of_its_fill_is_called(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(197))
    pool = world.pool("web", least=4, most=150, work=8, seconds=0.2, order="fifo", at=300.0)
    lost = [310.0 + 18.0 * n for n in range(20)]
    for at in lost:
        world.call(at, pool.lose)
    watcher.follow(world.looks(lost[18]))
    called, found = first(watcher, start)
    assert lost[0] < called <= lost[11]
    assert found.severity == "warning"


def test_sessions_that_rest_after_a_busy_hour_are_not_lost_while_no_other_is_opened(
    make_world: Any, watcher: Any
) -> None:
    world = make_world(slots=small(197))
    busy = lambda t: 60 if t < 300 else max(60 - (t - 300) / 5, 2)  # noqa: E731
    world.pool("web", least=2, most=60, work=busy, seconds=0.5, order="lifo")
    watcher.follow(world.looks(1200))
    assert not watcher.raised("leak"), watcher.sentences()


def test_leak_that_goes_up_and_down_with_its_traffic_is_called_once(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(497))
    wave = [lambda t: 0.25 + 0.2 * math.sin(t / 60)]
    world.pool("web@2.4.0", work=lambda t: 40 * wave[0](t), least=8)
    world.leak("web@2.4.0", every=lambda t: 1 / wave[0](t), at=ONSET)
    watcher.follow(world.looks(1200))
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.since - start == pytest.approx(ONSET, abs=3)
    assert len(watcher.raised("leak")) == 1
    assert not watcher.cleared("leak"), watcher.sentences()


def test_leak_that_almost_stops_at_night_stays_one_incident(
    make_world: Any, look_on: Callable[..., Any], start: float
) -> None:
    world = make_world(slots=small(497))
    world.pool("web@2.4.0", work=10, least=8)
    world.leak("web@2.4.0", every=lambda t: 20 if t < 1800 or t > 6600 else 200, at=ONSET)
    (watcher,) = look_on(world, 9000, interval=5.0)
    assert first(watcher, start)[0] - ONSET <= 10 * 20 * 1.2 + 15
    assert len(watcher.raised("leak")) == 1, watcher.sentences()
    assert not watcher.cleared("leak"), watcher.sentences()
    assert watcher.now[0].sessions >= 200


def test_leak_that_fills_the_slots_in_twenty_seconds_is_still_called(world: Any, watcher: Any, start: float) -> None:
    world.pool("web@2.4.0", work=10, least=8)
    world.leak("web@2.4.0", every=0.2, at=ONSET)
    watcher.follow(world.looks(200))
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.subject.application == "web"
    assert found.since - start == pytest.approx(ONSET, abs=3)
    assert watcher.at(199).exhaustion_seconds == 0.0
    assert "no slot is left" in watcher.at(199).summary
    assert not watcher.cleared("leak")


def test_one_session_lost_in_ten_opened_is_called(world: Any, watcher: Any, start: float) -> None:
    world.leak("web@2.4.0", every=0.2, at=ONSET, one_in=10)
    watcher.follow(world.looks(120))
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    # The first nine of ten are given back: the first one lost is the tenth.
    assert found.since - start == pytest.approx(ONSET + 2, abs=3)


@pytest.mark.parametrize("order", ["lifo", "fifo"])
def test_leak_beside_a_pool_that_recycles_its_sessions_is_called_and_not_cleared(
    make_world: Any, look_on: Callable[..., Any], start: float, order: str
) -> None:
    world = make_world(slots=small(150))
    world.pool("web@2.4.0", work=3, least=20, most=20, order=order, lifetime_seconds=600)
    world.leak("web@2.4.0", every=45, at=ONSET)
    (watcher,) = look_on(world, 3600, interval=2.0)
    called, found = first(watcher, start)
    assert called - ONSET <= 10 * 45 + 15
    assert found.since - start == pytest.approx(ONSET, abs=3)
    assert len(watcher.raised("leak")) == 1
    assert not watcher.cleared("leak"), watcher.sentences()
    assert watcher.now[0].sessions == pytest.approx(3540 / 45, abs=8)


def test_rolling_deploy_behind_one_address_of_pools_that_recycle_is_no_leak(
    make_world: Any, look_on: Callable[..., Any]
) -> None:
    """New pods fill within a dozen seconds. What the old ones recycle before does not make a long train of that."""
    world = make_world(slots=small(500))
    for n in range(8):
        old = world.pool("web", work=0.3, least=10, most=10, lifetime_seconds=240)
        world.pool("web", work=0.3, at=490 + 4 * (n // 2), least=10, most=10, lifetime_seconds=240)
        world.call(560 + 4 * (n // 2), old.close)
    (watcher,) = look_on(world, 640)
    assert not watcher.raised("leak"), watcher.sentences()


def test_leak_is_called_while_a_rolling_deploy_fills_new_pools(world: Any, watcher: Any, start: float) -> None:
    for n in range(8):
        old = world.pool("web@1", work=2, least=5, place={"client": f"10.0.0.{n}"})
        world.pool("web@2", work=2, least=5, at=300 + 10 * n, place={"client": f"10.0.1.{n}"})
        world.leak("web@2", every=16, at=301 + 10 * n, clients=[f"10.0.1.{n}"])
        world.call(330 + 10 * n, old.close)
    watcher.follow(world.looks(400))
    called, found = first(watcher, start)
    assert called - 301 <= 60  # ten sessions are lost by then
    assert (found.subject.application, found.subject.version) == ("web", "2")
    assert (found.deploy.version, found.deploy.previous) == ("2", "1")


def test_old_pods_behind_the_same_address_that_leave_do_not_clear_the_leak_of_the_new_ones(
    make_world: Any, look_on: Callable[..., Any]
) -> None:
    world = make_world(slots=small(500))
    for n in range(6):
        old = world.pool("web@1", work=0.1, least=7, most=7)
        world.pool("web@2", work=0.1, least=1, most=7, at=300 + 5 * n)
        world.call(345 + 8 * n, old.close)
    world.leak("web@2", every=4, at=305)
    (watcher,) = look_on(world, 480)
    (raised,) = watcher.raised("leak")
    assert raised.signal.finding.subject.version == "2"
    assert not watcher.cleared("leak"), watcher.sentences()


def test_old_pods_that_leave_do_not_hide_the_leak_of_the_new_ones(world: Any, watcher: Any, start: float) -> None:
    for n in range(4):
        old = world.pool("web", work=5, least=10, place={"client": f"10.0.0.{n}"})
        world.pool("web", work=5, least=4, at=300, place={"client": f"10.0.1.{n}"})
        world.call(320, old.close)
    world.leak("web", every=2, at=305, clients=[f"10.0.1.{n}" for n in range(4)])
    watcher.follow(world.looks(360))
    assert first(watcher, start)[0] - 305 <= 45


def test_crawling_leak_beside_pools_that_open_and_drop_sessions_with_their_traffic_is_called(
    make_world: Any, look_on: Callable[..., Any], start: float
) -> None:
    world = make_world(slots=small(297))
    for n in range(5):
        world.pool("web", most=20, work=0.6, seconds=0.1, idle_seconds=300, place={"client": f"10.0.0.{n}"})
    world.leak("web", every=120, at=600, clients=["10.0.0.1"])
    (watcher,) = look_on(world, 2400, interval=3.0)
    assert first(watcher, start)[0] - 600 <= 10 * 120 + 15


def test_onset_is_that_of_the_leak_and_not_of_the_idle_pool_that_recycled_before_it(
    make_world: Any, look_on: Callable[..., Any], start: float
) -> None:
    world = make_world(slots=small(297))
    world.pool("web", least=20, most=20, lifetime_seconds=600, fill_gap_seconds=30)
    world.leak("web", every=15, at=1800)
    (watcher,) = look_on(world, 2100, starts=(1300.0,))
    called, found = first(watcher, start)
    assert called - 1800 <= 10 * 15 + 15
    # The pool opened one every half minute: that is how far off the beginning can be.
    assert found.since - start == pytest.approx(1800, abs=31)


def test_leak_beside_visits_that_open_and_close_is_called(world: Any, watcher: Any, start: float) -> None:
    world.visits("web@2.4.0", rate=20)
    world.leak("web@2.4.0", every=2.0, at=ONSET)
    watcher.follow(world.looks(110))
    called, found = first(watcher, start)
    assert called - ONSET <= 45
    assert found.since - start == pytest.approx(ONSET, abs=3)


def test_leaks_of_two_services_are_two_signals(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(297))
    world.leak("web@2.4.0", every=2.0, at=ONSET)
    world.leak("billing", every=3.0, at=ONSET, user="billing", clients=["10.0.0.8"])
    watcher.follow(world.looks(130))
    assert {event.signal.finding.subject.application for event in watcher.raised("leak")} == {"web", "billing"}


def long_polls(world: Any, mean: float, *, keeps_from: float = math.inf) -> None:
    """Clients that come by chance, use a session once, hold it for a minute or two and give it back; in the end not."""

    def visitor() -> Any:
        seat = world.open("push@1")
        seat.use(world.now + 0.01, 0.02)
        yield world.chance.uniform(60, 120)
        if seat.start - world.now + world.elapsed < keeps_from:
            world.close(seat)

    def arrivals() -> Any:
        while True:
            yield world.chance.expovariate(1 / mean)
            world.run(visitor())

    world.run(arrivals())


@pytest.mark.parametrize("seed", range(3))
def test_leak_among_sessions_that_are_held_and_given_back_is_called(
    make_world: Any, look_on: Callable[..., Any], start: float, seed: int
) -> None:
    world = make_world(seed=seed, slots=small(497))
    long_polls(world, 8.0)
    world.leak("push@1", every=2.0, at=900)
    (watcher,) = look_on(world, 1100, starts=(300.0,))
    called, found = first(watcher, start)
    # What is usual there, eleven or twelve at once, comes on top of the eight that any leak needs.
    assert 0 < called - 900 <= 90
    assert found.subject.application == "push"
    assert found.since - start == pytest.approx(900, abs=40)
    assert not watcher.cleared("leak"), watcher.sentences()


@pytest.mark.parametrize("seed", range(3))
def test_sessions_that_are_not_given_back_any_more_are_called_once_they_outlive_all_before_them(
    make_world: Any, look_on: Callable[..., Any], start: float, seed: int
) -> None:
    world = make_world(seed=seed, slots=small(497))
    long_polls(world, 8.0, keeps_from=1200)
    (watcher,) = look_on(world, 2000, starts=(300.0,))
    called, _ = first(watcher, start)
    # A quarter older than the longest held, and eight of them: more where chance leaves a long gap between two.
    assert 1200 < called <= 1200 + 1.25 * 120 + 20 * 8.0
    assert watcher.now[0].subject.application == "push"
    assert not watcher.cleared("leak"), watcher.sentences()


@pytest.mark.parametrize("pods", [1, 6])
def test_a_leak_that_ended_with_its_processes_does_not_hide_the_next_one(
    make_world: Any, look_on: Callable[..., Any], start: float, pods: int
) -> None:
    world = make_world(slots=small(497))
    for second in (ONSET, 600 + ONSET):
        hosts = [f"10.0.{int(second) % 7}.{n}" for n in range(pods)]
        parts = [world.pool("web@1", work=5, least=3, at=second - 50, place={"client": host}) for host in hosts]
        world.leak("web@1", every=2.0, at=second, until=second + 200, clients=hosts)

        def end(host: str, part: Any) -> None:
            part.close()
            for seat in [seat for seat in world.seats.values() if seat.client == host]:
                world.close(seat)

        for n, (host, part) in enumerate(zip(hosts, parts, strict=True)):
            world.call(second + 300 + 5 * n, lambda host=host, part=part: end(host, part))
    (watcher,) = look_on(world, 900)
    raised = [event.t - start for event in watcher.raised("leak")]
    assert len(raised) == 2, watcher.sentences()
    assert raised[0] - ONSET <= 45
    assert raised[1] - 600 - ONSET <= 45


def test_rolling_deploy_of_idle_pods_does_not_pass_for_giving_back(
    make_world: Any, look_on: Callable[..., Any], start: float
) -> None:
    world = make_world(slots=small(497))
    for n in range(20):
        old = world.pool("web@1", least=2, place={"client": f"10.1.0.{n}"})
        world.pool("web@2", least=2, at=300 + 2 * n, place={"client": f"10.2.0.{n}"})
        world.call(315 + 2 * n, old.close)
    world.leak("web@2", every=4.0, at=310, clients=[f"10.2.0.{n}" for n in range(20)])
    (watcher,) = look_on(world, 500)
    called, found = first(watcher, start)
    assert called - 310 <= 10 * 4 + 15
    assert found.subject.version == "2"
    assert not watcher.cleared("leak"), watcher.sentences()


# -- the life of the signal --------------------------------------------------------------------------------------------


def test_daemon_that_starts_in_the_middle_of_a_leak_calls_it_after_three_more(
    world: Any, look_on: Callable[..., Any], start: float
) -> None:
    world.pool("web@2.4.0", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=ONSET)
    (watcher,) = look_on(world, 150, starts=(110.0,))
    called, found = first(watcher, start)
    assert called <= 125
    assert found.since - start == pytest.approx(ONSET, abs=3)


@pytest.mark.parametrize(
    ("usable", "severity"), [(89, "critical"), (90, "critical"), (91, "warning")], ids=["under", "at", "over"]
)
def test_leak_is_critical_when_slots_run_out_within_half_an_hour(
    make_world: Any, watcher: Any, usable: int, severity: str
) -> None:
    world = make_world(slots=small(usable))
    world.leak("web", every=22.5, at=0.0, jitter=0)
    # Our own seat is taken too: at the ninth session, `usable` - 10 are free and one more goes each 22.5 s.
    watcher.follow(world.looks(187))
    found = watcher.at(187)
    assert found.exhaustion_seconds == pytest.approx((usable - 10) * 22.5)
    assert (found.exhaustion_seconds <= 1800) == (severity == "critical")
    assert found.severity == severity


def test_severity_does_not_flutter_around_half_an_hour(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(200))
    world.leak("web", every=lambda t: 8.0 if t < 200 else 16.0 if t < 1000 else 80.0, at=0.0)
    watcher.follow(world.looks(4000, 2.0))
    said = [(finding.exhaustion_seconds, finding.severity) for _, finding in watcher.said]
    severities = [severity for _, severity in said]
    assert severities[0] == "critical"
    assert severities[-1] == "warning"
    assert any(1800 < seconds <= 3600 and severity == "critical" for seconds, severity in said)
    assert severities == sorted(severities)  # critical first, then warning: no way back and forth


def test_leak_that_is_lit_when_the_clock_steps_back_ends_and_is_called_again(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(297))
    world.now += 3600
    world.leak("web", every=2.0, at=3600 + ONSET)
    watcher.follow(world.looks(130))
    assert watcher.incidents.signals
    before = make_world(slots=small(297))
    before.pool("web", least=10, fill_gap_seconds=0.01)
    before.leak("web", every=2.0, at=5)
    watcher.follow(before.looks(2))
    assert watcher.incidents.signals == ()
    watcher.follow(before.looks(60))
    assert len(watcher.raised("leak")) == 2
    assert watcher.now[0].since - start == pytest.approx(5, abs=3)


def test_leak_ends_once_its_sessions_are_given_back(world: Any, watcher: Any, start: float) -> None:
    world.pool("web@2.4.0", work=10, least=8)
    lost = world.leak("web@2.4.0", every=2.0, at=ONSET, until=130.0)
    world.call(140, lambda: [world.close(seat) for seat in lost])
    watcher.follow(world.looks(200))
    (raised,) = watcher.raised("leak")
    (cleared,) = watcher.cleared("leak")
    assert cleared.signal.id == raised.signal.id
    assert cleared.reason == "ended"
    assert cleared.t - start <= 140 + 15
    assert watcher.now == ()


def test_leak_ends_soon_although_the_pool_beside_it_sits_idle_and_recycles(world: Any, watcher: Any) -> None:
    world.pool("web", least=10, most=10, lifetime_seconds=300)
    lost = world.leak("web", every=10.0, at=400, until=1000)
    world.call(1000, lambda: [world.close(seat) for seat in lost])
    watcher.follow(world.looks(1100))
    assert len(watcher.raised("leak")) == 1
    assert watcher.cleared("leak"), watcher.sentences()


def test_half_of_the_lost_sessions_ended_by_hand_leaves_the_signal_lit(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(197))
    lost = world.leak("web", every=2.0, at=ONSET)
    world.call(140, lambda: [world.close(seat) for seat in lost[:20]])
    watcher.follow(world.looks(240))
    assert len(watcher.raised("leak")) == 1
    assert not watcher.cleared("leak"), watcher.sentences()
    assert 55 <= watcher.now[0].sessions <= 70


def test_leak_that_goes_on_after_most_of_it_was_ended_by_hand_stays_lit(
    make_world: Any, look_on: Callable[..., Any]
) -> None:
    world = make_world(slots=small(197))
    lost = world.leak("web", every=30.0, at=ONSET)
    world.call(1260, lambda: [world.close(seat) for seat in lost[:35]])
    (watcher,) = look_on(world, 2400, interval=3.0)
    assert len(watcher.raised("leak")) == 1
    assert not watcher.cleared("leak"), watcher.sentences()


def test_pool_that_shrinks_at_night_does_not_end_a_leak_that_is_lit(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(297))
    world.pool("web", least=2, most=60, work=lambda t: 60 if t < 500 else 3, seconds=0.5, idle_seconds=120)
    world.leak("web", every=20.0, at=ONSET)
    watcher.follow(world.looks(1200))
    assert len(watcher.raised("leak")) == 1
    assert not watcher.cleared("leak"), watcher.sentences()


def test_leak_that_stood_still_for_long_while_there_is_room_is_over(world: Any, watcher: Any, start: float) -> None:
    world.leak("web", every=2.0, at=ONSET, until=100)
    watcher.follow(world.looks(900))
    (cleared,) = watcher.cleared("leak")
    assert 600 <= cleared.t - start - 100 <= 640


@pytest.mark.parametrize(("every", "within"), [(2.0, 20.0), (10.0, 50.0)])
def test_leak_that_has_stopped_runs_out_of_nothing_soon_and_wakes_nobody_some_minutes_later(
    make_world: Any, watcher: Any, start: float, every: float, within: float
) -> None:
    world = make_world(slots=small(97))
    world.pool("web", least=10, most=10, work=5)
    lost = world.leak("web", every=every, at=ONSET, until=ONSET + 20 * every, jitter=0.5)
    watcher.follow(world.looks(ONSET + 20 * every + 300))
    stopped = lost[-1].start - start
    after = [(t - stopped, finding) for t, finding in watcher.said if t > stopped]
    before = [finding for t, finding in watcher.said if t <= stopped]
    assert before[-1].severity == "critical"
    assert all(finding.exhaustion_seconds < 1800 for finding in before)
    assert {finding.exhaustion_seconds for t, finding in after if t > within} == {math.inf}
    assert after[-1][1].summary == f"web leaks connections: {len(lost)} held; not growing now"
    severities = [finding.severity for _, finding in after]
    assert severities == sorted(severities)  # critical, then warning: no way back and forth
    turned = next(t for t, finding in after if finding.severity == "warning")
    assert PAUSE_SECONDS <= turned <= PAUSE_SECONDS + 15


def test_leak_that_pauses_for_a_minute_wakes_nobody_twice(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(197))
    world.pool("web", least=10, most=10, work=5)
    world.leak("web", every=2.0, at=ONSET, until=ONSET + 60)
    world.leak("web", every=2.0, at=ONSET + 130, until=ONSET + 170)
    watcher.follow(world.looks(ONSET + 170))
    said = [finding for _, finding in watcher.said]
    assert {finding.severity for finding in said[10:]} == {"critical"}
    assert math.inf in {finding.exhaustion_seconds for finding in said}
    assert math.isfinite(said[-1].exhaustion_seconds)


def test_signal_survives_half_a_minute_without_answers(world: Any, watcher: Any) -> None:
    world.leak("web", every=2.0, at=ONSET)
    lost_sight = PollFailure(reason="timeout", text="no answer within 2 s")
    world.failing.append((110.0, 140.0, lost_sight))
    watcher.follow(world.looks(109))
    before = watcher.incidents.signals[0].id
    watcher.follow(world.looks(31))
    during = [one.id for one in watcher.incidents.signals if one.finding.kind == "leak"]
    watcher.follow(world.looks(20))
    after = [one.id for one in watcher.incidents.signals if one.finding.kind == "leak"]
    assert during == after == [before]
    assert not watcher.cleared("leak")


def test_exhaustion_follows_the_role_limit_when_that_is_nearer(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(497))
    world.role_limits = {"app": 60, "other": 5}
    world.leak("web", every=2.0, at=ONSET, jitter=0)
    watcher.follow(world.looks(115))
    found = watcher.at(115)
    held = len(world.seats)
    assert found.exhaustion_seconds == pytest.approx((60 - held) / 0.5, abs=4)
    assert found.severity == "critical"


def test_exhaustion_follows_the_database_limit_when_that_is_nearer(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(497))
    world.database_limits = {"shop": 40}
    world.leak("web", every=2.0, at=ONSET, jitter=0)
    watcher.follow(world.looks(115))
    assert watcher.at(115).exhaustion_seconds == pytest.approx((40 - len(world.seats)) / 0.5, abs=4)


def test_without_known_slots_a_leak_is_a_warning_that_runs_out_of_nothing(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=None)
    world.leak("web", every=2.0, at=ONSET)
    watcher.follow(world.looks(110))
    found = watcher.at(110)
    assert found.exhaustion_seconds == math.inf
    assert found.severity == "warning"
    assert re.fullmatch(
        r"web leaks connections: \d+ held, \+0\.\d+/s; when the slots run out is not known", found.summary
    )


def test_since_stays_while_the_leak_lasts(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(497))
    world.pool("web", work=10, least=8)
    world.leak("web", every=lambda t: 2.0 if t < 200 else 40.0, at=ONSET)
    watcher.follow(world.looks(1500))
    assert len({finding.since for _, finding in watcher.said if finding.kind == "leak"}) == 1


# -- ends of the measure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sessions", "is_called"), [(7, False), (8, True), (9, True)])
def test_eight_lost_sessions_are_a_leak_and_seven_are_not(
    make_world: Any, watcher: Any, sessions: int, is_called: bool
) -> None:
    world = make_world(slots=small(197))
    # A session that the origin has already: the first one of an origin is its pool's.
    world.pool("web", least=1, most=1)
    world.leak("web", every=6.0, at=ONSET, until=ONSET + 6.0 * sessions - 1, jitter=0)
    watcher.follow(world.looks(300))
    assert bool(watcher.raised("leak")) == is_called


def test_fewer_than_eight_lost_beside_a_pool_that_recycles_are_no_leak(
    make_world: Any, look_on: Callable[..., Any]
) -> None:
    world = make_world(slots=small(197))
    world.pool("web", least=20, most=20, lifetime_seconds=600, fill_gap_seconds=30)
    world.leak("web", every=60, at=1500, until=1500 + 60 * 5)
    (watcher,) = look_on(world, 2400, starts=(1300.0,))
    assert not watcher.events, watcher.sentences()


def in_use(world: Any, until: float) -> Any:
    """A session that is used every six seconds and closed in the end."""
    seat = world.open("web")
    while world.elapsed < until:
        seat.use(world.now, 0.1)
        yield 6.0
    world.close(seat)


def test_train_that_stopped_long_ago_is_not_called_late(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(197))
    world.leak("web", every=5, at=ONSET, until=ONSET + 50)
    for n in range(8):
        world.run(in_use(world, 400), ONSET + 2 + 5.0 * n)
    watcher.follow(world.looks(600))
    assert not watcher.events, watcher.sentences()


@pytest.mark.parametrize(("used_every", "is_called"), [(6.0, False), (24.0, True)])
def test_three_of_four_sessions_must_never_have_been_used_again(
    make_world: Any, watcher: Any, used_every: float, is_called: bool
) -> None:
    world = make_world(slots=small(497))
    world.leak("web", every=6, at=ONSET)
    for n in range(int(600 / used_every)):
        world.run(in_use(world, 1000), ONSET + 2 + used_every * n + 1.3 * (n % 4))
    watcher.follow(world.looks(600))
    assert bool(watcher.raised("leak")) == is_called, watcher.sentences()


def test_what_a_pool_opened_while_all_it_had_were_at_work_does_not_hide_what_was_opened_beside_idle_ones(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(197))

    def busy(pod: str) -> Any:
        seat = world.open("web", client=pod)
        while True:
            seat.use(world.now, 0.9)
            yield 1.0

    for n in range(8):
        world.run(busy(PODS[n % 4]), ONSET - 40.0 + 20.0 * n)
    world.leak("web", every=15.0, at=ONSET + 1, clients=PODS[:4])
    watcher.follow(world.looks(400))
    assert first(watcher, start)[0] - ONSET <= 10 * 15 + 15


@pytest.mark.parametrize(
    ("first_use", "comes_back", "severities"),
    [(29.0, False, ["critical"]), (31.0, False, ["warning", "critical"]), (31.0, True, ["warning"])],
)
def test_sessions_whose_first_use_lasts_longer_than_half_a_minute_are_lost_too_and_wake_somebody_unless_one_came_back(
    make_world: Any, watcher: Any, first_use: float, comes_back: bool, severities: list[str]
) -> None:
    world = make_world(slots=small(297))

    def worker(again_after: float | None = None) -> Any:
        seat = world.open("web")
        while world.now < seat.start + first_use:
            seat.use(world.now, 0.5)
            yield 1.0
        if again_after is not None:
            yield again_after
            seat.use(world.now, 0.5)

    for n in range(60):
        world.run(worker(6.0 if comes_back and n == 3 else None), ONSET + 4.0 * n)
    watcher.follow(world.looks(300))
    assert len(watcher.raised("leak")) == 1, watcher.sentences()
    said = [finding.severity for _, finding in watcher.said if finding.kind == "leak"]
    assert list(dict.fromkeys(said)) == severities


def test_copy_that_is_fed_is_at_work(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=small(197))

    def load() -> Any:
        seat = world.open("loader", query="COPY orders FROM STDIN")
        seat.use(world.now, math.inf)
        while True:  # its client is slow, and between two parts of it the server waits
            seat.wait = ("Client", "ClientRead")
            seat.shown = ()
            yield world.chance.uniform(1, 12)
            seat.wait = None
            seat.shown = ()
            yield 1.0

    for n in range(30):
        world.run(load(), ONSET + 3.0 * n)
    watcher.follow(world.looks(400))
    assert not watcher.raised("leak"), watcher.sentences()


def test_copies_that_do_nothing_but_wait_for_their_clients_are_lost(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(197))
    world.pool("loader", least=1)
    world.leak("loader", every=3.0, at=ONSET, rest="ClientRead", query="COPY orders FROM STDIN")
    watcher.follow(world.looks(140))
    assert first(watcher, start)[0] - ONSET <= 10 * 3.0 + 15
    assert not watcher.cleared("leak"), watcher.sentences()


@pytest.mark.parametrize(("sessions", "every"), [(3, 12), (5, 15), (10, 30)])
def test_a_job_that_loses_some_sessions_at_each_run_is_called(
    make_world: Any, watcher: Any, sessions: int, every: float
) -> None:
    world = make_world(slots=Slots(max=600, superuser_reserved=3))
    world.pool("job@1", least=5, most=20, work=5)
    for run in range(40):
        for n in range(sessions):
            world.call(ONSET + every * run + 0.2 * n, lambda: world.open("job@1").use(world.now + 0.01, 0.02))
    watcher.follow(world.looks(ONSET + every * 40))
    assert [event.signal.finding.subject.application for event in watcher.raised("leak")] == ["job"]
    # It may be pools that start behind one address, so it wakes nobody while there is room.
    assert watcher.raised("leak")[0].signal.finding.severity == "warning"


@pytest.mark.parametrize("jitter", [0.0, 5.0])
def test_a_job_that_loses_sessions_at_each_of_its_runs_is_called_by_its_fifth(
    make_world: Any, watcher: Any, jitter: float
) -> None:
    world = make_world(slots=Slots(max=303, superuser_reserved=3))
    world.pool("web@1", least=4, most=8, work=5)
    for run in range(8):
        begin = 400 + 240.0 * run + jitter * (run % 3)
        for n in range(5):
            world.call(begin + 0.2 * n, lambda: world.open("sync@1").use(world.now, 0.1))
    watcher.follow(world.looks(1500))
    (raised,) = watcher.raised("leak")
    finding = raised.signal.finding
    assert (finding.subject.application, finding.severity) == ("sync", "warning")


def test_a_leak_in_a_role_with_a_limit_names_that_limit(world: Any, watcher: Any) -> None:
    world.role_limits = {"app": 30}
    world.leak("web@1", every=2.0, at=ONSET)
    watcher.follow(world.looks(ONSET + 45))
    found = watcher.raised("leak")[0].signal.finding
    assert found.subject.limit == "role:app"
    assert "the limit of role app is reached in" in found.summary


def test_fast_leak_whose_first_sessions_pass_for_a_fill_is_called_in_time(
    world: Any, watcher: Any, start: float
) -> None:
    world.leak("web@2.4.0", every=0.5, at=4.0, jitter=0)
    watcher.follow(world.looks(60))
    called, found = first(watcher, start)
    assert called - 4.0 <= 32
    assert found.since - start == pytest.approx(4, abs=3)


@pytest.mark.parametrize("sessions", [20, 28])
def test_large_pool_that_fills_at_the_pace_of_slow_logins_is_none(make_world: Any, watcher: Any, sessions: int) -> None:
    world = make_world(slots=small(497))
    world.pool("web", least=sessions, most=sessions, at=60.0, fill_gap_seconds=0.8)
    watcher.follow(world.looks(200))
    assert not watcher.raised("leak"), watcher.sentences()


def test_what_everybody_opened_while_all_had_to_wait_for_some_seconds_is_no_leak(
    row: Callable[..., Any], show: Callable[..., Any], watcher: Any
) -> None:
    opened = [*(100.0 + 9.0 * n for n in range(4)), *(132.0 + 0.2 * n for n in range(20))]

    def scene(t: float) -> Iterator[Any]:
        yield from (row(50 + n, at=t // 2 * 2, opened=-900.0 + n, application_name="api@1") for n in range(6))
        for n, at in enumerate(opened):
            if at <= t < 400:
                yield row(200 + n, at=at + 1.5, opened=at, application_name="api@1")

    show(watcher, scene, 300)
    assert not watcher.raised("leak"), watcher.sentences()


def test_job_that_opened_all_it_wanted_within_half_a_minute_and_holds_it_for_as_long_is_no_leak(
    row: Callable[..., Any], show: Callable[..., Any], watcher: Any
) -> None:
    opened = [100.0 + 0.75 * n for n in range(35)]

    def scene(t: float) -> Iterator[Any]:
        yield from (row(50 + n, at=t // 2 * 2, opened=-900.0 + n) for n in range(6))
        for n, at in enumerate(opened):
            used = 1.5 if n < 12 else 9.0
            if at <= t < at + 40:
                state = "active" if t < at + used else "idle"
                yield row(200 + n, state, at=at + (used if t >= at + used else 0), opened=at, application_name="job@1")

    show(watcher, scene, 250)
    assert not watcher.raised("leak"), watcher.sentences()


# -- whose sessions are ended and that is not undone -------------------------------------------------------------------


def lost_until_full(row: Callable[..., Any], t: float, *, version: str, ended: tuple[float, ...]) -> Iterator[Any]:
    """A leak of one each second until 97 are held; all are ended at instants, and as many are taken that moment."""
    name = f"web@{version}"
    for begin in sorted(ended, reverse=True):
        if t >= begin:
            pids = range(int(begin) * 10, int(begin) * 10 + 97)
            yield from (row(pid, at=begin + 0.2, opened=begin + 0.1, application_name=name) for pid in pids)
            return
    lost = [n for n in range(97) if 60.0 + n <= t]
    yield from (row(200 + n, at=60.1 + n, opened=60.0 + n, application_name="web@2.4.0") for n in lost)


def test_leak_whose_sessions_were_ended_and_taken_again_at_once_goes_on_with_who_it_is(
    row: Callable[..., Any], show: Callable[..., Any], watcher: Any
) -> None:
    show(watcher, lambda t: lost_until_full(row, t, version="2.4.0", ended=(220.0, 260.0)), 320)
    (raised,) = watcher.raised("leak")
    assert not watcher.cleared("leak")
    assert not watcher.raised("saturation")
    finding = watcher.at(320)
    assert (finding.subject.application, finding.subject.version) == ("web", "2.4.0")
    assert finding.since == raised.signal.finding.since
    assert "97 held again; no slot is left" in finding.summary


def test_leak_that_was_rolled_back_is_over_though_the_old_version_takes_every_slot(
    row: Callable[..., Any], show: Callable[..., Any], watcher: Any
) -> None:
    show(watcher, lambda t: lost_until_full(row, t, version="2.3.9", ended=(220.0,)), 320)
    assert watcher.cleared("leak")


def test_leak_that_goes_on_after_its_sessions_were_ended_is_one_and_as_severe_all_the_while(
    make_world: Any, watcher: Any
) -> None:
    world = make_world(slots=small(97))
    world.pool("web@2.4.0", work=10, least=8)
    lost = world.leak("web@2.4.0", every=2.0, at=ONSET)
    world.call(140, lambda: [world.close(seat) for seat in lost])
    watcher.follow(world.looks(142))
    assert "its sessions were ended; " in watcher.now[0].summary
    watcher.follow(world.looks(200 - 142))
    (raised,) = watcher.raised("leak")
    assert not watcher.cleared("leak"), watcher.sentences()
    assert {one.signal.finding.severity for one in watcher.events if one.t > raised.t} == {"critical"}
    assert watcher.now[0].since == raised.signal.finding.since
    assert 20 <= watcher.now[0].sessions <= 30


@pytest.mark.parametrize("every", [0.5, 2.0, 30.0])
def test_leak_whose_sessions_were_ended_is_over_soon_where_nothing_follows(
    make_world: Any, watcher: Any, every: float
) -> None:
    world = make_world(slots=small(197))
    world.pool("web@2.4.0", work=10, least=8)
    ended = ONSET + max(40 * every, 50.0)
    lost = world.leak("web@2.4.0", every=every, at=ONSET, until=ended)
    world.call(ended, lambda: [world.close(seat) for seat in lost])
    watcher.follow(world.looks(ended + 20))
    assert watcher.cleared("leak"), watcher.sentences()
    (cleared,) = watcher.cleared("leak")
    assert not watcher.now
    assert cleared.reason == "ended"
