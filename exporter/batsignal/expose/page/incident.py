"""One incident as its own page tells it: what it was, how it went step by step, and the picture around it.

Owns which of many updates are worth a line, and the words for them. It reads what is kept as JSON (an incident may
have been written by another release, with less or more in it); every word about a cause is the signal's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from batsignal.detect.signal import DeployRef, Subject
from batsignal.expose.page import wording
from batsignal.expose.page.chart import Chart, Mark, draw
from batsignal.expose.page.lit import Told, beside_verdict, cut, facts, runbook_of, who_of
from batsignal.record.board import PastIncident
from batsignal.record.past_slots import PastSlots
from batsignal.spelling import duration

# Of a run of updates that bring nothing but numbers the first and the last tell the story.
NUMBERS_IN_A_ROW = 3
SUBJECT_NAMES = tuple(one.name for one in fields(Subject))

_HEALTH: Mapping[bool | None, str] = {
    True: "the database is healthy",
    False: "the database itself is not well",
    None: "nothing is known of the database's health",
}

View = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the timeline. `other` is the id of the incident that it speaks of, None of none."""

    t: float
    what: str
    lines: tuple[str, ...] = ()
    other: str | None = None
    tone: str = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentStory(Told):
    """The whole page of an incident.

    `action` is what was said to do while it was lit; `over` is what there is to do now that it has ended, empty while
    it goes on. `before_end` says what people did shortly before.
    """

    ended: float | None
    over: str
    before_end: tuple[str, ...]
    sessions_most: int
    steps: tuple[Step, ...]
    chart: Chart | None
    chart_is_whole: bool


def tell_incident(view: View, slots: PastSlots | None, runbooks: frozenset[str]) -> IncidentStory:
    """Return what is told of a kept incident, as `/api/v1/incidents/ID` gives it, and of the slots around it."""
    signal: View = view["signal"]
    subject = _subject(signal)
    kind = str(signal["kind"])
    deploy = _deploy(signal)
    events: Sequence[View] = view.get("timeline", ())
    lead, pause, rest = cut(str(signal.get("summary") or wording.KINDS.get(kind, kind)))
    ended = view["ended"]
    said = signal if ended is None else _said_last(signal, events)
    action, healthy = str(said.get("action") or ""), signal.get("database_healthy")
    return IncidentStory(
        id=str(view["id"]),
        kind=wording.KINDS.get(kind, kind),
        severity=str(view["worst"]),
        server=str(signal["server"]),
        lead=lead,
        pause=pause,
        rest=rest,
        who=who_of(subject),
        subject=facts(subject),
        since=signal["since"],
        detected=signal["detected"],
        ended=ended,
        over="" if ended is None else _over(signal, action),
        before_end=() if ended is None else tuple(_before_end(events)),
        sessions_most=max(one.get("sessions") or 0 for one in (signal, *(event["signal"] for event in events))),
        deploy=deploy,
        action=beside_verdict(action, healthy=healthy),
        action_to_copy=action,
        database_healthy=healthy,
        evidence=tuple(str(line) for line in signal.get("evidence", ())),
        runbook=runbook_of(kind, runbooks),
        steps=tuple(sorted(_steps(view, events, deploy), key=lambda step: step.t)),
        chart=_chart(view, slots, subject, deploy),
        chart_is_whole=slots is None or slots.is_whole,
    )


def _said_last(signal: View, events: Sequence[View]) -> View:
    """Return the signal as it was told while it was lit; when it is over, it is told in hindsight."""
    return next(
        (event["signal"] for event in reversed(events) if event["event"] not in {"cleared", "released"}), signal
    )


def _over(signal: View, said: str) -> str:
    """Return what there is to do of an incident that is over; an earlier release left standing what it had said."""
    now = str(signal.get("action") or "")
    return "Nothing is to be undone for it now: it is over." if now in {"", said} else now


def _before_end(events: Sequence[View]) -> Iterator[str]:
    """Yield who had sessions ended last."""
    released = [event for event in events if event["event"] == "released"]
    if released:
        yield f"Shortly before, {_released(released[-1].get('release') or {})}"


def line_of(view: View) -> PastIncident:
    """Return a kept incident in one line."""
    signal: View = view["signal"]
    return PastIncident(
        id=str(view["id"]),
        server=str(signal["server"]),
        kind=str(signal["kind"]),
        severity=str(view["worst"]),
        summary=str(signal.get("summary") or ""),
        since=signal["since"],
        detected=signal["detected"],
        ended=view["ended"],
    )


def _subject(signal: View) -> Subject:
    known: Mapping[str, Any] = signal.get("subject") or {}
    return Subject(**{name: known[name] for name in SUBJECT_NAMES if name in known})


