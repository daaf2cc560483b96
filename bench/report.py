"""What a measurement prints: one table of what | ours | peer | ratio | bar | met, and the same as JSON.

Owns how a number is compared, judged and spelled, and how a command ends: 0 whatever came out, 3 when it could not
measure. It must not measure.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

import psycopg2

from batsignal.errors import BatSignalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One comparison. `peer` and `ratio` are None where there is nothing to compare with, `bar` where none is set."""

    what: str
    ours: float
    unit: str
    peer: float | None = None
    ratio: float | None = None
    bar: str | None = None
    met: bool | None = None


def compared(what: str, ours: float, peer: float, unit: str, ratio_at_most: float | None = None) -> Line:
    """Return a line that is judged by ours over the peer's."""
    ratio = ours / peer if peer else float("inf")
    bar = None if ratio_at_most is None else f"ratio <= {ratio_at_most:g}"
    met = None if ratio_at_most is None else ratio <= ratio_at_most
    return Line(what=what, ours=ours, peer=peer, unit=unit, ratio=ratio, bar=bar, met=met)


def bounded(what: str, ours: float, unit: str, at_most: float, peer: float | None = None) -> Line:
    """Return a line that is judged by a bound of our own, whatever the peer's number."""
    ratio = ours / peer if peer else None
    bar = f"<= {at_most:g} {unit}".rstrip()
    return Line(what=what, ours=ours, peer=peer, unit=unit, ratio=ratio, bar=bar, met=ours <= at_most)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed.

    >>> quantile([3.0, 1.0, 2.0], 0.5), quantile([1.0, 2.0], 0.99)
    (2.0, 2.0)
    """
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def run(
    what: str | None,
    measure: Callable[[argparse.Namespace], Sequence[Line]],
    options: Callable[..., None] | None = None,
) -> None:
    """Measure, print the table, and exit: 0 whatever came out, 3 when it could not be measured."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines here too")
    if options is not None:
        options(parser)
    arguments = parser.parse_args()
    try:
        lines = measure(arguments)
    except (BatSignalError, OSError, HTTPException, psycopg2.Error, subprocess.SubprocessError) as exc:
        print(f"not measured: {exc}", file=sys.stderr)
        sys.exit(3)
    print(table(lines))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")


def table(lines: Sequence[Line]) -> str:
    """Spell lines as one table: what | ours | peer | ratio | bar | met."""
    head = ("what", "ours", "peer", "ratio", "bar", "met")
    rows = [head, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(line: Line) -> tuple[str, ...]:
    def number(value: float | None, unit: str) -> str:
        return "-" if value is None else f"{value:.4g} {unit}".rstrip()

    met = "-" if line.met is None else "yes" if line.met else "no"
    return (
        line.what,
        number(line.ours, line.unit),
        number(line.peer, line.unit),
        number(line.ratio, ""),
        line.bar or "-",
        met,
    )
