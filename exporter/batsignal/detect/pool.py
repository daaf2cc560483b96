"""One pool through time: in which order it lends its sessions, and which of them it passes over.

Whatever order a pool lends in, it is an order: the one that came back last, or the one that has been free for longest.
A session that stays unused while one that had been free for longer is used, and while one that had been free for less
is used too, is in no order: it was borrowed and never given back. So is one that stays unused while its pool grows.

Owns what was seen of each session's lending, bounded by the sessions that live. It asks nobody whose pool it is, judges
none and has no clock. An origin stands for a pool: of several that nobody can tell apart, what is seen is in no order.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from batsignal.detect.rests import resting_since
from batsignal.detect.tracks import Origin, Track
from batsignal.snapshot import Session, SessionKey

# A request may hold a session so long without using it: it thinks, it renders, it calls somebody.
REST_LEAST_SECONDS = 5.0
# Passed over while the rest of its pool worked on for so much longer than it had ever been left before its last use:
# a pool that lends in no order at all comes back to three of four within three times as long.
LEFT_FACTOR = 3.0
LEFT_LEAST_SECONDS = 2.0
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
# Nor is one left while others were lent twice as often as the pool has sessions, however long or short that takes: of
# a pool that lends at random one in eight is, and half of them at once never.
LENT_ROUNDS = 2
# Who loses its sessions one by one seems to lend the newest first: those that are lost are left. So what was seen of
# late tells the order only where nothing was seen before.
ORDER_LATE_SECONDS = 120.0
# A pool that uses all it has within moments, for as long as that, shows no order. What it leaves is passed over.
AT_WORK_ROUND_SECONDS = 2.0
# One that was idle so long at a stretch and was lent again after was free: among those who wait it goes at once.
FREE_SECONDS = 2.0
FREE_MEMORY_SECONDS = 30.0
# One that was lent again though it looked passed over was not: where many do, the order is not what it seems.
REFUTED_MEMORY_SECONDS = 60.0


@dataclass(slots=True)
class Lent:
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
    passed_over: int = 0
    """How often others were lent since it rests, as far as it was seen."""
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
        self.passed_over = 0
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
class Order:
    """In which order the pools of a service lend: they are made of the same code, from version to version."""

    looks: int = 0
    """At which some were lent and others were not."""
    looks_not_newest: int = 0
    """Of them, those at which one was lent that had been left, before, for one that had rested longer.

    Not those at which one is left: who loses a session each second would seem to lend in no order.
    """
    late: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=ORDER_LOOKS_MOST))
    """What was seen of late: at which look, and whether those lent had come back last."""
    noted_from: float | None = None
    """At which look it was first asked for."""
    round_seconds: float = math.inf
    """Within what time the pools of late used all their sessions: as far as it is known, the slowest of them."""

    def note(self, t: float, *, is_newest: bool) -> None:
        """Take in a look at which some were lent and others left: whether those had come back last."""
        if len(self.late) == self.late.maxlen:
            self._settle()
        self.late.append((t, is_newest))
        while self.late[0][0] < t - ORDER_LATE_SECONDS:
            self._settle()

    def _settle(self) -> None:
        """Count the oldest of what was seen of late."""
        _, is_newest = self.late.popleft()
        self.looks += 1
        self.looks_not_newest += not is_newest
        if self.looks > ORDER_LOOKS_MOST:
            self.looks, self.looks_not_newest = self.looks // 2, self.looks_not_newest // 2

    def _told(self) -> tuple[int, int]:
        """Return how many looks tell the order, and how many of them another than the newest first."""
        if self.looks >= IN_TURN_LOOKS:
            return self.looks, self.looks_not_newest
        late_not_newest = sum(not is_newest for _, is_newest in self.late)
        return self.looks + len(self.late), self.looks_not_newest + late_not_newest

    def has_none_seen(self, t: float) -> bool:
        """Whether its pools have hardly ever left a session for others, but of late."""
        is_old = self.noted_from is not None and t - self.noted_from > ORDER_LATE_SECONDS
        return is_old and self.looks < IN_TURN_LOOKS

    @property
    def is_newest_first(self) -> bool:
        """Whether it lends what came back last."""
        looks, not_newest = self._told()
        return looks >= NEWEST_FIRST_LOOKS and not_newest < ORDER_RATIO * looks

    @property
    def is_in_turn(self) -> bool:
        """Whether it lends in turn, or at random."""
        looks, not_newest = self._told()
        return not_newest >= max(IN_TURN_LOOKS, ORDER_RATIO * looks)


@dataclass(slots=True)
class Pool:
    """What was seen of one pool, or of several that nobody can tell apart."""

    order: Order
    lent: dict[SessionKey, Lent] = field(default_factory=dict)
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
        if self.order.noted_from is None:
            self.order.noted_from = t
        if self.changes != origin.changes:
            self._keep_up(origin)
        rested: list[float] = []  # since when those had rested that were lent
        left: list[Lent] = []  # those that do as they did at the look before
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
            is_told = self._pass_over(left, rested, grew=grew)
            if rested and (is_told or not is_newest):
                self.order.note(t, is_newest=is_newest)
        if t >= self.round_due and t - origin.filling_since > FILL_SECONDS:
            self.round_due = t + ROUND_SECONDS
            self._learn_round(t)

    def _note(self, lent: Lent, session: Session, t: float) -> float | None:
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

    def is_passed_over(self, lent: Lent, worked_until: float) -> bool:
        """Whether it would have been lent again by `worked_until`, had it been given back."""
        if lent.resting_since is None or not lent.newer_was_used:
            return False
        left_seconds = worked_until - lent.resting_since
        if left_seconds < max(LEFT_LEAST_SECONDS, LEFT_FACTOR * lent.rested_seconds):
            return False
        is_at_work = self.round_seconds <= AT_WORK_ROUND_SECONDS and self.order.has_none_seen(self.looked_at)
        if self.order.is_newest_first and not is_at_work:
            return lent.older_was_used
        if not self.order.is_in_turn and not is_at_work:
            return False
        return left_seconds >= ROUND_FACTOR * self.round_seconds or lent.passed_over >= LENT_ROUNDS * len(self.lent)

    def _keep_up(self, origin: Origin) -> None:
        """Follow the sessions that came, and forget those that left."""
        self.changes = origin.changes
        self.lent = {key: self.lent.get(key) or Lent(track) for key, track in origin.tracks.items()}

    def _pass_over(self, left: Iterable[Lent], rested: Sequence[float], *, grew: bool) -> bool:
        """Note at those that were free and were not lent what was: some that had `rested` since those instants.

        What came to rest since the look before is none of those: it may not have been free when the others were lent.
        Return whether any was left.
        """
        oldest, newest = min(rested, default=math.inf), max(rested, default=-math.inf)
        is_told = False
        for lent in left:
            since = lent.resting_since
            if since is None:
                continue
            is_told = True
            lent.passed_over += len(rested)
            if since > oldest:
                lent.older_was_used = lent.older_was_lent = True
            if since < newest:
                lent.newer_was_used = True
            if grew:
                lent.older_was_used = True
        return is_told

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
