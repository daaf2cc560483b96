"""Sessions that come and go at once: how many each group opened and closed within moments, seen and unseen.

A pool keeps what it opens, and a batch works through its sessions; only who opens a session for each request, or throws
away what it has just opened, closes sessions by the dozen that lived for seconds. Those are counted here: the ones that
a look caught, and the ones that fell between two looks, which the server's own counter tells (PostgreSQL 14+) or, where
there is none, how young those were that were caught.

Owns the counting over the last moments, bounded whatever names come by. It must not know what is usual and calls
nothing a storm; it has no clock (time is `window.t`) and does no I/O.
"""

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from batsignal.detect.tracks import OriginKey, Track
from batsignal.detect.unseen import Unseen
from batsignal.detect.window import Window

Group = tuple[str, ...]

# A session that ended sooner was not kept by anybody: pools keep theirs for minutes, whatever their lifetime.
LIFE_SECONDS = 10.0
# What is counted: long enough to tell a stream from a burst, short enough for a page within ten seconds.
SPAN_SECONDS = 8.0
# Kept beyond it, to find where a stream began.
TRAIL_SECONDS = 90.0
# No count goes over so long a gap between two looks: what came in it, came at nobody knows which moment.
GAP_SECONDS = 15.0
# An idle session that has rested for so long beside an opening was free: no pool would have opened another.
FREE_SECONDS = 1.0
# A session of a pool at work is used again within this time.
AT_WORK_SECONDS = 5.0
# So much of a pool's sessions is its core; of large pools so many are looked at.
CORE_PART = 4
CORE_LOOKED_AT = 8
# The server's counter is up to date when it has moved so lately; one read every 10 s says nothing of the moment.
COUNTER_FRESH_SECONDS = 3.0
# A session seen at one look stands for no more than so many that were not.
STANDS_FOR_MOST = 30.0
# Fewer say nothing of how short-lived the others are.
BRIEF_LEAST = 4
# A login alone takes so long.
VISIBLE_SECONDS_LEAST = 0.005
GROUPS_MOST = 2000
# A flood of names, one for each session, costs no more than so many.
LATELY_MOST = 200
SHARERS_MOST = 30

UNKNOWN: Group = ("unseen",)
"""Whose sessions nobody knows: they were missed, and none like them was caught."""


@dataclass(slots=True)
class Look:
    """What one look showed of one group."""

    t: float
    seconds: float
    opened: int = 0
    """Sessions that were not there at the look before."""
    short: int = 0
    """Sessions that are gone and lived for moments; without those that a pool opened beyond its core."""
    surplus: int = 0
    """Those that a pool at work opened beyond its core, and closed."""
    brief: int = 0
    """Of both, those that no second look caught; `brief_seconds` is how old they were, in all."""
    brief_seconds: float = 0.0
    first_opened: float = float("inf")
    unseen: float = 0.0
    """The group's share of the sessions that no look caught."""
    is_guess: bool = False
    """Whether no counter told of those: the number is as good as the glimpses are many."""
    origins: Counter[OriginKey] = field(default_factory=Counter)

    @property
    def came(self) -> float:
        return self.short + self.unseen

    @property
    def came_and_went(self) -> float:
        return self.short + self.surplus + self.unseen


