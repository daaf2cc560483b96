"""Which sessions look lost, and how many of them only took the place of others.

A lost session was used once, soon after it was opened, and never again. Two things look like it and are not: what a
pool opens to fill itself, and what it opens when it recycles. The first is told by the origin's beginning, the second
by a balance: recycling opens as many as it closes. It decides nothing about leaks and has no clock.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from batsignal.config import Thresholds
from batsignal.detect.rests import is_copy_text
from batsignal.detect.tracks import Closing, Origin, Track

# A session that came back after a rest is only lost when it rests this many times as long.
COME_BACK_FACTOR = 2.0
# A COPY that is fed by a slow client may wait for it at several looks in a row.
COPY_REST_SECONDS = 15.0
# A session that was used before may pause in the middle of its work for what it asks of somebody else.
STUCK_REST_SECONDS = 10.0
# A pool that lent a session for long and opens another beside it has lost it, if it has rested so many times as long as
# any other there ever did before it was used again. A moment after it came back, the other's login may be under way.
LENT_REST_FACTOR = 3.0
PASSED_OVER_SECONDS = 2.0
# To look every second for those that were lent for long would cost more than all else does.
LENT_DUE_SECONDS = 4.0
GIVEN_BACK_AT_ONCE = 2.0
REPLACED_SECONDS = 3.0
REPLACED_GAP_SECONDS = 30.0


def lost_at(track: Track) -> float:
    """Return when a session was lost: what trains are sorted by."""
    return track.lost_at


@dataclass(frozen=True, slots=True)
class SortedOut:
    """An origin's sessions by how they were used since they were opened.

    `filling` look lost and are part of the origin's first fill; what was filled and is used is in none of the others.
    `lone` are those of them that are all of that fill, `lone_used` such ones that were used again.
    `lent` are idle, were lent for long before, and passed over by a newer one.

    It holds until `due`, in Unix seconds, as long as no session comes, goes or changes its row; until `told_due` as far
    as time alone tells one from the other, and not what the pool lends.
    """

    lost: tuple[Track, ...]
    filling: tuple[Track, ...]
    lone: tuple[Track, ...]
    lone_used: tuple[Track, ...]
    reused: tuple[Track, ...]
    lent: tuple[Track, ...]
    due: float
    told_due: float
    rested_since: float
    """None of those that may turn out to be `lent` has rested since before that."""


def sort_out(origin: Origin, t: float, limits: Thresholds) -> SortedOut:
    """Sort an origin's sessions, those that are old enough to tell, into lost and used again."""
    lost: list[Track] = []
    filling: list[Track] = []
    reused: list[Track] = []
    lent: list[Track] = []
    lent_due = told_due = math.inf
    rested_since = t
    passed_seconds = max((track.longest_passed_seconds for track in origin.tracks.values()), default=0.0)
    fill_until = origin.filling_since + limits.leak_fill_seconds
    fill = sorted(track.opened_at for track in origin.tracks.values() if track.opened_at <= fill_until)
    is_lone = len(fill) == 1 or (len(fill) > 1 and fill[1] - fill[0] > limits.leak_moment_seconds)
    lone: list[Track] = []
    lone_used: list[Track] = []
    for track in origin.tracks.values():
        is_part = track.opened_at <= fill_until and _is_part_of_fill(track.opened_at, fill, limits)
        told_at = _told_at(track, limits)
        if told_at <= t:
            # No pool fills itself with sessions that are left in the middle of their work.
            (filling if is_part and not is_stuck(track) else lost).append(track)
            if is_part and is_lone and not is_stuck(track):
                lone.append(track)
            continue
        old_at = track.opened_at + limits.leak_idle_seconds
        told_due = min(told_due, told_at, old_at if t < old_at else math.inf)
        if track.resting_since is not None and (track.is_in_use or _is_used_again(track, t, limits)):
            lent_due = t + LENT_DUE_SECONDS
            rested_since = min(rested_since, track.resting_since)
            if not is_stuck(track) and _is_passed_over(track, t, passed_seconds, limits):
                track.lost_at = track.resting_since
                lent.append(track)
                continue
        if _is_used_again(track, t, limits) and (is_lone or not is_part):
            (lone_used if is_part else reused).append(track)
    parts = (tuple(lost), tuple(filling), tuple(lone), tuple(lone_used), tuple(reused), tuple(lent))
    return SortedOut(*parts, min(lent_due, told_due), told_due, rested_since)


def due_again(found: SortedOut, origin: Origin, t: float, limits: Thresholds) -> float:
    """Return until when what was sorted out goes on to hold at its `due`; `t` when it is to be sorted out again.

    It holds while none can have been passed over: a pool that opens no session, or has used all it has of late, is told
    without a look at each of them.
    """
    if found.lent or t >= found.told_due:
        return t
    was_passed_over = origin.newest_lent >= found.rested_since + PASSED_OVER_SECONDS
    if was_passed_over and t - found.rested_since >= LENT_REST_FACTOR * limits.leak_idle_seconds:
        return t
    rests = (track.resting_since is not None and _is_in_turn(track) for track in origin.tracks.values())
    return min(t + LENT_DUE_SECONDS, found.told_due) if any(rests) else t


