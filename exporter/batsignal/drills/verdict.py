"""What the page was worth in one drill: what had to be named, within which time, and what else lit.

Pure: truths and sightings go in, verdicts come out. It must not know how an incident was made or how a daemon is read.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from batsignal.detect.signal import Kind
from batsignal.drills.act import OnsetFacts
from batsignal.drills.truth import BOUND_SECONDS, Row, Truth, leak_bound_seconds

# A signal that gives way within this time to the right one is no wrong page.
SUPERSEDED_SECONDS = 60.0
# The first look at an incident may carry a time stamp a little before the act itself has noted it.
EARLY_SECONDS = 2.0

Outcome = Literal["named", "late", "missed", "too_short", "wrong", "tolerated", "quiet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighted:
    """One signal over its life, by our own clock; `severity` is the worst it had, `subject` and `deploy` the last."""

    id: str
    kind: str
    severity: str
    subject: Mapping[str, Any]
    detected: float
    cleared_at: float | None
    summary: str
    deploy: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judgement, in a line; `is_finding` makes the drill end with exit code 1."""

    outcome: Outcome
    kind: str
    text: str
    is_finding: bool = False
    after_seconds: float | None = None
    bound_seconds: float | None = None


def truth_of(
    facts: OnsetFacts, *, lost_at: Sequence[float], exhaustion: float | None, asked_per_second: float | None = None
) -> Truth:
    """Return the truth of an incident that began, with the bound that its kind has.

    `asked_per_second` stands in for the pace of a leak that has lost one session so far.
    """
    onset = math.nan if facts.at is None else facts.at
    if facts.bound_seconds is not None:
        bound = facts.bound_seconds
    elif facts.kind == "leak":
        bound = leak_bound_seconds(onset, lost_at, asked_per_second=asked_per_second)
    else:
        bound = BOUND_SECONDS[facts.kind]
    return Truth(
        kind=facts.kind,
        subject=facts.subject,
        onset=onset,
        bound_seconds=bound,
        exhaustion=exhaustion,
        deploy=facts.deploy,
        optional=facts.optional,
    )


def achieved_rate(lost_at: Sequence[float]) -> float | None:
    """Return sessions a second from the first to the last; None with fewer than two.

    >>> achieved_rate([10.0, 12.0, 14.0])
    0.5
    """
    if len(lost_at) < 2 or lost_at[-1] <= lost_at[0]:  # noqa: PLR2004 - a rate needs two instants
        return None
    return (len(lost_at) - 1) / (lost_at[-1] - lost_at[0])


def names(truth: Truth, sighted: Sighted) -> bool:
    """Tell whether a signal is about a truth: its kind, and every key of the subject that must be named."""
    if sighted.kind != truth.kind:
        return False
    return all(sighted.subject.get(key) == value for key, value in truth.as_json()["subject"].items())


def judge(
    row: Row, truths: Sequence[Truth], seen: Sequence[Sighted], *, until: float, is_whole: bool = True
) -> list[Verdict]:
    """Return a verdict on each truth that had to be named, on each wrong deploy, and on each stray signal.

    `is_whole`: it was played to its end. Of everyday life that was cut short, quiet so far is all there is to say.
    """
    verdicts = [_on_truth(truth, seen, until) for truth in truths if not truth.optional]
    verdicts += [
        _on_deploy(truth, one)
        for truth in truths
        for one in seen
        if not truth.optional and one.deploy is not None and _explains(truth, one) and not _is_right(truth, one.deploy)
    ]
    verdicts += [_not_begun(kind) for kind in row.kinds if kind not in {truth.kind for truth in truths}]
    if not row.kinds and not seen:
        verdicts.append(_on_quiet(is_whole=is_whole))
    for sighted in seen:
        if not any(_explains(truth, sighted) for truth in truths):
            verdicts.append(_on_stray(row, sighted, truths, seen))
    return verdicts


def _explains(truth: Truth, sighted: Sighted) -> bool:
    if truth.optional:  # a symptom: whose it is called does not matter
        return sighted.kind == truth.kind and sighted.detected >= truth.onset - EARLY_SECONDS
    return names(truth, sighted) and sighted.detected >= truth.onset - EARLY_SECONDS


