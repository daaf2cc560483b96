"""The table as a picture: when we said it, when the best stock rule did, and how often either cried wolf.

Owns the drawing. One row a scenario: time from the onset on a logarithmic axis at the left, false alerts as numbers at
the right. It must not count: numbers come from the summaries.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from detection.stock_rules import WAYS
from detection.summary import SECTIONS, RowSummary, Section, StockSummary, median

OURS = "#1f6f8b"
THEIRS = "#c98a2b"
LATE = "#b5473c"
INK = "#2b2f33"
FAINT = "#8b9299"
LINE = "#e6e8ea"
BAND = "#f6f7f8"

TITLES: dict[Section, str] = {
    "incidents": "Incidents",
    "everyday life": "Everyday life: nothing may light",
    "may warn": "Everyday life that looks like an incident: a warning is allowed",
}
# Instants on the axis, in words.
TICKS = {1: "1 s", 5: "5 s", 15: "15 s", 60: "1 min", 300: "5 min", 1800: "30 min", 7200: "2 h", 28_800: "8 h"}
LEAST_SECONDS = 0.7
# Of a stock rule that alerts in fewer than half of the plays.
FAINT_ALPHA = 0.35
MOST_SECONDS = 36_000.0
ROW_INCHES = 0.27
# Columns at the right, in shares of that panel's width.
COLUMNS = {"named": 0.12, "false": 0.36, "allowed": 0.58, "stock": 0.85}

Line = RowSummary | Section


def draw(rows: Sequence[RowSummary], file: Path) -> None:
    """Draw the rows and write the picture; the format is the file name's, PNG for one."""
    lines = _lines(rows)
    height = len(lines) * ROW_INCHES + 1.95
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK}):
        figure = Figure(figsize=(12.5, height), facecolor="white")
        top, bottom = 1 - 1.75 / height, 0.2 / height
        times = figure.add_axes((0.205, bottom, 0.56, top - bottom))
        counts = figure.add_axes((0.775, bottom, 0.215, top - bottom))
        _frame(times, lines)
        _frame(counts, lines)
        _time_axis(times, lines)
        _count_axis(counts)
        for y, line in enumerate(lines):
            if isinstance(line, RowSummary):
                _draw_row(times, counts, y, line)
            else:
                _draw_section(times, y, line)
        _head(figure, height, rows)
        figure.savefig(file, dpi=110)


def _lines(rows: Sequence[RowSummary]) -> list[Line]:
    lines: list[Line] = []
    for section in SECTIONS:
        ours = [row for row in rows if row.section == section]
        lines += [section, *ours] if ours else []
    return lines


def _frame(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.yaxis.set_major_locator(NullLocator())
    for spine in axes.spines.values():
        spine.set_visible(False)
    for y, line in enumerate(lines):
        if isinstance(line, RowSummary) and y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color=BAND, lw=0, zorder=0)


