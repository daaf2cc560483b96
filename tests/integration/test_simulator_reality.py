"""Holds the simulator's pools against three real ones: the same requests and looks, one measure of both recordings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from simulator.reality import measures, modelled, real
from simulator.reality.setups import SETUPS, Setup

MOST_OFF_RATIO = 0.25

pytestmark = pytest.mark.takes(seconds=6)  # the one recording that all of them measure

# One rule of each pool changed: what the comparison must not let through.
OTHER_RULES = {
    "queue-pool": {"lifo": True},
    "queue-pool-lifo": {"lifo": False},
    "psycopg-pool": {"order": "lifo"},
    "minimum-pool": {"order": "fifo"},
}

ByPhase = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The measures of each application, by phase."""

    run: real.Run
    real: Mapping[str, ByPhase]
    simulated: Mapping[str, ByPhase]
    with_another_rule: Mapping[str, ByPhase]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("reality")
    run = real.record(folder / "real.jsonl")
    other = tuple(replace(one, facts={**one.facts, **OTHER_RULES[one.application]}) for one in SETUPS)
    found = Recorded(
        run=run,
        real=measured(folder / "real.jsonl", run.started_at),
        simulated=simulated(folder / "simulated.jsonl", SETUPS, run),
        with_another_rule=simulated(folder / "another_rule.jsonl", other, run),
    )
    print(table(found))  # noqa: T201 - shown when a test fails
    return found


def table(found: Recorded) -> str:
    """Return every measure of both sides, to be read when one is off."""
    lines = [
        f"{application}: login {1000 * one.connect_seconds:.1f} ms, overhead {1000 * one.overhead_seconds:.1f} ms"
        for application, one in found.run.times.items()
    ]
    for application, phases in found.real.items():
        for phase, values in phases.items():
            for measure, value in values.items():
                other = found.simulated[application][phase][measure]
                lines.append(f"{application:16}{phase:6}{measure:18} {value:8.3f} {other:8.3f} {other / value:5.2f}")
    return "\n".join(lines)


def simulated(path: Path, setups: tuple[Setup, ...], run: real.Run) -> dict[str, ByPhase]:
    return measured(path, modelled.record(path, setups=setups, times=run.times))


def measured(path: Path, start_at: float) -> dict[str, ByPhase]:
    looks = measures.read(path, start_at, [setup.application for setup in SETUPS])
    return {application: measures.by_phase(found) for application, found in looks.items()}


def faults(real_pool: ByPhase, model: ByPhase) -> list[str]:
    """Return every measure that is further off than allowed, in words."""
    return [
        f"{phase}: {measure}: simulated {model[phase][measure]:.3g}, real {value:.3g}"
        for phase, values in real_pool.items()
        for measure, value in values.items()
        if not abs(model[phase][measure] - value) <= MOST_OFF_RATIO * value
    ]


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.application)
def test_simulated_pool_is_within_a_quarter_of_the_real_one(recorded: Recorded, setup: Setup) -> None:
    assert not faults(recorded.real[setup.application], recorded.simulated[setup.application])


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.application)
def test_load_makes_the_real_pool_show_all_that_is_compared(recorded: Recorded, setup: Setup) -> None:
    nothing = [
        f"{phase}: {measure}"
        for phase, values in recorded.real[setup.application].items()
        for measure, value in values.items()
        if value <= 0
    ]
    assert not nothing


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.application)
def test_comparison_tells_another_rule_from_the_real_one(recorded: Recorded, setup: Setup) -> None:
    assert faults(recorded.real[setup.application], recorded.with_another_rule[setup.application])
