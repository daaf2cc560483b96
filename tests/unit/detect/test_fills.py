from typing import Any

import pytest

from batsignal.config import Thresholds
from batsignal.detect import fills
from batsignal.detect.tracks import Group, Origin, OriginKey, Track
from batsignal.snapshot import Session

LIMITS = Thresholds()


@pytest.fixture
def origin() -> Origin:
    key = OriginKey("web", "2", "app", "shop", "10.0.0.4")
    return Origin(key, Group(key.group))


def rests(origin: Origin, opened_at: float, *, passed: float = 0.0, **facts: Any) -> Track:
    """A session that was used at its opening and rests since then."""
    pid = len(origin.tracks) + 1
    session = Session(pid=pid, backend_start=opened_at, state="idle", state_change=opened_at)
    track = Track(session, origin, opened_at, resting_since=opened_at, longest_passed_seconds=passed, **facts)
    track.lost_at = opened_at
    origin.tracks[session.key] = track
    return track


@pytest.mark.parametrize(("filled", "told"), [(0, 0), (2, 2), (3, 0)])
def test_a_quarter_of_what_was_lost_may_have_been_of_the_fill(origin: Origin, filled: int, told: int) -> None:
    filling = [rests(origin, 10.0 + n) for n in range(filled)]
    lost = [rests(origin, 100.0 + 20 * n) for n in range(8)]
    assert len(fills.lost_of(filling, lost, LIMITS)) == told


def test_what_was_lost_of_the_fill_is_told_once_it_rests_thrice_as_long_as_any_that_was_passed_over_and_came_back(
    origin: Origin,
) -> None:
    filling = [rests(origin, 11.0), rests(origin, 10.0)]
    lost = [rests(origin, 100.0 + 20 * n) for n in range(8)]
    assert [at for _, at in fills.lost_of(filling, lost, LIMITS)] == [25.0, 26.0]
    rests(origin, 90.0, passed=20.0)
    assert [at for _, at in fills.lost_of(filling, lost, LIMITS)] == [70.0, 71.0]


def test_the_fill_of_another_pool_says_nothing_of_the_one_that_loses(origin: Origin) -> None:
    other = Origin(OriginKey("web", "2", "app", "shop", "10.0.0.5"), origin.group)
    lost = [rests(origin, 100.0 + 20 * n) for n in range(8)]
    assert not fills.lost_of([rests(other, 10.0)], lost, LIMITS)


def test_first_sessions_of_pods_belong_to_a_train_as_far_back_as_they_came_steadily(origin: Origin) -> None:
    lone = [rests(origin, at) for at in (20.0, 90.0, 94.0, 98.0, 103.0)]
    lost = [rests(origin, 100.0 + 4 * n) for n in range(4)]
    assert fills.firsts_since(lone, lost, 0.0) == 90.0
    assert fills.firsts_since(lone, lost, 93.0) == 94.0
    assert fills.firsts_since([], lost, 0.0) == 100.0
