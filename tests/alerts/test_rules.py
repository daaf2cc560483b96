"""The shipped rules, Alertmanager config and runbooks, by promtool and amtool and by their shape.

What fires when, with which labels and words, stands in the *.test.yml files beside this one; here promtool runs them,
and what no promtool case can see is checked: that each alert has its cases, texts and runbook, and that no rule names a
metric that does not exist.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from batsignal.cli import app

ALERTS = Path(__file__).parents[2] / "alerts"
GRAFANA = ALERTS.parent / "grafana" / "dashboards"
CASES = Path(__file__).parent
RULES_FILES = sorted(ALERTS.glob("*.rules.yml"))
CASE_FILES = sorted(CASES.glob("*.test.yml"))
# Of each dashboard that ships, by its uid, the variables that a link may set.
DASHBOARDS = {
    board["uid"]: {variable["name"] for variable in board["templating"]["list"]}
    for board in (json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json")))
}
RUNBOOKS = sorted((ALERTS / "runbooks").glob("*.md"))

SHIPPED = {
    "BatSignalLeak",
    "BatSignalPoolStarvation",
    "BatSignalStorm",
    "BatSignalQueryPileup",
    "BatSignalLockPileup",
    "BatSignalIdleInTransaction",
    "BatSignalSaturation",
    "BatSignalSlotsFull",
    "BatSignalEndpointDown",
    "BatSignalEndpointSlow",
    "BatSignalDatabaseUnreachable",
    "BatSignalBlind",
    "BatSignalDown",
    "BatSignalReloadFailed",
    "BatSignalWatchdog",
}
# They tell of the daemon at an address, not of a server.
ABOUT_DAEMONS = {"BatSignalDown", "BatSignalReloadFailed"}
ANNOTATIONS = {"summary", "description", "action", "runbook_url", "page_url", "dashboard_url"}
HEADINGS = ["Meaning", "Impact", "What this is not", "Diagnosis", "Mitigation"]
LABELS = {"severity", "server", "kind", "application", "user", "database", "query_id", "endpoint", "pool", "limit"}
METRICS = {
    "up",
    "batsignal_up",
    "batsignal_server_state",
    "batsignal_slots_full",
    "batsignal_privileged",
    "batsignal_view",
    "batsignal_config_last_reload_success_timestamp_seconds",
    "batsignal_config_last_reload_successful",
    "batsignal_connection_refusals_total",
    "batsignal_connection_slots_usable",
    "batsignal_connection_slots_used",
    "batsignal_connections",
    "batsignal_blocked_sessions",
    "batsignal_query_info",
    "batsignal_exhaustion_seconds",
    "batsignal_sessions_opened_total",
    "batsignal_signal",
    "batsignal_signals",
    "batsignal_signal_sessions",
    "batsignal_signal_since_timestamp_seconds",
    "batsignal_signal_healthy",
    "batsignal_signal_previous_info",
    "batsignal_endpoint_up",
    "batsignal_endpoint_duration_seconds_sum",
    "batsignal_endpoint_duration_seconds_count",
    "batsignal_pgbouncer_pool_wait_seconds",
    "batsignal_deploy_timestamp_seconds",
    "batsignal_last_tick_timestamp_seconds",
    "batsignal_web_config_last_reload_successful",
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


RULES: list[dict[str, Any]] = [
    rule for path in RULES_FILES for group in load(path)["groups"] for rule in group["rules"]
]
ALERT_CASES: list[dict[str, Any]] = [
    case for path in CASE_FILES for test in load(path)["tests"] for case in test["alert_rule_test"]
]


def identity(rule: dict[str, Any]) -> str:
    return f"{rule['alert']}-{rule.get('labels', {}).get('kind', 'signal')}"


every_rule = pytest.mark.parametrize("rule", RULES, ids=identity)


def run(*command: str | Path) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_shipped_alerts_are_those_of_this_release() -> None:
    assert {rule["alert"] for rule in RULES} == SHIPPED


def test_promtool_accepts_the_rules_without_complaint() -> None:
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES_FILES)


def test_promtool_accepts_the_prometheus_config() -> None:
    run("promtool", "check", "config", ALERTS / "prometheus.yml")


@pytest.mark.parametrize("path", CASE_FILES, ids=lambda path: path.stem)
def test_promtool_finds_every_case_as_written(path: Path) -> None:
    run("promtool", "test", "rules", path)


def test_every_rules_file_has_its_cases() -> None:
    assert [path.name.split(".")[0] for path in RULES_FILES] == [path.name.split(".")[0] for path in CASE_FILES]


def test_every_group_is_evaluated_every_five_seconds() -> None:
    assert {group["interval"] for path in RULES_FILES for group in load(path)["groups"]} == {"5s"}


@every_rule
def test_a_rule_has_every_annotation_and_its_links_lead_to_what_ships(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == ANNOTATIONS
    page = rule["annotations"]["page_url"]
    runbook = rule["annotations"]["runbook_url"].removeprefix(page)
    assert page == "http://localhost:9988/"
    assert (ALERTS / f"{runbook}.md").is_file()
    assert runbook == f"runbooks/{rule['alert']}"
    address = rule["annotations"]["dashboard_url"].partition("{{")[0].strip()
    uid = address.removeprefix("http://localhost:3000/d/")
    assert uid in DASHBOARDS
    if "var-server" in rule["annotations"]["dashboard_url"]:
        assert "server" in DASHBOARDS[uid]


@every_rule
def test_a_rule_takes_severity_and_kind_from_the_signal_or_sets_both(rule: dict[str, Any]) -> None:
    labels = rule.get("labels", {})
    if labels:
        assert set(labels) == {"severity", "kind"}
        assert labels["severity"] in {"critical", "warning", "none"}
    else:
        assert f"max by ({', '.join(sorted(LABELS))})" in _with_sorted_labels(rule["expr"])


def _with_sorted_labels(expression: str) -> str:
    return re.sub(r"by \(([^)]*)\)", lambda by: f"by ({', '.join(sorted(by[1].split(', ')))})", expression)


@every_rule
def test_no_label_is_a_template_and_no_text_uses_the_value_of_the_expression(rule: dict[str, Any]) -> None:
    assert not any("{{" in value for value in rule.get("labels", {}).values())
    assert not any("$value" in text or ".Value }}%" in text for text in rule["annotations"].values())


@every_rule
def test_names_enter_promql_only_quoted(rule: dict[str, Any]) -> None:
    for text in rule["annotations"].values():
        queries = re.findall(r"query \(printf `([^`]*)`", text)
        assert not [query for query in queries if re.search(r"[=~]\"?%[sv]", query)]


@every_rule
def test_a_rule_names_only_metrics_that_the_daemon_serves(rule: dict[str, Any]) -> None:
    queries = [rule["expr"], *re.findall(r"query (?:\(printf )?`([^`]*)`", " ".join(rule["annotations"].values()))]
    named = {name for query in queries for name in re.findall(r"\b(?:batsignal_\w+|up(?=\{))", query)}
    assert named <= METRICS
    assert named or rule["alert"] == "BatSignalWatchdog"


@every_rule
def test_a_rule_has_a_case_that_fires_with_all_its_texts(rule: dict[str, Any]) -> None:
    kind = rule.get("labels", {}).get("kind") or re.search(r'kind="(\w+)"', rule["expr"])[1]  # type: ignore[index]  # a signal's rule selects its kind
    fired = [
        alert
        for case in ALERT_CASES
        if case["alertname"] == rule["alert"]
        for alert in case["exp_alerts"]
        if alert["exp_labels"]["kind"] == kind and set(alert["exp_annotations"]) == ANNOTATIONS
    ]
    assert fired


@pytest.mark.parametrize("alert", sorted(SHIPPED - {"BatSignalWatchdog"}))
def test_an_alert_has_cases_that_stay_quiet(alert: str) -> None:
    quiet = [case for case in ALERT_CASES if case["alertname"] == alert and not case["exp_alerts"]]
    assert len(quiet) >= 2


def test_no_alert_carries_a_label_that_could_change_while_it_fires() -> None:
    for case in ALERT_CASES:
        allowed = LABELS | ({"instance"} if case["alertname"] in ABOUT_DAEMONS else set())
        assert all(set(alert["exp_labels"]) <= allowed for alert in case["exp_alerts"])


def test_causes_keep_firing_longer_than_what_they_silence() -> None:
    kept = {identity(rule): rule.get("keep_firing_for") for rule in RULES}
    assert kept["BatSignalLeak-signal"] == kept["BatSignalLockPileup-signal"] == "100s"
    assert kept["BatSignalQueryPileup-signal"] == "70s"
    assert kept["BatSignalIdleInTransaction-signal"] == "40s"
    assert kept["BatSignalSlotsFull-slots_full"] == kept["BatSignalDatabaseUnreachable-signal"] == "40s"
    assert kept["BatSignalEndpointDown-signal"] == kept["BatSignalSaturation-signal"] == "10s"


@every_rule
def test_the_rule_of_a_signal_goes_on_for_as_long_as_it_takes_to_tell_its_end(rule: dict[str, Any]) -> None:
    if "labels" not in rule:
        assert re.search(r"last_over_time\(batsignal_signal\{[^}]+\}\[20s\]\)", rule["expr"])


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS} == SHIPPED


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_has_its_headings_in_order(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_gives_sql_to_paste_and_undoes_the_change_before_it_ends_sessions(path: Path) -> None:
    text = path.read_text()
    assert "```sql" in text.split("## Diagnosis")[1].split("## Mitigation")[0]
    mitigation = text.split("## Mitigation")[1]
    assert "1. Undo" in mitigation
    for end in ("pg_terminate_backend", "pg_cancel_backend", "batsignal release", "ALTER ROLE"):
        assert end not in mitigation or mitigation.index("1. Undo") < mitigation.index(end)
    # Limits come last: a higher one only moves the end.
    if "ALTER ROLE" in mitigation and "batsignal release" in mitigation:
        assert mitigation.index("batsignal release") < mitigation.index("ALTER ROLE")


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_command_in_a_runbook_is_one(path: Path) -> None:
    text = re.sub(r"\n\s+", " ", path.read_text())
    spelled = {line.split("  #")[0] for line in re.findall(r"^ *(batsignal .*)$", path.read_text(), re.MULTILINE)}
    spelled |= {inline for inline in re.findall(r"`(batsignal [^`]+)`", text) if " -" in inline}
    for line in spelled:
        # What no command knows is refused before the help is told.
        told = CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"])
        assert told.exit_code == 0, f"{line}: {told.output}"


def test_amtool_accepts_the_alertmanager_config() -> None:
    run("amtool", "check-config", ALERTS / "alertmanager.yml")


@pytest.mark.parametrize(
    ("receiver", "labels"),
    [
        ("pager", "alertname=BatSignalLeak severity=critical kind=leak server=db1 application=web"),
        ("pager", "alertname=BatSignalSlotsFull severity=critical kind=slots_full server=db1"),
        ("pager", "alertname=BatSignalSaturation severity=critical kind=refused server=db1"),
        ("morning", "alertname=BatSignalReloadFailed severity=warning kind=reload instance=db1:9988"),
        ("morning", "alertname=BatSignalLeak severity=warning kind=leak server=db1 application=web"),
        ("pager", "alertname=BatSignalEndpointDown severity=critical kind=endpoint_down application=web"),
        ("pager", "alertname=BatSignalDown severity=critical kind=daemon"),
        ("morning", "alertname=BatSignalBlind severity=warning kind=blind server=db1"),
        ("deadman", "alertname=BatSignalWatchdog severity=none kind=watchdog"),
        ("deadman", "alertname=BatSignalWatchdog severity=critical"),
        ("morning", "alertname=SomethingElse"),
    ],
)
def test_an_alert_is_routed_to(receiver: str, labels: str) -> None:
    config = f"--config.file={ALERTS / 'alertmanager.yml'}"
    run("amtool", "config", "routes", "test", config, f"--verify.receivers={receiver}", *labels.split())


@pytest.mark.parametrize("way", ["pagerduty", "slack", "email", "webhook"])
def test_another_receiver_takes_the_pages_by_its_name_in_the_routes(way: str, tmp_path: Path) -> None:
    config = tmp_path / "alertmanager.yml"
    config.write_text(re.sub(r"receiver: pager$", f"receiver: {way}", load_text(), flags=re.MULTILINE))
    run("amtool", "check-config", config)
    for labels in ("kind=leak severity=critical server=db1 application=web", "kind=slots_full severity=critical"):
        run(
            *("amtool", "config", "routes", "test"),
            f"--config.file={config}",
            f"--verify.receivers={way}",
            *labels.split(),
        )


def load_text() -> str:
    return (ALERTS / "alertmanager.yml").read_text(encoding="utf-8")


def test_one_incident_is_one_group_whatever_its_severity_or_version() -> None:
    route = load(ALERTS / "alertmanager.yml")["route"]
    watchdog, *others = route["routes"]
    assert route["group_by"] == ["server", "application"]
    assert not any("group_by" in other for other in others)
    assert watchdog["receiver"] == "deadman"


def test_an_inhibition_asks_both_sides_for_the_labels_that_must_be_equal() -> None:
    for rule in load(ALERTS / "alertmanager.yml")["inhibit_rules"]:
        assert 'severity="critical"' in rule["source_matchers"]
        culprit = set(rule["equal"]) - {"user", "database", "query_id", "endpoint", "pool", "limit"}
        if 'severity="warning"' in rule["target_matchers"]:
            culprit -= {"application"}  # the same subject: a name that both lack is the same name
        for label in culprit:
            for side in ("source_matchers", "target_matchers"):
                assert [matcher for matcher in rule[side] if re.match(rf'{label}=(~"\.\+"|"\w+"|~"[\w|.+]+")', matcher)]
