"""Which sessions an order means, at one look: a pure choice, and what was left alone and why.

Owns the rule of whom never to end: no session of our own, none that is no client's (replication, workers), none in a
state that was not asked for, none that was used a moment ago.
"""

import difflib
import ipaddress
from collections import Counter
from collections.abc import Iterator

from batsignal.names import Application, ApplicationPattern
from batsignal.releases.order import LOCAL, Choice, Held, Near, Order
from batsignal.snapshot import Session, Snapshot

OUR_NAME = "batsignal"
NEAR_MOST = 5
USED_LATELY = "used lately"


def choose(snapshot: Snapshot, order: Order, pattern: ApplicationPattern) -> Choice:
    """Return whom an order means among the sessions of a look, the longest unused first."""
    chosen: list[Held] = []
    spared: Counter[str] = Counter()
    others: Counter[tuple[str | None, str | None, str | None]] = Counter()
    for session in snapshot.sessions:
        if not session.is_client or _is_ours(session, snapshot.role):
            continue
        who = _called(session, pattern)
        if not _is_meant(session, who, order):
            others[who.service, who.version, session.usename] += 1
            continue
        idle_seconds = None if session.state_change is None else max(snapshot.t - session.state_change, 0.0)
        if session.state not in order.states:
            spared[session.state or "state unknown"] += 1
        elif idle_seconds is None or idle_seconds < order.idle_longer_seconds:
            spared[USED_LATELY] += 1
        else:
            chosen.append(
                Held(session=session, application=who.service, version=who.version, idle_seconds=idle_seconds)
            )
    chosen.sort(key=lambda held: (-(held.idle_seconds or 0.0), held.session.pid))
    nobody = not chosen and not spared
    return Choice(t=snapshot.t, chosen=tuple(chosen), spared=spared, near=_near(order, others) if nobody else ())


def _called(session: Session, pattern: ApplicationPattern) -> Application:
    """Return who a session says it is; a name that says nothing (`psql`) still tells one from another here."""
    who = pattern.split(session.application_name)
    return who if who.service is not None else Application(service=session.application_name or None, version=None)


def _is_ours(session: Session, role: str | None) -> bool:
    return session.application_name == OUR_NAME and (role is None or session.usename == role)


def _is_meant(session: Session, who: Application, order: Order) -> bool:
    return (
        order.application in {None, who.service, session.application_name}
        and order.version in {None, who.version}
        and order.user in {None, session.usename}
        and order.database in {None, session.datname}
        and (order.client is None or _is_address(session.client_addr, order.client))
    )


def _is_address(address: str | None, wanted: str) -> bool:
    """Whether a client's address is the one that is wanted, however an IPv6 one is spelled.

    >>> _is_address("10.0.0.4", "10.0.0.4"), _is_address("::1", "0:0::1"), _is_address(None, "local")
    (True, True, True)
    """
    if address is None:
        return wanted == LOCAL
    try:
        return ipaddress.ip_address(address) == ipaddress.ip_address(wanted)
    except ValueError:
        return address == wanted


def _near(order: Order, others: Counter[tuple[str | None, str | None, str | None]]) -> tuple[Near, ...]:
    """Return who else holds sessions: those with a name like the one asked for first, then the largest."""
    asked = (order.application or order.user or "").casefold()

    def likeness(names: Iterator[str]) -> float:
        return max((difflib.SequenceMatcher(None, asked, name).ratio() for name in names), default=0.0)

    def rank(item: tuple[tuple[str | None, str | None, str | None], int]) -> tuple[float, int]:
        who, sessions = item
        like = likeness(name.casefold() for name in who if name)
        return (-like if like >= 0.6 else 0.0, -sessions)  # noqa: PLR2004 - difflib's own idea of a close match

    return tuple(
        Near(application=application, version=version, user=user, sessions=sessions)
        for (application, version, user), sessions in sorted(others.items(), key=rank)[:NEAR_MOST]
    )
