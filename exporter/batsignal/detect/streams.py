"""One group's sessions of the last moments as one thing: how many, since when, how evenly, and from where.

Owns the sums over `churn`'s looks, and whose sessions belong together though some of them do not say who they are. It
decides nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from batsignal.detect.churn import SPAN_SECONDS, Churn, Group, Look, lately
from batsignal.detect.usual import Usual
from batsignal.detect.window import OriginKey

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
    looks: tuple[Sequence[Look], ...]
    came: float
    came_and_went: float
    """With a pool's surplus."""
    opened: float
    """Sessions opened, whether they are gone yet or not."""
    seen: int
    brief: int
    """Sessions that one look alone caught."""
    is_guess: bool
    """Whether it is only by their short lives that more are taken to have come."""
    largest: float
    """The most of it at one look."""
    first_opened: float
    last_at: float
    """The last look at which a session was opened, or one was missed."""
    busiest: float
    """The most that was ever usual."""
    origins: Counter[OriginKey] = field(default_factory=Counter)

    def goes_on(self, t: float) -> bool:
        return t - self.last_at <= FLOWS_SECONDS

    def began(self, t: float) -> float:
        """Return when it rose above what is usual."""
        began = min(self.first_opened, t)
        last = t
        usual_per_second = ROSE_FACTOR * self.busiest / SPAN_SECONDS
        looks = sorted((look for part in self.looks for look in part), key=lambda look: -look.t)
        for look in looks:
            if last - look.t > FLOWS_SECONDS:
                break
            if (look.short or look.unseen) and look.short + look.unseen > usual_per_second * look.seconds:
                last = look.t
                began = min(began, look.first_opened, look.t)
        return began


def streams_of(churn: Churn, usual: Usual, t: float, *, least: float = COUNTED_LEAST) -> list[Stream]:
    """Return the stream of each group that has so many sessions in it at least."""
    found = []
    for group, looks in churn.lately(t):
        newest = lately(looks, t)
        came = sum(look.came for look in newest)
        if came < least:
            continue
        origins: Counter[OriginKey] = Counter()
        for look in newest:
            origins.update(look.origins)
        brief = sum(look.brief for look in newest)
        is_guess = any(look.is_guess for look in newest)
        largest = max(look.came for look in newest)
        if is_guess:  # what one look is guessed to have missed counts for all that were caught so far
            largest = came * max(look.brief for look in newest) / brief
        found.append(
            Stream(
                group=group,
                groups=frozenset({group}),
                looks=(looks,),
                came=came,
                came_and_went=came + sum(look.surplus for look in newest),
                opened=sum(look.opened + look.unseen for look in newest),
                seen=sum(look.short for look in newest),
                brief=brief,
                is_guess=is_guess,
                largest=largest,
                first_opened=min(look.first_opened for look in newest),
                last_at=max((look.t for look in newest if look.opened or look.unseen), default=0.0),
                # Of whom hardly any is ever caught, the mean is known better than the busiest moment.
                busiest=max(usual.busiest(group, t), usual.per_second(group, t) * SPAN_SECONDS),
                origins=origins,
            )
        )
    return found


def merged(parts: Sequence[Stream], *, busiest: float | None = None) -> Stream:
    """Return several as one, named as the largest."""
    largest = max(parts, key=lambda one: one.came)
    origins: Counter[OriginKey] = Counter()
    for one in parts:
        origins.update(one.origins)
    return Stream(
        group=largest.group,
        groups=frozenset(group for one in parts for group in one.groups),
        looks=tuple(looks for one in parts for looks in one.looks),
        came=sum(one.came for one in parts),
        came_and_went=sum(one.came_and_went for one in parts),
        opened=sum(one.opened for one in parts),
        seen=sum(one.seen for one in parts),
        brief=sum(one.brief for one in parts),
        is_guess=any(one.is_guess for one in parts),
        largest=sum(one.largest for one in parts),
        first_opened=min(one.first_opened for one in parts),
        last_at=max(one.last_at for one in parts),
        busiest=sum(one.busiest for one in parts) if busiest is None else busiest,
        origins=origins,
    )


def folded(streams: Iterable[Stream]) -> list[Stream]:
    """Return the streams, those without a name joined to the named one that has the same user.

    Many drivers set their application_name only after they are in: a look catches some of them before.
    """
    streams = list(streams)
    named = [one for one in streams if one.group[0] == "service"]
    parts = {one.group: [one] for one in named}
    alone = []
    for one in streams:
        if one.group[0] == "service":
            continue
        kin = [other for other in named if any(key.user == one.group[1] for key in other.origins)]
        if kin:
            parts[max(kin, key=lambda other: other.came).group].append(one)
        else:
            alone.append(one)
    joined = []
    for of_one in parts.values():
        stream = merged(of_one)
        stream.group = of_one[0].group
        joined.append(stream)
    return joined + alone
