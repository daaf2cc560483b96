"""What somebody wants ended, and what became of it: the values of a release.

Owns the shapes, their defaults and how they read as JSON. `choice` chooses, and `poll.ending` ends.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from batsignal.names import printable
from batsignal.snapshot import Session

# Nobody waits for an answer in these. In every other state somebody may.
UNUSED_STATES = ("idle", "idle in transaction", "idle in transaction (aborted)")
STATES = (*UNUSED_STATES, "active", "fastpath function call", "disabled")
# Between two statements of a request a session is idle, too; a second later it most likely is not needed now.
IDLE_LONGER_SECONDS = 1.0
# How a client on the server's own host is called, which comes by no address.
LOCAL = "local"

Outcome = Literal["would end", "ended", "gone or in use again", "not allowed", "not known", "not tried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Whose sessions, in which states, not used for how long. At least one of the names is given.

    `application` is a service, or a whole `application_name`. `client` is an address, or `local`.
    """

    application: str | None = None
    version: str | None = None
    user: str | None = None
    client: str | None = None
    database: str | None = None
    states: tuple[str, ...] = UNUSED_STATES
    idle_longer_seconds: float = IDLE_LONGER_SECONDS

    def as_json(self) -> dict[str, Any]:
        """Return what was chosen by, without what was not asked for."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A session that is to end. `idle_seconds` is how long its state has lasted, None when the server does not say."""

    session: Session
    application: str | None
    version: str | None
    idle_seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Return who it is; a name from outside in a form that is safe on one line."""
        session = self.session
        names = {
            "application": self.application,
            "version": self.version,
            "user": session.usename,
            "database": session.datname,
            "client": session.client_addr or LOCAL,
        }
        return {
            "pid": session.pid,
            **{name: None if value is None else printable(value) for name, value in names.items()},
            "state": session.state,
            "idle_seconds": None if self.idle_seconds is None else round(self.idle_seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """Somebody who holds sessions and was not meant, though maybe by mistake."""

    application: str | None
    version: str | None
    user: str | None
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What an order comes to at one look, taken at `t`. `spared` counts those that are meant and left alone, by why."""

    t: float
    chosen: tuple[Held, ...] = ()
    spared: Mapping[str, int] = field(default_factory=dict)
    near: tuple[Near, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What became of an order. `outcomes` are of `choice.chosen`, in its order; `gone` counts those seen to have left.

    `mend` is the statement that lets us end them, None when nothing stood in the way. `incidents` are the ids that the
    release is noted in.
    """

    server: str
    order: Order
    choice: Choice
    dry_run: bool
    outcomes: tuple[Outcome, ...]
    gone: int = 0
    mend: str | None = None
    incidents: tuple[str, ...] = ()

    @property
    def ended(self) -> int:
        return self.outcomes.count("ended")

    def as_json(self) -> dict[str, Any]:
        """Return what `POST /api/v1/release` answers."""
        return {
            "server": self.server,
            "time": self.choice.t,
            "dry_run": self.dry_run,
            "order": self.order.as_json(),
            "sessions": [
                held.as_json() | {"outcome": outcome}
                for held, outcome in zip(self.choice.chosen, self.outcomes, strict=True)
            ],
            "spared": dict(self.choice.spared),
            "near": [asdict(one) for one in self.choice.near],
            "ended": self.ended,
            "gone": self.gone,
            "mend": self.mend,
            "incidents": list(self.incidents),
        }

    def audit(self, by: str, address: str | None) -> dict[str, Any]:
        """Return the line that an incident keeps of it: who asked, by what, how many went, and which did not."""
        left = [
            {"pid": held.session.pid, "outcome": outcome}
            for held, outcome in zip(self.choice.chosen, self.outcomes, strict=True)
            if outcome != "ended"
        ]
        return {
            "by": by,
            "address": address,
            "order": self.order.as_json(),
            "chosen": len(self.choice.chosen),
            "ended": self.ended,
            "gone": self.gone,
            "left": left[:100],
        }
