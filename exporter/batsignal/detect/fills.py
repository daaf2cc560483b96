"""What of the first fills of pools belongs to a train of lost sessions after all.

The first session of an origin, and what comes in the same moment, passes for its pool's fill, and is in no train. Some
of it is lost all the same: the first of each of many pods that lose theirs one by one, and what a pool that loses a
session now and then had lost by the end of its fill. Owns how that is told. Whether the train is a leak is asked
elsewhere (`leaks`). It has no clock and remembers nothing.
"""

from collections.abc import Sequence
from operator import itemgetter

from batsignal.config import Thresholds
from batsignal.detect import lost as losses
from batsignal.detect.tracks import Origin, Track

# What a pool seemed to fill with belongs to the train after it when it came as steadily, or was a single session.
FILL_GAPS = 2.0
FILL_STEP_SECONDS = 2.0
# Of a pool's fill, so many for each that was lost later may have been lost, too, where they rest as those do; more are
# what another pool behind that address has to spare.
FILLED_RATIO = 0.25


def lost_of(filling: Sequence[Track], lost: Sequence[Track], limits: Thresholds) -> Sequence[tuple[Origin, float]]:
    """Return what of the fill was lost as well, if it is little: from when on it had rested as lent ones must.

    In the order of those instants, in Unix seconds.
    """
    origins = {id(track.origin) for track in lost}
    rests = [track for track in filling if id(track.origin) in origins]
    if not rests or len(rests) > FILLED_RATIO * len(lost):
        return ()
    rest_seconds = losses.LENT_REST_FACTOR * max(losses.longest_passed_seconds(lost), limits.leak_idle_seconds)
    told = [(one.origin, one.resting_since + rest_seconds) for one in rests if one.resting_since is not None]
    return sorted(told, key=itemgetter(1))


def place_of(track: Track) -> tuple[str | None, ...]:
    """Return what the pods of one leak share: all of a session's origin but its client."""
    key = track.origin.key
    return key.version, key.user, key.database


def firsts_since(lone: Sequence[Track], lost: Sequence[Track], earliest: float) -> float:
    """Return since when first sessions of fresh origins came as steadily as a train: the train's begin, or before."""
    since = lost[0].lost_at
    step_most = FILL_GAPS * (lost[-1].lost_at - since) / max(len(lost) - 1, 1)
    for track in reversed(lone):
        if track.opened_at < earliest or since - track.opened_at > step_most:
            break
        since = min(since, track.opened_at)
    return since
