"""One server as the page shows it: its state, who holds its slots, and the picture of them over time.

Owns which numbers of a server may be shown: those of its last good look, with their age when it does not answer. It
judges no session and invents no number.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from batsignal.detect.signal import Signal
from batsignal.expose import api
from batsignal.expose.page import wording
from batsignal.expose.page.chart import Chart, Mark, draw
from batsignal.record.board import ServerBoard
from batsignal.snapshot import Deploy

APPLICATIONS_SHOWN = 8
Tone = Literal["good", "bad", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one version of an application holds, and in which states."""

    who: str
    sessions: int
    states: str
    culprit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCard:
    """One server. `tone` is good, bad or waiting; numbers are of the last good look, at `last_answer`.

    `severity` is that of its worst lit signal, None while it is dark.
    """

    name: str
    tone: Tone
    state: str
    severity: str | None = None
    seen: bool = False
    up: bool = False
    full: bool = False
    unprivileged: bool = False
    grant: str = ""
    failure: str | None = None
    used: int | None = None
    usable: int | None = None
    max: int | None = None
    ping_seconds: float | None = None
    view: str = wording.VIEWS["none"]
    version: str = wording.server_version(None)
    last_answer: float | None = None
    usage: tuple[Usage, ...] = ()
    usage_hidden: int = 0
    chart: Chart | None = None
    culprits: frozenset[str] = field(default_factory=frozenset)

    @property
    def fill_percent(self) -> int:
        """How full the bar is drawn, 0 to 100."""
        if self.used is None or not self.usable:
            return 0
        return min(round(100 * self.used / self.usable), 100)

    @property
    def urgency(self) -> tuple[int, int, float, str]:
        """Sorts the worst server first: lit, then not well, then the fullest."""
        lit = {"critical": 0, "warning": 1}.get(self.severity or "", 2)
        return (lit, ("bad", "waiting", "good").index(self.tone), -self.fill_percent, self.name)


def read_server(name: str, server: ServerBoard | None) -> ServerCard:
    """Return a server's card, without a picture; None is one whose first look is under way."""
    if server is None:
        return ServerCard(name=name, tone="waiting", state=wording.STATES[api.STARTING])
    answered, failure = server.answered, server.snapshot.met
    slots = api.slots_view(answered)
    usage, hidden = _usage(server)
    full = server.slots_full
    severities = {signal.finding.severity for signal in server.signals}
    return ServerCard(
        name=name,
        tone="good" if server.up and server.snapshot.refusal is None and not full else "bad",
        state=wording.STATES["slots_full" if full and server.up else server.state],
        severity="critical" if "critical" in severities else "warning" if severities else None,
        seen=server.seen,
        up=server.up,
        full=full,
        unprivileged=answered is not None and answered.privileged is False,
        grant="" if answered is None else answered.grant,
        failure=failure.text if failure is not None else None,
        used=None if slots is None else slots["used"],
        usable=None if slots is None else slots["usable"],
        max=None if slots is None else slots["max"],
        ping_seconds=server.snapshot.ping_seconds if server.up else None,
        view=wording.VIEWS[server.view],
        version=wording.server_version(None if answered is None else answered.server_version_num),
        last_answer=server.answered_at,
        usage=usage,
        usage_hidden=hidden,
        culprits=frozenset(_culprit_names(server.signals)),
    )


def with_chart(card: ServerCard, server: ServerBoard | None, deploys: tuple[Deploy, ...]) -> ServerCard:
    """Return a card with the picture of its slots over time, which is worth its cost only where it is shown."""
    if server is None:
        return card
    marks = [Mark(at=one.at, label=f"{one.service} {one.version}") for one in deploys]
    return replace(card, chart=draw(server.history, server.interval_seconds, marks=marks, culprits=card.culprits))


def _culprit_names(signals: tuple[Signal, ...]) -> Iterable[str]:
    """Yield the names under which a culprit may stand in the picture: with its version and without."""
    for signal in signals:
        subject = signal.finding.subject
        if subject.application:
            yield wording.who(subject.application, subject.version)
            yield subject.application


def _is_culprit(application: str, version: str, signals: tuple[Signal, ...]) -> bool:
    subjects = (signal.finding.subject for signal in signals)
    return any(subject.application == application and subject.version in (None, version) for subject in subjects)


def _usage(server: ServerBoard) -> tuple[tuple[Usage, ...], int]:
    """Return the largest holders, and how many sessions the others have together."""
    states: dict[tuple[str, str], Counter[str]] = {}
    for count in api.usage(server):
        states.setdefault((count.application, count.version), Counter())[count.state] += count.sessions
    rows = [
        Usage(
            who=wording.who(application, version),
            sessions=held.total(),
            states=", ".join(f"{n} {state}" for state, n in held.most_common(3)),
            culprit=application != "" and _is_culprit(application, version, server.signals),
        )
        for (application, version), held in states.items()
    ]
    rows.sort(key=lambda row: (-row.sessions, row.who))
    return tuple(rows[:APPLICATIONS_SHOWN]), sum(row.sessions for row in rows[APPLICATIONS_SHOWN:])
