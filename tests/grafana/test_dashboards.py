"""The dashboards by their files: built from the source, valid, and by the rules of Grafana's dashboard-linter.

What they show during an incident stands in test_panels.py.
"""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from batsignal.config import Thresholds
from batsignal.detect.signal import KINDS
from boards import files, looks
from boards.board import Board
from boards.panels import Ask, Frame, lines
from dashboard_files import EVERY_QUERY, FILES, GRAFANA, Query, filled, load, metrics, panels

UIDS = ["batsignal-connections", "batsignal-fleet", "batsignal-itself", "batsignal-statements", "batsignal"]
ALERTS = GRAFANA.parent / "alerts"
# Of Grafana's Prometheus annotations; the SDK's schema has not got them.
MARK_FIELDS = {"titleFormat", "textFormat", "tagKeys", "useValueForTime"}
# The rule against fixed jobs; here the alert rule names the same one.
NAMES_THE_JOB = {"BatSignal itself / Daemons that do not answer / A"}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_query = pytest.mark.parametrize("query", EVERY_QUERY, ids=lambda query: query.where)


def every_panel() -> Any:
    shown = [(load(path), panel) for path in FILES for panel in panels(load(path))]
    return pytest.mark.parametrize(
        "panel", [panel for _, panel in shown], ids=[f"{board['title']} / {panel['title']}" for board, panel in shown]
    )


# -- built and valid ---------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_builder_writes() -> None:
    assert {path.name: path.read_text() for path in FILES} == dict(files.rendered()), "run `make dashboards`"


@every_file
def test_a_dashboard_survives_grafanas_own_schema_without_a_loss(path: Path) -> None:
    content = load(path)
    for mark in content["annotations"]["list"]:
        for name in MARK_FIELDS:
            del mark[name]
    assert lost(content, understood(content)) == []


def test_an_option_that_the_schema_does_not_know_is_seen() -> None:
    content = load(FILES[0])
    content["panels"][1]["options"]["colourMode"] = "background"
    content["annotations"]["list"] = []
    assert lost(content, understood(content)) == ["/panels/1/options/colourMode"]


def understood(content: dict[str, Any]) -> Any:
    """Return what Grafana's schema makes of a dashboard: it drops what it does not know."""
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(content), cls=JSONEncoder))


def lost(value: Any, again: Any, place: str = "") -> list[str]:
    """Return where something stood that is not there again, or is something else; defaults may have been added."""
    if isinstance(value, dict) and isinstance(again, dict):
        return [found for key, one in value.items() for found in lost(one, again.get(key), f"{place}/{key}")]
    if isinstance(value, list) and isinstance(again, list) and len(value) == len(again):
        pairs = enumerate(zip(value, again, strict=True))
        return [found for index, (one, other) in pairs for found in lost(one, other, f"{place}/{index}")]
    return [] if value == again else [place]


def test_uids_are_those_that_alerts_and_people_link_to() -> None:
    assert [load(path)["uid"] for path in FILES] == UIDS
    assert [path.stem for path in FILES] == UIDS


