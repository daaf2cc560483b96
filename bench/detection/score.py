"""What was said against what was true: detected, by whom, after which deploy, how soon, and what was said in vain.

Owns the rules of scoring, each as one small function. It must not know any detector or any scenario, and it never
looks at a clock: all instants are Unix seconds, all durations seconds.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from batsignal.detect.signal import DeployRef, Event, Finding, Kind, Severity, Subject
from batsignal.drills.truth import Truth

# What becomes known after the raise may come by an update for so long, and a signal that is superseded by the right one
# within it was no wrong page.
GRACE_SECONDS = 60.0
DEPLOY_TOLERANCE_SECONDS = 60.0
EXHAUSTION_FACTOR = 1.5
# Instants are sums of floats.
ROUNDING_SECONDS = 1e-6

Outcome = Literal["detected", "missed"]


@dataclass(frozen=True, slots=True)
class State:
    """A signal as it was said at one moment."""

    t: float
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One signal from its raise to its end; `states` begin with the raise. `life` numbers the daemon that said it."""

    id: str
    life: int
    states: tuple[State, ...]
    cleared_at: float | None = None
    superseded_by: str | None = None

    @property
    def kind(self) -> Kind:
        return self.states[0].finding.kind

    @property
    def raised_at(self) -> float:
        return self.states[0].t

    @property
    def worst(self) -> Severity:
        """The worst severity it ever had."""
        return "critical" if any(state.finding.severity == "critical" for state in self.states) else "warning"

    def early(self) -> Iterable[State]:
        """Return its states up to the end of the grace after the raise."""
        return [state for state in self.states if state.t - self.raised_at <= GRACE_SECONDS + ROUNDING_SECONDS]


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthScore:
    """How one truth was told. What does not apply is None.

    `raised_at` is when it was said of the right one, `critical_at` when that woke somebody. `ended` is the end of the
    play, up to which every truth lasts. `repeats` counts raises after the first, `lapses` those that were cleared as
    ended though it went on.
    """

    truth: Truth
    outcome: Outcome
    raised_at: float | None = None
    critical_at: float | None = None
    ended: float = math.inf
    seconds: float | None = None
    within_bound: bool = False
    deploy_right: bool | None = None
    exhaustion_ratio: float | None = None
    half_way_ratio: float | None = None
    repeats: int = 0
    lapses: int = 0

    @property
    def exhaustion_right(self) -> bool | None:
        """Whether the prediction at the raise was right within the factor; None when there was nothing to predict."""
        return _is_near(self.exhaustion_ratio)

    @property
    def half_way_right(self) -> bool | None:
        """As `exhaustion_right`, of what was said half-way from the onset to the exhaustion."""
        return _is_near(self.half_way_ratio)

    @property
    def before_exhaustion(self) -> bool:
        """Whether somebody was woken while there was time left; a play that ends before that asks for the raise."""
        runs_out = self.truth.exhaustion is not None and self.truth.exhaustion <= self.ended
        at = self.critical_at if runs_out else self.raised_at
        return at is not None and is_before(at, self.truth.exhaustion)


@dataclass(frozen=True, slots=True, kw_only=True)
class FalsePage:
    """A signal that no truth stands behind. `allowed`: a warning in a row that may warn."""

    said: Said
    allowed: bool

    @property
    def severity(self) -> Severity:
        return self.said.worst


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """All of one variation."""

    truths: tuple[TruthScore, ...]
    false_pages: tuple[FalsePage, ...]


def said_of(events: Iterable[Event], life: int = 0) -> tuple[Said, ...]:
    """Put the events of one life of the daemon together to signals, in order of their raise."""
    states: dict[str, list[State]] = {}
    ends: dict[str, Event] = {}
    for event in events:
        if event.event == "cleared":
            ends[event.signal.id] = event
        else:
            states.setdefault(event.signal.id, []).append(State(event.t, event.signal.finding))
    return tuple(
        Said(
            id=id_,
            life=life,
            states=tuple(states[id_]),
            cleared_at=ends[id_].t if id_ in ends else None,
            superseded_by=ends[id_].by if id_ in ends and ends[id_].reason == "superseded" else None,
        )
        for id_ in states
    )


def score(truths: Sequence[Truth], said: Sequence[Said], *, may_warn: bool, ended: float = math.inf) -> Score:
    """Score what was said in one variation that ended at that instant.

    `may_warn` allows warnings that no truth stands behind.
    """
    told = _told(truths, said)
    right = {(one.life, one.id) for raises in told for one in raises}
    false_pages = tuple(
        FalsePage(said=one, allowed=may_warn and one.worst == "warning")
        for one in said
        if (one.life, one.id) not in right and not _was_superseded(one, right)
    )
    return Score(
        truths=tuple(_score_truth(truth, raises, ended) for truth, raises in zip(truths, told, strict=True)),
        false_pages=false_pages,
    )


def fits(truth: Truth, said: Said) -> bool:
    """Return whether a signal tells a truth: its kind and its culprit, and not before it began.

    What is not known yet at the raise may become known within the grace. Whoever is named wrongly at the raise has been
    blamed: the page is out, and no update takes it back.
    """
    if said.kind != truth.kind or said.raised_at < truth.onset - ROUNDING_SECONDS:
        return False
    if contradicts(truth.subject, said.states[0].finding.subject):
        return False
    return any(names(truth.subject, state.finding.subject) for state in said.early())