def _on_truth(truth: Truth, seen: Sequence[Sighted], until: float) -> Verdict:
    kind, bound = truth.kind, truth.bound_seconds
    right = [one for one in seen if _explains(truth, one)]
    if right:
        after = max(min(one.detected for one in right) - truth.onset, 0.0)
        is_late = after > bound
        text = f"{kind}: named after {after:.0f} s (bound {bound:.0f} s)" + (": too late" if is_late else "")
        text += _with_deploy(truth, right) + _again(right)
        outcome: Outcome = "late" if is_late else "named"
        return Verdict(
            outcome=outcome, kind=kind, text=text, is_finding=is_late, after_seconds=after, bound_seconds=bound
        )
    if until - truth.onset < bound:
        lasted = max(until - truth.onset, 0.0)
        text = f"{kind}: not named yet; the drill ended {lasted:.0f} s after the onset (bound {bound:.0f} s)"
        return Verdict(outcome="too_short", kind=kind, text=text, bound_seconds=bound)
    text = f"{kind}: not named within {bound:.0f} s"
    return Verdict(outcome="missed", kind=kind, text=text, is_finding=True, bound_seconds=bound)


def _with_deploy(truth: Truth, right: Sequence[Sighted]) -> str:
    deploy = truth.deploy
    if deploy is None:
        return ""
    if any(one.deploy is not None and _is_right(truth, one.deploy) for one in right):
        return f", with the deploy of {deploy.service} {deploy.version}"
    return f"; its deploy, {deploy.service} {deploy.version}, was not named"


def _again(right: Sequence[Sighted]) -> str:
    """Say when one incident was lit more than once: to a person each time is a page."""
    by_time = sorted(right, key=lambda one: one.detected)
    times = 1 + sum(
        one.cleared_at is not None and one.cleared_at <= later.detected for one, later in itertools.pairwise(by_time)
    )
    return f"; it went out meanwhile, and was lit {times} times" if times > 1 else ""


def _is_right(truth: Truth, deploy: Mapping[str, Any]) -> bool:
    was = truth.deploy
    return was is not None and (deploy.get("service"), deploy.get("version")) == (was.service, was.version)


def _on_deploy(truth: Truth, sighted: Sighted) -> Verdict:
    named, was = sighted.deploy or {}, truth.deploy
    truly = "there was none" if was is None else f"it was {was.service} {was.version}"
    text = f"wrong: {sighted.kind} is laid to the deploy of {named.get('service')} {named.get('version')}; {truly}"
    return Verdict(outcome="wrong", kind=sighted.kind, text=text, is_finding=True)


def _on_quiet(*, is_whole: bool) -> Verdict:
    if is_whole:
        return Verdict(outcome="quiet", kind="", text="nothing lit, as it should be")
    return Verdict(outcome="too_short", kind="", text="nothing lit so far; the drill was ended before its time")


def _not_begun(kind: Kind) -> Verdict:
    return Verdict(outcome="too_short", kind=kind, text=f"{kind}: the drill ended before it began")


def _on_stray(row: Row, sighted: Sighted, truths: Sequence[Truth], seen: Sequence[Sighted]) -> Verdict:
    what = f"{sighted.kind} ({sighted.severity}) lit: {sighted.summary}"
    if row.most is not None and sighted.severity == row.most:
        return Verdict(outcome="tolerated", kind=sighted.kind, text=f"{what}; this row allows a {row.most}")
    if _gave_way(sighted, truths, seen):
        return Verdict(outcome="tolerated", kind=sighted.kind, text=f"{what}; it gave way to the right one")
    return Verdict(outcome="wrong", kind=sighted.kind, text=f"wrong: {what}", is_finding=True)


def _gave_way(sighted: Sighted, truths: Sequence[Truth], seen: Sequence[Sighted]) -> bool:
    if sighted.cleared_at is None or sighted.cleared_at - sighted.detected > SUPERSEDED_SECONDS:
        return False
    return any(
        _explains(truth, one) and one.detected <= sighted.cleared_at
        for truth in truths
        for one in seen
        if one is not sighted
    )
