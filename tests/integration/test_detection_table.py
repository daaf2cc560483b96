"""The whole table, quick, as CI runs it: every row is played, and what has been reached is not lost again.

The numbers below are floors, not goals: what the detectors reached when they were set. A detector that gets better
raises them; a change that falls below one has broken something.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batsignal.drills.catalogue import ROWS
from detection.run import FORMAT, QUICK_VARIATIONS, VERSION
from detection.stock_rules import STOCK_RULES, WAYS

ROOT = Path(__file__).parents[2]
SECONDS_MOST = 420.0

# Rows of which every variation is detected, and those whose every detection is also within its bound.
DETECTED = (
    *("leak", "leak-slow", "leak-crawl", "leak-in-transaction", "leak-unnamed", "leak-many-pods", "leak-during-batch"),
    *("leak-client-read", "pool-starvation", "pgbouncer-starvation", "pileup-behind-storm", "endpoint-slow"),
    *("storm", "storm-refused", "storm-reconnect"),
    *("query-pileup", "query-pileup-old", "lock-pileup", "lock-pileup-transaction", "idle-in-transaction"),
    *("saturation", "saturation-role", "saturation-database", "endpoint-down", "database-unreachable"),
)
WITHIN_BOUND = tuple(row for row in DETECTED if row != "leak-many-pods")
# False pages in all of everyday life, where nothing may light.
FALSE_CRITICALS_MOST = 0
FALSE_WARNINGS_MOST = 0

pytestmark = [pytest.mark.timeout(500), pytest.mark.takes(seconds=12)]  # the one report that all of them read


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, float, str]:
    """The report of `make bench-detection BENCH_ARGS=--quick`, how long it took, and what it printed."""
    file = tmp_path_factory.mktemp("table") / "table.json"
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "bench" / "detection"), "--quick", "--output", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MOST)
    assert told.returncode == 0, told.stderr
    return json.loads(file.read_text()), time.monotonic() - began, told.stdout


@pytest.fixture(scope="module")
def report(played: tuple[Any, float, str]) -> Any:
    return played[0]


def test_every_row_is_there_with_its_variations_and_none_failed(report: Any) -> None:
    assert {row["row"]: row["variations"] for row in report["rows"]} == dict.fromkeys(ROWS, QUICK_VARIATIONS)
    assert [one["row"] for one in report["variations"] if one["error"] is not None] == []
    assert len(report["variations"]) == len(ROWS) * QUICK_VARIATIONS


def test_every_incident_has_truths_of_its_kinds_and_everyday_life_has_none_that_must_be_said(report: Any) -> None:
    for one in report["variations"]:
        required = [truth["kind"] for truth in one["truths"] if not truth["optional"]]
        assert sorted(set(required)) == sorted(ROWS[one["row"]].kinds), (one["row"], one["seed"])


def test_report_has_the_shape_that_readers_rely_on(report: Any) -> None:
    assert (report["format"], report["version"], report["quick"]) == (FORMAT, VERSION, True)
    assert len(report["sum"]["stock"]) == len(STOCK_RULES) * len(WAYS)
    assert set(report["sum"]["ours"]) >= {"incidents", "everyday life"}
    for one in report["variations"]:
        assert set(one) >= {"row", "seed", "facts", "truths", "false_pages", "said", "stock", "error"}
        assert one["simulated_hours"] > 0


def test_table_prints_a_line_for_each_row(played: tuple[Any, float, str]) -> None:
    first_words = {line.split(" ")[0] for line in played[2].splitlines() if line}
    assert set(ROWS) <= first_words


def test_quick_table_takes_minutes_even_beside_other_tests(played: tuple[Any, float, str]) -> None:
    assert played[1] < SECONDS_MOST


def test_what_was_detected_once_still_is(report: Any) -> None:
    rows = {row["row"]: row for row in report["rows"]}
    assert [row for row in DETECTED if rows[row]["detected"] < rows[row]["truths"]] == []
    assert [row for row in WITHIN_BOUND if rows[row]["within_bound"] < rows[row]["truths"]] == []


def test_every_deploy_behind_a_detected_leak_is_named(report: Any) -> None:
    named = report["sum"]["ours"]["incidents"]["deploy_right"]
    assert named["of"] > 0
    assert named["hits"] == named["of"]


def test_everyday_life_has_no_more_false_pages_than_before(report: Any) -> None:
    everyday = report["sum"]["ours"]["everyday life"]
    assert everyday["variations"] > 0
    assert everyday["false_criticals"] <= FALSE_CRITICALS_MOST
    assert everyday["false_warnings"] <= FALSE_WARNINGS_MOST


def test_nothing_is_raised_twice_for_one_incident(report: Any) -> None:
    assert [(row["row"], row["repeats"]) for row in report["rows"] if row["repeats"]] == []
