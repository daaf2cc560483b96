"""A train of lost sessions: those of one group that came one after the other and stayed, from its onset on.

Owns where a train begins, how fast it goes on, and what all of its sessions have in common. Whether a train is a leak
is asked elsewhere (`leaks`). It has no clock.
"""

import math
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import mean, median, stdev

from batsignal.config import Thresholds
from batsignal.detect import fills, wording
from batsignal.detect import lost as losses
from batsignal.detect.blame import versions_of
from batsignal.detect.signal import Subject
from batsignal.detect.steps import Steps
from batsignal.detect.suspects import Suspects
from batsignal.detect.tracks import IDLE_BESIDE_SECONDS, Origin, Track

# The onset is where the steady train of lost sessions begins: a gap this many times the usual one is before it. What is
# usual is the median, or more where gaps differ much: of trains of ten that come by chance, one in four has a gap of
# six times the median, and one in thirty one that is seven deviations above the mean of the others.
GAP_FACTOR = 6.0
GAP_DEVIATIONS = 7.0
GAPS_KEPT = 16
GAPS_LEAST = 3
GAP_MOST_SECONDS = 900.0
GAP_SLACK_SECONDS = 10.0
# A leak goes with its application's traffic. Where that is seen (so many uses of its sessions for each one lost), a gap
# is as long as what was done in it, up to so many seconds.
TRAFFIC_USES = 20.0
GAP_AT_REST_MOST_SECONDS = 7200.0
# Of the sessions opened since the onset that are still there, less the first fill of each pool, this share was never
# used again. Workers that each open one session at their first request come close, and have used many again by then.
# Where a pool grew at the same time, what it opened while all it had were at work speaks against no leak. Several
# pools behind one address open beside idle ones, and show it by those of them that are used again.
NEVER_USED_AGAIN_RATIO = 0.75
# What left them: a session that only looks lost for a while did something else last.
STATEMENT_SHARE = 0.9
# So many of the newest lost sessions tell how fast it goes on, at the least.
PACE_SESSIONS = 30
# Sessions that come in clumps with silence between them are pools that start one after the other.
CLUMP_SECONDS = 2.0
CLUMP_SESSIONS = 2.0
CLUMP_OCCUPANCY_RATIO = 0.4
# Nor does a leak lose most of all in so few seconds of so long a time.
BURST_RATIO = 0.6
BURST_SECONDS = 5.0
BURST_SPAN_SECONDS = 20.0
# The runs of a job: so many, at one interval. Pods that are started one after the other come sooner than that.
RUNS_LEAST = 4
RUN_SECONDS_LEAST = 90.0
RUN_JITTER_RATIO = 0.1
BESIDE_IDLE_RATIO = 0.5
BEFORE_SECONDS = 120.0
# So much of its growth, at either end, does not tell how long it grew: some recycled ones come before others go.
GROWTH_TAIL = 0.2
# So much of what was opened before our first look and looks lost must have been opened in nobody's place.
SEEN_GROWTH_RATIO = 0.75