def _deploy(signal: View) -> DeployRef | None:
    deploy = signal.get("deploy")
    if deploy is None:
        return None
    return DeployRef(service=deploy["service"], version=deploy["version"], at=deploy["at"])


# -- the timeline ------------------------------------------------------------------------------------------------------


def _steps(view: View, events: Sequence[View], deploy: DeployRef | None) -> Iterator[Step]:
    if deploy is not None:
        yield Step(t=deploy.at, what=f"Deploy of {deploy.service} {deploy.version}", tone="deploy")
    yield Step(t=view["signal"]["since"], what="It began")
    before: View | None = None
    numbers: list[Step] = []
    for event in events:
        signal = event["signal"]
        changes = _changes(before, signal) if before is not None else []
        before = signal
        if event["event"] == "updated" and not changes:
            numbers.append(Step(t=event["t"], what="New numbers", lines=(str(signal.get("summary", "")),)))
            continue
        yield from _few(numbers)
        numbers = []
        yield _step(event, changes)
    yield from _few(numbers)


def _few(numbers: Sequence[Step]) -> Iterator[Step]:
    """Yield a run of updates of numbers, a long one as its first and its last."""
    if len(numbers) <= NUMBERS_IN_A_ROW:
        yield from numbers
        return
    yield numbers[0]
    last = numbers[-1]
    yield Step(t=last.t, what=f"New numbers, {len(numbers) - 2} times in between", lines=last.lines)


def _step(event: View, changes: Sequence[str]) -> Step:
    signal, name = event["signal"], event["event"]
    summary = (str(signal.get("summary", "")),)
    if name == "raised":
        after = duration(event["t"] - signal["since"])
        return Step(
            t=event["t"], what=f"Named, {after} after it began: {signal['severity']}", lines=summary, tone="lit"
        )
    if name == "cleared":
        if event.get("reason") == "superseded":
            return Step(t=event["t"], what="Found to be a symptom of another incident", other=event.get("by"))
        return Step(t=event["t"], what="Ended", lines=summary, tone="good")
    if name == "released":
        return Step(t=event["t"], what=_released(event.get("release") or {}), tone="done")
    if name == "updated":
        first = changes[0]
        return Step(t=event["t"], what=first[:1].upper() + first[1:], lines=(*changes[1:], *summary))
    return Step(t=event["t"], what=str(name), lines=summary)


def _released(release: View) -> str:
    ended, chosen = release.get("ended", 0), release.get("chosen", 0)
    return f"{release.get('by') or 'somebody'} had {ended} of {chosen} sessions ended (batsignal release)"


def _changes(before: View, now: View) -> list[str]:
    """Return in words which facts changed from one telling to the next; nothing for numbers that moved."""
    changes = []
    if before["severity"] != now["severity"]:
        changes.append(f"turned {now['severity']}")
    if _deploy(before) != (deploy := _deploy(now)):
        told = (
            "no deploy is named any more"
            if deploy is None
            else f"came after the deploy of {deploy.service} {deploy.version}"
        )
        changes.append(told)
    was, known = before.get("subject") or {}, now.get("subject") or {}
    for name in SUBJECT_NAMES:
        if was.get(name) != known.get(name):
            value = known.get(name)
            changes.append(f"{name.replace('_', ' ')} {'differs by now' if value is None else f'known: {value}'}")
    if before.get("database_healthy") != now.get("database_healthy"):
        changes.append(_HEALTH[now.get("database_healthy")])
    if before["since"] != now["since"]:
        changes.append("its beginning was corrected")
    return changes


# -- the picture -------------------------------------------------------------------------------------------------------


def _chart(view: View, slots: PastSlots | None, subject: Subject, deploy: DeployRef | None) -> Chart | None:
    if slots is None or not slots.samples:
        return None
    first, last = slots.samples[0].t, slots.samples[-1].t
    deploys = {(one.service, one.version): one.at for one in slots.deploys}
    if deploy is not None:
        deploys[deploy.service, deploy.version] = deploy.at
    marks = [Mark(at=at, label=f"{service} {version}") for (service, version), at in deploys.items() if at >= first]
    marks.append(Mark(at=view["signal"]["detected"], label="named", is_deploy=False))
    if view["ended"] is not None:
        marks.append(Mark(at=view["ended"], label="ended", is_deploy=False))
    culprits = {name for name in (who_of(subject), subject.application) if name}
    return draw(
        slots.samples,
        slots.interval_seconds,
        marks=marks,
        culprits=culprits,
        span_seconds=max(last - first + slots.interval_seconds, 2 * slots.interval_seconds),
    )