def _is_in_turn(track: Track) -> bool:
    """Whether it was lent before, and was not left in the middle of its work when it was looked at last."""
    return track.is_in_use and track.lost_at == math.inf


def _is_passed_over(track: Track, t: float, passed_seconds: float, limits: Thresholds) -> bool:
    """Return whether its pool would have lent it and opened another one, and it rests as none so passed over ever did.

    That other one was used again: who opens sessions beside the pool, and loses them, has not passed over anything.
    How long a session lay in its pool while none was opened says nothing: those at the bottom may lie there for hours.
    """
    since = track.resting_since
    if since is None or track.origin.newest_lent < since + PASSED_OVER_SECONDS:
        return False
    return t - since >= LENT_REST_FACTOR * max(passed_seconds, limits.leak_idle_seconds)


def is_stuck(track: Track) -> bool:
    """Return whether it was left in the middle of its work: in a transaction, or with the server waiting for more."""
    return track.resting_since is not None and track.session.state != "idle"


def _told_at(track: Track, limits: Thresholds) -> float:
    """Return when it looks lost, if it goes on as it is; infinite when it is at work or was used again."""
    since = track.resting_since
    if since is None:
        track.lost_at = math.inf
        return math.inf
    if not track.is_in_use and since - track.opened_at <= limits.leak_first_use_seconds:
        track.lost_at = track.opened_at
    else:
        track.is_in_use = True
        # However long a pool had lent it: no pool has it back in the middle of its work.
        track.lost_at = since if is_stuck(track) else math.inf
        if math.isinf(track.lost_at):
            return math.inf
    return since + rest_to_tell(track, limits)


def rest_to_tell(track: Track, limits: Thresholds) -> float:
    """Return how long it must rest before it can be told from one that will be used again, in seconds."""
    if not is_stuck(track):
        return _rest_to_tell(track.longest_rest_seconds, limits.leak_idle_seconds)
    # How long it lay in its pool says nothing of how long its client pauses in the middle of its work.
    is_copy = track.session.state == "active" and is_copy_text(track.session.query)
    least_seconds = (
        COPY_REST_SECONDS if is_copy else STUCK_REST_SECONDS if track.is_in_use else limits.leak_idle_seconds
    )
    return _rest_to_tell(track.longest_stuck_seconds, least_seconds)


def _rest_to_tell(longest_rest_seconds: float, least_seconds: float) -> float:
    return max(least_seconds, COME_BACK_FACTOR * longest_rest_seconds)


def telling_seconds(track: Track, limits: Thresholds) -> float:
    """Return how long after it was lost a session could be told from one in use, at the earliest."""
    since = track.resting_since
    used_seconds = 0.0 if since is None else max(since - track.lost_at, 0.0)
    return used_seconds + rest_to_tell(track, limits)


def _is_used_again(track: Track, t: float, limits: Thresholds) -> bool:
    if t - track.opened_at < limits.leak_idle_seconds:
        return False
    return track.is_in_use or track.resting_since is None or track.longest_rest_seconds >= limits.leak_idle_seconds


def _is_part_of_fill(opened: float, fill: Sequence[float], limits: Thresholds) -> bool:
    """Whether a session is the first of its origin, or came in the same moment as another while it filled."""
    index = bisect_left(fill, opened)
    if index == 0:
        return True
    near = limits.leak_moment_seconds
    return opened - fill[index - 1] <= near or any(other - opened <= near for other in fill[index + 1 : index + 2])


def returned_since(since: float, tracks: Iterable[Track], limits: Thresholds) -> int:
    """Return how many sessions that were there by then and had looked lost were closed since by the same origins.

    The pods of the version before, which leave one after the other, are other origins: nothing took their place.
    """
    count = 0
    for origin in _origins(tracks):
        ended = _ended_at(origin)
        for closing in origin.closings:
            if closing.opened_at < since <= closing.t and closing.t != ended and looked_lost(closing, limits):
                count += 1
    return count


def _ended_at(origin: Origin) -> float | None:
    """Return when an origin's process ended: its last sessions, several, left together. It gave none of them back."""
    if origin.tracks or len(origin.closings) < 2 or origin.closings[-2].t < origin.closings[-1].t:  # noqa: PLR2004
        return None
    return origin.closings[-1].t


def looked_lost(closing: Closing, limits: Thresholds) -> bool:
    """Return whether a session looked lost when it was closed: used once, soon after it was opened, and never again."""
    since = closing.resting_since
    return (
        since is not None
        and since - closing.opened_at <= limits.leak_first_use_seconds
        and closing.t - since >= _rest_to_tell(closing.longest_rest_seconds, limits.leak_idle_seconds)
    )


