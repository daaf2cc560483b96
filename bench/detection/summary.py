"""What all variations come to: a summary for each row, and the sums that say what it is worth beside the stock rules.

Owns counting, medians and which stock rule is the best of a row. It must not spell anything for a person.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from batsignal.detect.signal import Kind
from batsignal.drills.catalogue import ROWS
from batsignal.drills.truth import Row
from detection.score import TruthScore, is_before
from detection.stock_rules import STOCK_RULES, WAYS, Way
from detection.variation import Variation

Section = Literal["incidents", "everyday life", "may warn"]
SECTIONS: tuple[Section, ...] = ("incidents", "everyday life", "may warn")


@dataclass(frozen=True, slots=True)
class Count:
    """So many out of so many."""

    hits: int
    of: int

    def __str__(self) -> str:
        return f"{self.hits}/{self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StockSummary:
    """One stock rule, one way, over one row; `seconds` are its times to the first alert, one a truth it alerted on."""

    rule: str
    detected: Count
    before_exhaustion: int
    seconds: tuple[float, ...]
    false_alerts: int
    false_variations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is counted of a row, and of a section's rows together."""

    section: Section
    variations: int
    simulated_hours: float
    detected: Count
    within_bound: int
    before_exhaustion: int
    deploy_right: Count
    exhaustion_right: Count
    half_way_right: Count
    false_criticals: int
    false_warnings: int
    allowed_warnings: int
    false_kinds: Mapping[Kind, int]
    """How many false pages, critical or not, were of which kind; the most first."""
    repeats: int
    lapses: int
    woken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSummary(Tally):
    """One row over its variations. Times are seconds; a median of nothing is None."""

    row: Row
    errors: int
    seconds: tuple[float, ...]
    bound_seconds: float | None
    exhausted_seconds: float | None
    """From the onset until the slots, or the limit in question, run out: the median of those that do."""
    stock: dict[Way, tuple[StockSummary, ...]]

    def best_stock(self, way: Way) -> StockSummary | None:
        """Return the rule that alerted on most, and of those the soonest; None when none did or nothing was wrong."""
        some = [one for one in self.stock[way] if one.detected.hits]
        return min(some, key=lambda one: (-one.detected.hits, median(one.seconds) or math.inf), default=None)

    def as_json(self) -> dict[str, Any]:
        best = {way: self.best_stock(way) for way in WAYS}
        return {
            "row": self.row.name,
            "group": self.row.group,
            "section": self.section,
            "variations": self.variations,
            "errors": self.errors,
            "simulated_hours": round(self.simulated_hours, 3),
            "truths": self.detected.of,
            "detected": self.detected.hits,
            "within_bound": self.within_bound,
            "median_seconds": median(self.seconds),
            "p90_seconds": quantile(self.seconds, 0.9),
            "bound_seconds": self.bound_seconds,
            "exhausted_seconds": self.exhausted_seconds,
            "before_exhaustion": self.before_exhaustion,
            "deploy_right": asdict(self.deploy_right),
            "exhaustion_right": asdict(self.exhaustion_right),
            "half_way_right": asdict(self.half_way_right),
            "false_criticals": self.false_criticals,
            "false_warnings": self.false_warnings,
            "allowed_warnings": self.allowed_warnings,
            "false_kinds": dict(self.false_kinds),
            "repeats": self.repeats,
            "lapses": self.lapses,
            "woken": self.woken,
            "best_stock": {way: None if one is None else asdict(one) for way, one in best.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionSum(Tally):
    """The rows of one section together."""

    rows: int

    def a_day(self, count: int) -> float:
        """Return a count per simulated day."""
        return count * 24 / self.simulated_hours if self.simulated_hours else 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "false_criticals_a_day": self.a_day(self.false_criticals),
            "false_warnings_a_day": self.a_day(self.false_warnings),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StockSum:
    """One stock rule, one way, over all rows. False alerts are those of everyday life alone."""

    rule: str
    way: Way
    detected: Count
    before_exhaustion: int
    false_everyday: int
    false_everyday_a_day: float
    false_may_warn: int
    false_incidents: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def median(values: Sequence[float]) -> float | None:
    """Return the median, None of nothing."""
    return statistics.median(values) if values else None


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the least value that at least `share` of the values do not exceed, None of nothing.

    >>> quantile([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 0.9), quantile([], 0.9)
    (9.0, None)
    """
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def section_of(row: Row) -> Section:
    """Return where a row counts."""
    if row.group == "incident":
        return "incidents"
    return "everyday life" if row.most is None else "may warn"


def summarise(row: Row, variations: Iterable[Variation]) -> RowSummary:
    """Sum up one row; variations whose builder failed count as errors and nowhere else."""
    all_of_it = list(variations)
    played = [one for one in all_of_it if one.error is None]
    truths = [told for one in played for told in one.required]
    told_ones = [told for told in truths if told.outcome == "detected"]
    pages = [page for one in played for page in one.false_pages]
    return RowSummary(
        row=row,
        section=section_of(row),
        variations=len(played),
        errors=len(all_of_it) - len(played),
        simulated_hours=sum(one.hours for one in played),
        detected=Count(len(told_ones), len(truths)),
        within_bound=sum(told.within_bound for told in truths),
        seconds=tuple(told.seconds for told in told_ones if told.seconds is not None),
        bound_seconds=median([told.truth.bound_seconds for told in truths]),
        exhausted_seconds=median(
            [told.truth.exhaustion - told.truth.onset for told in truths if told.truth.exhaustion is not None]
        ),
        before_exhaustion=sum(told.before_exhaustion for told in truths),
        deploy_right=_count(told.deploy_right for told in told_ones),
        exhaustion_right=_count(told.exhaustion_right for told in told_ones),
        half_way_right=_count(told.half_way_right for told in told_ones),
        false_criticals=sum(page.severity == "critical" and not page.allowed for page in pages),
        false_warnings=sum(page.severity == "warning" and not page.allowed for page in pages),
        allowed_warnings=sum(page.allowed for page in pages),
        false_kinds=_most_first(Counter(page.said.kind for page in pages if not page.allowed)),
        repeats=sum(told.repeats for told in truths),
        lapses=sum(told.lapses for told in truths),
        woken=sum(told.critical_at is not None for told in truths),
        stock={way: tuple(_stock_summary(rule.name, way, played, truths) for rule in STOCK_RULES) for way in WAYS},
    )


def summarise_all(variations: Iterable[Variation]) -> tuple[RowSummary, ...]:
    """Return a summary for each row that has a variation, in the catalogue's order."""
    by_row: dict[str, list[Variation]] = {}
    for one in variations:
        by_row.setdefault(one.row, []).append(one)
    return tuple(
        summarise(row, sorted(by_row[name], key=lambda one: one.seed)) for name, row in ROWS.items() if name in by_row
    )


def sum_of(section: Section, rows: Sequence[RowSummary]) -> SectionSum:
    """Add up the rows of one section."""
    ours = [row for row in rows if row.section == section]
    return SectionSum(
        section=section,
        rows=len(ours),
        variations=sum(row.variations for row in ours),
        simulated_hours=sum(row.simulated_hours for row in ours),
        detected=_add(row.detected for row in ours),
        within_bound=sum(row.within_bound for row in ours),
        before_exhaustion=sum(row.before_exhaustion for row in ours),
        deploy_right=_add(row.deploy_right for row in ours),
        exhaustion_right=_add(row.exhaustion_right for row in ours),
        half_way_right=_add(row.half_way_right for row in ours),
        false_criticals=sum(row.false_criticals for row in ours),
        false_warnings=sum(row.false_warnings for row in ours),
        allowed_warnings=sum(row.allowed_warnings for row in ours),
        false_kinds=_most_first(sum((Counter(row.false_kinds) for row in ours), Counter())),
        repeats=sum(row.repeats for row in ours),
        lapses=sum(row.lapses for row in ours),
        woken=sum(row.woken for row in ours),
    )


def stock_sums(rows: Sequence[RowSummary]) -> tuple[StockSum, ...]:
    """Add up every stock rule, both ways."""
    everyday = sum_of("everyday life", rows)
    return tuple(_stock_sum(rule.name, way, rows, everyday) for rule in STOCK_RULES for way in WAYS)


def _stock_sum(rule: str, way: Way, rows: Sequence[RowSummary], everyday: SectionSum) -> StockSum:
    of_rule = [(row.section, one) for row in rows for one in row.stock[way] if one.rule == rule]
    false = {section: sum(one.false_alerts for where, one in of_rule if where == section) for section in SECTIONS}
    return StockSum(
        rule=rule,
        way=way,
        detected=_add(one.detected for _, one in of_rule),
        before_exhaustion=sum(one.before_exhaustion for _, one in of_rule),
        false_everyday=false["everyday life"],
        false_everyday_a_day=everyday.a_day(false["everyday life"]),
        false_may_warn=false["may warn"],
        false_incidents=false["incidents"],
    )


def _stock_summary(rule: str, way: Way, played: Sequence[Variation], truths: Sequence[TruthScore]) -> StockSummary:
    times = [
        (told, seconds)
        for one in played
        for told in one.required
        if (seconds := one.stock_seconds(way, rule, told.truth)) is not None
    ]
    false = [one.stock_false(way, rule) for one in played]
    return StockSummary(
        rule=rule,
        detected=Count(len(times), len(truths)),
        before_exhaustion=sum(is_before(told.truth.onset + seconds, told.truth.exhaustion) for told, seconds in times),
        seconds=tuple(seconds for _, seconds in times),
        false_alerts=sum(false),
        false_variations=sum(count > 0 for count in false),
    )


def _most_first(kinds: Counter[Kind]) -> Mapping[Kind, int]:
    return dict(kinds.most_common())


def _count(answers: Iterable[bool | None]) -> Count:
    known = [answer for answer in answers if answer is not None]
    return Count(sum(known), len(known))


def _add(counts: Iterable[Count]) -> Count:
    counts = list(counts)
    return Count(sum(one.hits for one in counts), sum(one.of for one in counts))
