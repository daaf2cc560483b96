"""How near the simulated pools come to the real ones: one table, one picture. `python bench/simulator_reality.py`.

Records real pools under load on a scratch server and the modelled ones under the same requests (about 70 s), or draws
recordings that are there already (`--recordings FOLDER`). Writes docs/pictures/simulator_reality.png.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from simulator.reality import measures, modelled, real  # noqa: E402 - needs the path above
from simulator.reality.setups import PHASES, SETUPS, Setup, Times, load_seconds  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "simulator_reality.png"
INK, FAINT = "#2b3440", "#c9ced6"
STYLES = {"real": {"color": "#8db6d9", "linewidth": 4.0}, "simulated": {"color": "#c2622e", "linewidth": 1.3}}
SMOOTH_LOOKS = 2
"""To either side."""
RATES = ("opened_per_second", "closed_per_second", "reused_per_second")

Looks = dict[str, list[measures.Look]]


def main() -> None:
    """Record, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=Path, help="a folder to keep the recordings in, or to take them from")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    given = parser.parse_args()
    if given.recordings is None:
        with tempfile.TemporaryDirectory() as folder:
            sides = recorded(Path(folder))
    else:
        given.recordings.mkdir(parents=True, exist_ok=True)
        sides = recorded(given.recordings)
    print_table(sides)
    draw(sides, given.picture)
    print(f"\nwritten: {given.picture}")


def recorded(folder: Path) -> dict[str, Looks]:
    """Return the looks of both sides by application; records what the folder does not hold yet."""
    real_path, run_path, model_path = folder / "real.jsonl.gz", folder / "run.json", folder / "simulated.jsonl.gz"
    if not run_path.exists():
        run_path.write_text(json.dumps(asdict(real.record(real_path))))
    run = json.loads(run_path.read_text())
    times = {
        application: Times(**{**one, "asked_at": tuple(one["asked_at"])}) for application, one in run["times"].items()
    }
    started_at = modelled.record(model_path, times=times)
    applications = [setup.application for setup in SETUPS]
    return {
        "real": measures.read(real_path, run["started_at"], applications),
        "simulated": measures.read(model_path, started_at, applications),
    }


def print_table(sides: dict[str, Looks]) -> None:
    """Print each measure's median over the windows of a phase: real, simulated, and the ratio of the two."""
    print(f"{'pool':<18}{'phase':<7}{'measure':<20}{'real':>8}{'simulated':>11}{'ratio':>7}")
    for setup in SETUPS:
        real_phases, simulated_phases = (measures.by_phase(sides[side][setup.application]) for side in STYLES)
        for phase, values in real_phases.items():
            for measure, value in values.items():
                other = simulated_phases[phase][measure]
                ratio = f"{other / value:.2f}" if value else "-"
                print(f"{setup.application:<18}{phase:<7}{measure:<20}{value:>8.3f}{other:>11.3f}{ratio:>7}")


def draw(sides: dict[str, Looks], path: Path) -> None:
    """Draw a row a pool: idle sessions over time, idle ages, and what happened a second."""
    plt.rcParams.update({"font.size": 9.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT})
    plt.rcParams.update({"xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10.5, "axes.titleweight": "bold"})
    figure, rows = plt.subplots(
        len(SETUPS), 3, figsize=(12, 2.5 * len(SETUPS) + 1.1), width_ratios=(1.25, 1.0, 1.25), layout="constrained"
    )
    for axes, title in zip(
        rows[0], ("Idle sessions, mean of 2.5 s", "How long they have been idle", "Sessions a second"), strict=True
    ):
        axes.set_title(title, loc="left", pad=10)
    for setup, (over_time, ages, rates) in zip(SETUPS, rows, strict=True):
        is_last = setup is SETUPS[-1]
        _draw_idle(over_time, sides, setup, is_last=is_last)
        _draw_ages(ages, sides, setup, is_last=is_last)
        _draw_rates(rates, sides, setup)
        for axes in (over_time, ages, rates):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(length=0)
    handles = [plt.Line2D([], [], label=side, **style) for side, style in STYLES.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=10.5)
    figure.suptitle(
        "Simulated pools beside real ones under the same requests",
        x=0.008,
        ha="left",
        fontsize=13,
        fontweight="bold",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_idle(axes: Axes, sides: dict[str, Looks], setup: Setup, *, is_last: bool) -> None:
    begin = 0.0
    for phase in PHASES:
        if phase.name == "busy":
            axes.axvspan(begin, begin + phase.seconds, color="#eef1f5", zorder=0)
        begin += phase.seconds
    for side, style in STYLES.items():
        looks = sides[side][setup.application]
        counts = [len(look.idle_ages) for look in looks]
        smooth = [fmean(counts[max(n - SMOOTH_LOOKS, 0) : n + SMOOTH_LOOKS + 1]) for n in range(len(counts))]
        axes.plot([look.at for look in looks], smooth, **style)
    axes.set_xlim(0, load_seconds())
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    name, _, facts = setup.label.partition("\n")
    axes.text(-0.66, 0.56, name, transform=axes.transAxes, fontweight="bold", va="bottom")
    axes.text(-0.66, 0.53, facts, transform=axes.transAxes, va="top", linespacing=1.4)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    if is_last:
        axes.set_xlabel("seconds of load; shaded: three times the requests")


def _draw_ages(axes: Axes, sides: dict[str, Looks], setup: Setup, *, is_last: bool) -> None:
    for side, style in STYLES.items():
        ages = sorted(age for look in sides[side][setup.application] for age in look.idle_ages)
        axes.plot(ages, [(n + 1) / len(ages) for n in range(len(ages))], **style)
    axes.set_xscale("log")
    axes.set_xlim(0.005, 20)
    axes.set_xticks((0.01, 0.1, 1, 10), ("10 ms", "0.1 s", "1 s", "10 s"))
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_yticks((0, 0.5, 1), ("0", "half", "all"))
    axes.grid(color=FAINT, linewidth=0.5)
    if is_last:
        axes.set_xlabel("idle for at most so long")


def _draw_rates(axes: Axes, sides: dict[str, Looks], setup: Setup) -> None:
    names = [(phase, measure) for phase in ("quiet", "busy") for measure in RATES]
    height = 0.36
    for n, (side, style) in enumerate(STYLES.items()):
        phases = measures.by_phase(sides[side][setup.application])
        values = [phases[phase][measure] for phase, measure in names]
        at = [row + (n - 0.5) * height for row in range(len(names))]
        axes.barh(at, values, height=height, color=style["color"])
        for y, value in zip(at, values, strict=True):
            axes.text(value, y, f" {value:.1f}", va="center", fontsize=7.5)
    axes.set_yticks(range(len(names)), [f"{measure.split('_')[0]}, {phase}" for phase, measure in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
    axes.set_xticks(())
    axes.spines["bottom"].set_visible(False)


if __name__ == "__main__":
    main()
