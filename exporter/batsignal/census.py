"""Who holds how many sessions at one look, counted once for all who want to know.

Owns the one pass over a look's rows that everything countable needs. It must not judge, remember or name: whoever
reads it splits names as he likes. Pure.
"""

from operator import attrgetter
from typing import NamedTuple

from batsignal.snapshot import CLIENT_BACKEND, Snapshot


class Held(NamedTuple):
    """Client sessions that agree in database, user, application's name and state, as the server spells them.

    `oldest_start` is when the first of them began, of those that say so; None when none does. A tuple, for there are
    many at every look, and a frozen dataclass took three times as long to make.
    """

    datname: str | None
    usename: str | None
    application_name: str | None
    state: str | None
    sessions: int
    oldest_start: float | None


Census = tuple[Held, ...]


def take_census(snapshot: Snapshot) -> Census:
    """Count the client sessions of a look; a failed look holds none.

    >>> from batsignal.snapshot import Session
    >>> rows = [Session(pid=pid, backend_start=9.0 - pid, state="idle", usename="web") for pid in (1, 2)]
    >>> census = take_census(Snapshot(server="a", t=9.0, sessions=tuple(rows)))
    >>> [(held.usename, held.sessions, held.oldest_start) for held in census]
    [('web', 2, 7.0)]
    """
    starts: dict[_Who, list[float | None]] = {}
    for session in snapshot.sessions:
        if session.backend_type != CLIENT_BACKEND:  # `is_client`, without a call for every row of every look
            continue
        who = _who(session)
        group = starts.get(who)
        if group is None:
            starts[who] = [session.backend_start]
        else:
            group.append(session.backend_start)
    return tuple(
        Held(*who, len(group), min((start for start in group if start is not None), default=None))
        for who, group in starts.items()
    )


_Who = tuple[str | None, str | None, str | None, str | None]
_who = attrgetter("datname", "usename", "application_name", "state")
