"""The measures that real and simulated pools are compared by, on worlds whose every move is known."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batsignal.record.recording import RecordingWriter
from simulator.reality import measures
from simulator.reality.setups import PHASES, SETUPS, Phase, Setup, load_seconds, requests
from simulator.world import START, World


def looks_of(world: World, path: Path, seconds: float) -> list[measures.Look]:
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0)
    for snapshot in world.looks(seconds):
        writer.write(snapshot)
    writer.close()
    return measures.read(path, START, ["web"])["web"]


def test_sessions_opened_closed_and_used_again_are_counted_between_two_looks(tmp_path: Path) -> None:
    world = World()
    seats = [world.open("web") for _ in range(4)]
    world.call(2.0, lambda: seats[0].use(world.now, 0.1))
    world.call(3.0, lambda: [world.close(seat) for seat in seats[2:]])
    world.call(4.0, lambda: seats.extend(world.open("web") for _ in range(3)))
    looks = looks_of(world, tmp_path / "known.jsonl", 6)
    moved = [(round(one.at + 0.37), one.opened, one.closed, one.reused) for one in looks]
    assert moved == [(2, 0, 0, 0), (3, 0, 0, 1), (4, 0, 2, 0), (5, 3, 0, 0), (6, 0, 0, 0)]


def test_idle_age_is_the_time_since_a_session_came_to_rest_and_sessions_at_work_have_none(tmp_path: Path) -> None:
    world = World()
    world.open("web").use(START + 1.0, 0.5)
    world.open("web").use(START + 1.0, 60.0)
    world.open("other").use(START + 1.0, 0.5)
    last = looks_of(world, tmp_path / "known.jsonl", 10)[-1]
    assert last.idle_ages == pytest.approx((8.13,), abs=0.001)
    assert last.sessions == 2


def test_phases_are_measured_apart_and_the_warm_up_not_at_all(tmp_path: Path) -> None:
    world = World()
    # Windows are of 9 s: three sessions in each of the busy ones, one in each of the quiet ones.
    for at in (*(n / 10 for n in range(20)), *(4.1 + 3 * n for n in range(6)), *(25.1 + 9 * n for n in range(4))):
        world.call(at, lambda: world.open("web"))
    phases = (
        Phase(name="warm-up", seconds=3.0, requests_per_second=1.0),
        Phase(name="busy", seconds=18.0, requests_per_second=1.0),
        Phase(name="quiet", seconds=36.0, requests_per_second=1.0),
    )
    found = measures.by_phase(looks_of(world, tmp_path / "known.jsonl", 57), phases)
    assert set(found) == {"busy", "quiet"}
    assert found["busy"]["opened_per_second"] == pytest.approx(3 / 9)
    assert found["quiet"]["opened_per_second"] == pytest.approx(1 / 9)


@given(begin=st.floats(0, 50), length=st.floats(0, 60), window=st.floats(1, 20))
def test_windows_are_whole_and_lie_inside_their_phase(begin: float, length: float, window: float) -> None:
    looks = [
        measures.Look(at=n / 2, seconds=0.5, sessions=0, idle_ages=(), opened=0, closed=0, reused=0) for n in range(240)
    ]
    cut = measures.windows(looks, begin, begin + length, window)
    assert len(cut) <= length / window + 1e-6
    assert all(begin <= one.begin and one.begin + window <= begin + length + 1e-5 for one in cut)


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.application)
def test_plan_is_the_same_at_every_call_and_keeps_the_rates_of_its_phases(setup: Setup) -> None:
    plan = requests(setup)
    assert plan == requests(setup)
    assert [one.at for one in plan] == sorted(one.at for one in plan)
    assert plan[-1].at < load_seconds()
    begin = 0.0
    for phase in PHASES:
        count = sum(begin <= one.at < begin + phase.seconds for one in plan)
        expected = phase.seconds * phase.requests_per_second
        assert abs(count - expected) <= 4 * expected**0.5
        begin += phase.seconds