class Churn:
    """The sessions of moments, by group, over the last moments."""

    def __init__(self) -> None:
        # In the order of their last look with anything to show, the latest at the end; each group's oldest look first.
        self._groups: OrderedDict[Group, deque[Look]] = OrderedDict()
        self.unseen = Unseen()
        """What no look caught, whosever it was."""
        self._counted: int | None = None
        self._counted_at: float | None = None
        self._seen_since = 0
        self._is_slow = False

    def __len__(self) -> int:
        return len(self._groups)

    def lately(self, t: float) -> Iterable[tuple[Group, deque[Look]]]:
        """Yield the groups that had something to show in the last `SPAN_SECONDS`, with their looks, oldest first.

        The latest come first, and there are `LATELY_MOST` of them at most.
        """
        for group, looks in islice(reversed(self._groups.items()), LATELY_MOST):
            if looks[-1].t <= t - SPAN_SECONDS:
                break
            yield group, looks

    def add(self, window: Window) -> None:
        """Take in a look that succeeded; after a gap, or a clock that stepped back, all begins anew."""
        seconds = window.looked_seconds
        if seconds is None or seconds > GAP_SECONDS:
            self._groups.clear()
            self.unseen.clear()
            self._counted = None
            self._count(window, nameless=0)
            return
        for track in window.opened:
            if not _is_nameless(track):
                self._look_of(track.origin.key.group, window).opened += 1
        nameless = sum(self._note_left(track, window) for track in window.left)
        self._share(self._count(window, nameless), window)
        self._forget(window.t)

    def _look_of(self, group: Group, window: Window) -> Look:
        """Return the group's look of now, at the end of all groups; the one that was quiet longest makes room."""
        looks = self._groups.get(group)
        if looks is None:
            looks = self._groups[group] = deque()
            if len(self._groups) > GROUPS_MOST:
                self._groups.popitem(last=False)
        elif looks[-1].t == window.t:
            return looks[-1]
        self._groups.move_to_end(group)
        looks.append(Look(window.t, window.looked_seconds or 1.0))
        return looks[-1]

    def _note_left(self, track: Track, window: Window) -> int:
        """Note a session that is gone; return 1 for one that nobody put a name to, as those that never got in."""
        if window.t - track.opened_at > LIFE_SECONDS:
            return 0
        if _is_nameless(track):
            return 1
        look = self._look_of(track.origin.key.group, window)
        if track.beside_idle_seconds < FREE_SECONDS and _has_core_at_work(track, window.t):
            look.surplus += 1
        else:
            look.short += 1
            look.origins[track.origin.key] += 1
        look.first_opened = min(look.first_opened, track.opened_at)
        seen_at = window.t - look.seconds
        if track.opened_at > seen_at - look.seconds:
            look.brief += 1
            look.brief_seconds += max(seen_at - track.opened_at, VISIBLE_SECONDS_LEAST)
        return 0

    # -- what no look caught ---------------------------------------------------------------------------------------

    def _count(self, window: Window, nameless: int) -> float | None:
        """Return how many sessions came and went between the last two looks; None when no counter tells in time."""
        snapshot = window.snapshot
        total = None if snapshot is None or snapshot.counters is None else snapshot.counters.sessions
        self._seen_since += len(window.opened) - nameless
        if total is None:  # it is not told at each look
            return None
        counted, counted_at = self._counted, self._counted_at
        if counted is None or total < counted:
            self._counted, self._counted_at, self._seen_since = total, window.t, 0
            return None
        is_fresh = counted_at is not None and window.t - counted_at <= COUNTER_FRESH_SECONDS
        if total == counted:
            # It has not counted what we saw: somebody reads it now and then.
            self._is_slow = self._is_slow or (self._seen_since > 0 and not is_fresh)
            return 0.0 if is_fresh and not self._is_slow else None
        unseen = max(total - counted - self._seen_since, 0)
        if counted_at is not None:
            self.unseen.add(counted_at, window.t, unseen)
        self._counted, self._counted_at, self._seen_since = total, window.t, 0
        self._is_slow = self._is_slow and not is_fresh
        return float(unseen) if is_fresh else None

    def _share(self, unseen: float | None, window: Window) -> None:
        """Give the unseen to those whose sessions are so short that most are missed."""
        missed = [(group, one) for group, looks in self.lately(window.t) if (one := _missed(looks, window))]
        if unseen is None:
            for group, one in missed:
                look = self._look_of(group, window)
                if one.brief >= BRIEF_LEAST and look.brief:
                    look.unseen += look.brief * (one.stands_for - 1.0) * one.own_ratio
                    look.is_guess = True
            return
        if not unseen:
            return
        total = sum(one.weight for _, one in missed)
        if not total:
            self._look_of(UNKNOWN, window).unseen += unseen
        else:
            for group, one in heapq.nlargest(SHARERS_MOST, missed, key=lambda named: named[1].weight):
                self._look_of(group, window).unseen += unseen * one.weight / total * one.own_ratio

    def _forget(self, t: float) -> None:
        while self._groups:
            group = next(iter(self._groups))
            if self._groups[group][-1].t >= t - TRAIL_SECONDS:
                break
            del self._groups[group]
        for _, looks in self.lately(t):
            while looks[0].t < t - TRAIL_SECONDS:
                looks.popleft()


@dataclass(frozen=True, slots=True)
class _Missed:
    """How much of a group no look catches: each of its `brief` sessions stands for so many.

    `own_ratio` is the share of them that is no pool's surplus.
    """

    brief: int
    stands_for: float
    own_ratio: float

    @property
    def weight(self) -> float:
        return self.brief * (self.stands_for - 1.0)


def lately(looks: deque[Look], t: float) -> list[Look]:
    """Return those of the last `SPAN_SECONDS`, newest first."""
    newest = []
    for look in reversed(looks):
        if look.t <= t - SPAN_SECONDS:
            break
        newest.append(look)
    return newest


def _is_nameless(track: Track) -> bool:
    """Whether it has not said yet who it is: a session that still authenticates (PostgreSQL 18 shows those)."""
    key = track.origin.key
    return key.user is None and key.service is None


def _has_core_at_work(track: Track, t: float) -> bool:
    """Whether its process keeps sessions and uses them: what it opens beside them and closes is a pool's surplus."""
    tracks = track.origin.tracks
    most = min(max(len(tracks) // CORE_PART, 1), CORE_LOOKED_AT)
    # The oldest stand first, but for those that changed their name.
    at_work = sum(
        t - other.opened_at > LIFE_SECONDS and t - (other.session.state_change or 0.0) < AT_WORK_SECONDS
        for other in islice(tracks.values(), most)
    )
    return 2 * at_work > most


def _missed(looks: deque[Look], window: Window) -> _Missed | None:
    """Return what the short lives of those that one look alone caught say of those that none did (Little's law).

    A session is caught at any moment of its life, in the mean half-way: twice their mean age is how long they last.
    """
    brief, short, surplus, seconds = 0, 0, 0, 0.0
    for look in lately(looks, window.t):
        brief += look.brief
        seconds += look.brief_seconds
        short += look.short
        surplus += look.surplus
    if not brief:
        return None
    stands_for = (window.looked_seconds or 1.0) / (2 * seconds / brief)
    return _Missed(brief, min(max(stands_for, 1.0), STANDS_FOR_MOST), short / (short + surplus))
