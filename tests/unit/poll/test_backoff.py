import pytest

from batsignal.poll.backoff import Backoff


def waits(backoff: Backoff, failures: int) -> list[float]:
    """Return how long it waits after each of so many failures in a row, to a tenth of a second."""
    found = []
    for n in range(failures):
        now = 1000.0 * n
        backoff.failed(now)
        found.append(next(step / 10 for step in range(1000) if backoff.may_try(now + step / 10)))
    return found


def test_first_try_needs_no_wait() -> None:
    assert Backoff().may_try(0.0)


def test_wait_doubles_up_to_the_cap() -> None:
    backoff = Backoff(first_seconds=0.5, cap_seconds=3.0, random=lambda: 0.5)
    assert waits(backoff, 6) == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(("random", "wait"), [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)])
def test_jitter_spreads_a_wait_by_its_ratio_to_both_sides(random: float, wait: float) -> None:
    backoff = Backoff(first_seconds=1.0, random=lambda: random)
    backoff.failed(0.0)
    assert not backoff.may_try(wait - 0.001)
    assert backoff.may_try(wait)


def test_success_makes_it_start_anew() -> None:
    backoff = Backoff(random=lambda: 0.5)
    waits(backoff, 5)
    backoff.succeeded()
    assert backoff.may_try(0.0)
    assert waits(backoff, 1) == [0.5]


def test_server_that_stays_away_for_weeks_is_still_tried() -> None:
    backoff = Backoff(random=lambda: 0.5)
    for _ in range(100_000):
        backoff.failed(0.0)
    assert backoff.may_try(3.0)


def test_longest_wait_of_the_defaults_lets_a_restarted_server_be_seen_within_five_seconds() -> None:
    assert max(waits(Backoff(random=lambda: 1.0), 10)) + 1 < 5
