"""Each rule of the modelled pools, one by one, and what must hold for all of them under any load."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batsignal.snapshot import Snapshot
from simulator.pool_kinds import hikari_pool, minimum_pool, psycopg_pool, queue_pool
from simulator.pools import Pool
from simulator.world import START, World

CONNECT_SECONDS = 0.005


def at(world: World, seconds: float, act: Callable[[], object]) -> None:
    world.call(seconds, act)


def run(world: World, seconds: float) -> list[Snapshot]:
    return list(world.looks(seconds))


def burst(pool: Pool, count: int, seconds: float) -> Callable[[], None]:
    def go() -> None:
        for _ in range(count):
            pool.request(seconds)

    return go


@pytest.fixture
def world() -> World:
    return World(seed=3)


# -- size --------------------------------------------------------------------------------------------------------------


def test_pool_opens_its_minimum_before_anybody_asks(world: World) -> None:
    pool = world.pool("web", least=6, most=10)
    run(world, 5)
    assert pool.size == 6


def test_pool_without_a_minimum_opens_nothing_until_it_is_asked(world: World) -> None:
    pool = world.pool("web", **queue_pool(size=5))
    run(world, 5)
    assert pool.size == 0
    pool.request(0.1)
    run(world, 1)
    assert pool.size == 1


def test_pool_never_holds_more_than_its_maximum(world: World) -> None:
    pool = world.pool("web", least=2, most=7)
    at(world, 2, burst(pool, 30, 5.0))
    run(world, 4)
    assert (pool.size, pool.waiting) == (7, 23)


def test_overflow_is_closed_when_it_comes_back_and_the_rest_is_kept(world: World) -> None:
    pool = world.pool("web", **queue_pool(size=5, overflow=10))
    at(world, 1, burst(pool, 12, 2.5))
    sizes = [len(look.sessions) for look in world.looks(6)]
    assert max(sizes) == 12
    assert sizes[-1] == 5


def test_overflow_is_closed_at_the_moment_it_comes_back_though_nobody_asks(world: World) -> None:
    pool = world.pool("web", **queue_pool(size=1, overflow=10))
    at(world, 1, burst(pool, 2, 2.0))
    at(world, 1, lambda: pool.request(3.0))
    assert [len(look.sessions) for look in world.looks(5)] == [0, 3, 3, 2, 1]


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "used"), [("lifo", 1), ("fifo", 5)])
def test_requests_one_after_the_other_use_one_session_or_all_in_turn(world: World, order: Any, used: int) -> None:
    pool = world.pool("web", least=5, most=5, order=order)
    for n in range(10):
        at(world, 2 + n, lambda: pool.request(0.1))
    run(world, 15)
    assert sum(seat.uses > 0 for seat in pool.seats) == used


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_who_waits_is_served_in_the_order_of_asking_as_sessions_come_back(world: World) -> None:
    pool = world.pool("web", least=1, most=1)
    for n in range(3):
        at(world, 2.0 + n / 10, lambda: pool.request(1.0))
    looks = run(world, 6)
    starts = sorted({look.sessions[0].query_start for look in looks if look.sessions[0].query_start})
    assert [round(one - START, 3) for one in starts] == [2.0, 3.0, 4.0]


def test_who_waits_for_too_long_gives_up_and_is_counted(world: World) -> None:
    pool = world.pool("web", least=1, most=1, wait_seconds=3.0)
    at(world, 2, burst(pool, 3, 10.0))
    run(world, 4)
    assert (pool.waiting, pool.timed_out) == (2, 0)
    run(world, 20)
    assert (pool.waiting, pool.timed_out, pool.seats[0].uses) == (0, 2, 1)


def test_pool_says_how_long_the_next_one_would_wait(world: World) -> None:
    pool = world.pool("web", least=1, most=2)
    run(world, 2)
    assert pool.seconds_until_lent() == 0.0
    pool.request(4.0)
    assert pool.seconds_until_lent() == pool.connect_seconds
    pool.request(9.0)
    assert pool.seconds_until_lent() == pytest.approx(4.0)
    pool.request(1.0)
    assert pool.seconds_until_lent() == pytest.approx(9.0, abs=0.01)


def test_pool_that_lost_all_its_sessions_lends_to_nobody(world: World) -> None:
    pool = world.pool("web", least=2, most=2, wait_seconds=5.0)
    at(world, 2, pool.lose)
    at(world, 3, pool.lose)
    at(world, 4, lambda: pool.request(0.1))
    looks = run(world, 60)
    assert pool.seconds_until_lent() == float("inf")
    assert (len(pool.lost), pool.timed_out) == (2, 1)
    assert [round(when - START) for when, _ in pool.lost] == [2, 3]
    assert {one.state for one in looks[-1].sessions} == {"idle"}


# -- growth ------------------------------------------------------------------------------------------------------------


def test_caller_that_finds_no_session_opens_one_itself(world: World) -> None:
    pool = world.pool("web", least=0, most=10, connect_seconds=0.5)
    at(world, 1, burst(pool, 4, 1.0))
    looks = run(world, 3)
    assert [round(one.query_start - START, 3) for one in looks[1].sessions if one.query_start] == [1.5] * 4


def test_worker_opens_one_after_the_other_while_somebody_waits(world: World) -> None:
    pool = world.pool("web", least=0, most=10, grows_by="worker", connect_seconds=0.5)
    at(world, 1, burst(pool, 3, 60.0))
    looks = run(world, 5)
    begun = sorted(one.backend_start - START for one in looks[-1].sessions)
    assert begun == pytest.approx([1.0, 1.5, 2.0])


def test_worker_stops_growing_once_nobody_waits(world: World) -> None:
    pool = world.pool("web", least=1, most=10, grows_by="worker", connect_seconds=0.5)
    at(world, 2, burst(pool, 5, 0.1))
    run(world, 20)
    assert pool.size == 2  # the second was under way when the first had served all


# -- lifetime ----------------------------------------------------------------------------------------------------------


def starts_of(looks: Iterator[Snapshot] | list[Snapshot]) -> set[float]:
    return {one.backend_start or 0.0 for look in looks for one in look.sessions}


def test_session_that_is_free_ends_at_its_lifetime_and_another_takes_its_place(world: World) -> None:
    pool = world.pool("web", **hikari_pool(least=4, most=4, lifetime_seconds=40))
    looks = run(world, 60)
    assert pool.size == 4
    assert len(starts_of(looks)) == 8
    ended = [start for start in starts_of(looks) if start < START + 5]
    gone = [min(look.t for look in looks if start not in starts_of([look])) for start in ended]
    assert all(39 <= at - START <= 42 for at in gone)


def test_session_that_is_lent_outlives_its_lifetime_until_it_comes_back(world: World) -> None:
    pool = world.pool("web", least=1, most=1, lifetime_seconds=10)
    at(world, 5, lambda: pool.request(20.0))
    looks = run(world, 40)
    first = min(starts_of(looks))
    assert max(look.t for look in looks if first in starts_of([look])) - START == pytest.approx(24.63)


def test_lifetime_that_is_checked_at_return_leaves_unused_sessions_alone(world: World) -> None:
    pool = world.pool("web", **psycopg_pool(least=3, most=3, lifetime_seconds=10))
    run(world, 60)
    before = [seat.pid for seat in pool.seats]
    assert len(before) == 3
    pool.request(0.1)
    run(world, 5)
    assert len(set(before) - {seat.pid for seat in pool.seats}) == 1
    assert pool.size == 3


def test_lifetime_that_is_checked_at_checkout_replaces_the_session_that_is_asked_for(world: World) -> None:
    pool = world.pool("web", **queue_pool(size=3, recycle_seconds=10))
    at(world, 1, burst(pool, 3, 0.1))
    run(world, 60)
    before = [seat.pid for seat in pool.seats]
    assert len(before) == 3
    pool.request(0.1)
    assert len(set(before) - {seat.pid for seat in pool.seats}) == 1
    assert pool.size == 3


@given(spread=st.floats(0, 0.9), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_lifetimes_are_spread_by_the_given_share_and_no_more(spread: float, seed: int) -> None:
    world = World(seed=seed)
    world.pool("web", least=8, most=8, lifetime_seconds=100, lifetime_spread=spread, fill_gap_seconds=0.0)
    looks = list(world.looks(110))
    first = {one.key for one in looks[0].sessions}
    for key in first:
        last = max(look.t for look in looks if any(one.key == key for one in look.sessions))
        assert 100 * (1 - spread) - 1.1 <= last - START <= 100.1


# -- idle time ---------------------------------------------------------------------------------------------------------


def test_housekeeping_ends_all_idle_sessions_beyond_the_minimum_in_one_round(world: World) -> None:
    pool = world.pool("web", **hikari_pool(least=2, most=20, idle_seconds=60), connect_seconds=0.01)
    at(world, 5, burst(pool, 12, 1.0))
    sizes = [len(look.sessions) for look in world.looks(200)]
    assert max(sizes) == 12
    assert sizes[-1] == 2
    assert set(sizes) <= {2, 12}


def test_each_session_ends_after_its_own_idle_time(world: World) -> None:
    pool = world.pool("web", **minimum_pool(least=2, most=20, idle_seconds=10))
    for n in range(5):
        at(world, 5, lambda n=n: pool.request(1.0 + 2 * n))
    sizes = [len(look.sessions) for look in world.looks(40)]
    ended = [n for n in range(1, len(sizes)) if sizes[n] < sizes[n - 1]]
    assert max(sizes) == 5
    assert ended == [16, 18, 20]  # free since 6, 8 and 10; at the minimum no other ends


def test_session_at_the_minimum_keeps_its_seat_until_it_was_used_again(world: World) -> None:
    pool = world.pool("web", **minimum_pool(least=1, most=5, idle_seconds=10))
    run(world, 30)
    at(world, 31, burst(pool, 2, 1.0))
    run(world, 5)
    assert pool.size == 2
    run(world, 60)
    assert pool.size == 1


def test_shrinking_pool_drops_one_in_an_idle_time_and_only_what_was_never_needed(world: World) -> None:
    pool = world.pool("web", **psycopg_pool(least=2, most=20, idle_seconds=10))
    at(world, 5, burst(pool, 6, 0.5))
    sizes = [len(look.sessions) for look in world.looks(70)]
    high = max(sizes)
    dropped = [n for n in range(1, len(sizes)) if sizes[n] < sizes[n - 1]]
    assert high > 4
    assert sizes[-1] == 2
    assert {later - sooner for sooner, later in itertools.pairwise(dropped)} == {10}
    assert all(sizes[n - 1] - sizes[n] == 1 for n in dropped)


# -- refusals and restarts ---------------------------------------------------------------------------------------------


def test_pool_that_the_server_refuses_fills_once_it_may() -> None:
    world = World(seed=1)
    others = [world.open("other") for _ in range(97)]
    pool = world.pool("web", least=3, most=3)
    at(world, 20, lambda: [world.close(seat) for seat in others[:10]])
    run(world, 19)
    assert pool.size == 0
    assert pool.refused >= 3
    run(world, 40)
    assert pool.size == 3


def test_caller_that_the_server_refuses_fails_and_does_not_wait() -> None:
    world = World(seed=1)
    for _ in range(97):
        world.open("other")
    pool = world.pool("web", least=0, most=3)
    at(world, 1, burst(pool, 4, 1.0))
    run(world, 5)
    assert (pool.refused, pool.waiting, pool.size) == (4, 0, 0)


def test_pool_that_would_be_refused_says_that_it_lends_to_nobody() -> None:
    world = World(seed=1)
    pool = world.pool("web", least=1, most=3)
    run(world, 2)
    for _ in range(96):
        world.open("other")
    assert pool.seconds_until_lent() == 0.0
    pool.request(5.0)
    assert pool.seconds_until_lent() == float("inf")


def test_worker_that_the_server_refuses_tries_again_ever_more_seldom() -> None:
    world = World(seed=1)
    others = [world.open("other") for _ in range(97)]
    pool = world.pool("web", least=0, most=3, grows_by="worker", wait_seconds=100.0)
    at(world, 1, burst(pool, 1, 1.0))
    run(world, 60)
    assert 4 <= pool.refused <= 7
    world.close(others[0])
    run(world, 80)
    assert pool.size == 1


def test_pool_forgets_what_the_server_ended_and_opens_anew(world: World) -> None:
    pool = world.pool("web", work=5, **minimum_pool(least=4, most=8))
    world.restart(10, 3)
    looks = run(world, 30)
    assert pool.size >= 4
    assert len(looks[-1].sessions) == pool.size
    assert all((one.backend_start or 0) > START + 10 for one in looks[-1].sessions)


@pytest.mark.parametrize("grows_by", ["caller", "worker"])
def test_pool_whose_sessions_were_all_lent_when_the_server_went_serves_again(world: World, grows_by: Any) -> None:
    pool = world.pool("web", least=2, most=2, grows_by=grows_by)
    at(world, 8, burst(pool, 4, 4.0))
    world.restart(10, 1)
    run(world, 30)
    assert (pool.size, pool.waiting, pool.served) == (2, 0, 4)


def test_session_that_was_lost_takes_its_place_in_the_pool_even_when_the_server_ended_it(world: World) -> None:
    pool = world.pool("web", least=2, most=2)
    at(world, 5, pool.lose)
    at(world, 5, pool.lose)
    world.restart(10, 1)
    at(world, 20, lambda: pool.request(0.1))
    run(world, 60)
    assert (pool.size, pool.seats, pool.timed_out) == (2, [], 1)


def test_pool_that_is_closed_while_it_opens_a_session_leaves_none_behind(world: World) -> None:
    pool = world.pool("web", least=0, most=5, grows_by="worker", connect_seconds=1.0)
    at(world, 2, burst(pool, 3, 5.0))
    at(world, 2, pool.close)
    at(world, 4, pool.close)
    looks = run(world, 20)
    assert (len(looks[-1].sessions), pool.size) == (0, 0)


def test_closed_pool_closes_every_session_and_serves_nobody(world: World) -> None:
    pool = world.pool("web", work=20, least=3, most=5)
    at(world, 10, pool.close)
    looks = run(world, 20)
    assert not looks[-1].sessions
    pool.request(1.0)
    run(world, 5)
    assert pool.size == 0


# -- what a session shows ----------------------------------------------------------------------------------------------


def test_client_that_thinks_leaves_its_session_idle_in_transaction(world: World) -> None:
    pool = world.pool("web", least=1, most=1)
    at(world, 2, lambda: pool.request(2.0, think_seconds=3.0))
    states = [look.sessions[0].state for look in world.looks(10)]
    assert states == ["idle"] * 2 + ["active"] + ["idle in transaction"] * 3 + ["active"] + ["idle"] * 3


# -- all of them -------------------------------------------------------------------------------------------------------

KINDS = st.sampled_from(
    [
        queue_pool(size=3, overflow=5, recycle_seconds=7),
        queue_pool(size=3, overflow=5, lifo=True),
        psycopg_pool(least=2, most=8, lifetime_seconds=9, idle_seconds=4),
        minimum_pool(least=2, most=8, idle_seconds=3),
        hikari_pool(least=2, most=8, lifetime_seconds=35, idle_seconds=10),
    ]
)


@given(facts=KINDS, seed=st.integers(0, 1000), rate=st.floats(0.2, 40), seconds=st.floats(0.01, 1.0))
@settings(max_examples=30)
def test_pool_under_any_load_keeps_to_its_limits_and_serves_all_who_do_not_give_up(
    facts: dict[str, Any], seed: int, rate: float, seconds: float
) -> None:
    world = World(seed=seed)
    pool = world.pool("web", **facts)
    asked = int(40 * rate)

    def ask() -> Iterator[float]:
        for _ in range(asked):
            yield world.chance.expovariate(rate)
            pool.request(world.chance.expovariate(1 / seconds), think_seconds=0.1 if world.chance.random() < 0.1 else 0)

    world.run(ask(), 1.0)
    for look in world.looks(200):
        assert len(look.sessions) <= facts["most"]
    assert pool.waiting == 0
    assert pool.served + pool.timed_out == asked
    assert not any(seat.closed for seat in pool.seats)
    assert {seat.pid for seat in pool.seats} == set(world.seats)
    assert facts["least"] <= pool.size <= max(facts["least"], facts.get("kept") or facts["most"])


@given(facts=KINDS, seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_same_seed_gives_the_same_looks(facts: dict[str, Any], seed: int) -> None:
    def play() -> list[Snapshot]:
        world = World(seed=seed)
        world.pool("web", work=8, seconds=0.2, **facts)
        return list(world.looks(30))

    assert play() == play()


def test_hours_of_full_pools_do_not_pile_up_what_is_to_be_done(world: World) -> None:
    """What waits for a return is woken once for each; else an hour would cost more than the one before it."""
    world.pool("web", work=40.0, seconds=0.2, **queue_pool(size=3, overflow=17))
    run(world, 600)
    assert len(world._due) < 40
