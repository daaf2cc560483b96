import math
from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.signal import DeployRef, Finding, Subject
from batsignal.record.incidents import Incidents
from batsignal.record.news import LEFT_FACTOR, LEFT_SLACK_SECONDS, NUMBERS_SECONDS, is_news

T = 1_760_000_000.0
LEAK = Finding(
    kind="leak",
    key=("service", "web"),
    severity="critical",
    subject=Subject(application="web"),
    since=T - 30,
    sessions=8,
    exhaustion_seconds=400.0,
)


def news(seconds: float, *, told: Finding = LEAK, **change: Any) -> bool:
    """Whether a change is news so many seconds after the raise, when nothing was told since."""
    return is_news(told, T, replace(told, **change), T + seconds, raised_at=T)


@pytest.mark.parametrize(
    "change",
    [{"severity": "warning"}, {"since": T - 40}, {"deploy": DeployRef(service="web", version="2", at=T)}],
    ids=lambda change: next(iter(change)),
)
def test_that_it_wakes_somebody_since_when_and_after_which_deploy_is_news_at_once(change: dict[str, Any]) -> None:
    assert is_news(LEAK, T + 999, replace(LEAK, **change), T + 1000, raised_at=T)


@pytest.mark.parametrize(
    "change",
    [{"subject": Subject(application="web", version="2")}, {"database_healthy": False}],
    ids=["who", "healthy"],
)
def test_who_it_is_and_whether_the_database_is_well_is_told_within_a_tenth_of_its_life(change: dict[str, Any]) -> None:
    assert news(1, **change)
    now = replace(LEAK, **change)
    assert not is_news(LEAK, T + 901, now, T + 1000, raised_at=T)
    assert is_news(LEAK, T + 900, now, T + 1000, raised_at=T)


@pytest.mark.parametrize(("sessions", "expected"), [(9, False), (10, False), (11, True), (6, False), (5, True)])
def test_count_that_moved_by_more_than_a_quarter_is_news(sessions: int, expected: bool) -> None:
    assert news(NUMBERS_SECONDS, sessions=sessions, exhaustion_seconds=400 - NUMBERS_SECONDS) is expected


def test_numbers_are_not_told_every_second() -> None:
    assert not news(NUMBERS_SECONDS - 1, sessions=80, exhaustion_seconds=1.0)


def test_a_countdown_that_runs_as_it_was_told_to_is_no_news() -> None:
    assert not any(news(passed, exhaustion_seconds=400.0 - passed) for passed in range(1, 400))


@pytest.mark.parametrize("factor", [1 / LEFT_FACTOR, LEFT_FACTOR])
def test_time_left_is_news_once_it_is_far_from_what_was_told(factor: float) -> None:
    slack = LEFT_SLACK_SECONDS if factor > 1 else -LEFT_SLACK_SECONDS / LEFT_FACTOR
    edge = 390 * factor + slack
    further = math.copysign(1.0, factor - 1)
    assert not news(10, exhaustion_seconds=edge - further)
    assert news(10, exhaustion_seconds=edge + further)


@pytest.mark.parametrize(("told", "now"), [(400.0, math.inf), (math.inf, 400.0)])
def test_that_nothing_runs_out_any_more_or_something_does_is_told_within_a_tenth_of_its_life(
    told: float, now: float
) -> None:
    before, after = replace(LEAK, exhaustion_seconds=told), replace(LEAK, exhaustion_seconds=now)
    assert is_news(before, T, after, T + NUMBERS_SECONDS, raised_at=T)
    assert not is_news(before, T + 901, after, T + 1000, raised_at=T)
    assert is_news(before, T + 900, after, T + 1000, raised_at=T)


@pytest.mark.parametrize(("told", "now"), [(400.0, 0.0), (0.0, 40.0)])
def test_that_all_has_run_out_is_a_number_that_moved(told: float, now: float) -> None:
    assert news(NUMBERS_SECONDS, told=replace(LEAK, exhaustion_seconds=told), exhaustion_seconds=now)


def test_clock_that_stepped_back_holds_nothing_back() -> None:
    assert is_news(LEAK, T, replace(LEAK, sessions=20), T - 3600, raised_at=T)


def test_numbers_that_go_up_and_down_all_hour_are_told_some_dozens_of_times() -> None:
    incidents = Incidents("db1")
    events = [
        event
        for n in range(3600)
        for event in incidents.fold(
            T + n, [replace(LEAK, sessions=8 + 8 * (n % 2), exhaustion_seconds=math.inf if n % 7 else 60.0)], {}
        )
    ]
    assert events[0].event == "raised"
    assert 10 <= len(events) <= 50