def names(wanted: Subject, subject: Subject) -> bool:
    """Return whether every key that must be named is named rightly.

    >>> names(Subject(application="web"), Subject(application="web", user="app"))
    True
    >>> names(Subject(application="web", version="2"), Subject(application="web"))
    False
    """
    return all(
        getattr(wanted, key) is None or getattr(wanted, key) == getattr(subject, key)
        for key in Subject.__dataclass_fields__
    )


def contradicts(wanted: Subject, subject: Subject) -> bool:
    """Return whether a key that must be named is named wrongly; not known is not wrong.

    >>> contradicts(Subject(application="web"), Subject(application="billing"))
    True
    >>> contradicts(Subject(application="web", version="2"), Subject(application="web"))
    False
    """
    return any(
        None not in (getattr(wanted, key), getattr(subject, key)) and getattr(wanted, key) != getattr(subject, key)
        for key in Subject.__dataclass_fields__
    )


def is_right_deploy(wanted: DeployRef, said: DeployRef | None) -> bool:
    """Return whether that deploy was named, its time within a minute."""
    if said is None or (said.service, said.version) != (wanted.service, wanted.version):
        return False
    return abs(said.at - wanted.at) <= DEPLOY_TOLERANCE_SECONDS + ROUNDING_SECONDS


def is_before(t: float, exhaustion: float | None) -> bool:
    """Return whether there is time left at `t`; always when nothing runs out."""
    return exhaustion is None or t < exhaustion


def _told(truths: Sequence[Truth], said: Sequence[Said]) -> list[list[Said]]:
    """Give each signal to one truth: one not told yet, those that must be told and began first before the others.

    A truth of which a signal is lit takes no second one beside it: who is told twice of one thing, once for each of its
    pods, say, is paged once in vain.
    """
    told: list[list[Said]] = [[] for _ in truths]
    for one in sorted(said, key=lambda one: one.raised_at):
        fitting = [n for n, truth in enumerate(truths) if fits(truth, one) and not _is_lit(told[n], one)]
        if fitting:
            first = min(fitting, key=lambda n: (bool(told[n]), truths[n].optional, truths[n].onset))
            told[first].append(one)
    return told


def _is_lit(raises: Sequence[Said], one: Said) -> bool:
    """Return whether the same daemon has one of these lit when it raises this one."""
    return any(
        other.life == one.life and (other.cleared_at is None or other.cleared_at > one.raised_at) for other in raises
    )


def _was_superseded(said: Said, right: set[tuple[int, str]]) -> bool:
    if said.superseded_by is None or said.cleared_at is None or (said.life, said.superseded_by) not in right:
        return False
    return said.cleared_at - said.raised_at <= GRACE_SECONDS + ROUNDING_SECONDS


def _score_truth(truth: Truth, raises: Sequence[Said], ended: float) -> TruthScore:
    if not raises:
        return TruthScore(truth=truth, outcome="missed", ended=ended)
    first = raises[0]
    raised_at = _named_at(truth, first)
    seconds = raised_at - truth.onset
    lives = {one.life for one in raises}  # a new daemon says again what it finds
    return TruthScore(
        truth=truth,
        outcome="detected",
        raised_at=raised_at,
        critical_at=min(
            (max(state.t, raised_at) for one in raises for state in one.states if state.finding.severity == "critical"),
            default=None,
        ),
        ended=ended,
        seconds=seconds,
        within_bound=seconds <= truth.bound_seconds + ROUNDING_SECONDS,
        deploy_right=_deploy_right(truth, first),
        exhaustion_ratio=_exhaustion_ratio(truth, first.states[0], raised_at=first.raised_at),
        half_way_ratio=_half_way_ratio(truth, raises, ended),
        repeats=len(raises) - len(lives),
        lapses=sum(one.cleared_at is not None and one.superseded_by is None for one in raises),
    )


def _named_at(truth: Truth, said: Said) -> float:
    """Return when it was first said of the right one; its version may come later."""
    wanted = replace(truth.subject, version=None)
    return next(state.t for state in said.early() if names(wanted, state.finding.subject))


def _deploy_right(truth: Truth, said: Said) -> bool | None:
    """Return whether the right deploy was named; where there was none, naming one is wrong and silence is nothing."""
    named = [state.finding.deploy for state in said.early()]
    if truth.deploy is not None:
        return any(is_right_deploy(truth.deploy, deploy) for deploy in named)
    return False if any(named) else None


def _is_near(ratio: float | None) -> bool | None:
    return None if ratio is None else 1 / EXHAUSTION_FACTOR <= ratio <= EXHAUSTION_FACTOR


def _exhaustion_ratio(truth: Truth, said: State, *, raised_at: float) -> float | None:
    """Return predicted over true time left at that moment; None when nothing runs out or all has run out already."""
    if truth.exhaustion is None or raised_at >= truth.exhaustion:
        return None
    predicted = said.finding.exhaustion_seconds
    if not math.isfinite(predicted):
        return math.inf
    return max(said.t + predicted - raised_at, 0.0) / (truth.exhaustion - raised_at)


def _half_way_ratio(truth: Truth, raises: Sequence[Said], ended: float) -> float | None:
    """Return predicted over true time left half-way from the onset to the exhaustion, by what was said last by then.

    None when nothing runs out before the play ends, or nothing is said then: it is late, and counted as that.
    """
    if truth.exhaustion is None or truth.exhaustion > ended:
        return None
    half_way = (truth.onset + truth.exhaustion) / 2
    lit = [one for one in raises if one.raised_at <= half_way and (one.cleared_at is None or one.cleared_at > half_way)]
    if not lit:
        return None
    last = max((state for one in lit for state in one.states if state.t <= half_way), key=lambda state: state.t)
    return _exhaustion_ratio(truth, last, raised_at=half_way)
