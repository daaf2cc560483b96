from dataclasses import replace
from typing import Any

import pytest

from batsignal.config import Thresholds
from batsignal.detect import lost
from batsignal.detect.tracks import Closing, Group, Origin, OriginKey, Track
from batsignal.snapshot import Session

LIMITS = Thresholds()


class Pool:
    """One origin whose sessions are put where a case needs them; times are seconds."""

    def __init__(self, filling_since: float = 0.0) -> None:
        key = OriginKey("web", None, "app", "shop", None)
        self.origin = Origin(key, Group(key.group), filling_since=filling_since)
        self.pid = 0

    def session(self, opened: float, *, rested: float | None = None, rest: float = 0.0, state: str = "idle") -> Track:
        """A session at rest since `rested` (else since just after its opening), back from a `rest` at most."""
        self.pid += 1
        since = opened + 0.1 if rested is None else rested
        session = Session(pid=self.pid, backend_start=opened, state=state, state_change=since)
        resting_since = since if state == "idle" else None
        track = Track(session, self.origin, opened, resting_since=resting_since, longest_rest_seconds=rest)
        track.lost_at = opened
        self.origin.tracks[session.key] = track
        return track

    def closed(self, t: float, opened: float, *, rested: float | None = None, rest: float = 0.0) -> None:
        self.origin.closings.append(Closing(t, opened, opened + 0.1 if rested is None else rested, rest))

    def sort_out(self, t: float) -> Any:
        return lost.sort_out(self.origin, t, LIMITS)


@pytest.fixture
def pool() -> Pool:
    return Pool()


# -- which sessions look lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("idle", "is_lost"), [(4.9, False), (5.0, True), (5.1, True)])
def test_session_is_lost_once_it_rests_for_five_seconds(pool: Pool, idle: float, is_lost: bool) -> None:
    track = pool.session(100, rested=101)
    assert pool.sort_out(101 + idle).lost == ((track,) if is_lost else ())


@pytest.mark.parametrize(("used_for", "is_lost"), [(29, True), (30, True), (31, False)])
def test_session_used_late_is_used_again(pool: Pool, used_for: float, is_lost: bool) -> None:
    track = pool.session(100, rested=100 + used_for)
    found = pool.sort_out(200)
    assert (found.lost, found.reused) == (((track,), ()) if is_lost else ((), (track,)))


@pytest.mark.parametrize(("idle", "is_lost"), [(19, False), (20, True)])
def test_session_that_came_back_from_a_rest_must_rest_twice_as_long(pool: Pool, idle: float, is_lost: bool) -> None:
    track = pool.session(100, rested=115, rest=10)
    found = pool.sort_out(115 + idle)
    assert (found.lost, found.reused) == (((track,), ()) if is_lost else ((), (track,)))


def test_session_at_work_is_used_again_once_it_is_old_enough_to_tell(pool: Pool) -> None:
    track = pool.session(100, state="active")
    assert pool.sort_out(104).reused == ()
    assert pool.sort_out(105).reused == (track,)


@pytest.mark.parametrize(
    ("came_back_from", "rested", "is_lent"), [(0, 14.9, False), (0, 15, True), (10, 29, False), (10, 30, True)]
)
def test_session_that_was_lent_for_long_is_lost_once_passed_over_for_thrice_as_long_as_any_that_came_back(
    pool: Pool, came_back_from: float, rested: float, is_lent: bool
) -> None:
    # It had lain at the bottom of its pool for longer, while no other was opened.
    pool.session(0, rested=198, rest=90).longest_passed_seconds = came_back_from
    track = pool.session(1, rested=100)
    pool.origin.newest_lent = 102
    found = pool.sort_out(100 + rested)
    assert (track in found.lent) == is_lent
    assert track not in found.lost


def test_session_that_no_other_was_opened_beside_is_in_its_pool(pool: Pool) -> None:
    pool.session(1, rested=100)
    pool.origin.newest_lent = 101
    assert pool.sort_out(10_000).lent == ()


def test_session_beside_which_others_are_opened_and_lost_is_in_its_pool(pool: Pool) -> None:
    pool.session(1, rested=100)
    pool.session(150)
    pool.origin.newest = 150
    assert pool.sort_out(10_000).lent == ()


@pytest.mark.parametrize("state", ["idle in transaction", "idle in transaction (aborted)"])
def test_session_that_was_lent_for_long_and_left_in_a_transaction_is_lost(pool: Pool, state: str) -> None:
    pool.session(0)
    track = pool.session(1, rested=100, rest=90)  # how long it lay in its pool says nothing
    track.session = replace(track.session, state=state)
    assert pool.sort_out(100 + lost.STUCK_REST_SECONDS - 1).lost == ()
    found = pool.sort_out(100 + lost.STUCK_REST_SECONDS)
    assert found.lost == (track,)
    assert track.lost_at == 100


def test_session_that_has_paused_in_its_transactions_before_must_pause_twice_as_long(pool: Pool) -> None:
    pool.session(0)
    track = pool.session(1, rested=100)
    track.session = replace(track.session, state="idle in transaction")
    track.longest_stuck_seconds = 20.0
    assert pool.sort_out(139).lost == ()
    assert pool.sort_out(140).lost == (track,)


