"""What an act is: one row of the catalogue made real, the pace it is asked for, and how it tells what it did.

Owns the border between those who play (an act a row, `acts`) and the one who directs (`play`). It must not know either:
it holds no session, starts no thread and judges nothing.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from batsignal.detect.signal import DeployRef, Kind, Subject

if TYPE_CHECKING:
    from batsignal.drills.ground import Ground

CALM_SECONDS = 15.0

Need = Literal["role", "database", "restart", "embedded", "pgbouncer", "pg_dump"]
"""What a drill cannot do without: the right to create roles or databases, a server that is ours, a program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the user may set; None is the act's own default. An act reads it through `ActSpec.paced`."""

    rate_per_second: float | None = None
    size: int | None = None
    duration_seconds: float | None = None
    calm_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnsetFacts:
    """What an act knows of the incident that begins: only the keys of `subject` that are set must be named.

    `at` is now unless given. `bound_seconds` overrides the bound of the kind (`truth`); a leak's comes from what was
    lost. `optional` is a symptom that may be said or not.
    """

    kind: Kind
    subject: Subject
    deploy: DeployRef | None = None
    at: float | None = None
    bound_seconds: float | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One thing that an act told, in the order in which it was told."""

    t: float
    event: Literal["deployed", "onset", "lost", "note", "exhausted", "done"]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Tell:
    """How an act reports; thread-safe. `listener` gets each thing told, in the thread that told it."""

    def __init__(self, listener: Callable[[Told], None] | None = None) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._onsets: dict[Kind, OnsetFacts] = {}
        self._lost_at: list[float] = []
        self._exhausted_at: float | None = None
        self._done = threading.Event()

    def onset(self, facts: OnsetFacts) -> None:
        """Say that an incident begins; only the first of a kind counts."""
        at = time.time() if facts.at is None else facts.at
        with self._lock:
            if facts.kind in self._onsets:
                return
            self._onsets[facts.kind] = OnsetFacts(
                kind=facts.kind,
                subject=facts.subject,
                deploy=facts.deploy,
                at=at,
                bound_seconds=facts.bound_seconds,
                optional=facts.optional,
            )
        self._note(Told(t=at, event="onset", facts={"kind": facts.kind, "subject": facts.subject}))

    def lost(self, at: float | None = None) -> None:
        """Count one session more that was lost, opened or stuck: what the achieved rate is made of."""
        at = time.time() if at is None else at
        with self._lock:
            self._lost_at.append(at)
            count = len(self._lost_at)
        self._note(Told(t=at, event="lost", facts={"sessions": count}))

    def deployed(self, service: str, version: str, previous: str | None = None) -> DeployRef:
        """Say that a version begins to run now, and return the deploy for the onset."""
        deploy = DeployRef(service=service, version=version, at=time.time(), previous=previous)
        self._note(
            Told(t=deploy.at, event="deployed", facts={"service": service, "version": version, "previous": previous})
        )
        return deploy

    def note(self, text: str) -> None:
        """Add one line to the timeline."""
        self._note(Told(t=time.time(), event="note", facts={"text": text}))

    def exhausted(self, at: float | None = None) -> None:
        """Say that the limit in question is reached; slots of the server are seen without it."""
        at = time.time() if at is None else at
        with self._lock:
            if self._exhausted_at is not None:
                return
            self._exhausted_at = at
        self._note(Told(t=at, event="exhausted"))

    def done(self) -> None:
        """Say that a finite act has ended by itself."""
        if not self._done.is_set():
            self._done.set()
            self._note(Told(t=time.time(), event="done"))

    # -- what was told ---------------------------------------------------------------------------------------------

    @property
    def onsets(self) -> Mapping[Kind, OnsetFacts]:
        """The incidents that began, each with its instant."""
        with self._lock:
            return dict(self._onsets)

    @property
    def lost_at(self) -> tuple[float, ...]:
        with self._lock:
            return tuple(sorted(self._lost_at))

    @property
    def exhausted_at(self) -> float | None:
        return self._exhausted_at

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    @property
    def told(self) -> tuple[Told, ...]:
        with self._lock:
            return tuple(self._told)

    def _note(self, told: Told) -> None:
        with self._lock:
            self._told.append(told)
        if self._listener is not None:
            self._listener(told)


class Act(Protocol):
    """One row made real: runs in a thread of its own from the end of the calm until `ground.stopped`."""

    def __call__(self, ground: "Ground", pace: Pace, tell: Tell, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActSpec:
    """An act and what it is like by default. The calm before it is what detectors learn as usual.

    `duration_seconds` counts from the end of the calm: for an incident, long enough for its signal to light and some
    20 s more; for everyday life, as long as the row says. `least_slots` is what it needs of the share, background
    included. `own_background` keeps the usual background away. `endpoint`: the daemon probes `ground.endpoint`, which
    answers 200 until the act says otherwise. `prepare` runs before the daemon starts and returns keys for the server's
    entry in the daemon's config (`pgbouncer_dsn`, say).
    """

    run: Act
    rate_per_second: float | None = None
    size: int | None = None
    duration_seconds: float
    calm_seconds: float = CALM_SECONDS
    needs: tuple[Need, ...] = ()
    least_slots: int = 16
    own_background: bool = False
    endpoint: bool = False
    prepare: "Callable[[Ground], Mapping[str, Any]] | None" = None

    def paced(self, asked: Pace, *, calm_seconds: float | None = None) -> Pace:
        """Return the pace with nothing left open that the act has a default for; this is what the act gets."""
        return Pace(
            rate_per_second=self.rate_per_second if asked.rate_per_second is None else asked.rate_per_second,
            size=self.size if asked.size is None else asked.size,
            duration_seconds=self.duration_seconds if asked.duration_seconds is None else asked.duration_seconds,
            calm_seconds=next(one for one in (asked.calm_seconds, calm_seconds, self.calm_seconds) if one is not None),
        )


__all__ = ["Act", "ActSpec", "DeployRef", "Kind", "Need", "OnsetFacts", "Pace", "Subject", "Tell", "Told"]
