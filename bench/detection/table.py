"""The table as people read it: one line a scenario, then the sums.

Owns columns and spelling. It must not count: numbers come from the summaries.
"""

from collections.abc import Mapping, Sequence

from detection.stock_rules import WAYS, Way
from detection.summary import (
    SECTIONS,
    RowSummary,
    SectionSum,
    StockSum,
    median,
    quantile,
    stock_sums,
    sum_of,
)

HEAD = (
    *(
        "scenario",
        "n",
        "detected",
        "woke",
        "in bound",
        "median",
        "p90",
        "bound",
        "deploy",
        "x1.5",
        "half-way",
        "crit",
        "warn",
        "again",
        "lapse",
    ),
    *("best stock rule, keeping its seat", "losing its seat"),
)
STOCK_HEAD = (
    *("stock rule (keeping / losing its seat)", "detected", "before exhaustion", "false, everyday life", "a day"),
    *("where we may warn", "before an incident"),
)
LEGEND = """\
detected: right kind and right culprit, of the truths in n variations
ours is the signal's raise: a scrape and an evaluation of 5 s at most come before it pages; theirs is the alert
woke: of the same, critical at any time · in bound: of the same · median, p90: from the onset to the raise · bound: its
median
deploy, x1.5: right deploy, time left predicted within a factor of 1.5 at the raise; of those detected that have one
half-way: the same half-way from the onset to the exhaustion
crit, warn: false criticals and warnings; +n: warnings that the row allows · again: raised more than once for one truth
lapse: cleared as ended while it went on · before exhaustion: ours has become critical by then, theirs has fired
stock rules: that which alerts on most, then the soonest, by its median; in time: before the slots ran out. None names
a culprit. In everyday life: that which alerts in most variations"""


def table(rows: Sequence[RowSummary]) -> str:
    """Spell the rows, section by section."""
    lines: list[tuple[str, ...]] = [HEAD]
    for section in SECTIONS:
        ours = [_cells(row) for row in rows if row.section == section]
        if ours:
            lines += [(f"-- {section}",), *ours]
    return f"{_aligned(lines)}\n\n{LEGEND}"


def sums(rows: Sequence[RowSummary]) -> str:
    """Spell the sums: ours by section, then each stock rule."""
    ours: list[tuple[str, ...]] = [
        (
            *("ours", "rows", "n", "sim. hours", "detected", "woke", "in bound", "before exhaustion", "deploy"),
            *("x1.5", "half-way"),
            *("false crit", "a day", "false warn", "a day", "allowed warn", "false kinds", "again", "lapse"),
        )
    ]
    ours += [_section_cells(one) for one in (sum_of(section, rows) for section in SECTIONS) if one.rows]
    theirs: list[tuple[str, ...]] = [STOCK_HEAD]
    by_rule: dict[str, dict[Way, StockSum]] = {}
    for one in stock_sums(rows):
        by_rule.setdefault(one.rule, {})[one.way] = one
    theirs += [_stock_cells(rule, ways) for rule, ways in by_rule.items()]
    return f"{_aligned(ours)}\n\n{_aligned(theirs)}"


def seconds(value: float | None) -> str:
    """Spell a duration in seconds, or longer units where seconds would be hard to read.

    >>> [seconds(value) for value in (None, 4.04, 41.7, 600.0, 9000.0)]
    ['-', '4.0 s', '42 s', '10 min', '2.5 h']
    """
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.1f} s"
    if value < 600:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def outcome(row: RowSummary) -> str:
    """Spell how many truths were told."""
    return str(row.detected) if row.detected.of else "-"


def _cells(row: RowSummary) -> tuple[str, ...]:
    warnings = f"{row.false_warnings}" + (f" +{row.allowed_warnings}" if row.allowed_warnings else "")
    return (
        row.row.name,
        f"{row.variations}" + (f" ({row.errors} FAILED)" if row.errors else ""),
        outcome(row),
        f"{row.woken}/{row.detected.of}" if row.detected.hits else "-",
        f"{row.within_bound}/{row.detected.of}" if row.detected.hits else "-",
        seconds(median(row.seconds)),
        seconds(quantile(row.seconds, 0.9)),
        seconds(row.bound_seconds),
        str(row.deploy_right) if row.deploy_right.of else "-",
        str(row.exhaustion_right) if row.exhaustion_right.of else "-",
        str(row.half_way_right) if row.half_way_right.of else "-",
        str(row.false_criticals),
        warnings,
        str(row.repeats) if row.detected.of else "-",
        str(row.lapses) if row.detected.of else "-",
        *(_best(row, way) for way in WAYS),
    )


def _best(row: RowSummary, way: Way) -> str:
    if not row.variations:
        return "-"
    if row.row.group == "incident":
        best = row.best_stock(way)
        return (
            "none"
            if best is None
            else f"{best.rule} {best.detected} {seconds(median(best.seconds))}, {best.before_exhaustion} in time"
        )
    worst = max(row.stock[way], key=lambda one: one.false_variations)
    return f"{worst.rule} {worst.false_variations}/{row.variations} false" if worst.false_variations else "quiet"


def _section_cells(one: SectionSum) -> tuple[str, ...]:
    named = one.detected.of
    return (
        one.section,
        str(one.rows),
        str(one.variations),
        f"{one.simulated_hours:.1f}",
        _of(one.detected.hits, named),
        _of(one.woken, named),
        _of(one.within_bound, named),
        _of(one.before_exhaustion, named),
        str(one.deploy_right) if one.deploy_right.of else "-",
        str(one.exhaustion_right) if one.exhaustion_right.of else "-",
        str(one.half_way_right) if one.half_way_right.of else "-",
        str(one.false_criticals),
        f"{one.a_day(one.false_criticals):.2f}",
        str(one.false_warnings),
        f"{one.a_day(one.false_warnings):.2f}",
        str(one.allowed_warnings),
        ", ".join(f"{kind} {count}" for kind, count in one.false_kinds.items()) or "-",
        str(one.repeats),
        str(one.lapses),
    )


def _of(hits: int, of: int) -> str:
    return f"{hits}/{of}" if of else "-"


def _stock_cells(rule: str, ways: Mapping[Way, StockSum]) -> tuple[str, ...]:
    both = [ways[way] for way in WAYS]
    return (
        rule,
        " / ".join(str(one.detected) for one in both),
        " / ".join(str(one.before_exhaustion) for one in both),
        " / ".join(str(one.false_everyday) for one in both),
        " / ".join(f"{one.false_everyday_a_day:.2f}" for one in both),
        " / ".join(str(one.false_may_warn) for one in both),
        " / ".join(str(one.false_incidents) for one in both),
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    whole = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in whole) for column in range(len(whole[0]))]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows
    )
