"""The pools of some services: which sessions are not theirs to lend, how many work, and what was to be had.

Owns whose pools are followed, look by look (`pool` is one of them), and what they come to as of now. It judges no
service and has no clock.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from batsignal.detect.pool import REST_LEAST_SECONDS, Lent, Order, Pool
from batsignal.detect.tracks import Origin, Track
from batsignal.detect.window import Window

# A call this long holds its session as firmly as one that was forgotten.
CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lending:
    """One pool, or several of one service, as of now."""

    origins: tuple[Origin, ...]
    held: tuple[Track, ...]
    """Not to be had: passed over, left in the middle of a transaction or a result, or in one call for long."""
    working: int
    """At work, or so shortly ago that nobody can tell."""
    sessions: int
    worked_until: float
    """When the last of them was used."""
    opened_last: float
    grew_at: float
    """At which look it was last found larger than it had been of late; minus infinity when it never was."""
    to_be_had: int
    """Lay free for a while in the time that was asked for, and were lent after; or had only seemed passed over."""

    def share_working(self) -> float:
        return self.working / self.sessions if self.sessions else 0.0


def together(lendings: Collection[Lending]) -> Lending:
    """Return several pools as one."""
    return Lending(
        origins=tuple(origin for one in lendings for origin in one.origins),
        held=tuple(track for one in lendings for track in one.held),
        working=sum(one.working for one in lendings),
        sessions=sum(one.sessions for one in lendings),
        worked_until=max(one.worked_until for one in lendings),
        opened_last=max(one.opened_last for one in lendings),
        grew_at=max(one.grew_at for one in lendings),
        to_be_had=sum(one.to_be_had for one in lendings),
    )


class Lendings:
    """Follows the pools of the services it is told to."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[int, tuple[Origin, Pool]]] = {}
        self._orders: dict[str, Order] = {}

    def clear(self) -> None:
        """Forget everything: the clock stepped back."""
        self._pools.clear()
        self._orders.clear()

    def look(
        self, window: Window, services: Collection[str], pooled: Collection[tuple[str | None, str | None]]
    ) -> None:
        """Take in what was lent since the look before; other services' pools are forgotten.

        Sessions of a database and user in `pooled` belong to a pooler, whoever they say they work for.
        """
        pools: dict[str, dict[int, tuple[Origin, Pool]]] = {service: {} for service in services}
        if pools:
            for origin in window.origins.values():
                key, service = origin.key, origin.group.key[1]
                mine = pools.get(service)
                if mine is None or not origin.tracks or (key.database, key.user) in pooled:
                    continue
                known = self._pools.get(service, {}).get(id(origin))
                if known is None:
                    order = self._orders.setdefault(service, Order())
                    # The next version, or another pod, goes round as fast as those before it.
                    known = (origin, Pool(order, round_seconds=order.round_seconds))
                mine[id(origin)] = known
                known[1].look(origin, window.t)
        self._pools = pools
        for service, order in self._orders.items():
            rounds = [pool.round_seconds for _, pool in pools.get(service, {}).values()]
            order.round_seconds = max(filter(math.isfinite, rounds), default=order.round_seconds)
        for service in [service for service in self._orders if service not in pools]:
            del self._orders[service]

    def of(self, service: str, t: float, since: float = math.inf) -> list[Lending]:
        """Return the pools of a service as of now, one for each origin; `to_be_had` is asked since an instant."""
        return [_lending(origin, pool, t, since) for origin, pool in self._pools.get(service, {}).values()]


def _lending(origin: Origin, pool: Pool, t: float, since: float) -> Lending:
    worked_until = pool.worked_until if math.isfinite(pool.worked_until) else t
    held: list[Track] = []
    working = 0
    for lent in pool.lent.values():
        if _is_held(pool, lent, worked_until, t):
            held.append(lent.track)
        elif lent.resting_since is None or t - lent.resting_since < REST_LEAST_SECONDS:
            working += 1
    return Lending(
        origins=(origin,),
        held=tuple(held),
        working=working,
        sessions=len(pool.lent),
        worked_until=worked_until,
        opened_last=max(track.opened_at for track in origin.tracks.values()),
        grew_at=pool.grew_at,
        to_be_had=sum(1 for lent in pool.lent.values() if lent.was_to_be_had(since, t)),
    )


def _is_held(pool: Pool, lent: Lent, worked_until: float, t: float) -> bool:
    session = lent.track.session
    if lent.resting_since is None:
        began = session.query_start if session.query_start is not None else session.state_change
        is_call = session.state in {"active", "fastpath function call"} and session.wait_event_type != "Lock"
        return is_call and began is not None and t - began >= CALL_SECONDS
    if t - lent.resting_since < REST_LEAST_SECONDS:
        return False
    # In the middle of a transaction, or of a result that nobody reads, no session is free.
    return session.state != "idle" or pool.is_passed_over(lent, worked_until)
