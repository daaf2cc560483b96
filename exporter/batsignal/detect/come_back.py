"""Sessions that came back: used again after they had rested for as long as a lost one does.

A lost session never comes back. So each that was opened with a train and did is evidence that the rest of the train may
come back too: workers that rest in their transactions, tools that people leave and return to. They raise the number
that must be lost, unless half as many as are wanted without them have rested clearly longer than any of their group
ever did before it was used again.

Owns that weighing. It remembers nothing but what the window keeps, calls nobody a leak and has no clock.
"""

from bisect import bisect_right

from batsignal.config import Thresholds
from batsignal.detect import lost as losses
from batsignal.detect.tracks import Group, Track
from batsignal.detect.train import Train

# Three of four sessions of a leak never come back: so each that does asks for three more that do not, beyond those that
# are wanted anyhow. Where sessions rest for long, most of those that will come back are still out when it is asked.
SESSIONS_PER_COME_BACK = 3
# A pool that works beside a leak opens one too many now and then.
SPARED = 1
# A session has outlasted all that came back when it rests so many times as long, or so long in any case: one odd
# session that lay at the bottom of its pool for hours must not hide a leak for hours. For five minutes it may wait for
# the next burst of jobs, however soon jobs come back from their pauses: pools keep what is idle for as long.
OUTLASTED_FACTOR = 2.0
OUTLASTED_LEAST_SECONDS = 300.0
OUTLASTED_MOST_SECONDS = 1800.0
# Of a crawl that goes on, the younger half cannot have.
OUTLASTING_RATIO = 0.5


def is_outnumbered(train: Train, group: Group, t: float, limits: Thresholds, *, surplus: int, least: int) -> bool:
    """Return whether too many came back for `surplus` lost sessions to be a leak, where `least` would do otherwise."""
    asked = doubt(train, limits)
    return asked > 0 and surplus < least + asked and _outlasting(train, group, t) < OUTLASTING_RATIO * least


def doubt(train: Train, limits: Thresholds) -> int:
    """Return how many more must be lost for those of a train's time that came back."""
    return SESSIONS_PER_COME_BACK * max(come_backs(train, limits) - SPARED, 0)


def come_backs(train: Train, limits: Thresholds) -> int:
    """Return how many sessions of a train's time were used again after a rest like a lost one's.

    Those of the train itself that came back once before they rested as they do (not what a pool had lent for long),
    and others that took nobody's place and were opened although more were idle than lost by then: what a pool opens
    beside a leak is none of that.
    """
    least_seconds = limits.leak_idle_seconds
    others = [track for track in train.used_needlessly if track.longest_rest_seconds >= least_seconds]
    own = [track for track in train.tracks if losses.is_stuck(track) or track.lost_at <= track.opened_at]
    came = sum(1 for track in own if _came_back_after_seconds(track, losses.is_stuck(track)) >= least_seconds)
    return came + losses.unreplaced_count(train.since, others)


def _outlasting(train: Train, group: Group, t: float) -> int:
    """Return how many of the train rest clearly longer than any session of its group did that came back."""
    return sum(
        len(since) - bisect_right([t - one for one in since], _outlasted_seconds(group, is_stuck))
        for is_stuck, since in _resting(train).items()
    )


def _resting(train: Train) -> dict[bool, list[float]]:
    """Return since when its sessions rest, the newest first: those in the middle of their work, and the others."""
    resting: dict[bool, list[float]] = {True: [], False: []}
    for track in train.tracks:
        if track.resting_since is not None:
            resting[losses.is_stuck(track)].append(track.resting_since)
    return {is_stuck: sorted(since, reverse=True) for is_stuck, since in resting.items()}


def _outlasted_seconds(group: Group, is_stuck: bool) -> float:
    longest_seconds = max(
        (_came_back_after_seconds(track, is_stuck) for one in group.origins.values() for track in one.tracks.values()),
        default=0.0,
    )
    return min(max(OUTLASTED_FACTOR * longest_seconds, OUTLASTED_LEAST_SECONDS), OUTLASTED_MOST_SECONDS)


def _came_back_after_seconds(track: Track, is_stuck: bool) -> float:
    """Return the longest rest that a session came back from; how long it lay in its pool says nothing of its work."""
    return track.longest_stuck_seconds if is_stuck else track.longest_rest_seconds
