"""One lit signal as the page says it: the sentence, who, since when, how long is left, what to do.

Owns the reading of a signal for a person's eyes; every word about a cause is the signal's own. It knows no server's
card and draws nothing.
"""

import math
from dataclasses import dataclass

from batsignal.detect.signal import DeployRef, Signal, Subject
from batsignal.expose.page import wording
from batsignal.record.board import ServerBoard

# The verdict has a place of its own on the page; said twice, it would be read once less.
_HEALTHY = "Do not restart the database: it is healthy."
# Where a sentence may be cut into what is read from afar and what is read up close; a clause shorter than this says
# too little by itself.
_BREAKS = (": ", "; ", " (")
_SILENT = (": ", "; ")
_LEAD_CHARACTERS_LEAST = 16
_FIRST_WORDS = frozenset(("a", "all", "an", "no", "one", "somebody", "the"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told of a signal, lit or long over.

    `lead`, `pause` and `rest` are the summary, cut where a reader may stop; the pause need not be seen. `action` is
    what to do, without the verdict that stands beside it; `action_to_copy` is the whole of it.
    """

    id: str
    kind: str
    severity: str
    server: str
    lead: str
    pause: str
    rest: str
    who: str | None
    subject: tuple[tuple[str, str], ...]
    since: float
    detected: float
    deploy: DeployRef | None
    action: str
    action_to_copy: str
    database_healthy: bool | None
    evidence: tuple[str, ...]
    runbook: str | None

    @property
    def is_named(self) -> bool:
        """Whether anything that is known says who it is; a limit alone does not."""
        return self.who is not None or any(label != "limit" for label, _ in self.subject)

    @property
    def summary(self) -> str:
        return self.lead + self.pause + self.rest

    @property
    def begins_with_a_word(self) -> bool:
        return begins_with_a_word(self.lead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lit(Told):
    """One signal that is lit. `left_seconds` is None when nothing runs out or nobody can know."""

    sessions: int
    left_seconds: float | None
    until: str
    slots_full: bool


def begins_with_a_word(sentence: str) -> bool:
    """Whether a sentence may begin with a capital: with a word of ours, and not with somebody's name.

    >>> begins_with_a_word("the health endpoint web is slow"), begins_with_a_word("web@2.4.0 leaks connections")
    (True, False)
    """
    return sentence.partition(" ")[0] in _FIRST_WORDS


def read_signal(signal: Signal, server: ServerBoard | None, now: float, runbooks: frozenset[str]) -> Lit:
    """Return a signal as it stands at `now`; `server` is the board of its server, None while that has none."""
    found, subject = signal.finding, signal.finding.subject
    kind = wording.KINDS[found.kind]
    left = None
    if server is not None and server.seen and math.isfinite(found.exhaustion_seconds):
        left = max(found.exhaustion_seconds - max(now - server.ticked_at, 0.0), 0.0)
    lead, pause, rest = cut(found.summary or f"{kind} on {signal.server}")
    return Lit(
        id=signal.id,
        kind=kind,
        severity=found.severity,
        server=signal.server,
        lead=lead,
        pause=pause,
        rest=rest,
        who=who_of(subject),
        subject=facts(subject),
        since=found.since,
        detected=signal.detected,
        sessions=found.sessions,
        deploy=found.deploy,
        left_seconds=left,
        until=_until(subject.limit),
        slots_full=server is not None and server.slots_full,
        action=beside_verdict(found.action, healthy=found.database_healthy),
        action_to_copy=found.action,
        database_healthy=found.database_healthy,
        evidence=found.evidence,
        runbook=runbook_of(found.kind, runbooks),
    )


def cut(summary: str) -> tuple[str, str, str]:
    """Return the clause to be read from afar, the mark that ends it where it need not be seen, and the rest.

    >>> cut("web@2.4.0 leaks connections: 38 held; slots run out in 1m50s")
    ('web@2.4.0 leaks connections', ': ', '38 held; slots run out in 1m50s')
    >>> cut("a storm of 40 sessions/s (usually 2)"), cut("no way in")
    (('a storm of 40 sessions/s', '', ' (usually 2)'), ('no way in', '', ''))
    """
    places = [place for mark in _BREAKS if (place := summary.find(mark, _LEAD_CHARACTERS_LEAST)) > 0]
    place = min(places, default=len(summary))
    lead, rest = summary[:place], summary[place:]
    pause = next((mark for mark in _SILENT if rest.startswith(mark)), "")
    return lead, pause, rest.removeprefix(pause)


def beside_verdict(action: str, *, healthy: bool | None) -> str:
    """Return what to do; beside a verdict that the database is healthy, without the sentence that says so anyway.

    >>> beside_verdict("Roll back web. Do not restart the database: it is healthy. Then end them.", healthy=True)
    'Roll back web. Then end them.'
    """
    return " ".join(action.replace(_HEALTHY, "").split()) if healthy else action


def who_of(subject: Subject) -> str | None:
    """Return the application of a subject with its version; None where none is known."""
    return wording.who(subject.application, subject.version) if subject.application else None


def runbook_of(kind: str, runbooks: frozenset[str]) -> str | None:
    """Return the runbook of a kind's alert, if it is served.

    >>> runbook_of("lock_pileup", frozenset({"BatSignalLockPileup"})), runbook_of("leak", frozenset())
    ('BatSignalLockPileup', None)
    """
    runbook = "BatSignal" + kind.title().replace("_", "")
    return runbook if runbook in runbooks else None


def facts(subject: Subject) -> tuple[tuple[str, str], ...]:
    """Return what is known of a subject beside application and version, as pairs of label and value."""
    known = [(label, getattr(subject, key)) for key, label in wording.SUBJECT_KEYS]
    return tuple(
        (label, _limit(value) if label == "limit" else str(value)) for label, value in known if value is not None
    )


def _limit(limit: str) -> str:
    """Spell a limit that is reached.

    >>> _limit("server"), _limit("role:app"), _limit("role:?")
    ("of the server's slots", 'of role app', 'of a role')
    """
    whose, _, name = limit.partition(":")
    if not name:
        return "of the server's slots"
    return f"of a {whose}" if name == "?" else f"of {whose} {name}"


def _until(limit: str | None) -> str:
    """Return what the clock runs down to.

    >>> _until(None), _until("role:web")
    ('no slot is left', "web's own limit is reached (role)")
    """
    whose, _, name = (limit or "").partition(":")
    return f"{name}'s own limit is reached ({whose})" if name else "no slot is left"
