"""Pools that run empty for real, as somebody who rehearses them sees it: named, in time, and nothing else said."""

import json
import subprocess
import sys
from typing import Any

import pytest

DEADLINE_SECONDS = 150.0


def rehearse(name: str, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run `batsignal drill` to its end; return its exit code, what it told, and what it said besides."""
    ended = subprocess.run(
        [sys.executable, "-m", "batsignal", "drill", name, "--format", "json", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr


@pytest.mark.takes(seconds=45)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("pool-starvation", ("--calm-seconds", "8", "--rate", "1", "--size", "8", "--duration-seconds", "40")),
        ("pgbouncer-starvation", ("--calm-seconds", "3", "--rate", "2", "--size", "3", "--duration-seconds", "25")),
        ("endpoint-down", ("--calm-seconds", "3", "--duration-seconds", "25")),
    ],
)
def test_it_is_named_within_its_bound_and_nothing_else_is_said(name: str, arguments: tuple[str, ...]) -> None:
    code, told, said = rehearse(name, *arguments)
    assert code == 0, (told[-5:], said)
