"""One variation of one row: built, streamed once past our judge and the stock rules, scored, spelled as JSON.

Owns what is kept of a variation. It must not let one row's failure reach another: whatever a builder raises becomes
part of its result.
"""

import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batsignal.drills.catalogue import ROWS
from batsignal.drills.truth import Truth
from detection.judged import Watches
from detection.score import FalsePage, Said, State, TruthScore, is_before, said_of, score
from detection.stock_rules import StockRules, Way

if TYPE_CHECKING:
    from simulator.scenario import Play

Raised = Mapping[Way, Mapping[str, tuple[float, ...]]]

# A play that takes longer than this has gone wrong, and would hide all that come after it.
PLAY_MOST_SECONDS = 300.0


class PlayError(Exception):
    """A play shows nothing, or does not come to its end in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """What came of one variation. `error` is the traceback of a builder that failed; then nothing else counts.

    `began` and `ended` are the instants of the first and the last look, `cost_seconds` processor time.
    """

    row: str
    seed: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0
    cost_seconds: float = 0.0
    said: tuple[Said, ...] = ()
    truths: tuple[TruthScore, ...] = ()
    false_pages: tuple[FalsePage, ...] = ()
    stock: Raised = field(default_factory=dict)
    error: str | None = None

    @property
    def hours(self) -> float:
        """Simulated hours."""
        return (self.ended - self.began) / 3600

    @property
    def required(self) -> tuple[TruthScore, ...]:
        """The truths that must be told."""
        return tuple(told for told in self.truths if not told.truth.optional)

    def stock_false(self, way: Way, rule: str) -> int:
        """Count a stock rule's alerts before anything was wrong; all of them where nothing ever was."""
        first = min((told.truth.onset for told in self.truths), default=math.inf)
        return sum(at < first for at in self.stock[way][rule])

    def stock_seconds(self, way: Way, rule: str, truth: Truth) -> float | None:
        """Return how long after a truth's onset a stock rule's alert began to fire, None if none did."""
        return next((at - truth.onset for at in self.stock[way][rule] if at >= truth.onset), None)

    def as_json(self) -> dict[str, Any]:
        """Return all that helps to understand a failing variation; times are seconds since the first look."""
        return {
            "row": self.row,
            "seed": self.seed,
            "facts": dict(self.facts),
            "began": self.began,
            "simulated_hours": round(self.hours, 4),
            "cost_seconds": round(self.cost_seconds, 3),
            "truths": [_truth_json(told, self.began) | {"stock": self._stock_json(told.truth)} for told in self.truths],
            "false_pages": [_false_json(page, self.began) for page in self.false_pages],
            "said": [_said_json(one, self.began) for one in self.said],
            "stock": {
                way: {rule: [round(at - self.began, 2) for at in raised] for rule, raised in rules.items() if raised}
                for way, rules in self.stock.items()
            },
            "stock_false": {
                way: {rule: count for rule in rules if (count := self.stock_false(way, rule))}
                for way, rules in self.stock.items()
            },
            "error": self.error,
        }

    def _stock_json(self, truth: Truth) -> dict[str, Any]:
        return {
            way: {
                rule: {
                    "seconds": round(seconds, 2),
                    "before_exhaustion": is_before(truth.onset + seconds, truth.exhaustion),
                    "after_exhaustion_seconds": None
                    if truth.exhaustion is None
                    else round(truth.onset + seconds - truth.exhaustion, 2),
                    "culprit": None,
                }
                for rule in rules
                if (seconds := self.stock_seconds(way, rule, truth)) is not None
            }
            for way, rules in self.stock.items()
        }


def run_variation(row: str, seed: int, *, quick: bool) -> Variation:
    """Build one variation and judge it; a failure of the scenario is part of what comes back."""
    began = time.process_time()
    try:
        from simulator.scenario import build  # noqa: PLC0415 - one broken scenario must not end all

        variation = judge(build(row, seed, quick=quick))
    except Exception:  # noqa: BLE001 - whatever a scenario raises: it is reported, and the others go on
        variation = Variation(row=row, seed=seed, error=traceback.format_exc())
    return replace(variation, cost_seconds=time.process_time() - began)


def judge(play: "Play") -> Variation:
    """Stream a play's looks once, past everybody who judges them, and score what came of it."""
    start = play.world.now - play.world.elapsed
    watches = Watches([start + begin for begin in play.starts])
    stock: StockRules | None = None
    last = start
    deadline = time.monotonic() + PLAY_MOST_SECONDS
    for snapshot in play.looks():
        stock = stock or StockRules(play.seed, snapshot.t)
        watches.look(snapshot)
        stock.look(snapshot)
        last = snapshot.t
        if time.monotonic() > deadline:
            raise PlayError(f"{play.row} {play.seed}: not at its end after {PLAY_MOST_SECONDS:.0f} s")
    if stock is None:
        raise PlayError(f"{play.row} {play.seed}: not one look")
    said = tuple(one for life, events in enumerate(watches.events()) for one in said_of(events, life))
    scored = score(play.truths_of(), said, may_warn=ROWS[play.row].most == "warning", ended=last)
    return Variation(
        row=play.row,
        seed=play.seed,
        facts=dict(play.facts),
        began=stock.began,
        ended=last,
        said=said,
        truths=scored.truths,
        false_pages=scored.false_pages,
        stock=stock.raised_at(),
    )


def _truth_json(told: TruthScore, began: float) -> dict[str, Any]:
    ratio, half_way = told.exhaustion_ratio, told.half_way_ratio
    return told.truth.as_json() | {
        "onset_seconds": round(told.truth.onset - began, 2),
        "outcome": told.outcome,
        "seconds": None if told.seconds is None else round(told.seconds, 2),
        "within_bound": told.within_bound,
        "deploy_right": told.deploy_right,
        "exhaustion_ratio": None if ratio is None or math.isinf(ratio) else round(ratio, 4),
        "exhaustion_right": told.exhaustion_right,
        "half_way_ratio": None if half_way is None or math.isinf(half_way) else round(half_way, 4),
        "half_way_right": told.half_way_right,
        "before_exhaustion": told.before_exhaustion,
        "repeats": told.repeats,
        "lapses": told.lapses,
        "critical_seconds": None if told.critical_at is None else round(told.critical_at - told.truth.onset, 2),
    }


def _false_json(page: FalsePage, began: float) -> dict[str, Any]:
    return {
        "severity": page.severity,
        "allowed": page.allowed,
        "kind": page.said.kind,
        "raised_seconds": round(page.said.raised_at - began, 2),
        "id": page.said.id,
        "sentence": page.said.states[0].finding.summary,
    }


def _said_json(said: Said, began: float) -> dict[str, Any]:
    return {
        "id": said.id,
        "life": said.life,
        "kind": said.kind,
        "states": [_state_json(state, began) for state in said.states],
        "cleared_seconds": None if said.cleared_at is None else round(said.cleared_at - began, 2),
        "superseded_by": said.superseded_by,
    }


def _state_json(state: State, began: float) -> dict[str, Any]:
    finding = state.finding
    left = finding.exhaustion_seconds
    return {
        "seconds": round(state.t - began, 2),
        "severity": finding.severity,
        "subject": {key: value for key, value in asdict(finding.subject).items() if value is not None},
        "exhaustion_seconds": round(left, 1) if math.isfinite(left) else None,
        "deploy": None if finding.deploy is None else asdict(finding.deploy),
        "sentence": finding.summary,
    }
