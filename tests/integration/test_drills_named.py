"""Drills on the embedded server with a daemon of its own: pile-ups, queues and open transactions, named in time."""

import json
import subprocess
import sys
from typing import Any

import pytest

DEADLINE_SECONDS = 100.0
PACE = ("--calm-seconds", "9", "--duration-seconds", "19")


def drill(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "batsignal", "drill", *arguments, "--format", "json"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long  # `test_pages.py` plays the same rows, to the pager
@pytest.mark.takes(seconds=35)
@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("query-pileup", *PACE, "--rate", "3"), "query_pileup"),
        (("lock-pileup", *PACE, "--size", "12"), "lock_pileup"),
        (("idle-in-transaction", "--calm-seconds", "2", "--duration-seconds", "24"), "idle_in_transaction"),
    ],
)
def test_drill_is_named_in_time_with_its_culprit_and_nothing_else_lights(arguments: tuple[str, ...], kind: str) -> None:
    events = drill(*arguments)
    truths = {event["kind"]: event for event in events if event["event"] == "truth"}
    verdicts = [event for event in events if event["event"] == "verdict"]
    assert [(one["outcome"], one["kind"], one["finding"]) for one in verdicts] == [("named", kind, False)]
    raised = [event for event in events if event["event"] == "raised" and event["kind"] == kind]
    assert len(raised) == 1
    wanted = truths[kind]["subject"]
    assert {key: raised[0]["subject"][key] for key in wanted} == wanted
    if truths[kind].get("deploy"):
        assert raised[0]["deploy"]["version"] == truths[kind]["deploy"]["version"]
