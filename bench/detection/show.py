"""One variation in words: what our judge said, what was true, and how that was scored; or written as a recording.

For a person who wants to know why a line of the table is what it is. It prints; it judges nothing.
"""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from batsignal.spelling import duration
from detection.score import Said, TruthScore
from detection.stock_rules import WAYS
from detection.variation import Variation, run_variation


def show(row: str, seed: int, *, quick: bool) -> int:
    """Print one variation; exit 1 when it could not be played."""
    variation = run_variation(row, seed, quick=quick)
    if variation.error is not None:
        print(f"{row} {seed} could not be played:\n{variation.error}", file=sys.stderr)
        return 1
    print("\n".join(_lines(variation)))
    return 0


def write(row: str, seed: int, file: Path, *, quick: bool) -> int:
    """Write one variation as a recording with its truth beside it; exit 1 when it could not be played."""
    try:
        from simulator.scenario import build  # noqa: PLC0415 - a broken scenario is told of, not raised
        from simulator.scenario import write as write_play  # noqa: PLC0415

        truth = write_play(build(row, seed, quick=quick), file)
    except Exception:  # noqa: BLE001 - whatever a scenario raises is told
        print(f"{row} {seed} could not be written to {file}:\n{traceback.format_exc()}", file=sys.stderr)
        return 1
    print(f"{file}\n{truth}")
    return 0


def _lines(variation: Variation) -> Iterator[str]:
    yield f"{variation.row} {variation.seed}: {variation.hours:.2f} h simulated in {variation.cost_seconds:.1f} s"
    yield f"facts: {', '.join(f'{key}={value}' for key, value in variation.facts.items())}"
    yield "\ntrue:"
    for told in variation.truths:
        yield from _truth_lines(told, variation)
    if not variation.truths:
        yield "  nothing was wrong"
    yield "\nsaid:"
    false = {(page.said.life, page.said.id): page for page in variation.false_pages}
    for one in variation.said:
        page = false.get((one.life, one.id))
        mark = "" if page is None else "   <- allowed" if page.allowed else "   <- FALSE"
        yield from _said_lines(one, variation.began, mark)
    if not variation.said:
        yield "  nothing"
    yield "\nstock rules' alerts:"
    for way in WAYS:
        for rule, raised in variation.stock[way].items():
            if raised:
                yield f"  {way:<7} {rule:<25} {', '.join(duration(at - variation.began) for at in raised)}"


def _truth_lines(told: TruthScore, variation: Variation) -> Iterator[str]:
    truth = told.truth
    subject = {
        key: value for key in truth.subject.__dataclass_fields__ if (value := getattr(truth.subject, key)) is not None
    }
    ends = (
        "never runs out" if truth.exhaustion is None else f"runs out at {duration(truth.exhaustion - variation.began)}"
    )
    onset = duration(truth.onset - variation.began)
    must = "may be said" if truth.optional else f"to be said within {duration(truth.bound_seconds)}"
    yield f"  {onset:>7} {truth.kind} {subject}, {must}, {ends}"
    if truth.deploy is not None:
        when = duration(truth.deploy.at - variation.began)
        yield f"          after {truth.deploy.service}@{truth.deploy.version}, deployed at {when}"
    facts: list[str] = [told.outcome]
    if told.seconds is not None:
        facts.append(f"after {told.seconds:.1f} s, {'within' if told.within_bound else 'NOT within'} its bound")
    if told.deploy_right is not None:
        facts.append("right deploy" if told.deploy_right else "WRONG deploy")
    if told.exhaustion_ratio is not None:
        facts.append(f"predicted time left x{told.exhaustion_ratio:.2f} of the true")
    if told.half_way_ratio is not None:
        facts.append(f"half-way x{told.half_way_ratio:.2f}")
    if told.repeats:
        facts.append(f"raised {told.repeats} times more")
    if told.lapses:
        facts.append(f"cleared {told.lapses} times while it went on")
    yield f"          {', '.join(facts)}"


def _said_lines(said: Said, began: float, mark: str) -> Iterator[str]:
    for number, state in enumerate(said.states):
        what = "raised" if number == 0 else "updated"
        left = state.finding.exhaustion_seconds
        yield (
            f"  {duration(state.t - began):>7} {what} {state.finding.severity} {state.finding.kind}:"
            f" {state.finding.summary} (time left {duration(left)}){mark if number == 0 else ''}"
        )
    if said.cleared_at is not None:
        why = "superseded" if said.superseded_by is not None else "ended"
        yield f"  {duration(said.cleared_at - began):>7} cleared {said.kind} ({why})"
