"""Who holds how many sessions at one look, counted once for all who want to know.

Owns the one pass over a look's rows that everything countable needs. It must not judge, remember or name: whoever
reads it splits names as he likes. Pure.
"""

from dataclasses import dataclass
from operator import attrgetter

from batsignal.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Client sessions that agree in database, user, application's name and state, as the server spells them.

    `oldest_start` is when the first of them began, of those that say so; None when none does.
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
    groups: dict[_Who, _Group] = {}
    for session in snapshot.sessions:
        if not session.is_client:
            continue
        who, start = _who(session), session.backend_start
        group = groups.get(who)
        if group is None:
            groups[who] = _Group(1, start)
            continue
        group.sessions += 1
        if start is not None and (group.oldest_start is None or start < group.oldest_start):
            group.oldest_start = start
    return tuple(
        Held(
            datname=datname,
            usename=usename,
            application_name=application_name,
            state=state,
            sessions=group.sessions,
            oldest_start=group.oldest_start,
        )
        for (datname, usename, application_name, state), group in groups.items()
    )


@dataclass(slots=True)
class _Group:
    sessions: int
    oldest_start: float | None


_Who = tuple[str | None, str | None, str | None, str | None]
_who = attrgetter("datname", "usename", "application_name", "state")
