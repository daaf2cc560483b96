"""How variations add up, and how the sums are spelled."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.signal import Subject
from batsignal.drills.catalogue import ROWS
from batsignal.drills.truth import Truth
from detection.score import Said, score
from detection.stock_rules import STOCK_RULES, WAYS
from detection.summary import Count, quantile, section_of, stock_sums, sum_of, summarise, summarise_all
from detection.table import sums, table
from detection.variation import Variation

Make = Callable[..., Any]
START = 1_760_000_000.0
NO_ALERTS = {way: {rule.name: () for rule in STOCK_RULES} for way in WAYS}


def variation(row: str, seed: int, truths: list[Truth], said: list[Said], **alerts: tuple[float, ...]) -> Variation:
    """A variation of half an hour; `alerts` are seconds by the first word of a stock rule's name, kept seat only."""
    raised = {
        rule.name: tuple(START + at for at in alerts.get(rule.name.split()[0].replace("-", "_"), ()))
        for rule in STOCK_RULES
    }
    scored = score(truths, said, may_warn=ROWS[row].most == "warning")
    return Variation(
        row=row,
        seed=seed,
        began=START,
        ended=START + 1800,
        said=tuple(said),
        truths=scored.truths,
        false_pages=scored.false_pages,
        stock=NO_ALERTS | {"keeping": raised},
    )


@pytest.fixture
def leaks(truth: Make, raised: Make) -> list[Variation]:
    """Three leaks: called in time, called late, missed; PMM alerts on all, once before the onset, pigsty on one."""
    leak = truth(exhaustion=300.0, deploy=("web", "2", 90.0))
    return [
        variation(
            "leak", 0, [leak], [raised("a", 130, exhaustion_seconds=170.0).said()], PMM=(290.0,), pigsty=(200.0,)
        ),
        variation("leak", 1, [leak], [raised("a", 200, exhaustion_seconds=20.0).said()], PMM=(310.0,)),
        variation("leak", 2, [leak], [raised("a", 130, kind="saturation").said()], PMM=(50.0, 320.0)),
    ]


def test_row_counts_what_was_told_and_what_was_said_in_vain(leaks: list[Variation]) -> None:
    row = summarise(ROWS["leak"], leaks)
    assert row.detected == Count(2, 3)
    assert row.within_bound == 1
    assert row.seconds == pytest.approx((30.0, 100.0))
    assert row.bound_seconds == 45.0
    assert row.exhausted_seconds == 200.0
    assert row.before_exhaustion == 2
    assert row.exhaustion_right == Count(1, 2)
    assert row.deploy_right == Count(0, 2)
    assert (row.false_criticals, row.false_warnings, row.allowed_warnings) == (1, 0, 0)
    assert row.false_kinds == {"saturation": 1}
    assert row.simulated_hours == pytest.approx(1.5)


def test_best_stock_rule_is_the_one_that_alerts_on_most(leaks: list[Variation]) -> None:
    row = summarise(ROWS["leak"], leaks)
    best = row.best_stock("keeping")
    assert best is not None
    assert (best.rule, best.detected, best.before_exhaustion) == ("PMM", Count(3, 3), 1)
    assert best.seconds == pytest.approx((190.0, 210.0, 220.0))
    assert row.best_stock("losing") is None


def test_alert_before_anything_is_wrong_is_false_and_counts_for_no_incident(leaks: list[Variation]) -> None:
    pmm = next(one for one in stock_sums(summarise_all(leaks)) if (one.rule, one.way) == ("PMM", "keeping"))
    assert (pmm.false_incidents, pmm.false_everyday, pmm.false_may_warn) == (1, 0, 0)


def test_any_alert_in_everyday_life_is_false_and_is_counted_by_the_day() -> None:
    rows = summarise_all([variation("cron-batch", 0, [], [], PMM=(10.0, 900.0)), variation("cron-batch", 1, [], [])])
    pmm = next(one for one in stock_sums(rows) if (one.rule, one.way) == ("PMM", "keeping"))
    assert pmm.false_everyday == 2
    assert pmm.false_everyday_a_day == pytest.approx(48.0)  # in one simulated hour
    assert rows[0].stock["keeping"][7].false_variations == 1


def test_warning_where_the_row_allows_it_stands_apart(raised: Make) -> None:
    warning = raised("a", 130, severity="warning").said()
    row = summarise(ROWS["server-restart"], [variation("server-restart", 0, [], [warning])])
    assert (row.false_criticals, row.false_warnings, row.allowed_warnings) == (0, 0, 1)
    assert sum_of("may warn", [row]).allowed_warnings == 1
    assert sum_of("everyday life", [row]).variations == 0


def test_variation_that_could_not_be_played_counts_as_an_error_and_nowhere_else(leaks: list[Variation]) -> None:
    broken = Variation(row="leak", seed=3, error="Traceback: no")
    row = summarise(ROWS["leak"], [*leaks, broken])
    assert (row.variations, row.errors, row.detected) == (3, 1, Count(2, 3))


def test_optional_truth_is_no_part_of_what_must_be_detected(truth: Make) -> None:
    symptom = truth(kind="endpoint_down", subject=Subject(endpoint="web"), optional=True)
    assert summarise(ROWS["leak"], [variation("leak", 0, [truth(), symptom], [])]).detected == Count(0, 1)


@pytest.mark.parametrize(
    ("row", "section"),
    [
        ("leak", "incidents"),
        ("cron-batch", "everyday life"),
        ("server-restart", "may warn"),
        ("staggered-batch", "may warn"),
    ],
)
def test_row_counts_in_its_section(row: str, section: str) -> None:
    assert section_of(ROWS[row]) == section


@pytest.mark.parametrize(("count", "expected"), [(1, 1.0), (9, 9.0), (10, 9.0), (11, 10.0), (20, 18.0)])
def test_p90_is_the_value_that_nine_of_ten_do_not_exceed(count: int, expected: float) -> None:
    assert quantile([float(n) for n in range(1, count + 1)], 0.9) == expected


def test_table_has_a_line_for_each_row_with_its_numbers(leaks: list[Variation]) -> None:
    rows = summarise_all([*leaks, variation("cron-batch", 0, [], [], PMM=(10.0,))])
    lines = table(rows).splitlines()
    cells = {line.split(" ")[0]: [cell.strip() for cell in line.split("|")] for line in lines}
    assert cells["leak"][:10] == ["leak", "3", "2/3", "2/3", "1/3", "65 s", "100 s", "45 s", "0/2", "1/2"]
    assert cells["leak"][-2:] == ["PMM 3/3 210 s, 1 in time", "none"]
    assert cells["cron-batch"][-2:] == ["PMM 1/1 false", "quiet"]
    assert "incidents" in sums(rows)


def test_json_of_a_variation_tells_who_said_what_when(leaks: list[Variation]) -> None:
    said = leaks[2].as_json()
    assert said["false_pages"][0]["kind"] == "saturation"
    assert said["said"][0]["states"][0]["seconds"] == 130.0
    assert said["truths"][0]["outcome"] == "missed"
    assert said["truths"][0]["stock"]["keeping"]["PMM"]["after_exhaustion_seconds"] == 20.0
    assert said["stock_false"]["keeping"] == {"PMM": 1}
    assert replace(leaks[0], error="no").as_json()["error"] == "no"
