"""What a daemon needs does not grow with its age: a soak under load, and days of ticks in compressed time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"


def run(name: str, tmp_path: Path, *arguments: str) -> str:
    command = [sys.executable, str(BENCH / f"{name}.py"), "--json", str(tmp_path / "measured.json"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_soak_of_a_minute_grows_nothing_and_misses_no_tick(tmp_path: Path) -> None:
    said = run("soak", tmp_path, "--minutes", "1.2")
    assert "drills: lock-pileup-transaction" in said
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert len(measured["samples"]) > 10


def test_week_of_looks_grows_neither_memory_nor_the_store(tmp_path: Path) -> None:
    run("week", tmp_path, "--days", "7", "--interval-seconds", "120")
    days = json.loads((tmp_path / "measured.json").read_text())
    assert [day["day"] for day in days] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_week_of_a_look_every_five_seconds_grows_neither_memory_nor_the_store(tmp_path: Path) -> None:
    run("week", tmp_path, "--days", "7", "--interval-seconds", "5")
