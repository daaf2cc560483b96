"""Leaks that an earlier life of the daemon left lit, and which of them still stand before our first looks.

What was lost does not come back because we were restarted: a leak whose sessions are all still held goes on at once,
with its own onset, even if it has long stopped growing and would never be found anew. Whether it does is asked of the
sessions themselves, which bear their own times: those that were opened, or last used, after its onset and before the
earlier life's last look, and were not used since. What came later (the pools of a new deploy) says nothing of it.

Owns what was left, until it is found or the first looks are over. It has no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from batsignal.config import Thresholds
from batsignal.detect.signal import Finding
from batsignal.detect.suspects import Suspects
from batsignal.detect.tracks import Group, Track
from batsignal.detect.train import Train, train_since
from batsignal.detect.window import Window

# Some are given back while nobody looks; where more than this share of them is, somebody has ended it.
STILL_HELD_RATIO = 0.5
# What is there is told at our first looks: a COPY that waits for its client, and what a pool had lent for long, take
# 15 s. Later, what was at rest all along is only a pool at night.
FIRST_LOOKS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A leak that goes on: what was last said of it, and what is still held."""

    finding: Finding
    train: Train
    lent: bool
    """Whether sessions are among it that a pool had lent for long before."""


class Leftovers:
    """The leaks that were lit when the daemon before us ended, by group."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._left: Mapping[tuple[str, ...], Finding] = {}
        self._left_at = 0.0

    def expect(self, left: Iterable[Finding], left_at: float) -> None:
        """Take over what the earlier life found last; it looked until `left_at`, in Unix seconds."""
        self._left = {finding.key: finding for finding in left}
        self._left_at = left_at

    def __contains__(self, group: tuple[str, ...]) -> bool:
        """Whether a group's leak was lit: it need not grow before our eyes to be called again."""
        return group in self._left

    def standing(self, group: Group, suspects: Suspects, window: Window) -> Standing | None:
        """Return the leak of a group that still stands as it was left; None where most of it is gone."""
        finding = self._left.get(group.key)
        if finding is None or window.t - window.began > FIRST_LOOKS_SECONDS:
            return None
        least = max(self._limits.leak_sessions / 2, STILL_HELD_RATIO * finding.sessions)
        for lent in (False, True):
            train = train_since(finding.since, suspects, self._limits, lent=lent)
            if train is not None and sum(map(self._is_held_since, (*train.tracks, *train.firsts))) >= least:
                return Standing(finding, train, lent)
        return None

    def _is_held_since(self, track: Track) -> bool:
        """Whether a session was there, and at rest, when the earlier life looked last, and was not used since."""
        changed_at = track.session.state_change
        return track.opened_at <= self._left_at and changed_at is not None and changed_at <= self._left_at
