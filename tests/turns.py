"""In which order the workers of a parallel run take the tests, and which of them stay together.

Most of the time of a run is spent waiting: for a bound, for a page, for a server. What computes can go on beside what
waits, so the two kinds are mixed evenly over the run, and of each kind the longest comes first: a wait of a minute that
starts last would have all other workers wait for it, too. Tests that share a fixture of their module stay on one
worker, or each worker would set it up for itself.

Must not decide what is tested, and no test may rely on it: alone, or without workers, all of them pass in any order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

WAITING = ("integration", "browser", "compose", "grafana", "alerts")
# What a test is taken to last that does not say it (`takes`), and one that only computes: medians of a whole run.
WAIT_SECONDS, COMPUTE_SECONDS = 3.0, 0.05
# Of a file whose tests share nothing, so many stay together: what is sent to a worker at once.
TESTS_SENT_TOGETHER = 40


@dataclass(slots=True)
class Turn:
    """Tests that one worker takes one after the other."""

    waits: bool
    items: list[pytest.Item]

    @property
    def seconds(self) -> float:
        return sum(_seconds(item, waits=self.waits) for item in self.items)


def arrange(items: Sequence[pytest.Item], tests: Path) -> list[pytest.Item]:
    """Return the items in the order in which workers shall take them, each with the group that it stays in."""
    turns: dict[object, Turn] = {}
    for item in items:
        waits = item.path.is_relative_to(tests) and item.path.relative_to(tests).parts[0] in WAITING
        key = _named(item) or _shared(item) or (item.nodeid if waits else _chunk(item, turns))
        turns.setdefault(key, Turn(waits, [])).items.append(item)
    ordered = _mixed(turn for turn in turns.values())
    for number, turn in enumerate(ordered):
        if len(turn.items) > 1 and not _named(turn.items[0]):
            for item in turn.items:
                item.add_marker(pytest.mark.xdist_group(str(number)))
    return [item for turn in ordered for item in turn.items]


def _named(item: pytest.Item) -> object:
    """Return the group that a file has given its tests, for what they keep between them outside of fixtures."""
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else None


def _shared(item: pytest.Item) -> object:
    """Return what an item has in common with others of its file by a fixture of the module, or None."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    shared = {name for name, found in definitions.items() if found and found[-1].scope in ("module", "class")}
    if not shared:
        return None
    call = getattr(item, "callspec", None)
    indices = call.indices if call else {}
    return (item.path, tuple(sorted((name, indices[name]) for name in shared if name in indices)))


def _chunk(item: pytest.Item, turns: dict[object, Turn]) -> object:
    number = 0
    while (turn := turns.get((item.path, "chunk", number))) and len(turn.items) >= TESTS_SENT_TOGETHER:
        number += 1
    return (item.path, "chunk", number)


def _seconds(item: pytest.Item, *, waits: bool) -> float:
    mark = item.get_closest_marker("takes")
    if mark:
        return float(mark.kwargs["seconds"])
    return WAIT_SECONDS if waits else COMPUTE_SECONDS


def _mixed(turns: Iterable[Turn]) -> list[Turn]:
    """Merge those that wait and those that compute so that each kind is through with the same share at any time."""
    placed: list[tuple[float, int, Turn]] = []
    ordered = sorted(turns, key=lambda turn: -turn.seconds)
    for waits in (True, False):
        kind = [turn for turn in ordered if turn.waits is waits]
        whole, before = sum(turn.seconds for turn in kind), 0.0
        for turn in kind:
            placed.append((before / whole, len(placed), turn))
            before += turn.seconds
    return [turn for _, _, turn in sorted(placed, key=lambda place: place[:2])]