@dataclass(frozen=True, kw_only=True)
class Train:
    """Lost sessions of one group, in the order in which they were lost."""

    tracks: Sequence[Track]
    before: Sequence[Track]
    """What looks lost too, and is older: others came in the place of as many."""
    filling: Sequence[Track]
    """What came before it, looks lost too, and passes for the first fill of a pool."""
    filled: Sequence[tuple[Origin, float]]
    """Of the fill of its origins, what was most likely lost as well: whose, and from when on that could be told."""
    firsts: Sequence[Track]
    """What is the first of its origin, came alone and in the train's time, and looks lost like the train."""
    firsts_used: int
    """How many such first ones were used again."""
    returned: int
    """Sessions given back in the meantime, which the train only replaced."""
    used: Sequence[Track]
    """Sessions opened as late as the train that were used again."""
    reused: int
    """How many of those took nobody's place."""
    used_before: int
    """How many that were opened in the minutes before it were used again."""

    @property
    def lost(self) -> int:
        return max(len(self.tracks) - self.returned, 0)

    @property
    def held(self) -> int:
        """How many are told to be held: once it is known for a leak, so are the first ones of its pods."""
        return self.lost + len(self.firsts)

    @property
    def since(self) -> float:
        return self.tracks[0].lost_at

    @cached_property
    def onset(self) -> float:
        """When it began, as a person would say it: with what came as steadily while the pool still seemed to fill."""
        origins = {id(track.origin) for track in self.tracks}
        came_before = sorted((track.opened_at for track in self.filling if id(track.origin) in origins), reverse=True)
        onset = self.since
        for index, opened_at in enumerate(came_before):
            alone = came_before[index + 1 : index + 2] == []
            step = onset - opened_at
            if step > fills.FILL_GAPS * self.gap_seconds or not (alone or step <= fills.FILL_STEP_SECONDS):
                break
            onset = opened_at
        return min(onset, self.firsts[0].opened_at) if self.firsts else onset

    @property
    def newest(self) -> float:
        return self.tracks[-1].lost_at

    @property
    def gap_seconds(self) -> float:
        return (self.newest - self.since) / max(len(self.tracks) - 1, 1)

    @property
    def gap_uses(self) -> float:
        """How often its group was seen at work between one lost session and the next, in the mean."""
        uses = self.tracks[-1].at_use - self.tracks[0].at_use
        return max(uses / max(len(self.tracks) - 1, 1), 0.0)

    def pace(self, room: int) -> Steps:
        """Return its newest sessions as steps: as many as there is room for, to look back as far as ahead."""
        times = sorted(track.lost_at for track in (*self.tracks, *self.firsts))[-max(room, PACE_SESSIONS) :]
        return Steps(times, (1,) * len(times))

    @cached_property
    def grown_seconds(self) -> float:
        """How long its origins grew: what recycles before or after the fill of other pools lends that no time.

        Read off the middle of the growth, and as long as all of it where that is even.
        """
        rises = losses.rises(self.since, self.tracks)
        # A bounded pool that loses sessions in the middle of their work does not grow by them.
        if not rises or 2 * self.stuck > len(self.tracks):
            return self.newest - self.onset
        most = len(rises) - 1
        middle = rises[round((1 - GROWTH_TAIL) * most)] - rises[round(GROWTH_TAIL * most)]
        return middle / (1 - 2 * GROWTH_TAIL)

    @cached_property
    def is_clumped(self) -> bool:
        """Whether its sessions come in clumps with silence between them."""
        if self._is_one_burst:
            return True
        moments = {math.floor(track.lost_at / CLUMP_SECONDS) for track in self.tracks}
        span = max(self.newest - self.since, 1.0)
        occupied = CLUMP_SECONDS * len(moments) / span
        return len(self.tracks) / len(moments) >= CLUMP_SESSIONS and occupied < CLUMP_OCCUPANCY_RATIO

    @property
    def _is_one_burst(self) -> bool:
        """Whether most of them came in a few seconds of its time: what everybody opened while all had to wait."""
        times = [track.lost_at for track in self.tracks]
        most = math.ceil(BURST_RATIO * len(times))
        if self.newest - self.since < BURST_SPAN_SECONDS:
            return False
        return min(later - earlier for earlier, later in zip(times, times[most - 1 :], strict=False)) <= BURST_SECONDS

    @cached_property
    def is_periodic(self) -> bool:
        """Whether its clumps come at one interval, as the runs of a job do, and pools that start do not."""
        starts = [self.tracks[0].lost_at]
        for track in self.tracks:
            if track.lost_at - starts[-1] > RUN_SECONDS_LEAST / 2:
                starts.append(track.lost_at)
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        if len(gaps) < RUNS_LEAST - 1:
            return False
        usual = median(gaps)
        return usual >= RUN_SECONDS_LEAST and all(abs(gap - usual) <= RUN_JITTER_RATIO * usual for gap in gaps)

    @cached_property
    def is_sparse(self) -> bool:
        """Whether most of its gaps are so long that only its application's traffic makes one train of it."""
        gaps = [later.lost_at - earlier.lost_at for earlier, later in pairwise(self.tracks)]
        return bool(gaps) and median(gaps) > GAP_MOST_SECONDS

    @cached_property
    def is_beside_idle(self) -> bool:
        """Whether most of it was opened although there were idle sessions to take."""
        beside = sum(1 for track in self.tracks if track.beside_idle_seconds >= IDLE_BESIDE_SECONDS)
        return beside >= BESIDE_IDLE_RATIO * len(self.tracks)

    @property
    def needless(self) -> int:
        """How many that are used were opened while more were idle than were lost by then: no pool did that alone."""
        return len(self.used_needlessly)

    @cached_property
    def used_needlessly(self) -> Sequence[Track]:
        """Those that `needless` counts."""
        lost_at: dict[int, list[float]] = defaultdict(list)
        for origin, told_at in self.filled:
            lost_at[id(origin)].append(told_at)
        # What a pod lost before its pool had opened any is idle beside the first that the pool opens.
        for track in (*self.firsts, *self.tracks):
            insort(lost_at[id(track.origin)], track.lost_at)
        return [
            track
            for track in self.used
            if track.idle_beside > bisect_right(lost_at[id(track.origin)], track.opened_at - IDLE_BESIDE_SECONDS)
        ]

    @cached_property
    def stuck(self) -> int:
        """How many of it were left in the middle of their work."""
        return sum(1 for track in self.tracks if losses.is_stuck(track))

    @cached_property
    def lent(self) -> int:
        """How many of it are idle and had been lent for long before they were lost."""
        return sum(1 for track in self.tracks if track.lost_at > track.opened_at and not losses.is_stuck(track))

    @cached_property
    def subject(self) -> Subject:
        """What all of its sessions have in common; the statement is that of nearly all."""
        keys = [track.origin.key for track in self.tracks]
        return Subject(
            application=wording.common(key.service for key in keys),
            version=wording.common(key.version for key in keys),
            user=wording.common(key.user for key in keys),
            database=wording.common(key.database for key in keys),
            client=wording.common(key.client for key in keys),
            query_id=wording.nearly_common((track.session.statement_id for track in self.tracks), STATEMENT_SHARE),
        )

    @cached_property
    def versions(self) -> tuple[str, ...]:
        """The versions that its sessions carry."""
        return versions_of(track.origin.key.version for track in self.tracks)

    @cached_property
    def where(self) -> tuple[str, ...]:
        """Say in which state its sessions are, from where they come and what they did last."""
        return tuple(self._where())

    def _where(self) -> Iterator[str]:
        states = {track.session.state or "unknown" for track in self.tracks}
        hosts = {track.origin.key.client for track in self.tracks if track.origin.key.client}
        yield f"state: {', '.join(sorted(states))}" + (
            f"; from {len(hosts)} client addresses" if len(hosts) > 1 else ""
        )
        query = wording.common(track.session.query for track in self.tracks)
        if query:
            yield f"last statement of each: {query[:120]}"
        code = wording.code_paths(track.session.code for track in self.tracks)
        if code:
            yield code


