"""The draft itself: an incident's facts put into Markdown.

Owns what stands where, and that a name from outside stays a name: it neither ends its line nor becomes markup.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from batsignal import __version__
from batsignal.cli.report import questions
from batsignal.cli.report.course import Course
from batsignal.drills.daemon_api import without_login
from batsignal.expose.page import wording
from batsignal.spelling import duration, latency, taken

_HERE = Path(__file__).parent
_MARKUP = re.compile(r"([\\`*<>\[\]|~#])")
# Deploys of the hour before an incident stand in its timeline.
BEFORE_SECONDS = 3600.0
UPDATES_MOST = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A line of the timeline."""

    t: float
    what: str
    text: str


def write(
    incident: Mapping[str, Any],
    *,
    deploys: Sequence[Mapping[str, Any]],
    course: Course | None,
    now: float,
    url: str,
    unread: str | None = None,
) -> str:
    """Return the draft in Markdown; `incident` and `deploys` are as the API tells them.

    `course` is None where there is no recording, or one that could not be read: then `unread` says why.
    """
    signal, timeline = incident["signal"], incident["timeline"]
    ended = incident["ended"]
    until = now if ended is None else ended
    raised = next((event for event in timeline if event["event"] == "raised"), None)
    # Over, it is told in hindsight; what was said while it was lit stands in the timeline.
    said = [event["signal"] for event in timeline if event["event"] in {"raised", "updated"}]
    return _TEMPLATE.render(
        version=__version__,
        now=now,
        url=without_login(url),
        incident=incident,
        signal=signal,
        first=signal if raised is None else raised["signal"],
        last=said[-1] if said else signal,
        kind=wording.KINDS.get(signal["kind"], signal["kind"]),
        culprit=_culprit(signal["subject"]),
        known=_known(signal["subject"]),
        lasted=max(until - signal["since"], 0.0),
        noticed=max(signal["detected"] - signal["since"], 0.0),
        moments=list(_moments(incident, deploys, until)),
        releases=[event for event in timeline if event["event"] == "released"],
        course=course,
        unread=unread,
        questions=tuple(Ours(question) for question in questions.for_kind(signal["kind"])),
    )


def _known(subject: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what else is known of the culprit, with its label."""
    return [(label, subject[key]) for key, label in wording.SUBJECT_KEYS if subject.get(key) is not None]


def _culprit(subject: Mapping[str, Any]) -> str | None:
    """Return whom it was about, by the best name there is; None where no single one was to blame."""
    if subject.get("application"):
        return wording.who(subject["application"], subject.get("version"))
    for key in ("endpoint", "pool", "limit", "user", "client"):
        if subject.get(key) and subject[key] != "server":
            return f"{key} {subject[key]}"
    return None


def _moments(incident: Mapping[str, Any], deploys: Sequence[Mapping[str, Any]], until: float) -> Iterator[Moment]:
    """Yield the timeline in order, of many updates the first ones and those that change the severity."""
    signal, timeline = incident["signal"], incident["timeline"]
    since = signal["since"]
    moments = [
        Moment(t=one["at"], what="deploy", text=f"{one['service']} {one['version']} was deployed")
        for one in deploys
        if since - BEFORE_SECONDS <= one["at"] <= until
    ]
    moments.append(Moment(t=since, what="began", text="what was told later began here"))
    severity, updates, left_out = None, 0, 0
    for event in timeline:
        is_update = event["event"] == "updated" and event["signal"]["severity"] == severity
        updates += is_update
        if is_update and updates > UPDATES_MOST:
            left_out += 1
            continue
        severity = event["signal"]["severity"]
        moments.append(Moment(t=event["t"], what=event["event"], text=_said(event)))
    if left_out:
        moments.append(Moment(t=until, what="", text=f"{left_out} more updates are not shown; the API has them"))
    yield from sorted(moments, key=lambda moment: moment.t)


def _said(event: Mapping[str, Any]) -> str:
    signal = event["signal"]
    if event["event"] == "released":
        done = event["release"]
        return f"{done['by']} ended {done['ended']} of {done['chosen']} sessions ({asked_for(done['order'])})"
    if event["event"] == "cleared":
        if event.get("reason") == "superseded":
            return f"found to be a symptom of incident {event.get('by')}"
        return "it was over"
    return f"{signal['severity']}: {signal['summary']}"


def asked_for(order: Mapping[str, Any]) -> str:
    """Return what a release was chosen by.

    >>> asked_for({"application": "web", "states": ["idle", "active"], "idle_longer_seconds": 1.0})
    'application web, idle or active, unused for more than 1 s'
    """
    words = [f"{key} {value}" for key, value in order.items() if key not in {"states", "idle_longer_seconds"}]
    states, seconds = order.get("states"), order.get("idle_longer_seconds")
    if states:
        words.append(" or ".join(states))
    if seconds is not None:
        words.append(f"unused for more than {duration(seconds)}")
    return ", ".join(words)


class Ours(str):
    """Markdown that we wrote: its marks are meant."""

    __slots__ = ()


def plain(value: Any) -> Any:
    r"""Return a text as Markdown that shows it and nothing else, on one line; anything else as it is.

    >>> print(plain("a|b\n<script>`x` idle_in"))
    a\|b\u{a}\<script\>\`x\` idle_in
    >>> print(plain(Ours("`batsignal deploy verify`")))
    `batsignal deploy verify`
    """
    if isinstance(value, Ours):
        return value
    if not isinstance(value, str):
        return wording.printable(value)
    # The marks are escaped first: what cannot be printed is spelled with a backslash that is to be seen.
    return wording.printable(_MARKUP.sub(r"\\\1", value))


def _instant(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=False,  # noqa: S701 - it is no HTML: `plain` keeps names from being markup
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(instant=_instant, duration=duration, latency=latency, taken=taken, asked_for=asked_for)
    return environment


_TEMPLATE = _environment().get_template("report.md.j2")