def given_back(
    since: float,
    gap_seconds: float,
    origins: Iterable[Origin],
    limits: Thresholds,
    *,
    opened_from: float = -math.inf,
) -> int:
    """Return how many sessions that looked lost were given back since then after all, of those opened from then on.

    An application that holds a session for a minute and then closes it gives back what it takes, one by one. More in
    one look than are taken (one in `gap_seconds`) are a process that ended or was released: they say nothing about how
    it used its sessions. Nor does a session that another replaced at once, as pools recycle; that is told only where
    sessions come so seldom that it is no chance. Nor one that its pool had opened to fill itself, and found needless.
    """
    at_once_most = GIVEN_BACK_AT_ONCE + GIVEN_BACK_AT_ONCE / max(gap_seconds, 0.1)
    tells_replaced = gap_seconds >= REPLACED_GAP_SECONDS
    count = 0
    for origin in origins:
        ended = _ended_at(origin)
        moments = Counter(
            one.t
            for one in origin.closings
            if one.t >= since and one.opened_at >= opened_from and one.t != ended and looked_lost(one, limits)
            if not origin.filling_since <= one.opened_at <= origin.filling_since + limits.leak_fill_seconds
        )
        if tells_replaced and moments:
            opened = sorted(
                [track.opened_at for track in origin.tracks.values()] + [one.opened_at for one in origin.closings]
            )
            moments = Counter({t: many for t, many in moments.items() if not is_near(t, opened)})
        count += sum(many for many in moments.values() if many <= at_once_most)
    return count


def is_near(t: float, instants: Sequence[float]) -> bool:
    """Return whether one of these instants, in order, is so near that the one session replaced the other."""
    return _at_least(t - REPLACED_SECONDS, instants) > _at_least(t + REPLACED_SECONDS, instants)


def unreplaced(lost: Sequence[Track], t: float, limits: Thresholds) -> tuple[int, int]:
    """Return how many of the newest lost sessions took nobody's place, and where in `lost` those begin.

    Sweeps from the newest back to the oldest. At each, what the same origins opened since and still hold, less what
    they held by then and closed since, is how much they have grown: no more than that is lost. The beginning that
    gives the most is the onset; of equal ones the latest, so that a pool that recycled before is not part of it. One
    that had been lent before it was lost was opened long ago and took nobody's place.
    """
    origins = _origins(lost)
    opened = sorted(
        track.opened_at
        for origin in origins
        for track in origin.tracks.values()
        if t - track.opened_at >= limits.leak_idle_seconds
    )
    closings = [closing for origin in origins for closing in origin.closings]
    closed = sorted(closing.t for closing in closings)
    closed_young = sorted(closing.opened_at for closing in closings)
    best, begin, lent = 0, len(lost), 0
    for index in range(len(lost) - 1, -1, -1):
        since = lost[index].lost_at
        grown = _at_least(since, opened) - _at_least(since, closed) + _at_least(since, closed_young)
        lent += lost[index].lost_at > lost[index].opened_at
        count = min(len(lost) - index, max(grown, 0) + lent)
        if count > best:
            best, begin = count, index
    return best, begin


def longest_passed_seconds(tracks: Iterable[Track]) -> float:
    """Return the longest rest from which one of their origins came back though another had been opened meanwhile."""
    passed = (track.longest_passed_seconds for origin in _origins(tracks) for track in origin.tracks.values())
    return max(passed, default=0.0)


def growth_since(since: float, tracks: Iterable[Track]) -> int:
    """Return by how much the origins of these sessions have grown since then."""
    origins = _origins(tracks)
    opened = sum(1 for origin in origins for track in origin.tracks.values() if track.opened_at >= since)
    return opened - _closed_since(since, origins)


def rises(since: float, tracks: Iterable[Track]) -> Sequence[float]:
    """Return when the origins of these sessions became larger than ever since then, in order: an instant a session.

    Of one that was opened in the place of another there is none. Empty where none was closed: nothing is to be told
    apart then.
    """
    origins = _origins(tracks)
    opened = (track.opened_at for origin in origins for track in origin.tracks.values() if track.opened_at >= since)
    closed = [one.t for origin in origins for one in origin.closings if one.opened_at < since <= one.t]
    if not closed:
        return ()
    found: list[float] = []
    level = 0
    for t, step in sorted([(t, 1) for t in opened] + [(t, -1) for t in closed]):
        level += step
        if level > len(found):
            found.append(t)
    return found or [since]


def unreplaced_count(since: float, tracks: Sequence[Track]) -> int:
    """Return how many of these sessions, opened since then, did not take the place of one that their origins closed."""
    return max(len(tracks) - _closed_since(since, _origins(tracks)), 0)


def _closed_since(since: float, origins: Iterable[Origin]) -> int:
    return sum(1 for origin in origins for one in origin.closings if one.opened_at < since <= one.t)


def _origins(tracks: Iterable[Track]) -> Collection[Origin]:
    return {id(track.origin): track.origin for track in tracks}.values()


def _at_least(since: float, instants: Sequence[float]) -> int:
    return len(instants) - bisect_left(instants, since)