def is_nearly_all(lost: int, used: int) -> bool:
    """Return whether of sessions opened at the same time nearly all are lost, and next to none is used again."""
    return lost >= NEVER_USED_AGAIN_RATIO * (lost + used)


def newest_train(
    suspects: Suspects, t: float, began: float, limits: Thresholds, *, least: int, lent: bool = False
) -> Train | None:
    """Return the newest train of lost sessions that took nobody's place; None when fewer than `least` are lost.

    With `lent`, those that a pool had lent for long before they were lost are among them.
    """
    lost = list(suspects.lent if lent else suspects.lost)
    if len(lost) < least:
        return None
    lost = _believable(lost[_onset_index(lost, limits.leak_moment_seconds) :], began)
    count, begin = losses.unreplaced(lost, t, limits)
    return _train(suspects, lost[begin:], len(lost) - begin - count, began, limits) if begin < len(lost) else None


def train_since(since: float, suspects: Suspects, limits: Thresholds, *, lent: bool = False) -> Train | None:
    """Return all that was lost since then; None when it is nothing."""
    lost = [track for track in (suspects.lent if lent else suspects.lost) if track.lost_at >= since]
    return _train(suspects, lost, losses.returned_since(since, lost, limits), since, limits) if lost else None


def _train(suspects: Suspects, lost: Sequence[Track], returned: int, earliest: float, limits: Thresholds) -> Train:
    since = lost[0].lost_at
    used = [track for track in suspects.reused if track.opened_at >= since]
    places = set(map(fills.place_of, lost))
    lone = [one for one in suspects.lone if fills.place_of(one) in places]
    firsts_since = fills.firsts_since(lone, lost, earliest)
    firsts = tuple(one for one in lone if one.opened_at >= firsts_since)
    return Train(
        tracks=tuple(lost),
        before=tuple(track for track in suspects.lost if track.lost_at < since),
        filling=tuple(track for track in suspects.filling if track.opened_at < since),
        filled=fills.lost_of([one for one in suspects.filling if one not in firsts], lost, limits),
        firsts=firsts,
        firsts_used=sum(
            1 for one in suspects.lone_used if one.opened_at >= firsts_since and fills.place_of(one) in places
        ),
        returned=returned,
        used=used,
        reused=losses.unreplaced_count(since, used),
        used_before=sum(1 for track in suspects.reused if since - BEFORE_SECONDS <= track.opened_at < since),
    )


