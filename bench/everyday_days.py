"""Days of everyday life, judged: how many criticals (none may be) and warnings (at most one a day) they bring.

Each day is another server: services with a daily rhythm, batches, deploys, analysts, a dump, index builds, locks held
for seconds, on some days a restart of the server or of the daemon (`tests/simulator/days.py`). All of it stays in
memory. A day costs 15 to 30 s of one core, thirty about six minutes of two; days are told as they end.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from batsignal.detect.signal import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from detection.judged import Watches
from simulator.days import DAY_SECONDS, day
from simulator.world import START

CRITICALS_MOST = 0
WARNINGS_A_DAY_MOST = 1.0
JOBS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One signal of a day that should have none: how bad it became, when, and in its last words."""

    severity: str
    kind: str
    raised_seconds: float
    cleared_seconds: float | None
    superseded: bool
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What was said on one day."""

    seed: int
    said: tuple[Said, ...]
    processor_seconds: float
    sessions_most: int

    def count(self, severity: str) -> int:
        return sum(1 for one in self.said if one.severity == severity)


def play(seed: int, seconds: float = DAY_SECONDS) -> Day:
    """Play a day and judge it."""
    began = time.process_time()
    today = day(seed)
    watches = Watches([START + start for start in today.starts])
    most = 0
    for snapshot in today.world.looks(seconds):
        watches.look(snapshot)
        most = max(most, snapshot.used)
    first = START + today.world.elapsed - seconds
    said = tuple(one for events in watches.events() for one in _said(events, first))
    return Day(seed=seed, said=said, processor_seconds=round(time.process_time() - began, 1), sessions_most=most)


def _said(events: Sequence[Event], first: float) -> Iterator[Said]:
    """Fold the events of one life of the daemon into its signals."""
    lives: dict[str, list[Event]] = {}
    for event in events:
        lives.setdefault(event.signal.id, []).append(event)
    for life in lives.values():
        severities = {event.signal.finding.severity for event in life}
        last = life[-1]
        yield Said(
            severity="critical" if "critical" in severities else "warning",
            kind=last.signal.finding.kind,
            raised_seconds=round(life[0].t - first, 1),
            cleared_seconds=round(last.t - first, 1) if last.event == "cleared" else None,
            superseded=last.reason == "superseded",
            summary=last.signal.finding.summary,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the days; returns 0 when the bars are met, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first day")
    parser.add_argument("--jobs", type=int, default=JOBS, help="processes")
    parser.add_argument("--json", type=Path, help="also write everything that was said into this file")
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.days)
    days = []
    for one in _played(seeds, options.jobs):
        days.append(one)
        _tell(one)
    criticals, warnings = (sum(one.count(severity) for one in days) for severity in ("critical", "warning"))
    met = criticals <= CRITICALS_MOST and warnings <= WARNINGS_A_DAY_MOST * len(days)
    spent = sum(one.processor_seconds for one in days)
    print(
        f"{len(days)} days: {criticals} critical (bar {CRITICALS_MOST}), {warnings} warnings, "
        f"{warnings / max(len(days), 1):.2f} a day (bar {WARNINGS_A_DAY_MOST:g}): {'met' if met else 'NOT MET'}; "
        f"{spent:.0f} s of processor"
    )
    if options.json is not None:
        content = [asdict(one) for one in sorted(days, key=lambda one: one.seed)]
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if met else 1


def _played(seeds: Sequence[int], jobs: int) -> Iterator[Day]:
    """Yield each day as it is done."""
    if jobs == 1:
        yield from map(play, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_leave_to_parent) as processes:
        yield from processes.imap_unordered(play, seeds)


def _leave_to_parent() -> None:
    """Ctrl-C is for the parent, which ends its processes; without a traceback of each."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))


def _tell(one: Day) -> None:
    counts = f"{one.count('critical')} critical, {one.count('warning')} warnings"
    print(f"day {one.seed}: {counts}; {one.sessions_most} sessions at most, {one.processor_seconds:.0f} s", flush=True)
    for said in one.said:
        ended = "" if said.cleared_seconds is None else f" to {_clock(said.cleared_seconds)}"
        superseded = ", superseded" if said.superseded else ""
        when = f"{_clock(said.raised_seconds)}{ended}"
        print(f"    {when} {said.severity} {said.kind}{superseded}: {said.summary}", flush=True)


def _clock(seconds: float) -> str:
    """Return a time of the day.

    >>> _clock(3661.5)
    '01:01:01'
    """
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}"


if __name__ == "__main__":
    sys.exit(main())
