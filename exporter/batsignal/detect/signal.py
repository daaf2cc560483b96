"""The words of the product: what a finding and a signal are, and how a signal reads as JSON.

Owns the shapes that detectors produce, incidents keep and every reader shows. It judges nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kind = Literal[
    "leak",
    "pool_starvation",
    "query_pileup",
    "lock_pileup",
    "storm",
    "idle_in_transaction",
    "saturation",
    "endpoint_down",
    "endpoint_slow",
    "database_unreachable",
]
Severity = Literal["critical", "warning"]

Key = tuple[str, tuple[str, ...]]
"""A finding's kind and its own key: what makes it the same from tick to tick."""

KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who or what a signal is about. A key that is not known, or over which the sessions differ, is None.

    `application` is the service; `limit` is `server`, `role:NAME` or `database:NAME`; `blocker` a pid (0: a prepared
    transaction).
    """

    application: str | None = None
    version: str | None = None
    user: str | None = None
    database: str | None = None
    client: str | None = None
    query_id: str | None = None
    endpoint: str | None = None
    pool: str | None = None
    limit: str | None = None
    blocker: int | None = None

    def settled(self, before: "Subject | None") -> "Subject":
        """Return this subject as one that was said before: what was known then stays, what is known since is added.

        >>> Subject(version="2", user="a").settled(Subject(application="web", version="1")).version
        '1'
        """
        if before is None:
            return self
        known = {name: getattr(before, name) for name in Subject.__dataclass_fields__}
        return replace(self, **{name: value for name, value in known.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRef:
    """The deploy that plausibly came first."""

    service: str
    version: str
    at: float
    previous: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a detector says of this tick: a judgement that has already been held long enough to be said.

    `key` is the identity of the thing found, stable from tick to tick while its facts (severity, count, version)
    move. `exhaustion_seconds` is infinite when nothing runs out. `database_healthy` is None when nothing is known.
    `fading` says that it is no longer so and only held, so as not to flap: a signal may stay lit by it, none is raised.
    `wakes_if_it_lasts` says of a warning that it turns critical by itself: what it brings about need not wake anybody
    before that.
    `harmless_at` is when the same (the same statement, say) was last seen to do no harm: a deploy before it is not the
    cause. None when it was never seen before. `versions` are those of the culprit's sessions, where they differ or not
    (`blame.versions_of`): what an older version does too came with no deploy of a newer one. `undo` is what to undo as
    long as no deploy is known, whose roll-back takes its place; `action` is what else to do.
    """

    kind: Kind
    key: tuple[str, ...]
    severity: Severity
    subject: Subject
    since: float
    sessions: int = 0
    exhaustion_seconds: float = math.inf
    deploy: DeployRef | None = None
    database_healthy: bool | None = None
    evidence: tuple[str, ...] = ()
    summary: str = ""
    action: str = ""
    undo: str = ""
    fading: bool = False
    wakes_if_it_lasts: bool = False
    harmless_at: float | None = None
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A finding with a life: `id`, `detected` and `raised_as` stay from raise to clear.

    `raised_as` is the subject as it was known at the raise: an alert's labels are made of it, because a label that
    changes while an incident lasts is a second page. `sessions_most` is the most sessions that it was about in this
    life of the daemon; what is told when it is over speaks of them.
    """

    id: str
    server: str
    detected: float
    raised_as: Subject
    finding: Finding
    sessions_most: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the SIGNAL object of the public contract; times are Unix seconds, infinity is null."""
        found = self.finding
        return {
            "id": self.id,
            "kind": found.kind,
            "severity": found.severity,
            "server": self.server,
            "subject": asdict(found.subject),
            "since": found.since,
            "detected": self.detected,
            "sessions": found.sessions,
            "exhaustion_seconds": found.exhaustion_seconds if math.isfinite(found.exhaustion_seconds) else None,
            "deploy": None
            if found.deploy is None
            else {"service": found.deploy.service, "version": found.deploy.version, "at": found.deploy.at},
            "database_healthy": found.database_healthy,
            "evidence": list(found.evidence),
            "summary": found.summary,
            "action": found.action,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change in a signal's life. `reason` and `by` are set on `cleared` only."""

    t: float
    event: Literal["raised", "updated", "cleared"]
    signal: Signal
    reason: Literal["ended", "superseded"] | None = None
    by: str | None = None

    def as_json(self) -> Mapping[str, Any]:
        """Return the event as one line of `batsignal replay --format json` shows it."""
        head: dict[str, Any] = {"t": self.t, "event": self.event}
        if self.reason is not None:
            head["reason"] = self.reason
        if self.by is not None:
            head["by"] = self.by
        return head | {"signal": self.signal.as_json()}
