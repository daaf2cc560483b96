"""What is known of how long each group holds a session that it uses once, before it gives it back.

A long poll, a listener, a consumer: used once soon after its opening, held for a minute or five, then closed. While it
is held, nothing tells it from a lost session; only that such sessions come back one by one, and after how long, does.
So what was given back is remembered for each group, and a train of sessions that look lost is held against it: as many
as were held at once before, and given back, explain as many now, unless they have outlived them.

Owns the memory, bounded whatever names come by. What is closed at one moment (a process that ends, a roll-back, an
administrator) was not given back and teaches nothing. It calls nobody a leak and has no clock.
"""

import math
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from batsignal.config import Thresholds
from batsignal.detect import lost as losses
from batsignal.detect.tracks import Closing, Origin, Track
from batsignal.detect.window import Window

GROUPS_MOST = 500
HELD_KEPT = 256
# More than this at one look are closed at once; the faster the usual coming and going, the more may be by chance.
AT_ONCE_MOST = 2.0
# "Nearly all" of what was given back: one odd session that was held for hours must not hide a leak for hours.
NEARLY_ALL_RATIO = 0.97
# A session has outlived the others when it is clearly older; of too few others nobody knows how old they may become.
OUTLIVED_FACTOR = 1.25
KNOWN_LEAST = 8
# Enough is known once so many times as long as they are held was seen.
SETTLED_FACTOR = 2.0
# Of chance, so many steps up and down would swing about three times as far as what still passes for a turnover.
TURNOVER_CHANGES_LEAST = 16
SWING_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Held:
    """One session that was used once, held, and given back."""

    opened_at: float
    closed_at: float
    was_beside_idle: bool
    """Whether it was opened although its origin had an idle one: as a lost one is, and a pool's surplus is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """How much of a train of sessions that look lost is what its group does every day."""

    known: int
    """So many that were given back are remembered."""
    usual: int
    """So many were held at once before, opened in a stretch as long, and given back."""
    outlived: int
    """So many of the train are clearly older than nearly all became that were given back."""
    is_settled: bool
    """Whether enough was seen for `usual` to be relied on. Until then, each one that came back vouches for another."""


@dataclass(slots=True)
class _Memory:
    held: deque[Held] = field(default_factory=lambda: deque(maxlen=HELD_KEPT))

    @property
    def gap_seconds(self) -> float:
        """Return how long it takes from one that is given back to the next, in the mean."""
        if len(self.held) < 2:  # noqa: PLR2004 - a gap has two ends
            return float("inf")
        return max((self.held[-1].closed_at - self.held[0].closed_at) / (len(self.held) - 1), 0.1)


class Holdings:
    """What was learnt of every group, from look to look."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._groups: dict[tuple[str, ...], _Memory] = {}
        self._looked_at = 0.0

    def __len__(self) -> int:
        return len(self._groups)

    def clear(self) -> None:
        """Forget everything: the clock stepped back, and what was noted lies in the future."""
        self._groups.clear()

    def learn(self, window: Window) -> None:
        """Take in what was closed at this look."""
        since_last_seconds = max(window.t - self._looked_at, 0.0)
        self._looked_at = window.t
        closed: dict[tuple[str, ...], dict[int, tuple[Origin, list[Closing]]]] = defaultdict(dict)
        for origin, closing in window.closed:
            closed[origin.key.group].setdefault(id(origin), (origin, []))[1].append(closing)
        for group, origins in closed.items():
            memory = self._groups.get(group)
            gap_seconds = float("inf") if memory is None else memory.gap_seconds
            at_once_most = AT_ONCE_MOST + AT_ONCE_MOST * since_last_seconds / gap_seconds
            if sum(len(closings) for _, closings in origins.values()) <= at_once_most:
                self._note(group, origins.values())

    def _note(self, group: tuple[str, ...], origins: Iterable[tuple[Origin, list[Closing]]]) -> None:
        idle_seconds = self._limits.leak_idle_seconds
        held = [
            Held(one.opened_at, one.t, one.beside_idle_seconds >= idle_seconds)
            for origin, closings in origins
            # The last ones of an origin that leave together are a process that ended.
            if origin.tracks or len(closings) == 1
            for one in closings
            if losses.looked_lost(one, self._limits)
        ]
        if held:
            memory = self._groups.pop(group, None) or _Memory()
            memory.held.extend(held)
            self._groups[group] = memory  # the newest at the end, whoever it is
            if len(self._groups) > GROUPS_MOST:
                del self._groups[next(iter(self._groups))]

    def explain(
        self,
        group: tuple[str, ...],
        train: Sequence[Track],
        before: Sequence[Track],
        t: float,
        *,
        beside_idle: bool,
    ) -> Explained:
        """Hold a train of sessions that look lost against what its group gave back; `before` are those that stay.

        A train that was opened beside idle sessions is only explained by others that were: a pool's surplus, opened
        while all it had were at work and dropped later, is another matter.
        """
        memory = self._groups.get(group)
        if memory is None or not train:
            return Explained(known=0, usual=0, outlived=0, is_settled=False)
        held = [one for one in memory.held if one.was_beside_idle or not beside_idle]
        ages = sorted(one.closed_at - one.opened_at for one in held)
        since, begin = train[0].lost_at, memory.held[0].closed_at
        outlived, is_settled = 0, False
        if len(ages) >= KNOWN_LEAST:
            old_seconds = OUTLIVED_FACTOR * ages[int(NEARLY_ALL_RATIO * (len(ages) - 1))]
            outlived = bisect_left([track.lost_at for track in train], t - old_seconds)
            is_settled = t - begin >= SETTLED_FACTOR * old_seconds
        usual = _most_at_once(held, t - since) if is_settled else len(held)
        # What comes and goes by chance swings up and down. A pool that recycles its sessions opens as many as it
        # closes, and has next to no swing that could explain a growth.
        changes = _changes(held, before, begin, since)
        if len(changes) >= TURNOVER_CHANGES_LEAST:
            swing = SWING_FACTOR * _swing(changes)
            if swing <= math.sqrt(len(changes)):
                usual, is_settled = min(usual, swing), True
        return Explained(known=len(memory.held), usual=usual, outlived=outlived, is_settled=is_settled)


def _most_at_once(held: Sequence[Held], span_seconds: float) -> int:
    """Return how many were held at once at the most, of those opened within the last `span_seconds` by then."""
    begins = sorted(one.opened_at for one in held)
    ends = sorted(min(one.closed_at, one.opened_at + span_seconds) for one in held)
    most = over = 0
    for index, begin in enumerate(begins):
        while ends[over] < begin:
            over += 1
        most = max(most, index + 1 - over)
    return most


def _changes(held: Sequence[Held], before: Sequence[Track], begin: float, end: float) -> list[int]:
    """Return the steps up and down of the number held, in order of time."""
    steps = [(one.opened_at, 1) for one in held] + [(one.closed_at, -1) for one in held]
    steps += [(track.lost_at, 1) for track in before]
    return [step for t, step in sorted(steps) if begin <= t <= end]


def _swing(steps: Iterable[int]) -> int:
    """Return how far apart the most and the least that were held are."""
    sums = list(accumulate(steps, initial=0))
    return max(sums) - min(sums)
