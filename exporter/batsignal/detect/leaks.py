"""Calls a leak: sessions taken one after the other and never given back.

Signature (docs/detection.md): a leaked session is used once, soon after it was opened, and never again, while more of
the same follow. A pool never does that: it opens a session only when it has no idle one, fills in a burst and then
stands still, and opens one for one when it recycles. So what is counted is not sessions but *lost* ones (`lost`), and
what is asked is whether they came one by one, steadily, and stayed (`train`).

Owns the judgement and its memory from tick to tick. It has no clock: time is the snapshot's.
"""

from collections.abc import Iterable

from batsignal.config import Thresholds
from batsignal.detect import come_back, headroom, leak_end, leak_telling
from batsignal.detect import lost as losses
from batsignal.detect.holding import Explained, Holdings
from batsignal.detect.leak_end import Lit
from batsignal.detect.leftovers import Leftovers
from batsignal.detect.signal import Finding
from batsignal.detect.suspects import Lineup, Suspects
from batsignal.detect.tracks import Group
from batsignal.detect.train import Train, is_nearly_all, newest_train, train_since
from batsignal.detect.window import Window

# An application that gives back this share of what it takes holds its sessions for long, and loses none.
GIVEN_BACK_RATIO = 0.3
CLUMP_PENALTY = 6
PERIODIC_PENALTY = 2
# A pool opens a session only while all it has are at work: many small pools that each once needed one more, and never
# again, open none beside one that was idle. A leak does, from the second session of an origin on.
ALONE_PENALTY = 2
# Of what was lost one by one by many fresh pods, the first of each passes for its fill. Half as many beyond those will
# do where in all twice as many were lost: pods that start look all alike, and have one session each, or each two.
FIRSTS_FACTOR = 2
# A leak whose gaps are mostly longer than those that trains have is one only by what its application did meanwhile. So
# do people who share a user, and each open a window at some time of the day and leave it.
SPARSE_PENALTY = 2
# So much it must have grown before our own eyes, and nearly as much as it opened: at our own start, a pool recycled all
# night looks like a leak of hours, for what it closed in exchange is gone. Sessions that are given back look like one
# too until some are: that seven come by chance before one goes is seldom, and each that went asks for three more.
SEEN_GROWTH = 3
SEEN_GROWTH_AT_START = 7
SEEN_GROWTH_PER_GIVEN_BACK = 3
# Where some are given back, it takes so long to see what is usual.
EARLY_SECONDS = 300.0
# Nothing is opened any more: nearly no gap that chance draws is so many times the usual one.
ENDED_GAPS = 3.5
ENDED_SLACK_SECONDS = 5.0
ENDED_SECONDS = 10.0
# One that only rested is called again once so many more were lost.
RESUMED_SESSIONS = 4