def _onset_index(lost: Sequence[Track], moment_seconds: float) -> int:
    """Return where the newest steady train of lost sessions begins."""
    gaps = [later.lost_at - earlier.lost_at for earlier, later in pairwise(lost)]
    if not gaps:
        return 0
    # Of sessions that come several at a time, the time between the times is what is usual.
    newest = [gap for gap in gaps if gap > moment_seconds][-GAPS_KEPT:] or gaps
    strict = min(max(GAP_FACTOR * median(newest), GAP_SLACK_SECONDS), GAP_MOST_SECONDS)
    uses = [max(later.at_use - earlier.at_use, 0) for earlier, later in pairwise(lost)]
    usual_uses = median(uses[-GAPS_KEPT:])
    for index in range(len(gaps) - 1, -1, -1):
        earlier, later = lost[index], lost[index + 1]
        is_one_version = earlier.origin.key.version == later.origin.key.version
        if gaps[index] <= strict:
            continue
        if is_one_version and gaps[index] <= min(_far_above(gaps, index, moment_seconds), GAP_MOST_SECONDS):
            continue
        was_at_rest = usual_uses >= TRAFFIC_USES and uses[index] <= GAP_FACTOR * usual_uses
        if not (was_at_rest and gaps[index] <= GAP_AT_REST_MOST_SECONDS):
            return index + 1
    return 0


def _far_above(gaps: Sequence[float], index: int, moment_seconds: float) -> float:
    """Return what is far above the gaps that follow one, of too few above all others; 0 when these are few, too."""
    usual = [gap for gap in gaps[index + 1 :] if gap > moment_seconds][-GAPS_KEPT:]
    if len(usual) < GAPS_LEAST:
        usual = [gap for at, gap in enumerate(gaps) if at != index and gap > moment_seconds][-GAPS_KEPT:]
    return mean(usual) + GAP_DEVIATIONS * stdev(usual) if len(usual) >= GAPS_LEAST else 0.0


def _believable(lost: list[Track], began: float) -> list[Track]:
    """Return the lost sessions that count: those from before our first look only if the later ones replaced nobody."""
    seen = [track for track in lost if track.lost_at >= began]
    is_growing = losses.growth_since(began, lost) >= SEEN_GROWTH_RATIO * len(seen)
    return lost if is_growing else seen
