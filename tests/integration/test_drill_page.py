"""`batsignal drill` on the embedded server with a daemon of its own: the page is timed against the truth."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

DEADLINE_SECONDS = 150.0


def drill(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "batsignal", "drill", *arguments, "--format", "json"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def told(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


@pytest.mark.takes(seconds=60)
def test_a_leak_is_named_in_time_and_its_recording_replays_to_the_same_page(tmp_path: Path) -> None:
    recording = tmp_path / "leak.jsonl.gz"
    code, events, errors = drill(
        "leak", "--rate", "1", "--calm-seconds", "3", "--duration-seconds", "46", "--record", str(recording)
    )
    assert (code, errors) == (0, "")
    [truth] = told(events, "truth")
    assert truth["kind"] == "leak"
    assert truth["subject"] == {"application": "web", "version": "2.4.0", "user": "web"}
    assert truth["bound_seconds"] == 45.0
    assert truth["rate_achieved"] == pytest.approx(1.0, rel=0.1)
    [deployed] = told(events, "deployed")
    assert truth["deploy"] == {"service": "web", "version": "2.4.0", "at": deployed["t"]}
    [verdict] = told(events, "verdict")
    assert (verdict["outcome"], verdict["finding"]) == ("named", False)
    [raised] = told(events, "raised")
    assert raised["deploy"]["version"] == "2.4.0"
    # What it says is left, from then on, against what the truth extrapolates.
    left = truth["exhaustion"] - raised["t"]
    assert left / 1.5 <= raised["exhaustion_seconds"] <= left * 1.5

    replayed = subprocess.run(
        [sys.executable, "-m", "batsignal", "replay", str(recording), "--format", "json"],
        capture_output=True,
        check=True,
    )
    said = [json.loads(line) for line in replayed.stdout.splitlines()]
    assert [(one["event"], one["signal"]["kind"]) for one in said][:1] == [("raised", "leak")]
    first = said[0]["signal"]
    assert (first["id"], first["subject"]["version"]) == (raised["id"], "2.4.0")
    assert first["detected"] == pytest.approx(raised["t"], abs=0.01)


@pytest.mark.takes(seconds=25)
def test_a_health_endpoint_that_fails_is_named_while_the_database_is_fine() -> None:
    code, events, errors = drill("endpoint_down", "--calm-seconds", "5", "--duration-seconds", "12")
    assert (code, errors) == (0, "")
    [raised] = told(events, "raised")
    assert raised["subject"] == {"application": "web", "endpoint": "web"}
    [verdict] = told(events, "verdict")
    assert verdict["outcome"] == "named"
    assert verdict["after_seconds"] <= verdict["bound_seconds"] == 30.0


@pytest.mark.takes(seconds=25)
def test_a_server_that_stays_away_is_named_and_the_drill_goes_on() -> None:
    code, events, errors = drill("database-unreachable", "--calm-seconds", "2", "--duration-seconds", "14")
    assert (code, errors) == (0, "")
    assert [event["kind"] for event in told(events, "raised")] == ["database_unreachable"]
    assert [event["kind"] for event in told(events, "cleared")] == ["database_unreachable"]
    assert {"used": None} in [{"used": event["used"]} for event in told(events, "slots")]
    [verdict] = told(events, "verdict")
    assert verdict["outcome"] == "named"


def test_what_an_act_says_because_it_was_stopped_is_not_told() -> None:
    code, events, _ = drill("staggered-batch", "--no-daemon", "--calm-seconds", "1", "--duration-seconds", "3")
    assert code == 0
    assert told(events, "ended")
    assert not told(events, "done")
    assert "every worker has started" not in [event["text"] for event in told(events, "note")]


def test_the_rate_belongs_to_the_incident_and_not_to_its_symptom() -> None:
    _, events, _ = drill(
        "lock_pileup_transaction", "--no-daemon", "--rate", "6", "--calm-seconds", "1", "--duration-seconds", "4"
    )
    truths = {truth["kind"]: truth for truth in told(events, "truth")}
    assert truths["lock_pileup"]["rate_asked"] == 6.0
    assert truths["lock_pileup"]["rate_achieved"] is not None
    assert truths["idle_in_transaction"]["optional"]
    assert truths["idle_in_transaction"]["rate_asked"] is None


def test_a_leak_that_has_lost_one_session_so_far_has_the_bound_and_the_exhaustion_of_its_pace() -> None:
    code, events, _ = drill("leak-crawl", "--no-daemon", "--calm-seconds", "0", "--duration-seconds", "2")
    [truth] = told(events, "truth")
    assert code == 0
    assert truth["bound_seconds"] == pytest.approx(9 * 240 + 15)
    assert truth["predicted"]
    assert truth["exhaustion"] - truth["onset"] > 240 * 50


def test_a_recording_that_the_disk_does_not_take_is_said_with_exit_code_3() -> None:
    code, events, errors = drill("leak", "--calm-seconds", "1", "--duration-seconds", "12", "--record", "/dev/full")
    assert code == 3
    assert "--record /dev/full: it is not whole" in errors
    assert told(events, "clean")[0]["left"] == []


def test_a_rate_the_machine_cannot_make_is_told_and_the_truth_uses_the_one_it_made() -> None:
    asked = 1_000_000.0
    code, events, errors = drill(
        *("leak", "--rate", str(asked), "--size", "60", "--no-daemon"),
        *("--calm-seconds", "0", "--duration-seconds", "6"),
    )
    assert (code, errors) == (0, "")
    [truth] = told(events, "truth")
    lost = [event["t"] for event in told(events, "lost")]
    assert len(lost) == 60
    assert truth["rate_asked"] == asked
    assert truth["rate_achieved"] == pytest.approx((len(lost) - 1) / (lost[-1] - lost[0]), rel=0.01)
    assert truth["rate_achieved"] < asked / 100


def test_slots_that_run_out_are_told_with_the_refusals_and_the_moment() -> None:
    code, events, errors = drill(
        *("leak", "--rate", "40", "--no-daemon", "--calm-seconds", "0", "--duration-seconds", "6")
    )
    assert (code, errors) == (0, "")
    [exhausted] = told(events, "exhausted")
    refused = told(events, "refused")
    assert refused[0]["count"] > 0
    assert "connection slots are reserved" in refused[0]["text"]
    [truth] = told(events, "truth")
    assert truth["exhaustion"] == pytest.approx(exhausted["t"], abs=0.01)
    # One that is about to be refused is seen for a moment, in a slot that is reserved.
    assert 97 <= max(event["used"] for event in told(events, "slots")) <= 100


def test_a_share_of_the_embedded_server_is_kept_to_too() -> None:
    code, events, _ = drill(
        *("leak", "--rate", "40", "--no-daemon", "--slots-share", "0.4"),
        *("--calm-seconds", "0", "--duration-seconds", "4"),
    )
    assert code == 0
    assert told(events, "calm")[0]["budget"] == 38
    assert max(event["used"] for event in told(events, "slots")) <= 38
    assert told(events, "exhausted") == []
    assert told(events, "truth")[0]["exhaustion"] is None
    assert any("share of the slots is taken" in event["text"] for event in told(events, "note"))


@pytest.mark.takes(seconds=25)
def test_the_demo_plays_any_row_and_keeps_the_page_up_until_it_is_told_to_end() -> None:
    command = [sys.executable, "-m", "batsignal", "demo", "--incident", "database_unreachable"]
    with subprocess.Popen(
        [*command, "--web.listen-address", "127.0.0.1:0"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        seen = b""
        for line in process.stdout:
            seen += line
            if b"SIGNAL LIT: database_unreachable" in line:
                break
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        seen += process.stdout.read()
        assert process.wait(DEADLINE_SECONDS) == 0
        assert time.monotonic() - started < 60
    text = seen.decode()
    assert "The page is at http://127.0.0.1:" in text
    assert "calm, for 15 s" in text
    assert "What really happened: database_unreachable" in text
    assert "Clean: everything that the drill made is gone." in text


def test_an_incident_that_the_demo_does_not_know_lists_the_known_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batsignal", "demo", "--incident", "earthquake"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"--incident: expected one of leak, leak-slow, " in done.stderr
    assert b"got 'earthquake'" in done.stderr
