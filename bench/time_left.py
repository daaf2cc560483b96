"""How near the time left can be told half-way to exhaustion, and how near anybody could.

    python bench/time_left.py [--variations N] [--jobs N] [ROW ...]

Half-way from the onset to the exhaustion, three predictions are held against what came: the one that our signal showed
last; a line from the onset to that moment, by one who knew the onset; and a line drawn in hindsight, through the onset
and the exhaustion itself. Nobody can know the mean pace better than the last one does: where it is wrong, what comes
next decides, which nothing in the past tells. A row is played as `bench/detection` plays it, and counts where
something runs out and was called by then.
"""

import argparse
import math
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from batsignal.drills.catalogue import ROWS
from batsignal.snapshot import Snapshot
from detection.judged import Watches
from detection.score import TruthScore, said_of, score
from simulator.scenario import build

INCIDENTS = tuple(row.name for row in ROWS.values() if row.group == "incident")
FACTOR_MOST = 1.5


@dataclass(frozen=True, slots=True)
class Halves:
    """Predicted over true time left half-way of one truth that was called by then."""

    ours: float
    from_onset: float
    hindsight: float


def halves(task: tuple[str, int]) -> list[Halves]:
    """Play one variation of a row; return what was predicted for each of its truths that ran out."""
    play = build(*task, quick=False)
    watches = Watches([play.world.now - play.world.elapsed + begin for begin in play.starts])
    looks = []
    for snapshot in play.looks():
        watches.look(snapshot)
        looks.append(snapshot)
    ended = looks[-1].t
    said = tuple(one for life, events in enumerate(watches.events()) for one in said_of(events, life))
    truths = score(play.truths_of(), said, may_warn=False, ended=ended).truths
    return [
        _halves(told, told.half_way_ratio, told.truth.exhaustion, looks)
        for told in truths
        if told.truth.exhaustion is not None and told.half_way_ratio is not None and not told.truth.optional
    ]


def _halves(told: TruthScore, ours: float, exhaustion: float, looks: list[Snapshot]) -> Halves:
    onset, limit = told.truth.onset, told.truth.subject.limit or "server"
    half_way = (onset + exhaustion) / 2
    counts = {look.t: _used(look, limit) for look in looks if onset - 1 <= look.t <= exhaustion + 1}
    first, full = counts[min(counts)], max(counts.values())
    now = counts[max(t for t in counts if t <= half_way)]
    # Both halves are as long: the times of the two lines are shares of one.
    return Halves(
        ours=ours,
        from_onset=(full - now) / (now - first) if now > first else math.inf,
        hindsight=2 * (full - now) / (full - first),
    )


def _used(snapshot: Snapshot, limit: str) -> int:
    kind, _, owner = limit.partition(":")
    if kind == "server":
        return snapshot.used
    return sum((one.usename if kind == "role" else one.datname) == owner for one in snapshot.sessions if one.is_client)


def _share(ratios: list[float]) -> str:
    return f"{sum(1 / FACTOR_MOST <= one <= FACTOR_MOST for one in ratios)}/{len(ratios)}"


def main() -> int:
    """Play and print a line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", default=INCIDENTS, choices=(*INCIDENTS, INCIDENTS))
    parser.add_argument("--variations", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{'row':24} {'ours':>8} {'from onset':>10} {'hindsight':>9}   within x{FACTOR_MOST}")
    everything: list[Halves] = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for row in arguments.rows:
            tasks = [(row, seed) for seed in range(arguments.variations)]
            told = [one for some in pool.map(halves, tasks) for one in some]
            if told:
                _print(row, told)
                everything += told
    _print("all", everything)
    return 0


def _print(name: str, told: list[Halves]) -> None:
    ours = _share([one.ours for one in told])
    from_onset, hindsight = _share([one.from_onset for one in told]), _share([one.hindsight for one in told])
    print(f"{name:24} {ours:>8} {from_onset:>10} {hindsight:>9}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
