"""What one variation of a scenario is, the table of all builders, and how a variation becomes a recording.

Owns the shapes that builders return. It builds nothing itself and must not know any detector: the truth of a play is
what its world did.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from batsignal.drills.truth import Truth
from batsignal.record.recording import RecordingWriter
from batsignal.snapshot import Snapshot
from simulator.world import World

INTERVAL_SECONDS = 1.0
PING_SPREAD = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One variation of one row, ready to run; `seconds` is how long it goes on from its first look.

    `facts` is what was drawn for it and can be written as JSON. `truths_of` is called when the looks have ended; of
    everyday life it returns nothing. `starts` are the seconds of the world at which a judge begins to look; at each of
    them it is a new one, and the one before has ended.
    """

    row: str
    seed: int
    facts: Mapping[str, Any]
    world: World
    seconds: float
    truths_of: Callable[[], tuple[Truth, ...]]
    starts: tuple[float, ...] = field(default=(0.0,))

    def looks(self) -> Iterator[Snapshot]:
        """Yield one snapshot a second until the play is over; to be called once, the world cannot go back."""
        self.world.ping_spread = PING_SPREAD
        return self.world.looks(self.seconds, INTERVAL_SECONDS)


Builder = Callable[[int, bool], Play]
"""Makes a variation from its seed; quick shortens pure waiting, never the incident itself."""


class _Table(Mapping[str, Builder]):
    """All builders by the name of their row; their modules are imported when they are asked for, as they import us."""

    @cached_property
    def _builders(self) -> Mapping[str, Builder]:
        from simulator import everyday, incidents  # noqa: PLC0415 - they import the types of this module

        return {**incidents.BUILDERS, **everyday.BUILDERS}

    def __getitem__(self, row: str) -> Builder:
        return self._builders[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)


BUILDERS: Mapping[str, Builder] = _Table()


def build(row: str, seed: int, *, quick: bool = False) -> Play:
    """Return that variation of a row; raises KeyError for a row that the table does not have."""
    if row not in BUILDERS:
        raise KeyError(f"no builder for row {row!r}; expected one of {', '.join(sorted(BUILDERS))}")
    return BUILDERS[row](seed, quick)


def write(play: Play, path: Path) -> Path:
    """Run the play into a recording and write its truth beside it, as PATH.truth.json; return the truth's path.

    Raises OSError when a file cannot be written.
    """
    writer = RecordingWriter(path, server=play.world.name, interval_seconds=INTERVAL_SECONDS)
    try:
        for snapshot in play.looks():
            writer.write(snapshot)
    finally:
        writer.close()
    content = {
        "row": play.row,
        "seed": play.seed,
        "facts": dict(play.facts),
        "truths": [truth.as_json() for truth in play.truths_of()],
    }
    beside = path.with_name(f"{path.name}.truth.json")
    beside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return beside
