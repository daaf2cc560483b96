"""Whether a leak that is lit has ended: given back, at a standstill, or ended by hand and not undone.

Owns what is remembered of a leak while it is lit, and the signs of its end. What is lost is told by its train
(`train`), what is said of it by `leak_telling`. It has no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from batsignal.config import Thresholds
from batsignal.detect import headroom
from batsignal.detect import lost as losses
from batsignal.detect.signal import Severity
from batsignal.detect.tracks import Group, Origin, Track
from batsignal.detect.train import TRAFFIC_USES, Train
from batsignal.detect.window import Window

# So few that come back say nothing of whether its application gives back what it takes.
GIVEN_BACK_MOST = 3
GIVEN_BACK_SECONDS = 60.0
# A leak that has stopped growing while there is room is over when it stood still this long, and when its application
# has meanwhile worked as much as it did in as many gaps: at night a leak rests with its traffic.
STANDSTILL_SECONDS = 600.0
STANDSTILL_GAPS = 8.0
STANDSTILL_LIFE_RATIO = 0.25
# Some of those that were refused come late for the slots of a leak whose sessions were ended.
TAKEN_AGAIN_RATIO = 0.8
# A leak whose sessions were ended by hand has lost enough anew to be told after a few gaps, where that is soon: it is
# not called over before, as long as its application opens one after the other as it did.
GOES_ON_GAPS = 3.0
GOES_ON_SLACK_SECONDS = 2.0
GOES_ON_SECONDS_MOST = 60.0


@dataclass(slots=True)
class Lit:
    """What is remembered of a leak while it is lit."""

    since: float
    severity: Severity
    most: int
    """The most that were lost at once."""
    grew_at: float
    grew_at_use: int
    """When it last grew, how much its group had worked by then, and when the newest was lost."""
    newest: float
    lent: bool
    """Whether sessions are among it that a pool had lent for long before."""
    fewer_since: float | None = None
    ended_at: float = 0.0
    held_at: float = 0.0
    """When its sessions were ended at the earliest, and when most of it, or as many taken anew, was seen last."""
    gap_seconds: float = 0.0
    """How often it took one by then."""


def is_ended(lit: Lit, train: Train | None, window: Window) -> bool:
    """Whether most that was lost was ended, and less than that was lost since; notes when it was not."""
    if train is not None and 2 * train.lost > lit.most:
        lit.ended_at = lit.held_at = window.t
        lit.gap_seconds = train.gap_seconds
        return False
    return True


def taken_at_once(group: Group, lit: Lit, version: str | None, window: Window, limits: Thresholds) -> int:
    """Return how many the culprit took right after its sessions were ended, if those are nearly as many; else 0.

    Whoever ends the sessions of a leak without undoing it lets in those that had been refused, all at one moment:
    nothing tells them from a fill, and where no slot is left nothing grows. It is over when there are fewer.
    """
    if not headroom.is_full(window, limits.saturation_critical_ratio):
        return 0
    opened = [track.opened_at for track in _of_version(group, version)]
    for ended_at in (lit.ended_at, lit.held_at):
        held = sum(1 for at in opened if ended_at <= at <= ended_at + limits.leak_clear_seconds)
        if held >= TAKEN_AGAIN_RATIO * lit.most:
            lit.ended_at, lit.held_at, lit.fewer_since = ended_at, window.t, None
            return held
    return 0


def taken_since(group: Group, lit: Lit, version: str | None, window: Window, limits: Thresholds) -> int | None:
    """Return how many it took since its sessions were ended; None when it is over, or told by its train by now.

    As long as too few are lost anew to tell, one after the other that stays tells that it may go on.
    """
    told_seconds = limits.leak_idle_seconds + (limits.leak_sessions // 2 + GOES_ON_GAPS) * lit.gap_seconds
    if told_seconds > GOES_ON_SECONDS_MOST or window.t - lit.ended_at > told_seconds:
        return None
    tracks = list(_of_version(group, version))
    taken = [track.opened_at for track in tracks if track.opened_at > lit.ended_at and not track.is_in_use]
    silence = window.t - max(taken, default=lit.ended_at)
    return len(taken) if tracks and silence <= GOES_ON_GAPS * lit.gap_seconds + GOES_ON_SLACK_SECONDS else None


def _of_version(group: Group, version: str | None) -> Iterable[Track]:
    for origin in group.origins.values():
        if version in (None, origin.key.version):
            yield from origin.tracks.values()


def gives_back(train: Train, origins: Iterable[Origin], window: Window, limits: Thresholds) -> bool:
    """Whether as many of its sessions come back of late as are taken.

    Where no slot is left none can be taken, and what a pool recycles does not come again: that ends no leak.
    """
    if headroom.is_full(window, limits.saturation_critical_ratio):
        return False
    since = window.t - max(GIVEN_BACK_SECONDS, STANDSTILL_GAPS * train.gap_seconds)
    back = losses.given_back(since, train.gap_seconds, origins, limits, opened_from=train.since)
    return back > GIVEN_BACK_MOST and back >= sum(1 for track in train.tracks if track.lost_at >= since)


def has_stood_still(lit: Lit, group: Group, train: Train, window: Window, limits: Thresholds) -> bool:
    """Whether nothing came for so long, and while so much was done, that it has ended; never when room is short."""
    t = window.t
    is_replaced = train.newest > lit.newest and losses.growth_since(lit.newest + 0.001, train.tracks) < 1
    if train.lost > lit.most or train.lost <= lit.most / 2 or (train.newest > lit.newest and not is_replaced):
        lit.most, lit.grew_at, lit.grew_at_use, lit.newest = train.lost, t, group.uses, train.newest
    if headroom.is_full(window, limits.saturation_warning_ratio - limits.saturation_clear_ratio):
        return False
    life_seconds = train.newest - train.since
    still_seconds = max(STANDSTILL_SECONDS, STANDSTILL_GAPS * train.gap_seconds, STANDSTILL_LIFE_RATIO * life_seconds)
    if t - lit.grew_at <= still_seconds:
        return False
    is_at_rest = train.gap_uses >= TRAFFIC_USES and (group.uses - lit.grew_at_use < STANDSTILL_GAPS * train.gap_uses)
    return not is_at_rest
