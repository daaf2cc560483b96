"""Finds storms: sessions opened far faster than usual, by the dozen, and gone within moments, or refused.

An application that lost its pool, clients that throw away what they open and come again, workers that fight for the
last slots: all of them open and close without end. What fills and stays (a pool, a deploy, more pods, a restart that
ends) does not close; what comes and goes every day (a batch, an application that never pools) does it at its own rate.
So sessions of moments are counted (`churn`) and held against each group's busiest moment so far (`usual`).

Owns who storms, since when and how bad it is; the words are `storm_words`'. No clock (time is `snapshot.t`), no I/O.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable

from batsignal.detect import storm_words as words
from batsignal.detect.churn import GAP_SECONDS, SPAN_SECONDS, Churn, Group
from batsignal.detect.glimpses import Glimpses
from batsignal.detect.memory import Memory
from batsignal.detect.signal import Finding
from batsignal.detect.streams import COUNTED_LEAST, Stream, folded, merged, streams_of
from batsignal.detect.usual import SERVER, Usual
from batsignal.detect.window import Window
from batsignal.snapshot import Snapshot

# In `SPAN_SECONDS`: five a second. A batch of 30 that comes and goes at once is none.
SESSIONS_LEAST = 40
# Traffic doubles in a step, and chance adds to it; three times the busiest moment ever is no traffic.
BUSIEST_FACTOR = 3.0
# Seen with our own eyes: the unseen alone name nobody.
SEEN_LEAST = 4
# By glimpses alone, more of them than chance may give where so many are usual: a square root is a standard deviation.
CHANCE_FACTOR = 5.0
CHANCE_LEAST = 2.0
CAUGHT_FACTOR = 2.0
# Longer than a pool takes to fill, and a batch to start.
SPANS_SECONDS = 5.0
# No more than this share of it may have come at one look: the rest is a stream.
BURST_RATIO = 0.6
# What one group is said to have opened must have made the whole of them more than usual.
BACKED_RATIO = 0.5
# Beside a storm that is lit, whose share of the unseen is what: of all that were caught, so much must be its own.
BESIDE_RATIO = 0.25
# What is usual is known after so long (scenarios: five minutes of calm).
CALM_SECONDS = 300.0
# One of several is the culprit when it opens this share of all that is unusual; else nobody alone is.
CULPRIT_RATIO = 0.6
# Of many who each do a little, it takes twice as much.
MANY_FACTOR = 2.0
MANY_GROUPS_LEAST = 3
# Of what the server alone has counted nobody is named: so many a second, at the least, and for so long. Who is seen
# again and again may still be named, and is waited for; after a restart everybody is known to come at once.
COUNTED_PER_SECOND = MANY_FACTOR * SESSIONS_LEAST / SPAN_SECONDS
COUNTED_SECONDS = 8.0
COUNTED_AFTER_RESTART_SECONDS = 3.5
# A login and a statement take 15 ms and more: one script after another opens no more than so many a second.
SCRIPT_PER_SECOND = 60.0
# What begins within this time is one event: a restart, a network that comes back.
TOGETHER_SECONDS = 30.0
# Without a baseline, only who takes the slots storms for sure: near the limit, with such a share of the slots.
FULL_RATIO = 0.9
FULL_LOOKS_LEAST = 2
HELD_RATIO = 0.25
REFUSED_LEAST = 10
# Who opened a session for each piece of work all day, and holds each for longer now, has none older than this. What is
# lost is older by the time the slots run out.
HELD_SECONDS = 30.0
HELD_YOUNG_RATIO = 0.9
CRITICAL_SECONDS = 60.0
# After a restart everybody comes at once, and who comes too soon is refused: it takes more to wake somebody.
RESTART_SECONDS = 60.0
RESTART_FULL_LOOKS_LEAST = 5
RESTART_REFUSED_SECONDS = 30.0
RESTARTED_RATIO = 0.8
RESTARTED_LEAST = 3
# A session that was kept so long was a pool's; it is remembered for so long that it was closed.
KEPT_SECONDS = 60.0
LET_GO_KEPT_SECONDS = 120.0
# Over when it has been below half of what called it for so long.
OVER_FACTOR = 0.5
OVER_SECONDS = 20.0


class StormDetector:
    """Watches one server for storms."""

    def __init__(self) -> None:
        self._churn = Churn()
        self._usual = Usual()
        self._storms: list[words.Storm] = []
        self._full_looks: deque[float] = deque()
        self._refused: deque[tuple[float, int]] = deque()
        self._restarted_at = -math.inf
        self._has_failed = False
        self._sessions = 0
        self._let_go: dict[Group, float] = {}
        """Whose sessions that were kept for long were closed of late, and when at last."""
        self._last: tuple[Finding, ...] = ()

    def remembered(self) -> Memory:
        """Return what is usual here, for the next life of the daemon."""
        return self._usual.remembered()

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered; raises ValueError, TypeError or KeyError when it does not fit."""
        self._usual.recall(memory)

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the storms that rage. A look that failed changes nothing."""
        snapshot = window.snapshot
        if snapshot is None or window.t != snapshot.t:
            self._has_failed = True
            return self._last
        self._note(window, snapshot)
        streams = streams_of(self._churn, self._usual, window.t)
        for storm in self._storms:
            self._go_on(storm, streams, window)
        self._storms = [storm for storm in self._storms if not self._is_over(storm, window)]
        if streams:
            self._raise(streams, window)
        if not self._storms:
            self._raise_counted(streams, window)
        if not self._storms:
            self._raise_refused(window)
        for storm in self._storms:
            self._rate(storm, streams, window)
        self._usual.learn(window, streams, but=self._unusual(streams))
        self._last = tuple(words.finding(storm, window, self._usual) for storm in self._storms)
        return self._last

    # -- what is seen ----------------------------------------------------------------------------------------------

    def _note(self, window: Window, snapshot: Snapshot) -> None:
        t = window.t
        gap_seconds = window.looked_seconds
        if gap_seconds is None:  # the first look, or the clock stepped back
            self._usual.forget_instants()
            self._full_looks.clear()
            self._refused.clear()
            self._restarted_at = -math.inf
            for storm in self._storms:
                storm.since = min(storm.since, t)
            self._let_go.clear()
        elif self._has_failed and len(window.left) >= max(RESTARTED_RATIO * self._sessions, RESTARTED_LEAST):
            self._restarted_at = t
        self._has_failed = False
        if gap_seconds is None or gap_seconds > GAP_SECONDS:
            for storm in self._storms:
                storm.quiet_since = None
        self._sessions = window.sessions
        self._churn.add(window)
        self._note_let_go(window)
        if snapshot.slots is not None and window.used >= FULL_RATIO * snapshot.slots.usable > 0:
            self._full_looks.append(t)
        self._refused.append((t, snapshot.refused or 0))
        while self._full_looks and self._full_looks[0] <= t - SPAN_SECONDS:
            self._full_looks.popleft()
        while self._refused[0][0] <= t - SPAN_SECONDS:
            self._refused.popleft()

    def _note_let_go(self, window: Window) -> None:
        t = window.t
        self._let_go = {group: at for group, at in self._let_go.items() if t - at <= LET_GO_KEPT_SECONDS}
        for track in window.left:
            if t - track.opened_at >= KEPT_SECONDS:
                self._let_go[track.origin.key.group] = t

    @property
    def _is_full(self) -> bool:
        return len(self._full_looks) >= FULL_LOOKS_LEAST

    @property
    def _refusals(self) -> int:
        return sum(refused for _, refused in self._refused)

    # -- who storms ------------------------------------------------------------------------------------------------

    def _raise(self, streams: list[Stream], window: Window) -> None:
        t = window.t
        lit = {group for storm in self._storms for group in storm.groups}
        in_all = sum(one.came_and_went for one in streams)
        counted = [one for one in streams if one.seen and one.came >= COUNTED_LEAST]
        restless = folded([one for one in counted if _is_unusual(one) or self._is_retried(one)], t)
        raging = [one for one in restless if not one.groups & lit and self._rages(one, in_all, window)]
        if lit:
            brief = sum(one.brief for one in streams)
            raging = [one for one in raging if one.seen >= SESSIONS_LEAST or one.brief >= BESIDE_RATIO * brief]
        for one in sorted(raging, key=lambda one: -one.came):
            since = one.began(t)
            beside = next((storm for storm in self._storms if abs(storm.since - since) <= TOGETHER_SECONDS), None)
            if beside is not None:
                beside.groups |= one.groups
                continue
            others = sum(other.came for other in restless if not other.groups & lit)
            if one.came >= CULPRIT_RATIO * others:
                self._storms.append(words.Storm(key=one.group, groups=set(one.groups), since=since))
            else:
                groups = {group for other in restless for group in other.groups} - lit
                self._storms.append(words.Storm(key=SERVER, groups=groups, since=since, is_many=True))
        if not raging and not lit and len(restless) >= MANY_GROUPS_LEAST:
            many = merged(restless, busiest=self._usual.busiest(SERVER, t))
            if many.came > BUSIEST_FACTOR * many.busiest and self._rages(
                many, in_all, window, least=MANY_FACTOR * SESSIONS_LEAST
            ):
                storm = words.Storm(key=SERVER, groups=set(many.groups), since=many.began(t), is_many=True)
                self._storms.append(storm)

    def _rages(self, one: Stream, in_all: float, window: Window, *, least: float = SESSIONS_LEAST) -> bool:
        """Whether somebody opens far more than usual, and goes on."""
        t = window.t
        if one.came < least or one.seen < SEEN_LEAST or one.largest > BURST_RATIO * one.came:
            return False
        if not one.goes_on(t) or t - one.first_opened < SPANS_SECONDS:
            return False
        if self._usual.watched_seconds < CALM_SECONDS or not _is_unusual(one):
            return self._takes_slots(one, window)
        return self._is_backed(one, in_all, t)

    def _is_retried(self, one: Stream) -> bool:
        """Whether no slot is left, and far more are refused than this one ever wanted: refused, it comes again.

        Who comes and goes no faster than ever, and takes the slots by holding its sessions for longer, is refused at
        most once for each that it wanted, unless it tries again.
        """
        return self._is_full and self._refusals >= max(SESSIONS_LEAST, BUSIEST_FACTOR * one.busiest)

    def _is_backed(self, one: Stream, in_all: float, t: float) -> bool:
        """Whether what is said to have been missed of it is more than chance, and more than what others may have had.

        Where others open sessions as short, only the whole of them is known, not whose each was: then the whole has
        never been so much, or more of this one was caught than usual.
        """
        usual = sum(self._usual.brief(group, t) for group in one.groups)
        most = sum(self._usual.most_brief(group, t) for group in one.groups)
        by_chance = max(usual + CHANCE_FACTOR * math.sqrt(usual) + CHANCE_LEAST, CAUGHT_FACTOR * most)
        is_caught = one.brief >= max(by_chance, SEEN_LEAST)
        if in_all - SPAN_SECONDS * self._usual.per_second(SERVER, t) < BACKED_RATIO * one.came:
            return False
        if is_caught or one.seen >= SESSIONS_LEAST:
            return True
        return not one.is_guess and in_all >= self._usual.busiest(SERVER, t) + BACKED_RATIO * one.came

    def _takes_slots(self, one: Stream, window: Window) -> bool:
        slots = window.snapshot.slots if window.snapshot is not None else None
        if slots is None or words.held(one.origins(window.t), window) < HELD_RATIO * slots.usable:
            return False
        return self._is_full or self._refusals >= REFUSED_LEAST

    def _raise_counted(self, streams: list[Stream], window: Window) -> None:
        """Raise a storm of sessions that are too short to be seen: by the server's own count, naming nobody."""
        t = window.t
        if self._usual.watched_seconds < CALM_SECONDS:
            return
        pace = max(COUNTED_PER_SECOND, BUSIEST_FACTOR * self._usual.busiest(SERVER, t) / SPAN_SECONDS)
        flood = self._churn.unseen.flood(t, pace)
        if flood is None:
            return
        seen = self._seen_unusually(streams, t)
        most = seen[0] if seen and seen[0].brief >= CULPRIT_RATIO * sum(one.brief for one in seen) else None
        is_known = self._is_after_restart(flood.began) and (most is None or most.brief < SEEN_LEAST / 2)
        if t - flood.began < (COUNTED_AFTER_RESTART_SECONDS if is_known else COUNTED_SECONDS):
            return
        groups = {group for one in seen for group in one.groups}
        storm = words.Storm(key=SERVER, groups=groups, since=flood.began, is_many=True, counted_per_second=pace)
        if most is not None and most.brief >= SEEN_LEAST:
            storm.key, storm.is_many = most.group, False
        self._storms.append(storm)

    def _raise_refused(self, window: Window) -> None:
        """Raise a storm of who holds the slots with what it used to close within moments, and, refused, comes again.

        Its sessions wait for somebody else, so no more of them come than ever, and none goes; the refusals do not wait.
        What the server is at work on is no storm but a pile-up.
        """
        slots = window.snapshot.slots if window.snapshot is not None else None
        if slots is None or not self._is_full or self._usual.watched_seconds < CALM_SECONDS:
            return
        t = window.t
        for group in window.groups.values():
            if group.sessions < HELD_RATIO * slots.usable:
                continue
            usual = max(self._usual.busiest(group.key, t), SPAN_SECONDS * self._usual.per_second(group.key, t))
            if usual < COUNTED_LEAST or self._refusals < max(SESSIONS_LEAST, BUSIEST_FACTOR * usual):
                continue
            tracks = [track for origin in group.origins.values() for track in origin.tracks.values()]
            young = sum(t - track.opened_at <= HELD_SECONDS for track in tracks)
            at_work = sum(track.resting_since is None for track in tracks)
            if young >= HELD_YOUNG_RATIO * len(tracks) and 2 * at_work <= len(tracks):
                began = self._full_looks[0]
                self._storms.append(words.Storm(key=group.key, groups={group.key}, since=began, is_held=True))
                return

    def _seen_unusually(self, streams: Iterable[Stream], t: float) -> list[Stream]:
        """Return of whom more sessions were caught than chance gives, those of whom most were first."""
        seen = folded([one for one in streams if one.brief], t)
        unusual = [one for one in seen if one.brief > sum(self._by_chance(group, t) for group in one.groups)]
        return sorted(unusual, key=lambda one: -one.brief)

    def _by_chance(self, group: Group, t: float) -> float:
        """Return how many of a group's sessions looks may catch where nothing is unusual."""
        usual = self._usual.brief(group, t)
        return usual + CHANCE_FACTOR * math.sqrt(usual)

    def _unusual(self, streams: Iterable[Stream]) -> set[Group]:
        """Return of whom nothing is to be learnt; of nobody, while nobody knows who storms."""
        if any(storm.counted_per_second is not None for storm in self._storms):
            return {one.group for one in streams} | {SERVER}
        return {group for storm in self._storms for group in storm.groups}

    # -- how bad it is, and when it is over ------------------------------------------------------------------------

    def _go_on(self, storm: words.Storm, streams: list[Stream], window: Window) -> None:
        t = window.t
        if storm.is_held:
            goes_on = self._is_full
        elif storm.counted_per_second is not None:
            storm.groups.update(group for one in self._seen_unusually(streams, t) for group in one.groups)
            goes_on = self._churn.unseen.flood(t, OVER_FACTOR * storm.counted_per_second) is not None
        else:
            ours = [one for one in streams if one.group in storm.groups]
            busiest = sum(one.busiest for one in ours)
            least = max(OVER_FACTOR * SESSIONS_LEAST, OVER_FACTOR * BUSIEST_FACTOR * busiest)
            goes_on = sum(one.came_and_went for one in ours) >= least
        if goes_on:
            storm.quiet_since = None
        elif storm.quiet_since is None:
            storm.quiet_since = t

    def _is_over(self, storm: words.Storm, window: Window) -> bool:
        """Whether it has ended. While the server is full nobody sees who is refused: it goes on."""
        if storm.quiet_since is None or self._is_full:
            return False
        return window.t - storm.quiet_since >= OVER_SECONDS

    def _glimpse(self, storm: words.Storm, streams: Iterable[Stream], t: float) -> None:
        """Note of whom sessions were caught since it began: of one alone, if only that gave up its pool just then."""
        storm.caught = storm.caught or Glimpses(storm.since)
        storm.caught.add(streams, t)
        storm.glimpses = storm.caught.unusual(self._usual, t)
        if self._is_after_restart(storm.since):
            return
        poolless = [group for group, at in self._let_go.items() if abs(at - storm.since) <= TOGETHER_SECONDS]
        if len(poolless) == 1:
            own = Counter({key: count for key, count in storm.glimpses.items() if key.group == poolless[0]})
            if own and own.total() >= CULPRIT_RATIO * storm.glimpses.total():
                storm.glimpses, storm.gave_up_pool = own, True

    def _rate(self, storm: words.Storm, streams: Iterable[Stream], window: Window) -> None:
        """Note its numbers as of now. Once it has woken somebody it stays critical until it is over."""
        t = window.t
        now = [one for one in streams if one.group in storm.groups]
        if storm.counted_per_second is not None:
            self._glimpse(storm, streams, t)
        storm.take(now, window, refused=self._refusals, per_second=self._counted(storm, t))
        storm.after_restart = self._is_after_restart(storm.since)
        storm.takes_slots = self._is_full
        lasted_seconds = t - storm.since
        is_full, is_refused = self._is_full, self._refusals >= REFUSED_LEAST
        if storm.after_restart:
            is_full = len(self._full_looks) >= RESTART_FULL_LOOKS_LEAST
            is_refused = is_refused and lasted_seconds >= RESTART_REFUSED_SECONDS
        lasts = lasted_seconds >= CRITICAL_SECONDS and not self._may_be_one(storm)
        is_bad = is_full or is_refused or lasts
        if is_bad and storm.quiet_since is None:
            storm.severity = "critical"

    def _is_after_restart(self, since: float) -> bool:
        return since - self._restarted_at <= RESTART_SECONDS

    def _counted(self, storm: words.Storm, t: float) -> float | None:
        """Return how many come a second by the server's own count; None of a storm whose sessions are seen."""
        if storm.counted_per_second is None:
            return None
        flood = self._churn.unseen.flood(t, 0.0)
        return 0.0 if flood is None else flood.per_second

    def _may_be_one(self, storm: words.Storm) -> bool:
        """Whether what was counted may be the work of one script that opens one session after the other."""
        if storm.counted_per_second is None or storm.after_restart or storm.gave_up_pool:
            return False
        return len(storm.origins) <= 1 and storm.most_per_second < SCRIPT_PER_SECOND


def _is_unusual(one: Stream) -> bool:
    return one.came > BUSIEST_FACTOR * one.busiest
