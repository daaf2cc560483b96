"""Who holds how many sessions at one look, counted once for all who want to know.

Owns the one pass over a look's rows that everything countable needs. It must not judge, remember or name: whoever
reads it splits names as he likes. Pure.
"""

from collections import Counter
from typing import NamedTuple

from batsignal.snapshot import CLIENT_BACKEND, Snapshot


class Held(NamedTuple):
    """Client sessions that agree in database, user, application's name and state, as the server spells them.

    A tuple, for there are many at every look, and a frozen dataclass took three times as long to make.
    """

    datname: str | None
    usename: str | None
    application_name: str | None
    state: str | None
    sessions: int


Census = tuple[Held, ...]


def take_census(snapshot: Snapshot) -> Census:
    """Count the client sessions of a look; a failed look holds none.

    >>> from batsignal.snapshot import Session
    >>> rows = [Session(pid=pid, backend_start=9.0, state="idle", usename="web") for pid in (1, 2)]
    >>> census = take_census(Snapshot(server="a", t=9.0, sessions=tuple(rows)))
    >>> [(held.usename, held.sessions) for held in census]
    [('web', 2)]
    """
    counts = Counter(
        [
            (session.datname, session.usename, session.application_name, session.state)
            for session in snapshot.sessions
            if session.backend_type == CLIENT_BACKEND  # `is_client`, without a call for every row of every look
        ]
    )
    return tuple(Held(*who, sessions) for who, sessions in counts.items())