def test_first_session_of_an_origin_is_its_fill(pool: Pool) -> None:
    first, second = pool.session(0), pool.session(4)
    found = pool.sort_out(60)
    assert (found.filling, found.lost) == ((first,), (second,))


def test_sessions_of_one_moment_are_the_fill_and_later_ones_are_not(pool: Pool) -> None:
    burst = [pool.session(n * 0.7) for n in range(5)]
    late = pool.session(6)
    after = [pool.session(11), pool.session(11.1)]
    found = pool.sort_out(60)
    assert found.filling == tuple(burst)
    assert found.lost == (late, *after)


def test_fill_that_is_used_is_in_none_of_the_three(pool: Pool) -> None:
    for n in range(5):
        pool.session(n * 0.1, state="active")
    found = pool.sort_out(60)
    assert (found.lost, found.filling, found.reused) == ((), (), ())


def test_telling_takes_the_first_use_and_the_rest_after_it(pool: Pool) -> None:
    assert lost.telling_seconds(pool.session(100, rested=103), LIMITS) == 8.0
    assert lost.telling_seconds(pool.session(100, rested=103, rest=10), LIMITS) == 23.0


# -- how many took nobody's place --------------------------------------------------------------------------------------


def test_sessions_that_only_came_are_all_lost_from_the_first_on(pool: Pool) -> None:
    train = [pool.session(100 + 10 * n) for n in range(5)]
    assert lost.unreplaced(train, 200, LIMITS) == (5, 0)


def test_sessions_that_took_the_place_of_others_are_not_lost(pool: Pool) -> None:
    train = [pool.session(100 + 10 * n) for n in range(5)]
    for n in range(5):
        pool.closed(100.5 + 10 * n, n)
    assert lost.unreplaced(train, 200, LIMITS)[0] == 0


def test_what_was_recycled_before_the_onset_is_no_part_of_it(pool: Pool) -> None:
    train = [pool.session(100 + 10 * n) for n in range(8)]
    for n in range(4):
        pool.closed(100.5 + 10 * n, n)
    assert lost.unreplaced(train, 200, LIMITS) == (4, 4)


def test_sessions_that_came_and_went_since_change_no_balance(pool: Pool) -> None:
    train = [pool.session(100 + 10 * n) for n in range(5)]
    for n in range(20):
        pool.closed(120 + n, 110 + n)
    assert lost.unreplaced(train, 200, LIMITS) == (5, 0)


def test_used_sessions_that_were_opened_make_up_for_those_that_were_closed(pool: Pool) -> None:
    train = [pool.session(100 + 10 * n) for n in range(5)]
    for n in range(5):
        pool.closed(100.5 + 10 * n, n)
        pool.session(101 + 10 * n, state="active")
    assert lost.unreplaced(train, 200, LIMITS) == (5, 0)


def test_closings_of_an_origin_that_lost_nothing_do_not_count(pool: Pool) -> None:
    train = [pool.session(100 + 10 * n) for n in range(5)]
    old_pod = Pool()
    for n in range(40):
        old_pod.closed(120, n)
    assert lost.unreplaced(train, 200, LIMITS) == (5, 0)


def test_nothing_lost_is_nothing_unreplaced() -> None:
    assert lost.unreplaced([], 200, LIMITS) == (0, 0)


def test_growth_is_what_came_less_what_went(pool: Pool) -> None:
    train = [pool.session(100 + 10 * n) for n in range(5)]
    pool.closed(125, 50)
    pool.closed(125, 112)
    assert lost.growth_since(100, train) == 4
    assert lost.growth_since(121, train) == 0


def test_reused_sessions_that_replaced_closed_ones_speak_against_no_leak(pool: Pool) -> None:
    reused = [pool.session(100 + n, state="active") for n in range(6)]
    for n in range(4):
        pool.closed(110 + n, n)
    assert lost.unreplaced_count(100, reused) == 2


def test_returned_are_those_that_had_looked_lost_and_were_there_before(pool: Pool) -> None:
    pool.closed(120, 50)
    pool.closed(121, 50, rested=118)  # used a moment ago
    pool.closed(122, 50, rest=60)  # used now and then
    pool.closed(123, 110)  # one of those lost since
    other = pool.session(130, state="idle")
    assert lost.returned_since(100, [other], LIMITS) == 1


def test_what_the_pods_of_the_version_before_close_took_nobodys_place(pool: Pool) -> None:
    old = Pool(filling_since=0.0)
    for n in range(4):
        old.closed(120 + 5 * n, 50)
    old.session(60, state="idle")
    assert lost.returned_since(100, [pool.session(101 + n, state="idle") for n in range(8)], LIMITS) == 0


def test_what_a_pool_opened_to_fill_itself_and_closes_as_needless_is_not_given_back() -> None:
    pool = Pool(filling_since=95.0)
    pool.session(96)
    for n in range(3):
        pool.closed(120 + n, 96 + n)
    assert lost.given_back(100, 2.0, [pool.origin], LIMITS) == 0
    pool.closed(130, 106)
    pool.closed(131, 50)  # of an earlier life of this origin
    assert lost.given_back(100, 2.0, [pool.origin], LIMITS) == 2
