"""What really happened, as its maker knows it: one incident of a drill or of a simulated recording.

Owns the shape of that truth and the bounds within which it must be said. It must not know any detector: what is said is
compared with this, never derived from it. All instants are Unix seconds, all durations seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from batsignal.detect.signal import DeployRef, Kind, Subject

LEAK_SESSIONS = 10
LEAK_LEAST_SECONDS = 30.0
LEAK_GRACE_SECONDS = 15.0

# From the onset, for the kinds whose bound is one number.
BOUND_SECONDS: dict[Kind, float] = {
    "query_pileup": 15.0,
    "lock_pileup": 15.0,
    "storm": 10.0,
    "saturation": 10.0,
    "pool_starvation": 45.0,
    # After five minutes, with the same grace as the others.
    "idle_in_transaction": 315.0,
    "endpoint_down": 30.0,
    "endpoint_slow": 60.0,
    "database_unreachable": 5.0,
}
POOLER_WAIT_BOUND_SECONDS = 15.0
"""Of `pool_starvation`, from PgBouncer's clients beginning to wait."""
BLOCKING_BOUND_SECONDS = 15.0
"""Of `idle_in_transaction`, from the first session that it blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One incident. Only the keys of `subject` that are not None must be named.

    `onset` is when it began, `bound_seconds` how long after it the signal may light, `exhaustion` when the slots (or
    the limit in question) run out if nobody acts, None if they never do. An `optional` truth may be said or not: a
    symptom that is real, such as a health endpoint that fails because of the incident.
    """

    kind: Kind
    subject: Subject
    onset: float
    bound_seconds: float
    exhaustion: float | None = None
    deploy: DeployRef | None = None
    optional: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object; keys of the subject that need not be named are left out."""
        subject = {name: value for name, value in _fields(self.subject) if value is not None}
        deploy = self.deploy
        return {
            "kind": self.kind,
            "subject": subject,
            "onset": self.onset,
            "bound_seconds": self.bound_seconds,
            "exhaustion": self.exhaustion,
            "deploy": {"service": deploy.service, "version": deploy.version, "at": deploy.at} if deploy else None,
            "optional": self.optional,
        }


def leak_bound_seconds(onset: float, lost_at: Sequence[float], *, asked_per_second: float | None = None) -> float:
    """Return how long after its onset a leak may be called: ten sessions or 30 s, whichever is later, plus 15 s.

    `lost_at` are the instants at which sessions were lost, in order; with fewer than ten, the pace so far goes on, and
    with fewer than two the pace that was asked for.

    >>> leak_bound_seconds(100.0, [100.0 + 2 * n for n in range(20)])
    45.0
    >>> leak_bound_seconds(100.0, [100.0 + 45 * n for n in range(20)])
    420.0
    >>> leak_bound_seconds(100.0, [100.0, 145.0])
    420.0
    >>> leak_bound_seconds(100.0, [100.0], asked_per_second=1 / 45)
    420.0
    """
    if len(lost_at) >= LEAK_SESSIONS:
        tenth = lost_at[LEAK_SESSIONS - 1]
    elif len(lost_at) > 1:
        pace = (lost_at[-1] - lost_at[0]) / (len(lost_at) - 1)
        tenth = lost_at[0] + (LEAK_SESSIONS - 1) * pace
    elif asked_per_second:
        tenth = onset + (LEAK_SESSIONS - 1) / asked_per_second
    else:
        tenth = onset
    return max(tenth - onset, LEAK_LEAST_SECONDS) + LEAK_GRACE_SECONDS


def _fields(subject: Subject) -> list[tuple[str, Any]]:
    return [(name, getattr(subject, name)) for name in Subject.__dataclass_fields__]


Group = Literal["incident", "everyday", "hard pair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of what BatSignal must name or must leave alone.

    `kinds` must be said, all of them. `most` is the worst severity that anything else may have: None, nothing else may
    light at all.
    """

    name: str
    group: Group
    story: str
    kinds: tuple[Kind, ...] = ()
    most: Literal["warning"] | None = None
