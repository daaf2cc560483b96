"""Slots over time as an SVG picture: who held them, against the usable number.

Pure: a history in, paths out. Time is cut into at most `COLUMNS_MAX` columns, of which each shows its fullest tick, so
that no peak is lost. A column in which every look failed is a gap and drawn as one; nothing is interpolated, save that
a tick that came a little late does not tear a hole (three intervals, as for `batsignal_up`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from batsignal.record.board import SlotSample

WINDOW_SECONDS = 900.0
COLUMNS_MAX = 120
WIDTH = 600
HEIGHT = 120
BANDS_MAX = 4
STALE_INTERVALS = 3
HEADROOM_RATIO = 1.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One application's share, from the axis up to the sum of itself and all below: draw the list in order."""

    name: str
    path: str
    sessions: int | None
    """What it held at the last tick; None when that look failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture of `WIDTH` by `HEIGHT`. `marks` are x of instants that were asked for."""

    bands: tuple[Band, ...]
    usable_y: int | None
    usable: int | None
    top: int
    """The number of slots at the upper edge."""
    started_at: float
    ended_at: float
    marks: tuple[int, ...]
    gap_columns: int


@dataclass(frozen=True, slots=True)
class _Axes:
    started_at: float
    span_seconds: float
    columns: int
    top: float

    def column(self, t: float) -> int:
        return min(int((t - self.started_at) / self.span_seconds * self.columns), self.columns - 1)

    def x(self, column: int) -> int:
        return round(column * WIDTH / self.columns)

    def y(self, slots: float) -> int:
        return HEIGHT - round(slots / self.top * HEIGHT)


def draw(history: Sequence[SlotSample], interval_seconds: float, instants: Sequence[float] = ()) -> Chart | None:
    """Return the picture of the last quarter of an hour, or None when there are not yet two ticks to draw."""
    if not history:
        return None
    samples = [sample for sample in history if sample.t >= history[-1].t - WINDOW_SECONDS]
    started_at, ended_at = samples[0].t, samples[-1].t + interval_seconds
    answered = [sample for sample in samples if sample.used is not None]
    if len(samples) < 2 or not answered:  # noqa: PLR2004  # one tick is no line
        return None
    usable = next((sample.usable for sample in reversed(answered) if sample.usable is not None), None)
    top = max(1, usable or 0, *(sample.used or 0 for sample in answered)) * HEADROOM_RATIO
    columns = max(min(COLUMNS_MAX, int((ended_at - started_at) / interval_seconds)), 2)
    axes = _Axes(started_at, ended_at - started_at, columns, top)
    cells = _cells(samples, axes, interval_seconds)
    return Chart(
        bands=_bands(cells, samples[-1], axes),
        usable_y=None if usable is None else axes.y(usable),
        usable=usable,
        top=int(top),
        started_at=started_at,
        ended_at=ended_at,
        marks=tuple(axes.x(axes.column(t)) for t in instants if started_at <= t <= ended_at),
        gap_columns=sum(cell is None for cell in cells),
    )


def _cells(samples: Sequence[SlotSample], axes: _Axes, interval_seconds: float) -> list[SlotSample | None]:
    """Return per column its fullest answered tick, or None for a gap."""
    cells: list[SlotSample | None] = [None] * axes.columns
    failed: set[int] = set()
    for sample in samples:
        index = axes.column(sample.t)
        kept = cells[index]
        if sample.used is None:
            failed.add(index)
        elif kept is None or sample.used > (kept.used or 0):
            cells[index] = sample
    column_seconds = axes.span_seconds / axes.columns
    for index in range(1, axes.columns):
        before = cells[index - 1]
        if cells[index] is not None or index in failed or before is None:
            continue
        if axes.started_at + (index + 1) * column_seconds - before.t < STALE_INTERVALS * interval_seconds:
            cells[index] = before
    return cells


def _bands(cells: Sequence[SlotSample | None], last: SlotSample, axes: _Axes) -> tuple[Band, ...]:
    """Return the largest applications and the rest, the uppermost sum first."""
    peaks: Counter[str] = Counter()
    for cell in cells:
        for name, sessions in cell.by_application if cell is not None else ():
            peaks[name] = max(peaks[name], sessions)
    names = [name for name, _ in peaks.most_common(BANDS_MAX)]
    now = dict(last.by_application)
    bands = []
    for index, name in enumerate(names):
        part = frozenset(names[: index + 1])
        sums = [None if cell is None else sum(n for who, n in cell.by_application if who in part) for cell in cells]
        bands.append(Band(name=name, path=_path(sums, axes), sessions=None if last.used is None else now.get(name, 0)))
    totals = [None if cell is None else cell.used for cell in cells]
    rest = None if last.used is None else max(last.used - sum(now.get(name, 0) for name in names), 0)
    return (Band(name="others", path=_path(totals, axes), sessions=rest), *reversed(bands))


def _path(sums: Sequence[int | None], axes: _Axes) -> str:
    """Return steps from the axis up and back, one closed shape for each run without a gap."""
    parts: list[str] = []
    height: int | None = None
    for column, slots in enumerate([*sums, None]):
        if slots is None:
            if height is not None:
                parts.append(f"V{HEIGHT}z")
            height = None
            continue
        y = axes.y(slots)
        if height is None:
            parts.append(f"M{axes.x(column)} {HEIGHT}")
        if y != height:
            parts.append(f"V{y}")
        # A run of equal columns is one line: the later H replaces the earlier.
        if parts[-1].startswith("H"):
            parts.pop()
        parts.append(f"H{axes.x(column + 1)}")
        height = y
    return "".join(parts)