def _time_axis(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(LEAST_SECONDS, MOST_SECONDS)
    axes.xaxis.set_major_locator(FixedLocator(list(TICKS)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(list(TICKS.values()), color=FAINT)
    axes.xaxis.set_label_position("top")
    axes.tick_params(axis="x", length=0, labelbottom=False, labeltop=True)
    axes.set_xlabel("from the onset, logarithmic", color=FAINT, fontsize=8)
    incidents = [y for y, line in enumerate(lines) if isinstance(line, RowSummary) and line.row.group == "incident"]
    if incidents:  # everyday life has no onset: the lines end above it
        axes.vlines(list(TICKS), min(incidents) - 0.5, max(incidents) + 0.5, color=LINE, lw=0.8, zorder=1)


def _count_axis(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(NullLocator())
    for column, words, colour in (
        ("named", "named\nby us", OURS),
        ("false", "false,\nours", OURS),
        ("allowed", "allowed\nwarnings", FAINT),
        ("stock", "false, worst\nstock rule", THEIRS),
    ):
        axes.text(COLUMNS[column], -0.75, words, color=colour, ha="center", va="bottom", fontsize=8)


def _draw_section(axes: Axes, y: int, section: Section) -> None:
    axes.text(
        -0.345, y + 0.12, TITLES[section], transform=axes.get_yaxis_transform(), ha="left", va="center", weight="bold"
    )


def _draw_row(times: Axes, counts: Axes, y: int, row: RowSummary) -> None:
    times.text(-0.012, y, row.row.name, transform=times.get_yaxis_transform(), ha="right", va="center")
    if row.row.group == "incident":
        _draw_times(times, y, row)
    else:
        times.text(
            0.012, y, row.row.story, transform=times.get_yaxis_transform(), color=FAINT, style="italic", va="center"
        )
    _draw_counts(counts, y, row)


def _draw_times(axes: Axes, y: int, row: RowSummary) -> None:
    if row.bound_seconds is not None:
        axes.plot([row.bound_seconds] * 2, [y - 0.36, y + 0.36], color=INK, lw=1.6, zorder=2, solid_capstyle="butt")
    if row.exhausted_seconds is not None:
        axes.plot([row.exhausted_seconds], [y], marker="x", ms=6, mew=1.6, color=LATE, zorder=3)
    for way in WAYS:
        best = row.best_stock(way)
        if best is not None:
            _draw_stock(axes, y, best, filled=way == "keeping")
    inside = [min(max(one, LEAST_SECONDS), MOST_SECONDS) for one in row.seconds]
    axes.scatter(inside, _spread(y, len(inside)), s=15, color=OURS, alpha=0.55, lw=0, zorder=4)


def _draw_stock(axes: Axes, y: int, best: StockSummary, *, filled: bool) -> None:
    middle = median(best.seconds)
    if middle is None:
        return
    axes.plot(
        [min(max(middle, LEAST_SECONDS), MOST_SECONDS)],
        [y],
        marker="D",
        ms=5.5 if filled else 8.5,
        mfc=THEIRS if filled else "none",
        mec=THEIRS,
        mew=1.1,
        alpha=1.0 if 2 * best.detected.hits >= best.detected.of else FAINT_ALPHA,
        zorder=3,
    )


def _spread(y: int, count: int) -> list[float]:
    """Return heights that keep dots of the same time apart."""
    lanes = min(count, 5)
    return [y + 0.12 * (n % lanes - (lanes - 1) / 2) for n in range(count)]


def _draw_counts(counts: Axes, y: int, row: RowSummary) -> None:
    named, of = row.detected.hits, row.detected.of
    if of:
        words, colour = str(row.detected), OURS if named == of else LATE
        counts.text(COLUMNS["named"], y, words, color=colour, ha="center", va="center")
    _number(counts, y, "false", row.false_criticals + row.false_warnings, LATE)
    if row.row.most is not None:
        _number(counts, y, "allowed", row.allowed_warnings, INK)
    _number(counts, y, "stock", max(one.false_alerts for one in row.stock["keeping"]), THEIRS)


def _number(axes: Axes, y: int, column: str, count: int, colour: str) -> None:
    """Write a count; nothing happened is a faint dot, so that the eye finds the rest."""
    axes.text(
        *(COLUMNS[column], y, str(count) if count else "·"),
        color=colour if count else FAINT,
        weight="bold" if count else "normal",
        ha="center",
        va="center",
    )


def _head(figure: Figure, height: float, rows: Sequence[RowSummary]) -> None:
    hours = sum(row.simulated_hours for row in rows)
    played = sum(row.variations for row in rows)
    figure.text(0.012, 1 - 0.3 / height, "How soon it is said, and how often in vain", fontsize=14, weight="bold")
    about = f"{played:,} simulated plays of {len(rows)} scenarios, {hours:,.0f} hours in all"
    figure.text(
        *(0.012, 1 - 0.55 / height, f"{about}; a stock rule is faint where it alerts in fewer than half of the plays"),
        color=FAINT,
    )
    handles = [
        Line2D(
            [], [], marker="o", ls="", ms=5, color=OURS, alpha=0.7, label="ours, kind and culprit right, a dot a play"
        ),
        Line2D([], [], marker="|", ls="", ms=10, mew=1.6, color=INK, label="the bound, by which it must be said"),
        Line2D([], [], marker="x", ls="", ms=6, mew=1.6, color=LATE, label="slots run out (median)"),
        Line2D([], [], marker="D", ls="", ms=5.5, color=THEIRS, label="best stock rule (median), no culprit"),
        Line2D([], [], marker="D", ls="", ms=8, mfc="none", color=THEIRS, label="the same when it loses its seat"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.002, 1 - 0.68 / height),
        ncols=5,
        columnspacing=1.6,
        handletextpad=0.3,
        frameon=False,
        fontsize=8.5,
    )
