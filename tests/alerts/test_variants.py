"""The rules as a `PrometheusRule`, and as files for a ruler without `keep_firing_for`: made from the rules alone.

A live vmalert that pages from them stands in tests/integration/test_plain_pages.py.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import variants
import yaml

ALERTS = Path(__file__).parents[2] / "alerts"
CASE_FILES = sorted(Path(__file__).parent.glob("*.test.yml"))
VMALERT_FILES = sorted((ALERTS / "vmalert").glob("*"))
OPERATOR = ALERTS / "batsignal.prometheusrule.yaml"


def run(*command: str | Path) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_the_variants_that_ship_are_what_the_rules_make() -> None:
    made = dict(variants.variants())
    assert made.keys() == {OPERATOR, *VMALERT_FILES}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make rules`"


def test_the_operators_rules_are_the_rules_themselves(tmp_path: Path) -> None:
    shipped = yaml.safe_load(OPERATOR.read_text(encoding="utf-8"))
    assert (shipped["apiVersion"], shipped["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    groups = [group for rules in variants.sources().values() for group in rules["groups"]]
    assert shipped["spec"] == {"groups": groups}
    assert len({group["name"] for group in groups}) == len(groups)
    (tmp_path / "all.rules.yml").write_text(yaml.safe_dump(shipped["spec"]))
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", tmp_path / "all.rules.yml")


def test_vmalert_takes_the_files_that_are_made_for_it_and_not_the_others() -> None:
    run("vmalert", f"-rule={ALERTS}/vmalert/*.rules.yml", "-dryRun")
    refused = subprocess.run(
        ["vmalert", f"-rule={ALERTS}/leaks.rules.yml", "-dryRun"], capture_output=True, text=True, check=False
    )
    assert "unknown fields in rule: keep_firing_for" in refused.stderr + refused.stdout


def test_nothing_that_such_a_ruler_does_not_know_is_left_in_them() -> None:
    for path in VMALERT_FILES:
        text = path.read_text(encoding="utf-8")
        assert "keep_firing_for" not in text
        assert "toTime" not in text


@pytest.mark.parametrize("path", CASE_FILES, ids=lambda path: path.stem)
def test_every_case_of_the_rules_holds_for_them_too(path: Path, tmp_path: Path) -> None:
    cases: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    cases["rule_files"] = [str(ALERTS / "vmalert" / Path(name).name) for name in cases["rule_files"]]
    for test in cases["tests"]:
        # The one that a hold forbids: a full server that was no longer full half a minute ago.
        test["alert_rule_test"] = [
            case
            for case in test["alert_rule_test"]
            if (case["alertname"], case["eval_time"]) != ("BatSignalSlotsFull", "160s")
        ]
    (tmp_path / path.name).write_text(yaml.safe_dump(cases, sort_keys=False))
    run("promtool", "test", "rules", tmp_path / path.name)


def test_an_alert_outlives_its_signal_by_as_long_as_the_rules_say(tmp_path: Path) -> None:
    case = {
        "rule_files": [str(ALERTS / "vmalert" / "leaks.rules.yml")],
        "evaluation_interval": "5s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [
                    {
                        "series": 'batsignal_signal{kind="leak",server="db1",severity="critical",application="web"}',
                        "values": "1x4 stale",
                    }
                ],
                "promql_expr_test": [
                    {
                        "expr": 'count(ALERTS{alertname="BatSignalLeak",alertstate="firing"})',
                        "eval_time": at,
                        "exp_samples": samples,
                    }
                    for at, samples in (("20s", [{"value": 1}]), ("135s", [{"value": 1}]), ("150s", []))
                ],
            }
        ],
    }
    (tmp_path / "kept.test.yml").write_text(yaml.safe_dump(case))
    run("promtool", "test", "rules", tmp_path / "kept.test.yml")
