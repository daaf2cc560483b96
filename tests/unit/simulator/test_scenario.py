"""The table of scenarios, and how one of them becomes a recording."""

import json
from pathlib import Path

import pytest

from batsignal.drills.catalogue import ROWS
from batsignal.record.recording import read
from simulator.scenario import BUILDERS, build, write


def test_every_row_has_a_builder() -> None:
    assert set(BUILDERS) == set(ROWS)


def test_an_unknown_row_is_told_with_those_that_there_are() -> None:
    with pytest.raises(KeyError, match=r"no builder for row 'leek'; expected one of .*leak-slow"):
        build("leek", 0)


def test_a_play_says_its_row_and_seed() -> None:
    play = build("leak", 3, quick=True)
    assert (play.row, play.seed) == ("leak", 3)


@pytest.mark.parametrize("name", ["endpoint-down.jsonl", "endpoint-down.jsonl.gz"])
def test_a_recording_shows_the_same_looks_and_has_its_truth_beside_it(tmp_path: Path, name: str) -> None:
    beside = write(build("endpoint-down", 1, quick=True), tmp_path / name)
    play = build("endpoint-down", 1, quick=True)
    looks = list(play.looks())
    header, ticks = read(tmp_path / name)
    recorded = list(ticks)
    assert header.server == looks[0].server
    assert [tick.t for tick in recorded] == [look.t for look in looks]
    assert [sorted(tick.sessions, key=lambda row: row.pid) for tick in recorded] == [
        sorted(look.sessions, key=lambda row: row.pid) for look in looks
    ]
    assert [len(tick.probes) for tick in recorded] == [len(look.probes) for look in looks]
    assert beside == tmp_path / f"{name}.truth.json"
    content = json.loads(beside.read_text())
    assert content == {
        "row": "endpoint-down",
        "seed": 1,
        "facts": json.loads(json.dumps(dict(play.facts))),
        "truths": [truth.as_json() for truth in play.truths_of()],
    }
