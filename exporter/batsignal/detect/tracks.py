"""One session over time, by where it comes from: the shapes that the window keeps and every detector reads.

Owns what is remembered of a session, of its origin and of its group, and of a session that left. Nothing is worked out
here: the window fills them in, look by look, and how long a session rests is told by `rests`.
"""

from collections import deque
from dataclasses import dataclass, field

from batsignal.snapshot import Session

CLOSINGS_KEPT = 512
# A pool lends a session that has been free for so long; a moment less, and it may have been given back while the login
# of the next one was under way.
IDLE_BESIDE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class OriginKey:
    """Where a session comes from: the finest division that names alone allow, usually one pool of one process."""

    service: str | None
    version: str | None
    user: str | None
    database: str | None
    client: str | None

    @property
    def group(self) -> tuple[str, ...]:
        """Whom a signal is about: the service, else the user. One for all pods, versions and clients of it."""
        return ("service", self.service) if self.service is not None else ("user", self.user or "")


@dataclass(slots=True, eq=False)
class Group:
    """Whom a signal is about, through all its origins. `uses` counts how often a look saw a session of it used.

    It is the clock of the group's own work: what goes with its traffic stands still while that clock does.
    """

    key: tuple[str, ...]
    origins: dict[OriginKey, "Origin"] = field(default_factory=dict)
    sessions: int = 0
    uses: int = 0
    changes: int = 0
    """Grows whenever a session comes, leaves or moves: what was worked out before it may not hold any more."""


@dataclass(slots=True, eq=False)
class Origin:
    """One origin and its living sessions."""

    key: OriginKey
    group: Group
    tracks: dict[tuple[int, float | None], "Track"] = field(default_factory=dict)
    filling_since: float = 0.0
    """When the first session came while there was none: pools fill to their minimum right after it."""
    closings: deque["Closing"] = field(default_factory=lambda: deque(maxlen=CLOSINGS_KEPT))
    empty_since: float | None = None
    newest: float = 0.0
    """When its newest session was opened, however short that lived."""
    newest_lent: float = 0.0
    """When the newest of those was opened that came back and were used again: its pool opened that one to lend it."""
    changes: int = 0
    """As its group's, of its own."""


@dataclass(slots=True, eq=False)
class Track:
    """One session over time."""

    session: Session
    origin: Origin
    opened_at: float
    resting_since: float | None = None
    """Since when its client has left it unused; None while the server works for it."""
    longest_rest_seconds: float = 0.0
    """The longest it was left unused before it was used again."""
    longest_passed_seconds: float = 0.0
    """The longest after which it came back although its origin had opened another one meanwhile: no pool's, alone."""
    longest_stuck_seconds: float = 0.0
    """The same of what it was left in the middle of its work."""
    at_use: int = 0
    """How often its group had been seen at work when this one's row last changed."""
    beside_idle_seconds: float = 0.0
    """How long another of its origin had been unused when this one was opened: a pool would have taken that one."""
    idle_beside: int = 0
    """How many others of its origin had been unused for a while by then."""
    lost_at: float = 0.0
    """Since when it is lost, if it is: its opening, or its last use where it had been lent before. Noted by `lost`."""
    is_in_use: bool = False
    """Whether it was used long after its opening: noted by `lost`, too."""


@dataclass(frozen=True, slots=True)
class Closing:
    """A session that left after it had lived a while, and how it had been used: as its track was at the end."""

    t: float
    opened_at: float
    resting_since: float | None
    longest_rest_seconds: float
    beside_idle_seconds: float = 0.0