class LeakDetector:
    """Finds leaks of any application, group by group."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._lit: dict[tuple[str, ...], Lit] = {}
        self._leftovers = Leftovers(thresholds)
        self._rested: dict[tuple[str, ...], Lit] = {}
        """Leaks that stood still and were called over, as long as their sessions are there."""
        self._trains: dict[Group, tuple[Suspects, float | None, bool, Train | None]] = {}
        self._holdings = Holdings(thresholds)
        self._lineup = Lineup(thresholds)
        self._last: tuple[Finding, ...] = ()

    def expect(self, left: Iterable[Finding], left_at: float) -> None:
        """Be told of the leaks that an earlier life saw grow until `left_at`: they need not grow again to be called."""
        self._leftovers.expect(left, left_at)

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the leaks of this tick. A look that failed changes nothing."""
        if window.has_failed:
            return self._last
        if window.begins:
            self._forget()
        self._holdings.learn(window)
        self._lineup.look(window)
        for noted in (self._lit, self._rested):
            for key in [key for key in noted if key not in window.groups]:
                del noted[key]
        least = self._limits.leak_sessions // 2
        found = []
        for group in window.groups.values():
            if group.sessions >= least or group.key in self._lit:
                finding = self._judge(group, window)
                if finding is not None:
                    found.append(finding)
            elif group.key in self._rested:
                self._end(group)
        self._last = tuple(found)
        return self._last

    def _forget(self) -> None:
        self._lit.clear()
        self._rested.clear()
        self._trains.clear()
        self._holdings.clear()
        self._lineup.clear()

    def _end(self, group: Group) -> None:
        self._lit.pop(group.key, None)
        self._rested.pop(group.key, None)
        self._trains.pop(group, None)

    def _judge(self, group: Group, window: Window) -> Finding | None:
        suspects = self._lineup.suspects(group, window.t)
        lit = self._lit.get(group.key)
        if lit is None:
            if len(suspects.lent) < self._least_held(group, suspects):
                self._end(group)
                return None
            lit = (
                self._left_lit(group, suspects, window)
                or self._resumed(group, suspects, window)
                or self._begun(group, suspects, window)
            )
            if lit is None:
                return None
            self._lit[group.key] = lit
            self._rested.pop(group.key, None)
        train = self._train(group, suspects, window, lit.since, lent=lit.lent)
        return self._goes_on_as(group, lit, train, window)

    def _goes_on_as(self, group: Group, lit: Lit, train: Train | None, window: Window) -> Finding | None:
        """Return what is said of a leak that is lit at this look, None when it has ended by now."""
        last = self._last_of(group)
        again = None
        if last is not None and leak_end.is_ended(lit, train, window):
            version = last.subject.version
            again = leak_end.taken_at_once(group, lit, version, window, self._limits)
            if again:
                return leak_telling.told_again(last, again, window)
            again = leak_end.taken_since(group, lit, version, window, self._limits)
        if train is None or self._is_explained(group, train, window):
            lit.fewer_since = window.t if lit.fewer_since is None else lit.fewer_since
            if last is not None and again is not None:
                return leak_telling.told_again(last, again, window, gap_seconds=lit.gap_seconds)
            if window.t - lit.fewer_since >= self._limits.leak_clear_seconds:
                self._end(group)
                return None
            if train is None:
                return last
        else:
            lit.fewer_since = None
            if leak_end.has_stood_still(lit, group, train, window, self._limits):
                self._rested[group.key] = self._lit.pop(group.key)
                return None
        finding = leak_telling.told(group, train, window, self._limits, since=lit.since, was=lit.severity)
        lit.severity = finding.severity
        return finding

    def _begun(self, group: Group, suspects: Suspects, window: Window) -> Lit | None:
        train, lent = self._train(group, suspects, window, None), False
        if train is None or not self._is_leak(group, train, window):
            if suspects.lent is suspects.lost:
                return None
            train, lent = self._train(group, suspects, window, None, lent=True), True
            if train is None or not self._is_drained(group, train, window):
                return None
        return Lit(
            since=train.onset,
            severity="warning",
            most=train.lost,
            grew_at=window.t,
            grew_at_use=group.uses,
            newest=train.newest,
            lent=lent,
        )

    def _least_held(self, group: Group, suspects: Suspects) -> float:
        """Return how many must look lost to be looked at any further: what is lit goes on with half as many."""
        return self._least(suspects) / (2 if group.key in self._leftovers else 1)

    def _least(self, suspects: Suspects) -> int:
        """Return how many must be lost at the least, beside so many that were each the first of a pod."""
        least = self._limits.leak_sessions
        return least // 2 if len(suspects.lost) + len(suspects.lone) >= FIRSTS_FACTOR * least else least

    def _left_lit(self, group: Group, suspects: Suspects, window: Window) -> Lit | None:
        """Return the leak that an earlier life left lit, where it still stands: since when it rests we do not know."""
        standing = self._leftovers.standing(group, suspects, window)
        if standing is None:
            return None
        return Lit(
            since=standing.finding.since,
            severity=standing.finding.severity,
            most=standing.train.lost,
            grew_at=window.t,
            grew_at_use=group.uses,
            newest=standing.train.newest,
            lent=standing.lent,
        )

    def _resumed(self, group: Group, suspects: Suspects, window: Window) -> Lit | None:
        """Return the leak that stood still, once it goes on."""
        rested = self._rested.get(group.key)
        if rested is None:
            return None
        train = train_since(rested.since, suspects, self._limits, lent=rested.lent)
        if train is None or train.lost < rested.most + RESUMED_SESSIONS:
            return None
        if self._is_explained(group, train, window):
            return None
        return rested

    def _train(
        self, group: Group, suspects: Suspects, window: Window, since: float | None, *, lent: bool = False
    ) -> Train | None:
        """Return the newest train of lost sessions; once it is lit, all that were lost since."""
        known = self._trains.get(group)
        if known is not None and known[0] is suspects and known[1:3] == (since, lent):
            return known[3]
        if since is None:
            least = self._least(suspects)
            train = newest_train(suspects, window.t, window.began, self._limits, least=least, lent=lent)
        else:
            train = train_since(since, suspects, self._limits, lent=lent)
        self._trains[group] = (suspects, since, lent, train)
        return train

    # -- the judgement ---------------------------------------------------------------------------------------------

    def _is_leak(self, group: Group, train: Train, window: Window) -> bool:
        least = self._limits.leak_sessions * self._doubt(train)
        if train.is_beside_idle and self._is_of_fresh_pods(train):
            least //= 2
        full = headroom.is_full(window, self._limits.saturation_critical_ratio)
        if train.lost < least or not self._is_steady(train, window.t, least, full=full):
            return False
        if not _is_told(group, train) or not (full or _opens_still(group, train, window.t)):
            return False
        if not self._is_seen(group, train, window, full=full):
            return False
        explained = self._explain(group, train, window.t)
        if explained.outlived >= least:
            return True
        surplus = train.lost - explained.usual
        if surplus < least or self._is_outnumbered(train, group, window.t, surplus, least):
            return False
        return explained.is_settled or not self._is_given_back(train, group, window)

    def _is_of_fresh_pods(self, train: Train) -> bool:
        """Whether as many were lost by pods that each lost one first, and next to none of all those was used again."""
        least = self._limits.leak_sessions
        if len(train.firsts) < least or train.held < FIRSTS_FACTOR * least or come_back.doubt(train, self._limits):
            return False
        return is_nearly_all(len(train.firsts), train.firsts_used)

    def _is_drained(self, group: Group, train: Train, window: Window) -> bool:
        """Whether a pool has lost sessions that it had lent before, and opened others in their place.

        These are used, so it is not asked how many are used again, but whether more were idle than were lost when they
        were opened: several pools behind one address do that.
        """
        least = self._limits.leak_sessions * (SPARSE_PENALTY if train.is_sparse else 1)
        grown = losses.growth_since(train.since, train.tracks)
        if train.is_clumped or train.lost < least or 2 * grown < train.lost or train.since < window.began:
            return False
        if not self._goes_on(train, window.t, full=headroom.is_full(window, self._limits.saturation_critical_ratio)):
            return False
        if not is_nearly_all(len(train.used) - train.needless, train.needless):
            return False
        surplus = train.lost - self._explain(group, train, window.t).usual
        return surplus >= least and not self._is_outnumbered(train, group, window.t, surplus, least)

    def _is_outnumbered(self, train: Train, group: Group, t: float, surplus: int, least: int) -> bool:
        return come_back.is_outnumbered(train, group, t, self._limits, surplus=surplus, least=least)

    def _doubt(self, train: Train) -> int:
        """Return how many times as many must be lost as of a train that no pool could be."""
        if train.is_clumped:
            return PERIODIC_PENALTY if train.is_periodic else CLUMP_PENALTY
        alone = 1 if train.is_beside_idle or train.stuck >= self._limits.leak_sessions else ALONE_PENALTY
        return alone * (SPARSE_PENALTY if train.is_sparse else 1)

    def _is_steady(self, train: Train, t: float, least: int, *, full: bool) -> bool:
        """Whether it went on for a while, goes on, and few others are opened that are used again."""
        if not self._goes_on(train, t, full=full) or not self._is_never_used_again(train, least):
            return False
        return train.grown_seconds >= self._span_seconds(full=full)

    def _span_seconds(self, *, full: bool) -> float:
        return self._limits.leak_span_seconds / 3 if full else self._limits.leak_span_seconds

    def _goes_on(self, train: Train, t: float, *, full: bool) -> bool:
        span = self._span_seconds(full=full)
        # What came as steadily in the seconds of a pool's fill was none.
        if train.newest - train.onset < span:
            return False
        # Where no slot is left nothing more can come; what is only held for long is given back by then.
        if t - train.onset < self._limits.leak_span_seconds:
            return False
        silence = t - train.newest - losses.telling_seconds(train.tracks[-1], self._limits)
        return full or silence <= 3 * train.gap_seconds + 10.0

    def _is_never_used_again(self, train: Train, least: int) -> bool:
        """Whether nearly all that was opened was not used again, or nearly all of what no pool would have opened."""
        if train.stuck >= least or is_nearly_all(len(train.tracks), train.reused):
            return True
        return train.is_beside_idle and is_nearly_all(len(train.tracks), train.needless)

    def _is_seen(self, group: Group, train: Train, window: Window, *, full: bool) -> bool:
        """Whether it grew enough before our own eyes: what was given back before them, we do not know."""
        if group.key in self._leftovers:
            return True
        since = max(train.since, window.began)
        growth = losses.growth_since(since, train.tracks)
        growth += sum(1 for track in train.tracks if track.opened_at < since <= track.lost_at)
        known = 0 if full else self._explain(group, train, window.t).known
        is_early = train.since < window.began or (known and window.t - window.began < EARLY_SECONDS)
        if full or not is_early:
            return growth >= SEEN_GROWTH
        return growth >= SEEN_GROWTH_AT_START + SEEN_GROWTH_PER_GIVEN_BACK * known

    def _explain(self, group: Group, train: Train, t: float) -> Explained:
        return self._holdings.explain(group.key, train.tracks, train.before, t, beside_idle=train.is_beside_idle)

    def _is_given_back(self, train: Train, group: Group, window: Window) -> bool:
        """Whether much of what was taken came back: asked as long as nobody knows how this group holds its sessions."""
        since = max(train.since, window.began)
        taken = sum(1 for track in train.tracks if track.lost_at >= since)
        back = losses.given_back(since, train.gap_seconds, group.origins.values(), self._limits)
        return back > GIVEN_BACK_RATIO * taken

    def _last_of(self, group: Group) -> Finding | None:
        return next((finding for finding in self._last if finding.key == group.key), None)

    # -- its end ---------------------------------------------------------------------------------------------------

    def _is_explained(self, group: Group, train: Train, window: Window) -> bool:
        """Whether what is still lost is little, or what the group holds and gives back every day."""
        least = self._limits.leak_sessions / 2
        if train.lost < least:
            return True
        explained = self._explain(group, train, window.t)
        if explained.outlived >= least:
            return False
        if train.lost - explained.usual < least:
            return True
        return leak_end.gives_back(train, group.origins.values(), window, self._limits)


def _is_told(group: Group, train: Train) -> bool:
    """Whether no more were opened after the newest that is lost: of a burst, the first ones say nothing yet."""
    return train.lost >= sum(at > train.newest for at in _opened(group))


def _opens_still(group: Group, train: Train, t: float) -> bool:
    """Whether its last is not far longer ago than one is from the next: a job has opened all it wanted by then."""
    silence = t - max(train.newest, *_opened(group))
    return silence <= max(ENDED_SECONDS, ENDED_GAPS * train.gap_seconds + ENDED_SLACK_SECONDS)


def _opened(group: Group) -> Iterable[float]:
    return (track.opened_at for origin in group.origins.values() for track in origin.tracks.values())
