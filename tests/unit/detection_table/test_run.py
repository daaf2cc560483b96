"""The command: its arguments, what it writes, and that one broken scenario hides nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import simulator.scenario
from batsignal.cli.replay import events_of
from batsignal.drills.catalogue import ROWS
from detection.judged import events_of_looks
from detection.run import main
from detection.stock_rules import STOCK_RULES, WAYS
from simulator.scenario import Play, build, write

ROOT = Path(__file__).parents[3]
THREE = ("leak", "query-pileup", "cron-batch")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three rows, quick, by two processes: two incidents, one piece of everyday life."""
    file = tmp_path_factory.mktemp("table") / "table.json"
    picture = file.with_suffix(".png")
    assert main(["--quick", "--rows", ",".join(THREE), "--output", str(file), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    return json.loads(file.read_text())


def test_report_has_two_variations_of_each_row_in_the_catalogue_s_order(report: Any) -> None:
    played = [(one["row"], one["seed"]) for one in report["variations"]]
    assert played == [(row, seed) for row in ROWS if row in THREE for seed in (0, 1)]
    assert [row["row"] for row in report["rows"]] == [row for row in ROWS if row in THREE]
    assert {row["variations"] for row in report["rows"]} == {2}
    assert {row["errors"] for row in report["rows"]} == {0}


def test_report_says_what_was_true_and_what_was_said(report: Any) -> None:
    leak = next(one for one in report["variations"] if one["row"] == "leak")
    assert leak["truths"][0]["kind"] == "leak"
    assert leak["truths"][0]["subject"]
    assert leak["simulated_hours"] > 0
    assert next(one for one in report["variations"] if one["row"] == "cron-batch")["truths"] == []


def test_report_sums_every_stock_rule_both_ways(report: Any) -> None:
    pairs = {(one["rule"], one["way"]) for one in report["sum"]["stock"]}
    assert pairs == {(rule.name, way) for rule in STOCK_RULES for way in WAYS}


def test_same_seed_gives_the_same_report(report: Any, tmp_path: Path) -> None:
    file = tmp_path / "again.json"
    assert main(["--quick", "--rows", "cron-batch", "--jobs", "1", "--output", str(file)]) == 0
    again = [without_cost(one) for one in json.loads(file.read_text())["variations"]]
    assert again == [without_cost(one) for one in report["variations"] if one["row"] == "cron-batch"]


def without_cost(variation: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in variation.items() if key != "cost_seconds"}


def test_judge_in_memory_says_what_a_replay_of_the_recording_says(tmp_path: Path) -> None:
    file = tmp_path / "leak.jsonl.gz"
    write(build("leak", 3, quick=True), file)
    replayed = [event.as_json() for event in events_of(file)]
    in_memory = [
        json.loads(json.dumps(event.as_json())) for event in events_of_looks(build("leak", 3, quick=True).looks())
    ]
    assert replayed
    assert [without_id(one) for one in replayed] == [without_id(one) for one in in_memory]


def without_id(event: Any) -> Any:
    """An id is made of the exact instant, which a recording rounds."""
    return json.loads(json.dumps({key: value for key, value in event.items() if key != "id"}))


def test_scenario_that_breaks_is_told_and_the_others_are_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_some(row: str, seed: int, *, quick: bool = False) -> Play:
        if row == "pool-warm-up":
            raise ValueError("this scenario is broken")
        return build(row, seed, quick=quick)

    monkeypatch.setattr(simulator.scenario, "build", build_some)
    code = main(["--quick", "--variations", "1", "--rows", "pool-warm-up,cron-batch", "--jobs", "1"])
    told = capsys.readouterr()
    assert code == 1
    assert "could not be played: pool-warm-up 0" in told.err
    assert "ValueError: this scenario is broken" in told.err
    lines = {line.split(" ")[0]: line for line in told.out.splitlines() if line}
    assert "0 (1 FAILED)" in lines["pool-warm-up"]
    assert lines["cron-batch"].split("|")[1].strip() == "1"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_command_that_is_ended_in_the_middle_leaves_no_process(sent: signal.Signals, code: int) -> None:
    command = [sys.executable, str(ROOT / "bench" / "detection"), "--rows", "leak-crawl,analysts-idle"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, start_new_session=True, **pipes) as bench:
        me = psutil.Process(bench.pid)
        deadline = time.monotonic() + 60
        while sum(child.cpu_times().user > 0.5 for child in me.children()) < 2:
            assert bench.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = me.children()
        bench.send_signal(sent)
        assert bench.wait(timeout=30) == code
    _, left = psutil.wait_procs(children, timeout=30)
    assert left == []


def test_show_prints_what_was_true_and_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--show", "leak", "1", "--quick"]) == 0
    told = capsys.readouterr().out
    assert "true:" in told
    assert "to be said within" in told
    assert "raised" in told


def test_write_leaves_a_recording_and_its_truth(tmp_path: Path) -> None:
    file = tmp_path / "play.jsonl"
    assert main(["--write", "cron-batch", "0", str(file), "--quick"]) == 0
    assert json.loads(file.read_text().splitlines()[0])["format"] == "batsignal-recording"
    truth = json.loads(file.with_name("play.jsonl.truth.json").read_text())
    assert (truth["row"], truth["seed"], truth["truths"]) == ("cron-batch", 0, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "leek"], "no row is called 'leek'; did you mean leak"),
        (["--rows", "xyz"], "no row is called 'xyz'; rows are leak"),
        (["--rows", ","], "expected the name of one row at least"),
        (["--variations", "0"], "expected a whole number from 1 on, not '0'"),
        (["--jobs", "two"], "expected a whole number from 1 on, not 'two'"),
        (["--seed", "-1"], "a seed is a whole number from 0 on, not '-1'"),
        (["--show", "leak", "x"], "a seed is a whole number from 0 on, not 'x'"),
        (["--show", "nothing", "1"], "no row is called 'nothing'"),
        (["--output", "/no/such/folder/x.json"], "its folder must exist"),
        (["--write", "leak", "1", "/no/such/folder/x.json"], "its folder must exist"),
        (["--show", "leak", "1", "--write", "leak", "1", "x"], "not allowed with argument"),
    ],
)
def test_wrong_argument_ends_with_exit_2_and_says_what_was_expected(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
