"""Slots over time as an SVG picture: who held them, against the usable number, and the deploys in between.

Pure: a history in, paths out. Time is cut into at most `COLUMNS_MAX` columns, of which each shows its fullest tick, so
that no peak is lost; the columns stand at fixed instants, so that a picture that moves on does not dance. A column in
which every look failed is a gap and drawn as one; nothing is interpolated, save that a tick that came a little late
does not tear a hole (three intervals, as for `batsignal_up`).
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from batsignal.record.board import SlotSample

# The shortest that holds what is known: a page of a daemon that was just started is not an empty quarter of an hour.
WINDOWS_SECONDS = (120.0, 300.0, 900.0)
COLUMNS_MAX = 120
WIDTH = 600
HEIGHT = 120
BANDS_MAX = 4
MARKS_MAX = 4
STALE_INTERVALS = 3
HEADROOM_RATIO = 1.12
# A label nearer to the right edge than this would be cut off: it stands left of its mark.
LABEL_PERCENT = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at an instant; `percent` is where it is drawn, from the left edge."""

    at: float
    label: str
    is_deploy: bool = True
    percent: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether its label stands left of it."""
        return self.percent > LABEL_PERCENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One application's share, from the axis up to the sum of itself and all below: draw the list in order."""

    name: str
    path: str
    sessions: int | None
    """What it held at the last tick; None when that look failed."""
    style: str
    """The class it is drawn with: `culprit`, `rest`, or `b0` to `b3`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture of `WIDTH` by `HEIGHT`."""

    bands: tuple[Band, ...]
    usable_percent: float | None
    """Where the usable number is drawn, from the upper edge."""
    usable: int | None
    peak: int
    started_at: float
    """The instant at the left edge."""
    ended_at: float
    """The instant at the right edge."""
    marks: tuple[Mark, ...]
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

    def percent(self, t: float) -> float:
        return round((t - self.started_at) / self.span_seconds * 100, 1)


def draw(
    history: Sequence[SlotSample],
    interval_seconds: float,
    *,
    marks: Sequence[Mark] = (),
    culprits: Collection[str] = (),
    span_seconds: float | None = None,
) -> Chart | None:
    """Return the picture of the last quarter of an hour, or None when there are not yet two ticks to draw.

    `culprits` are names whose share lies on top, where its growth shows. With `span_seconds` the picture shows that
    long, from the first tick on.
    """
    if not history:
        return None
    samples, started_at, span = _window(history, interval_seconds, span_seconds)
    answered = [sample for sample in samples if sample.used is not None]
    if len(samples) < 2 or not answered:  # noqa: PLR2004  # one tick is no line
        return None
    usable = next((sample.usable for sample in reversed(answered) if sample.usable is not None), None)
    peak = max(sample.used or 0 for sample in answered)
    columns = max(min(COLUMNS_MAX, int(span / interval_seconds)), 2)
    axes = _Axes(started_at, span, columns, max(1, usable or 0, peak) * HEADROOM_RATIO)
    cells = _cells(samples, axes, interval_seconds)
    within = [mark for mark in marks if started_at <= mark.at <= started_at + span]
    return Chart(
        bands=_bands(cells, samples[-1], axes, culprits),
        usable_percent=None if usable is None else round(100 - usable / axes.top * 100, 1),
        usable=usable,
        peak=peak,
        started_at=started_at,
        ended_at=started_at + span,
        marks=tuple(
            replace(mark, percent=axes.percent(mark.at))
            for mark in sorted(within, key=lambda mark: mark.at)[-MARKS_MAX:]
        ),
        gap_columns=sum(cell is None for cell in cells[axes.column(samples[0].t) : axes.column(samples[-1].t) + 1]),
    )


def _window(
    history: Sequence[SlotSample], interval_seconds: float, span_seconds: float | None
) -> tuple[Sequence[SlotSample], float, float]:
    """Return the samples to draw, where the axis begins and how long it is."""
    if span_seconds is not None:
        begins = history[0].t
        return [sample for sample in history if sample.t <= begins + span_seconds], begins, span_seconds
    last = history[-1].t
    known_seconds = last - history[0].t
    span = next((span for span in WINDOWS_SECONDS if span >= known_seconds), WINDOWS_SECONDS[-1])
    column_seconds = max(span / COLUMNS_MAX, interval_seconds)
    ends = (math.floor(last / column_seconds) + 1) * column_seconds
    return [sample for sample in history if sample.t >= ends - span], ends - span, span


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
    last = axes.column(samples[-1].t)
    for index in range(1, last + 1):
        before = cells[index - 1]
        if cells[index] is not None or index in failed or before is None:
            continue
        if axes.started_at + (index + 1) * column_seconds - before.t < STALE_INTERVALS * interval_seconds:
            cells[index] = before
    return cells


def _bands(
    cells: Sequence[SlotSample | None], last: SlotSample, axes: _Axes, culprits: Collection[str]
) -> tuple[Band, ...]:
    """Return the largest applications, the culprits before them and the rest after: the uppermost sum first."""
    peaks: Counter[str] = Counter()
    for cell in cells:
        for name, sessions in cell.by_application if cell is not None else ():
            peaks[name] = max(peaks[name], sessions)
    names = sorted(peaks, key=lambda name: (name not in culprits, -peaks[name], name))[:BANDS_MAX]
    styles = _styles(names, culprits)
    now = dict(last.by_application)
    bands = []
    for index, name in enumerate(names):
        above = frozenset(names[:index])
        sums = [
            None if cell is None else (cell.used or 0) - sum(n for who, n in cell.by_application if who in above)
            for cell in cells
        ]
        held = None if last.used is None else now.get(name, 0)
        bands.append(Band(name=name, path=_path(sums, axes), sessions=held, style=styles[name]))
    chosen = frozenset(names)
    rests = [
        None if cell is None else (cell.used or 0) - sum(n for who, n in cell.by_application if who in chosen)
        for cell in cells
    ]
    rest = None if last.used is None else max(last.used - sum(now.get(name, 0) for name in names), 0)
    return (*bands, Band(name="others", path=_path(rests, axes), sessions=rest, style="rest"))


def _styles(names: Sequence[str], culprits: Collection[str]) -> dict[str, str]:
    innocent = [name for name in names if name not in culprits]
    return {name: "culprit" if name in culprits else f"b{innocent.index(name)}" for name in names}


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
        y = axes.y(max(slots, 0))
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
