"""How the pools of some services lend their sessions, and which sessions they pass over: those are not theirs to lend.

Whatever order a pool lends in, it is an order: the one that came back last, or the one that has been free for longest.
A session that stays unused while one that had been free for longer is used, and while one that had been free for less
is used too, is in no order: it was borrowed and never given back. So is one that stays unused while its pool grows.

Owns what was seen of each session's lending, bounded by the sessions that live. It judges no service and has no clock.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from batsignal.detect.rests import resting_since
from batsignal.detect.tracks import Origin, Track
from batsignal.detect.window import Window
from batsignal.snapshot import Session

# A request may hold a session so long without using it: it thinks, it renders, it calls somebody.
REST_LEAST_SECONDS = 5.0
# Passed over while the rest of its pool worked on for so much longer than it had ever been left before its last use:
# a pool that lends in no order at all comes back to three of four within three times as long.
LEFT_FACTOR = 3.0
LEFT_LEAST_SECONDS = 2.0
# A call this long holds its session as firmly as one that was forgotten.
CALL_SECONDS = 10.0
# A pool has grown when it is larger than it was at any time of late; one that recycles comes back to where it was.
GROWN_MEMORY_SECONDS = 60.0
FILL_SECONDS = 10.0
# A pool that lends what came back last does never otherwise. Several such pools behind one address look like one
# without any order, and nothing is made of that.
NEWEST_FIRST_LOOKS = 12
IN_TURN_LOOKS = 5
ORDER_RATIO = 0.3
ORDER_LOOKS_MOST = 400
# A pool that lends in turn, or at random, has used every one of its sessions before long, whenever one looks.
ROUND_SECONDS = 5.0
ROUND_FACTOR = 1.5
# One that was idle so long at a stretch and was lent again after was free: among those who wait it goes at once.
FREE_SECONDS = 2.0
FREE_MEMORY_SECONDS = 30.0
# One that was lent again though it looked passed over was not: where many do, the order is not what it seems.
REFUTED_MEMORY_SECONDS = 60.0

SessionKey = tuple[int, float | None]


@dataclass(slots=True)
class _Lent:
    """One session: since when it rests, how long it had rested before its last use, and who was used instead of it."""

    track: Track
    session: Session | None = None
    """As it was at the look before; None when it was not there."""
    resting_since: float | None = None
    rested_seconds: float = 0.0
    older_was_used: bool = False
    """Or one was opened, which comes to the same: it had never been used."""
    newer_was_used: bool = False
    older_was_lent: bool = False
    """Whether one that had rested longer was lent while this one was free; it tells the order once this one is lent."""
    was_used: bool = False
    """Before our eyes, after a rest: not only once, when it was opened."""
    free: tuple[float, float] | None = None
    """From when until which look it was idle, the last time that it was lent again after being so for a while."""
    refuted_at: float = -math.inf
    """At which look it was last found lent again though it had seemed passed over."""

    def note(self, session: Session) -> float | None:
        """Take in what changed; return since when it had rested, if it was used."""
        rested_at, now = self.resting_since, resting_since(session)
        self.session = session
        if now is not None and now == rested_at:
            return None
        self.resting_since = now
        self.older_was_used = self.newer_was_used = self.older_was_lent = False
        if rested_at is None:
            return None
        self.was_used = True
        used_at = session.query_start
        if used_at is not None and used_at > rested_at:
            self.rested_seconds = used_at - rested_at
        return rested_at

    def was_to_be_had(self, since: float, t: float) -> bool:
        """Whether it was free for a while since then, and of late, or came back of late though it had seemed held."""
        if t - self.refuted_at < REFUTED_MEMORY_SECONDS:
            return True
        if self.free is None or t - self.free[1] >= FREE_MEMORY_SECONDS:
            return False
        start, end = self.free
        return end - max(start, since) >= FREE_SECONDS


@dataclass(slots=True)
class _Order:
    """In which order the pools of a service lend: they are made of the same code, from version to version."""

    looks: int = 0
    """At which some were lent and others were not."""
    looks_not_newest: int = 0
    """Of them, those at which one was lent that had been left, before, for one that had rested longer.

    Not those at which one is left: who loses a session each second would seem to lend in no order.
    """

    def note(self, *, is_newest: bool) -> None:
        self.looks += 1
        self.looks_not_newest += not is_newest
        if self.looks > ORDER_LOOKS_MOST:
            self.looks, self.looks_not_newest = self.looks // 2, self.looks_not_newest // 2

    @property
    def is_newest_first(self) -> bool:
        return self.looks >= NEWEST_FIRST_LOOKS and self.looks_not_newest < ORDER_RATIO * self.looks

    @property
    def is_in_turn(self) -> bool:
        """Whether it lends in turn, or at random."""
        return self.looks_not_newest >= max(IN_TURN_LOOKS, ORDER_RATIO * self.looks)


@dataclass(slots=True)
class _Pool:
    """What was seen of one pool, or of several that nobody can tell apart."""

    order: _Order
    lent: dict[SessionKey, _Lent] = field(default_factory=dict)
    changes: int = 0
    """The origin's, as of `lent`."""
    largest: int = 0
    grew_at: float = -math.inf
    looked_at: float = -math.inf
    worked_until: float = -math.inf
    """When the last of those that rest was used, as of the last look; minus infinity when none rests."""
    smaller_since: float | None = None
    round_seconds: float = math.inf
    """The shortest time within which all its sessions were used, two times on end."""
    round_before: float = math.inf
    round_due: float = -math.inf

    def look(self, origin: Origin, t: float) -> None:
        """Take in what was lent since the look before."""
        if self.changes != origin.changes:
            self._keep_up(origin)
        rested: list[float] = []  # since when those had rested that were lent
        left: list[_Lent] = []  # those that do as they did at the look before
        is_newest, worked_until = True, -math.inf
        for lent in self.lent.values():
            session = lent.track.session
            if lent.session is session:
                left.append(lent)
            else:
                had_to_wait = lent.older_was_lent
                rested_at = self._note(lent, session, t)
                if rested_at is not None:
                    rested.append(rested_at)
                    is_newest = is_newest and not had_to_wait
            since = lent.resting_since
            if since is not None and since > worked_until:
                worked_until = since
        self.looked_at, self.worked_until = t, worked_until
        grew = self._grew(len(origin.tracks), t) and t - origin.filling_since > FILL_SECONDS
        if rested or grew:
            oldest, newest = min(rested, default=math.inf), max(rested, default=-math.inf)
            self._pass_over(left, oldest, newest, grew=grew, is_newest=is_newest)
        if t >= self.round_due and t - origin.filling_since > FILL_SECONDS:
            self.round_due = t + ROUND_SECONDS
            self._learn_round(t)

    def _note(self, lent: _Lent, session: Session, t: float) -> float | None:
        """Take in what changed of a session; return since when it had rested, if it was used."""
        before = lent.session
        seemed_held = lent.newer_was_used and self.is_passed_over(lent, self.worked_until)
        rested_at = lent.note(session)
        if rested_at is None or self.looked_at - rested_at < FREE_SECONDS:
            return rested_at
        if before is not None and before.state == "idle":
            lent.free = rested_at, self.looked_at
            if seemed_held and self.looked_at - rested_at >= REST_LEAST_SECONDS:
                lent.refuted_at = t
        return rested_at

    def is_passed_over(self, lent: _Lent, worked_until: float) -> bool:
        """Whether it would have been lent again by `worked_until`, had it been given back."""
        if lent.resting_since is None or not lent.newer_was_used:
            return False
        left_seconds = worked_until - lent.resting_since
        if left_seconds < max(LEFT_LEAST_SECONDS, LEFT_FACTOR * lent.rested_seconds):
            return False
        if self.order.is_newest_first:
            return lent.older_was_used
        return self.order.is_in_turn and left_seconds >= ROUND_FACTOR * self.round_seconds

    def _keep_up(self, origin: Origin) -> None:
        """Follow the sessions that came, and forget those that left."""
        self.changes = origin.changes
        self.lent = {key: self.lent.get(key) or _Lent(track) for key, track in origin.tracks.items()}

    def _pass_over(self, left: Iterable[_Lent], oldest: float, newest: float, *, grew: bool, is_newest: bool) -> None:
        """Note at those that were free and were not lent what was: some that rested since between these instants.

        What came to rest since the look before is none of those: it may not have been free when the others were lent.
        """
        is_told = False
        for lent in left:
            since = lent.resting_since
            if since is None:
                continue
            is_told = True
            if since > oldest:
                lent.older_was_used = lent.older_was_lent = True
            if since < newest:
                lent.newer_was_used = True
            if grew:
                lent.older_was_used = True
        if newest > -math.inf and (is_told or not is_newest):
            self.order.note(is_newest=is_newest)

    def _learn_round(self, t: float) -> None:
        rests = [lent for lent in self.lent.values() if lent.resting_since is not None]
        is_known = all(lent.was_used for lent in rests)
        since = min((lent.resting_since or t for lent in rests), default=t) if is_known else -math.inf
        self.round_seconds = min(self.round_seconds, max(t - since, self.round_before))
        self.round_before = t - since

    def _grew(self, size: int, t: float) -> bool:
        if size >= self.largest:
            grew, self.largest, self.smaller_since = size > self.largest > 0, size, None
            self.grew_at = t if grew else self.grew_at
            return grew
        if self.smaller_since is None:
            self.smaller_since = t
        elif t - self.smaller_since > GROWN_MEMORY_SECONDS:
            self.largest, self.smaller_since = size, None
        return False


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
        self._pools: dict[str, dict[int, tuple[Origin, _Pool]]] = {}
        self._orders: dict[str, _Order] = {}

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
        pools: dict[str, dict[int, tuple[Origin, _Pool]]] = {service: {} for service in services}
        if pools:
            for origin in window.origins.values():
                key, service = origin.key, origin.group.key[1]
                mine = pools.get(service)
                if mine is None or not origin.tracks or (key.database, key.user) in pooled:
                    continue
                known = self._pools.get(service, {}).get(id(origin))
                if known is None:
                    known = (origin, _Pool(self._orders.setdefault(service, _Order())))
                mine[id(origin)] = known
                known[1].look(origin, window.t)
        self._pools = pools
        for service in [service for service in self._orders if service not in pools]:
            del self._orders[service]

    def of(self, service: str, t: float, since: float = math.inf) -> list[Lending]:
        """Return the pools of a service as of now, one for each origin; `to_be_had` is asked since an instant."""
        return [_lending(origin, pool, t, since) for origin, pool in self._pools.get(service, {}).values()]


def _lending(origin: Origin, pool: _Pool, t: float, since: float) -> Lending:
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
        opened_last=max(_opened(origin.tracks.values())),
        grew_at=pool.grew_at,
        to_be_had=sum(1 for lent in pool.lent.values() if lent.was_to_be_had(since, t)),
    )


def _opened(tracks: Iterable[Track]) -> Iterable[float]:
    return (track.opened_at for track in tracks)


def _is_held(pool: _Pool, lent: _Lent, worked_until: float, t: float) -> bool:
    session = lent.track.session
    if lent.resting_since is None:
        began = session.query_start if session.query_start is not None else session.state_change
        is_call = session.state in {"active", "fastpath function call"} and session.wait_event_type != "Lock"
        return is_call and began is not None and t - began >= CALL_SECONDS
    if t - lent.resting_since < REST_LEAST_SECONDS:
        return False
    # In the middle of a transaction, or of a result that nobody reads, no session is free.
    return session.state != "idle" or pool.is_passed_over(lent, worked_until)
