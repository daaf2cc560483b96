"""Ends sessions, one statement each: through whatever session of ours is there, so that it works with no slot left.

Owns what the server is asked for it, and what its refusals mean. Whom to end is not its affair, but that it is still
the same session, unused since the look, is checked by the very statement that ends it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psycopg2

from batsignal.poll.guarded import GAVE_UP, INSUFFICIENT_PRIVILEGE, DeadlineError
from batsignal.poll.rows import Row
from batsignal.snapshot import Session

End = Literal["ended", "gone or in use again", "not allowed", "not known", "not tried"]


Ask = Callable[[str, Mapping[str, Any]], list[Row]]
"""Called with the name of a query and its arguments; raises psycopg2.Error and DeadlineError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Whom we may end: anybody but superusers (`anybody`), and what is known of single roles. `role` is ours."""

    anybody: bool
    by_role: Mapping[str, bool]
    role: str

    @property
    def grant(self) -> str:
        """The statement that lets us end other roles' sessions, to be pasted by a superuser."""
        plain = self.role.isascii() and self.role.isidentifier() and self.role.islower()
        role = self.role if plain else '"{}"'.format(self.role.replace('"', '""'))
        return f"GRANT pg_signal_backend TO {role};"

    def may_end(self, session: Session) -> bool:
        """Whether a session may be ended by us; of one whose role is not known, whether most sessions may."""
        return self.anybody if session.usename is None else self.by_role.get(session.usename, self.anybody)


def rights(ask: Ask, roles: Iterable[str | None]) -> Rights | None:
    """Return whose sessions we may end; None when a locked catalog did not tell."""
    names = sorted({role for role in roles if role is not None})
    try:
        rows = ask("endable", {"roles": names})
    except psycopg2.Error as exc:
        if exc.pgcode in GAVE_UP:
            return None
        raise
    mine = next((row for row in rows if row[2] is not None), None)
    if mine is None:
        return None
    by_role = {name: bool(may) for name, may, me in rows if me is None}
    return Rights(anybody=bool(mine[1]), by_role=by_role, role=mine[2])


def end(ask: Ask, sessions: Iterable[Session], *, may_go_on: Callable[[], bool]) -> tuple[End, ...]:
    """End sessions; return what became of each. Once `may_go_on` says no, or the server is silent, the rest is left.

    It raises nothing: what has ended by then must be told.
    """
    outcomes: list[End] = []
    goes_on = True
    for session in sessions:
        goes_on = goes_on and may_go_on()
        outcomes.append(_end(ask, session) if goes_on else "not tried")
        goes_on = goes_on and outcomes[-1] != "not known"
    return tuple(outcomes)


def _end(ask: Ask, session: Session) -> End:
    """End one session; not known when the answer did not come: nothing else can be asked then."""
    arguments = {
        "pid": session.pid,
        "backend_start": session.backend_start,
        "state": session.state,
        "state_change": session.state_change,
    }
    try:
        rows = ask("end_session", arguments)
    except psycopg2.Error as exc:
        if exc.pgcode == INSUFFICIENT_PRIVILEGE:
            return "not allowed"
        return "not tried" if exc.pgcode in GAVE_UP else "not known"
    except DeadlineError:
        return "not known"
    return "ended" if rows and rows[0][0] else "gone or in use again"
