"""The stock rules of the table against the real thing: promtool evaluates the same series and must agree at each step.

The rules are those that postgres_exporter's mixin and pgmonitor's users evaluate, spelled here as PromQL; what the
table's model says of every evaluation becomes the expectation that promtool is held to.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from batsignal.snapshot import PollFailure, Slots, Snapshot
from detection.stock_rules import INTERVAL_SECONDS, STOCK_RULES, WAYS, Monitor, Way

START = 1_760_000_000.0
LIMIT, RESERVED = 100, 3
EXPRESSIONS = {
    "mixin full": "sum by (instance) (sessions) >= sum by (instance) (max) - sum by (instance) (reserved)",
    "mixin 80 %": "sum by (instance) (sessions) > (sum by (instance) (max) - sum by (instance) (reserved)) * 0.8",
    "pgmonitor warning": "sum by (instance) (sessions) / sum by (instance) (max) * 100 > 75",
    "pgmonitor critical": "sum by (instance) (sessions) / sum by (instance) (max) * 100 > 90",
}
RULES = {rule.name: rule for rule in STOCK_RULES if rule.name in EXPRESSIONS}

Used = int | None
SERIES: dict[str, list[Used]] = {
    "leak until full, then full": [18 + n * 8 for n in range(10)] + [97] * 50,
    "leak to just below full": [18 + n * 8 for n in range(10)] + [96] * 50,
    "at each threshold and one above": [75] * 6 + [76] * 6 + [77] * 50 + [78] * 50 + [90] * 6 + [91] * 6,
    "full, one dip, full": [95] * 4 + [97] * 4 + [70] + [97] * 8,
    "a scrape that fails now and then": [96, 96, 96, 96, None, 96, 96, 96, 96, 96, 96, None, 97, 97, 97, 97, 97, 97],
    "full, eased, full again": ([96] * 6 + [97] * 3) * 4,
}


@dataclass(frozen=True)
class Played:
    """What the model says: at each evaluation, which rules fire."""

    scraped: list[Used]
    firing: list[set[str]]


def play(counts: list[Used], way: Way) -> Played:
    monitor = Monitor(way, scrape_at=START, evaluate_at=START, rules=tuple(RULES.values()))
    firing = []
    for n, used in enumerate(counts):
        monitor.look(look(START + n * INTERVAL_SECONDS, used))
        firing.append({alert.rule.name for alert in monitor.alerts if alert.is_firing})
    lost = LIMIT - RESERVED if way == "losing" else LIMIT + 1
    return Played([None if used is None or used >= lost else used for used in counts], firing)


def look(t: float, used: Used) -> Snapshot:
    slots = Slots(max=LIMIT, superuser_reserved=RESERVED)
    if used is None:
        return Snapshot(server="db1", t=t, slots=slots, failure=PollFailure(reason="timeout", text="no answer"))
    return Snapshot(server="db1", t=t, slots=slots, own_sessions=used)


def run_promtool(folder: Path, played: Played) -> subprocess.CompletedProcess[str]:
    """Let promtool evaluate the same series; a scrape that failed makes every series stale."""
    rules = [
        {"alert": name, "expr": expression, "for": f"{RULES[name].for_seconds:.0f}s"}
        for name, expression in EXPRESSIONS.items()
    ]
    (folder / "stock.rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "stock", "rules": rules}]}))
    (folder / "stock.test.yml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["stock.rules.yml"],
                "evaluation_interval": "15s",
                "tests": [{"interval": "15s", "input_series": _series(played), "alert_rule_test": _expected(played)}],
            }
        )
    )
    command = ["promtool", "test", "rules", "stock.test.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=170)


def _series(played: Played) -> list[dict[str, str]]:
    def values(*, of: int | None) -> str:
        return " ".join("stale" if used is None else str(used if of is None else of) for used in played.scraped)

    return [
        {"series": 'sessions{instance="db1"}', "values": values(of=None)},
        {"series": 'max{instance="db1"}', "values": values(of=LIMIT)},
        {"series": 'reserved{instance="db1"}', "values": values(of=RESERVED)},
    ]


def _expected(played: Played) -> list[dict[str, Any]]:
    return [
        {
            "eval_time": f"{n * INTERVAL_SECONDS:.0f}s",
            "alertname": name,
            "exp_alerts": [{"exp_labels": {"instance": "db1"}}] if name in firing else [],
        }
        for n, firing in enumerate(played.firing)
        for name in EXPRESSIONS
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SERIES)
def test_promtool_fires_and_clears_at_the_same_evaluations(name: str, way: Way, tmp_path: Path) -> None:
    told = run_promtool(tmp_path, play(SERIES[name], way))
    assert told.returncode == 0, told.stdout + told.stderr


def test_series_between_them_make_every_rule_fire_and_stay_quiet() -> None:
    fired = [set[str]().union(*play(counts, way).firing) for counts in SERIES.values() for way in WAYS]
    assert set[str]().union(*fired) == set(RULES)
    assert any(not names for names in fired)


def test_losing_the_seat_changes_what_fires() -> None:
    leak = SERIES["leak until full, then full"]
    assert "mixin full" in play(leak, "keeping").firing[-1]
    assert play(leak, "losing").firing[-1] == set()


def test_promtool_does_not_agree_with_an_alert_one_evaluation_late(tmp_path: Path) -> None:
    played = play(SERIES["leak until full, then full"], "keeping")
    late = Played(played.scraped, [set(), *played.firing[:-1]])
    assert run_promtool(tmp_path, late).returncode != 0
