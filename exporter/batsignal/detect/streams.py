"""One group's sessions of the last moments as one thing: how many, since when, how evenly, and from where.

Owns the sums over `churn`'s looks, and whose sessions belong together though some of them do not say who they are. It
decides nothing.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batsignal.detect.churn import SPAN_SECONDS, Churn, Group, Look, lately
from batsignal.detect.tracks import OriginKey
from batsignal.detect.usual import Usual

# A stream flows on while no gap between two of its sessions is longer.
FLOWS_SECONDS = 3.0
# Where it began is where it rose above so many times the busiest.
ROSE_FACTOR = 1.2
COUNTED_LEAST = 8.0


@dataclass(slots=True)
class Stream:
    """The sessions of moments of one group, or of several, in the last `SPAN_SECONDS`; a pool's surplus apart."""

    group: Group
    groups: frozenset[Group]
    looks: tuple[deque[Look], ...]
    came: float = 0.0
    came_and_went: float = 0.0
    """With a pool's surplus."""
    opened: float = 0.0
    """Sessions opened, whether they are gone yet or not."""
    seen: int = 0
    caught: int = 0
    """Of all, those that a look caught."""
    brief: int = 0
    """Sessions that one look alone caught."""
    is_guess: bool = False
    """Whether it is only by their short lives that more are taken to have come."""
    largest: float = 0.0
    """The most of it at one look."""
    first_opened: float = math.inf
    last_at: float = 0.0
    """The last look at which a session was opened, or one was missed."""
    busiest: float = 0.0
    """The most that was ever usual."""

    def goes_on(self, t: float) -> bool:
        return t - self.last_at <= FLOWS_SECONDS

    def origins(self, t: float) -> Counter[OriginKey]:
        """Return where its sessions came from."""
        origins: Counter[OriginKey] = Counter()
        for looks in self.looks:
            for look in lately(looks, t):
                origins.update(look.origins)
        return origins

    def began(self, t: float) -> float:
        """Return when it rose above what is usual."""
        began = min(self.first_opened, t)
        last = t
        usual_per_second = ROSE_FACTOR * self.busiest / SPAN_SECONDS
        looks = sorted((look for part in self.looks for look in part), key=lambda look: -look.t)
        for look in looks:
            if last - look.t > FLOWS_SECONDS:
                break
            if look.came and look.came > usual_per_second * look.seconds:
                last = look.t
                began = min(began, look.first_opened, look.t)
        return began


def streams_of(churn: Churn, usual: Usual, t: float) -> list[Stream]:
    """Return the stream of every group that had something to show in the last `SPAN_SECONDS`."""
    return [_stream(group, looks, usual, t) for group, looks in churn.lately(t)]


def _stream(group: Group, looks: deque[Look], usual: Usual, t: float) -> Stream:
    one = Stream(group, frozenset((group,)), (looks,))
    most_brief = 0
    for look in lately(looks, t):
        came = look.short + look.unseen
        one.came += came
        one.came_and_went += came + look.surplus
        one.opened += look.opened + look.unseen
        one.seen += look.short
        one.caught += look.short + look.surplus
        one.brief += look.brief
        one.is_guess = one.is_guess or look.is_guess
        one.largest = max(one.largest, came)
        most_brief = max(most_brief, look.brief)
        one.first_opened = min(one.first_opened, look.first_opened)
        if look.opened or look.unseen:
            one.last_at = max(one.last_at, look.t)
    if one.is_guess:  # what one look is guessed to have missed counts for all that were caught so far
        one.largest = one.came * most_brief / one.brief
    if one.came >= COUNTED_LEAST:
        # Of whom hardly any is ever caught, the mean is known better than the busiest moment.
        one.busiest = max(usual.busiest(group, t), usual.per_second(group, t) * SPAN_SECONDS)
    return one


def merged(parts: Sequence[Stream], *, busiest: float | None = None) -> Stream:
    """Return several as one, named as the largest."""
    return Stream(
        group=max(parts, key=lambda one: one.came).group,
        groups=frozenset(group for one in parts for group in one.groups),
        looks=tuple(looks for one in parts for looks in one.looks),
        came=sum(one.came for one in parts),
        came_and_went=sum(one.came_and_went for one in parts),
        opened=sum(one.opened for one in parts),
        seen=sum(one.seen for one in parts),
        caught=sum(one.caught for one in parts),
        brief=sum(one.brief for one in parts),
        is_guess=any(one.is_guess for one in parts),
        largest=sum(one.largest for one in parts),
        first_opened=min(one.first_opened for one in parts),
        last_at=max(one.last_at for one in parts),
        busiest=sum(one.busiest for one in parts) if busiest is None else busiest,
    )


def folded(streams: Iterable[Stream], t: float) -> list[Stream]:
    """Return the streams, those without a name joined to the named one that has the same user.

    Many drivers set their application_name only after they are in: a look catches some of them before.
    """
    streams = list(streams)
    parts = {one.group: [one] for one in streams if one.group[0] == "service"}
    alone = [one for one in streams if one.group[0] != "service"]
    if not parts or not alone:
        return streams
    users = {group: {key.user for key in of_one[0].origins(t)} for group, of_one in parts.items()}
    joined = []
    for one in alone:
        kin = [group for group in parts if one.group[1] in users[group]]
        if kin:
            parts[max(kin, key=lambda group: parts[group][0].came)].append(one)
        else:
            joined.append(one)
    for group, of_one in parts.items():
        stream = merged(of_one)
        stream.group = group
        joined.append(stream)
    return joined
