"""What the page tells, before it is drawn: the board turned into a headline, its details and the rows below.

Owns the order of importance (lit, then what cannot be seen, then quiet) and which numbers may be shown: quiet is only
said of servers that answer. It judges no session and invents no number; every word about a cause is the signal's own.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from batsignal.detect.signal import DeployRef, Signal
from batsignal.expose import api
from batsignal.expose.page import wording
from batsignal.expose.page.chart import Chart, draw
from batsignal.record.board import Board, PastIncident, ServerBoard
from batsignal.record.tally import EndpointTally
from batsignal.snapshot import Deploy

Mood = Literal["lit", "blind", "starting", "quiet"]

APPLICATIONS_SHOWN = 8
DEPLOYS_SHOWN = 8
CHARTS_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Lit:
    """One signal as the page shows it. `left_seconds` is None when nothing runs out or nobody can know."""

    id: str
    kind: str
    severity: str
    server: str
    summary: str
    who: str | None
    subject: tuple[tuple[str, str], ...]
    since: float
    sessions: int
    deploy: DeployRef | None
    left_seconds: float | None
    until: str
    slots_full: bool
    action: str
    database_healthy: bool
    evidence: tuple[str, ...]
    runbook: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one version of an application holds, and in which states."""

    who: str
    sessions: int
    states: str
    culprit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCard:
    """One server. `tone` is good, bad or waiting; numbers are of the last good look, at `last_answer`."""

    name: str
    tone: Literal["good", "bad", "waiting"]
    state: str
    lit: bool
    up: bool
    unprivileged: bool
    grant: str
    failure: str | None
    used: int | None
    usable: int | None
    max: int | None
    ping_seconds: float | None
    view: str
    version: str
    last_answer: float | None
    usage: tuple[Usage, ...]
    usage_hidden: int
    chart: Chart | None
    culprits: frozenset[str]

    @property
    def fill_percent(self) -> int:
        """How full the bar is drawn, 0 to 100."""
        if self.used is None or not self.usable:
            return 0
        return min(round(100 * self.used / self.usable), 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The whole page."""

    mood: Mood
    severity: str
    title: str
    headline: str
    detail: tuple[str, ...]
    hero: Lit | None
    others: tuple[Lit, ...]
    servers: tuple[ServerCard, ...]
    endpoints: tuple[EndpointTally, ...]
    deploys: tuple[Deploy, ...]
    incidents: tuple[PastIncident, ...]
    config_error: str | None
    version: str
    started_at: float


def tell(board: Board, now: float, runbooks: frozenset[str]) -> Story:
    """Return what the page says of this board at this moment."""
    lit = [_lit(signal, board.servers.get(signal.server), now, runbooks) for signal in board.signals]
    cards = sorted((_card(name, server, board.deploys) for name, server in board.servers.items()), key=_urgency)
    servers = tuple(cards)
    mood, headline, detail = _verdict(lit, servers)
    return Story(
        mood=mood,
        severity=lit[0].severity if lit else "none",
        title=f"{'LIT: ' if lit else ''}{headline} \N{MIDDLE DOT} BatSignal",
        headline=headline,
        detail=detail,
        hero=lit[0] if lit else None,
        others=tuple(lit[1:]),
        servers=servers,
        endpoints=tuple(sorted(board.endpoints.values(), key=lambda tally: tally.last is not None and tally.last.up)),
        deploys=tuple(sorted(board.deploys, key=lambda deploy: deploy.at, reverse=True)[:DEPLOYS_SHOWN]),
        incidents=board.incidents,
        config_error=None if board.config_reload_ok else board.config_reload_error or "no reason given",
        version=board.version,
        started_at=board.started_at,
    )


def _urgency(card: ServerCard) -> tuple[bool, bool, str]:
    return (not card.lit, card.tone == "good", card.name)


def _verdict(lit: list[Lit], servers: tuple[ServerCard, ...]) -> tuple[Mood, str, tuple[str, ...]]:
    """Return mood, headline and the lines below it; quiet is said only when nothing stands against it."""
    if lit:
        return "lit", lit[0].summary, ()
    if not servers:
        return "blind", "No server to watch", ("The config names no server.",)
    return _unseen(servers) or ("quiet", "All quiet", (_quiet_detail(servers),))


def _unseen(servers: tuple[ServerCard, ...]) -> tuple[Mood, str, tuple[str, ...]] | None:
    """Return why a dark signal says nothing, the worst reason first; None when everything is seen."""
    down = [card for card in servers if card.tone == "bad" and not card.up]
    if down:
        return "blind", f"Cannot see {_names(down)}", tuple(f"{card.name}: {card.state}." for card in down)
    unprivileged = [card for card in servers if card.unprivileged]
    if unprivileged:
        return "blind", f"Seeing {_names(unprivileged)} only in part", ("No signal is lit, but one might be missed.",)
    full = [card for card in servers if card.tone == "bad"]
    if full:
        return "blind", f"No slot left on {_names(full)}", ("The server is full but alive: do not restart it.",)
    waiting = [card for card in servers if card.tone == "waiting"]
    if waiting:
        return "starting", "Taking the first look", (f"Waiting for {_names(waiting)}.",)
    return None


def _names(cards: Iterable[ServerCard]) -> str:
    return ", ".join(card.name for card in cards)


def _quiet_detail(servers: tuple[ServerCard, ...]) -> str:
    watched = "1 server watched" if len(servers) == 1 else f"{len(servers)} servers watched"
    known = [(card.used, card.usable) for card in servers if card.used is not None and card.usable is not None]
    if not known:
        return f"{watched}, nobody holds too much."
    used, usable = (sum(numbers) for numbers in zip(*known, strict=True))
    return f"{watched}, {used} of {usable} slots taken, nobody holds too much."


def _lit(signal: Signal, server: ServerBoard | None, now: float, runbooks: frozenset[str]) -> Lit:
    found, subject = signal.finding, signal.finding.subject
    known = [(label, getattr(subject, key)) for key, label in wording.SUBJECT_KEYS]
    kind = wording.KINDS[found.kind]
    runbook = "BatSignal" + found.kind.title().replace("_", "")
    left = None
    if server is not None and server.up and math.isfinite(found.exhaustion_seconds):
        left = max(found.exhaustion_seconds - max(now - server.ticked_at, 0.0), 0.0)
    return Lit(
        id=signal.id,
        kind=kind,
        severity=found.severity,
        server=signal.server,
        summary=found.summary or f"{kind} on {signal.server}",
        who=wording.who(subject.application, subject.version) if subject.application else None,
        subject=tuple((label, str(value)) for label, value in known if value is not None),
        since=found.since,
        sessions=found.sessions,
        deploy=found.deploy,
        left_seconds=left,
        until=_until(subject.limit),
        slots_full=server is not None and server.slots_full,
        action=found.action,
        database_healthy=found.database_healthy is True,
        evidence=found.evidence,
        runbook=runbook if runbook in runbooks else None,
    )


def _until(limit: str | None) -> str:
    """Return what the clock runs down to.

    >>> _until(None), _until("role:web")
    ('no slot is left', "web's own limit is reached (role)")
    """
    whose, _, name = (limit or "").partition(":")
    return f"{name}'s own limit is reached ({whose})" if name else "no slot is left"


def _card(name: str, server: ServerBoard | None, deploys: tuple[Deploy, ...]) -> ServerCard:
    if server is None:
        return _waiting_card(name)
    answered, failure = server.answered, server.snapshot.failure
    slots = api.slots_view(answered)
    usage, hidden = _usage(server)
    full = server.slots_full
    return ServerCard(
        name=name,
        tone="good" if server.up and not full else "bad",
        state=wording.STATES["slots_full" if full and server.up else server.state],
        lit=bool(server.signals),
        up=server.up,
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
        chart=draw(server.history, server.interval_seconds, [deploy.at for deploy in deploys]),
        culprits=frozenset(_culprit_names(server.signals)),
    )


def _waiting_card(name: str) -> ServerCard:
    return ServerCard(
        name=name,
        tone="waiting",
        state=wording.STATES[api.STARTING],
        lit=False,
        up=False,
        unprivileged=False,
        grant="",
        failure=None,
        used=None,
        usable=None,
        max=None,
        ping_seconds=None,
        view=wording.VIEWS["none"],
        version=wording.server_version(None),
        last_answer=None,
        usage=(),
        usage_hidden=0,
        chart=None,
        culprits=frozenset(),
    )


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