def test_every_dashboard_url_of_the_alerts_leads_to_a_page_of_ours() -> None:
    named = {
        rule["annotations"]["dashboard_url"]
        for file in ALERTS.glob("*.rules.yml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert named
    for url in named:
        uid = re.search(r"/d/([\w-]+)", url)
        assert uid is None or uid[1] in UIDS, url


# -- the grid ----------------------------------------------------------------------------------------------------------


@every_file
def test_no_panel_overlaps_another_or_leaves_the_screen(path: Path) -> None:
    cells = [panel["gridPos"] for panel in load(path)["panels"]]
    assert all(cell.get("x", 0) >= 0 and cell.get("x", 0) + cell["w"] <= 24 and cell["h"] > 0 for cell in cells)
    for one, other in combinations(cells, 2):
        apart_x = one.get("x", 0) + one["w"] <= other.get("x", 0) or other.get("x", 0) + other["w"] <= one.get("x", 0)
        apart_y = one.get("y", 0) + one["h"] <= other.get("y", 0) or other.get("y", 0) + other["h"] <= one.get("y", 0)
        assert apart_x or apart_y, (one, other)


@every_file
def test_every_line_of_panels_reaches_across_the_screen(path: Path) -> None:
    widths: dict[int, int] = {}
    for panel in load(path)["panels"]:
        widths[panel["gridPos"].get("y", 0)] = widths.get(panel["gridPos"].get("y", 0), 0) + panel["gridPos"]["w"]
    assert set(widths.values()) == {24}


def test_a_line_that_is_too_wide_is_refused() -> None:
    wide = lines(Frame(title="t", text="t", width=13, height=3), Ask(expr="up"), unit="s")
    with pytest.raises(ValueError, match="at most 24 columns in a line, got 26"):
        Board(uid="x", title="X", text="").add(wide, wide)


@every_file
def test_ids_are_unique(path: Path) -> None:
    ids = [panel["id"] for panel in load(path)["panels"]]
    assert len(set(ids)) == len(ids)


# -- the rules of Grafana's dashboard-linter ---------------------------------------------------------------------------


@every_file
def test_a_dashboard_has_a_data_source_to_choose_and_the_servers(path: Path) -> None:
    variables = {one["name"]: one for one in load(path)["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert variables["datasource"]["label"] == "Data source"
    server = variables["server"]
    assert (server["multi"], server["includeAll"], server["allValue"], server["refresh"]) == (True, True, ".+", 2)
    assert server["datasource"]["uid"] == "${datasource}"


@every_file
def test_a_dashboard_is_not_to_be_edited_in_place_and_links_to_the_others_and_to_the_status_page(path: Path) -> None:
    board = load(path)
    assert board["editable"] is False
    assert board["description"]
    links = board["links"]
    assert any(link["type"] == "dashboards" and link["tags"] == ["batsignal"] for link in links)
    assert any(link.get("url") == "${status_page}/" for link in links)
    assert any("/runbooks/" in link.get("url", "") for link in links)


@every_panel()
def test_a_panel_has_a_title_a_description_a_unit_and_the_chosen_data_source(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for one in (panel, *panel["targets"]):
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@every_panel()
def test_what_is_coloured_by_a_value_says_it_in_words_or_numbers(panel: dict[str, Any]) -> None:
    mappings = [
        *panel["fieldConfig"]["defaults"].get("mappings", []),
        *(
            mapping
            for override in panel["fieldConfig"]["overrides"]
            for one in override["properties"]
            if one["id"] == "mappings"
            for mapping in one["value"]
        ),
    ]
    for mapping in mappings:
        assert all(result["text"] for result in mapping["options"].values())


@every_panel()
def test_a_picture_asks_for_no_more_points_than_it_shows(panel: dict[str, Any]) -> None:
    if panel["type"] in {"timeseries", "state-timeline"}:
        assert 0 < panel["maxDataPoints"] <= 1000
        assert not any(target.get("instant") for target in panel["targets"])
    else:
        assert all(target.get("instant") for target in panel["targets"])


@every_query
def test_a_rate_is_taken_over_the_rate_interval_and_what_is_of_the_whole_time_over_the_range(query: Query) -> None:
    windows = set(re.findall(r"\[([^\]]*)\]", query.expr))
    assert windows <= ({"$__range"} if query.instant else {"$__rate_interval"})


@every_query
def test_a_counter_is_never_shown_as_it_is(query: Query) -> None:
    counters = re.findall(r"\b(\w+_total|\w+_bucket)\b", query.expr)
    rated = re.findall(r"(?:rate|increase)\((\w+_total|\w+_bucket)\b", query.expr)
    assert sorted(counters) == sorted(rated)


@every_query
def test_a_query_is_of_the_chosen_servers_or_of_what_has_no_server(query: Query) -> None:
    """Instead of the linter's job and instance: a server is one, whichever daemon or job tells of it."""
    ours = ("batsignal_store_", "batsignal_recorder_", "batsignal_config_", "batsignal_web_", "batsignal_build_info")
    without = (*ours, "batsignal_endpoint_", "batsignal_deploy_", "process_", "scrape_", "up")
    for name in metrics(query.expr):
        if name.startswith(without):
            continue
        selections = re.findall(rf"\b{name}\b(\{{[^}}]*\}})?", query.expr)
        assert all(re.search(r'server=~["`]\$server["`]', one) for one in selections), (name, query.expr)
    assert ('job="' in query.expr) == (query.where in NAMES_THE_JOB)


def test_promtool_parses_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"q:{number}", "expr": filled(query.expr)} for number, query in enumerate(EVERY_QUERY)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    ended = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# -- what rules judge by -----------------------------------------------------------------------------------------------


def test_thresholds_of_slots_are_those_of_the_rules() -> None:
    judged = Thresholds()
    expected = [judged.saturation_warning_ratio, judged.saturation_critical_ratio]
    found = 0
    for path in FILES:
        for panel in panels(load(path)):
            defaults = panel["fieldConfig"]["defaults"]
            marks = [step["value"] for step in defaults["thresholds"]["steps"] if step.get("value") is not None]
            if defaults["unit"] == "percentunit" and marks:
                assert marks == expected, panel["title"]
                found += 1
    assert found >= 4
    assert f"> {judged.saturation_critical_ratio}" in (ALERTS / "saturation.rules.yml").read_text()


def test_every_kind_has_its_advice() -> None:
    assert set(looks.TO_DO) == set(KINDS)


def test_every_runbook_that_a_table_links_to_exists() -> None:
    named = {name for query in EVERY_QUERY for name in re.findall(r'"runbook", "(\w+)"', query.expr)} | {
        "BatSignalBlind"
    }
    assert len(named) == 11
    assert {path.stem for path in (ALERTS / "runbooks").glob("*.md")} >= named


# -- provisioning ------------------------------------------------------------------------------------------------------


def test_provisioning_names_the_folder_and_sources_that_the_dashboards_need() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/batsignal.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert provider["allowUiUpdates"] is False
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/batsignal.yml").read_text())["datasources"]
    assert [(one["type"], one.get("isDefault", False)) for one in sources] == [
        ("prometheus", True),
        ("alertmanager", False),
    ]
