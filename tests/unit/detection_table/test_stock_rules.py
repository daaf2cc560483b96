"""The stock rules' thresholds and the life of their alerts: just under, at, just over."""

from collections.abc import Iterable

import pytest

from batsignal.snapshot import PollFailure, Slots, Snapshot
from detection.stock_rules import INTERVAL_SECONDS, STOCK_RULES, Monitor, StockRule, StockRules, Way

START = 1_760_000_000.0
SLOTS = Slots(max=100, superuser_reserved=3)
BY_NAME = {rule.name: rule for rule in STOCK_RULES}
ONE_MINUTE = StockRule(name="one minute", ratio=0.8, for_seconds=60)
AVERAGE = StockRule(name="average", ratio=0.8, average_seconds=60)

Used = int | None


def look(t: float, used: Used) -> Snapshot:
    """One look with so many slots used; None: it failed."""
    if used is None:
        return Snapshot(server="db1", t=t, failure=PollFailure(reason="refused", text="nothing listens"), slots=SLOTS)
    return Snapshot(server="db1", t=t, own_sessions=used, slots=SLOTS)


def raised(rule: StockRule, counts: Iterable[Used], way: Way = "keeping") -> list[float]:
    """When the rule's alert began to fire, in seconds, if each scrape, one every 15 s, finds the next of `counts`."""
    monitor = Monitor(way, scrape_at=START, evaluate_at=START, rules=(rule,))
    for n, used in enumerate(counts):
        monitor.look(look(START + n * INTERVAL_SECONDS, used))
    return [at - START for at in monitor.alerts[0].raised_at]


@pytest.mark.parametrize(
    ("name", "used", "expected"),
    [
        ("awesome-prometheus-alerts", 80, False),
        ("awesome-prometheus-alerts", 81, True),
        ("mixin full", 96, False),
        ("mixin full", 97, True),
        ("mixin 80 %", 77, False),
        ("mixin 80 %", 78, True),
        ("pgmonitor warning", 75, False),
        ("pgmonitor warning", 76, True),
        ("pgmonitor critical", 90, False),
        ("pgmonitor critical", 91, True),
        ("CloudNativePG 80 %", 80, False),
        ("CloudNativePG 80 %", 81, True),
        ("CloudNativePG 95 %", 95, False),
        ("CloudNativePG 95 %", 96, True),
        ("PMM", 80, False),
        ("PMM", 81, True),
        ("pigsty", 70, False),
        ("pigsty", 71, True),
        ("qonto", 80, False),
        ("qonto", 81, True),
        ("Netdata warning", 80, False),
        ("Netdata warning", 81, True),
        ("Netdata critical", 90, False),
        ("Netdata critical", 91, True),
        ("Datadog", 90, False),
        ("Datadog", 91, True),
    ],
)
def test_threshold_of_each_rule_of_100_connections_with_3_reserved(name: str, used: int, expected: bool) -> None:
    assert BY_NAME[name].is_over(used, 100, 3) is expected


def test_every_rule_has_a_case() -> None:
    cases = test_threshold_of_each_rule_of_100_connections_with_3_reserved.pytestmark[0].args[1]
    assert {name for name, _, _ in cases} == set(BY_NAME)


@pytest.mark.parametrize(("count", "expected"), [(4, []), (5, [60.0]), (6, [60.0])])
def test_alert_fires_once_its_expression_has_held_for_so_long(count: int, expected: list[float]) -> None:
    assert raised(ONE_MINUTE, [90] * count + [10]) == expected


def test_alert_that_goes_on_fires_once_and_one_that_comes_back_fires_again() -> None:
    assert raised(ONE_MINUTE, [90] * 10 + [10] + [90] * 10) == [60.0, 225.0]


def test_one_scrape_below_the_threshold_starts_the_wait_over() -> None:
    assert raised(ONE_MINUTE, [90] * 4 + [80] + [90] * 5) == [135.0]


def test_one_failed_scrape_starts_the_wait_over_at_once() -> None:
    assert raised(ONE_MINUTE, [90] * 4 + [None] + [90] * 5) == [135.0]


def test_monitor_that_keeps_its_seat_sees_the_full_server() -> None:
    assert raised(ONE_MINUTE, [96] * 3 + [97] * 5, "keeping") == [60.0]


def test_monitor_that_loses_its_seat_is_blind_while_no_slot_is_left() -> None:
    assert raised(ONE_MINUTE, [96] * 3 + [97] * 50, "losing") == []


def test_monitor_that_loses_its_seat_still_scrapes_into_the_last_slot() -> None:
    assert raised(ONE_MINUTE, [96] * 5, "losing") == [60.0]


def test_alert_that_fires_ends_when_the_series_vanish_and_waits_anew_when_they_are_back() -> None:
    assert raised(ONE_MINUTE, [96] * 6 + [97] * 2 + [96] * 6, "losing") == [60.0, 180.0]


def test_rule_of_the_full_server_never_fires_for_who_loses_the_seat() -> None:
    assert raised(BY_NAME["mixin full"], [97] * 50, "losing") == []
    assert raised(BY_NAME["mixin full"], [97] * 50, "keeping") == [60.0]


def test_average_is_over_the_last_minute_alone() -> None:
    assert raised(AVERAGE, [60] * 20 + [90] * 8) == [20 * 15 + 30.0]  # 60, 90, 90, 90 of the last minute: 82.5


def test_average_over_a_gap_is_over_what_is_left_and_ends_with_it() -> None:
    monitor = Monitor("losing", scrape_at=START, evaluate_at=START, rules=(AVERAGE,))
    firing = []
    for n, used in enumerate([90] * 4 + [97] * 6):
        monitor.look(look(START + n * INTERVAL_SECONDS, used))
        firing.append(monitor.alerts[0].is_firing)
    assert firing == [True] * 7 + [False] * 3


def test_evaluation_between_two_scrapes_sees_the_older_one() -> None:
    rule = StockRule(name="at once", ratio=0.8)
    monitor = Monitor("keeping", scrape_at=START, evaluate_at=START + 10, rules=(rule,))
    for second in range(40):
        monitor.look(look(START + second, 90 if second >= 1 else 10))
    assert [at - START for at in monitor.alerts[0].raised_at] == [25.0]


def test_phase_comes_from_the_seed_and_stays_within_the_interval() -> None:
    def first_alert(seed: int) -> float:
        rules = StockRules(seed, START)
        for second in range(120):
            rules.look(look(START + second, 90))
        return rules.raised_at()["keeping"]["Netdata warning"][0] - START

    phases = [first_alert(seed) for seed in range(20)]
    assert phases == [first_alert(seed) for seed in range(20)]
    assert len(set(phases)) == 20
    assert all(0 <= phase <= 2 * INTERVAL_SECONDS for phase in phases)
