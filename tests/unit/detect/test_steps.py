import random

import pytest

from batsignal.detect.steps import SILENCE_FACTOR, SILENCE_SLACK_SECONDS, Steps


def steps(*times: float, size: int = 1) -> Steps:
    return Steps(times, (size,) * len(times))


@pytest.mark.parametrize("one", [steps(), steps(5.0), steps(5.0, 5.0, 5.0)], ids=["none", "one", "all at once"])
def test_what_took_no_time_has_no_rate_and_does_not_go_on(one: Steps) -> None:
    assert not one.goes_on(5.0)
    assert one.rate(5.0) == one.slowed_rate(5.0) == 0.0


def test_the_first_step_is_where_it_began_and_counts_for_nothing() -> None:
    assert Steps((0.0, 10.0, 20.0), (50, 5, 5)).rate(20.0) == 0.5


def test_growth_has_ended_when_nothing_came_for_longer_than_its_rhythm_allows() -> None:
    every = steps(*range(0, 100, 10))
    last = 90 + SILENCE_FACTOR * 10 + SILENCE_SLACK_SECONDS
    assert every.goes_on(last)
    assert not every.goes_on(last + 0.001)
    assert every.rate(last) > 0 == every.rate(last + 0.001)


def test_sessions_that_come_several_at_a_time_rest_between_the_times() -> None:
    clumps = steps(*(begin + n * 0.2 for begin in (0.0, 60.0, 120.0) for n in range(12)))
    assert clumps.goes_on(120.0 + 2 * 60.0)


def test_one_long_silence_long_ago_does_not_hide_the_end() -> None:
    rested = steps(*range(0, 60, 2), *range(100, 160, 2))
    assert not rested.goes_on(158 + 15)


def test_gaps_that_chance_draws_seldom_pass_for_the_end() -> None:
    chance = random.Random(7)  # noqa: S311 - chance that is the same each time
    times = [0.0]
    while len(times) < 2000:
        times.append(times[-1] + chance.expovariate(1 / 10))
    ended = sum(not steps(*times[at - 30 : at]).goes_on(times[at]) for at in range(30, len(times)))
    assert ended <= 20


def test_the_rate_slows_down_with_a_silence_beyond_the_usual_gap_only() -> None:
    every = steps(0.0, 10.0, 20.0, 30.0)
    assert every.slowed_rate(30.0) == every.slowed_rate(40.0) == pytest.approx(0.1)
    assert every.slowed_rate(70.0) == pytest.approx(3 / 60)
