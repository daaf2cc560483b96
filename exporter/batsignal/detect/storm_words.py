"""A storm as it is told: who, how fast against usual, from which hosts, how long the slots last, and what to undo.

Owns a storm's facts from its raise to its end and the sentences made of them. It does not decide what a storm is.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from batsignal.detect import wording
from batsignal.detect.blame import versions_of
from batsignal.detect.churn import SPAN_SECONDS, Group
from batsignal.detect.glimpses import Glimpses
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.streams import Stream
from batsignal.detect.tracks import OriginKey
from batsignal.detect.usual import SERVER, Usual
from batsignal.detect.window import Window

# Nearly all: a few sessions of the version before it may still come.
NEARLY_ALL_RATIO = 0.9
HOSTS_MOST = 1000
ORIGINS_MOST = 1000
OTHERS_TOLD = 3
# Of more than this share of hosts never seen before, nobody can say that they are ours.
STRANGERS_RATIO = 0.5
STRANGERS_LEAST = 5
# What it holds grows when it was never so low of late as it ever was at the beginning of so many looks.
GROWTH_LOOKS = 8
GROWN_LEAST = 5
GROWN_RATIO = 0.3
GROWN_CHANCES = 3.0
# Full, though a slot is free at some looks.
FULL_SECONDS = 15.0
HELD_LOOKS = 60
# Of a storm that is only counted, what so many glimpses have in common is taken to be true of it: of two services that
# storm alike, one in thirty times all are of the same.
GLIMPSES_LEAST = 6
# Of who let go of its pool just then, fewer will do.
GLIMPSES_OF_LOST_POOL_LEAST = 2
# Below it, a rate says nothing.
RATE_TOLD_LEAST = 0.01
# Below such a share of its most it is told in the past.
OVER_RATIO = 0.2


# What is said of hosts that nobody knows, unless a deploy has brought them.
MAYBE_ATTACK = ": maybe an attack"
NEW_PODS = ": a deploy's new pods have new addresses"
SHUT_OUT = "Find out whose hosts these are; if they are not yours, shut them out (firewall, pg_hba.conf)."


@dataclass(slots=True, eq=False)
class Storm:
    """One storm, from its raise to its end. `is_many`: nobody alone is to blame.

    `is_held`: it holds its sessions, and it is its refusals that storm.
    `counted_per_second`: only the server's own count shows it, which was above that; None where its sessions are seen.
    """

    key: Group
    groups: set[Group]
    since: float
    is_many: bool = False
    is_held: bool = False
    counted_per_second: float | None = None
    severity: Severity = "warning"
    quiet_since: float | None = None
    takes_slots: bool = False
    full_at: float = -math.inf
    after_restart: bool = False
    per_second: float = 0.0
    most_per_second: float = 0.0
    refused: int = 0
    subject: Subject = field(default_factory=Subject)
    origins: Counter[OriginKey] = field(default_factory=Counter)
    fresh: Counter[OriginKey] = field(default_factory=Counter)
    """Of these, where the sessions of the last moments came from."""
    caught: Glimpses | None = None
    glimpses: Counter[OriginKey] = field(default_factory=Counter)
    """Of one that is only counted: where those came from that looks caught in all its time, more than are usual."""
    gave_up_pool: bool = False
    """Whether whom they were caught of let go of the sessions it had kept, just as it began."""
    hosts: set[str] = field(default_factory=set)
    held: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=HELD_LOOKS))

    def take(self, now: Sequence[Stream], window: Window, *, refused: int, per_second: float | None = None) -> None:
        """Take in its streams as of now, how many the server refused lately, and their pace where that is counted."""
        if per_second is None:
            lasted_seconds = min(max(window.t - self.since, 1.0), SPAN_SECONDS)
            per_second = sum(max(one.came_and_went, one.opened) for one in now) / lasted_seconds
        self.per_second = per_second
        self.most_per_second = max(self.most_per_second, self.per_second)
        self.refused = refused
        fresh: Counter[OriginKey] = Counter()
        for one in now:
            fresh.update(one.origins(window.t))
        if self.is_held and self.key in window.groups:
            fresh.update({key: len(one.tracks) for key, one in window.groups[self.key].origins.items()})
        for origin, count in fresh.items():
            if origin in self.origins or len(self.origins) < ORIGINS_MOST:
                self.origins[origin] = max(self.origins[origin], count)
            if origin.client is not None and len(self.hosts) < HOSTS_MOST:
                self.hosts.add(origin.client)
        if self.counted_per_second is not None and self.is_many:
            fresh = self.glimpses
        if fresh:
            self.fresh = fresh
            self.subject = self._subject(fresh)
        self.held.append((window.t, held(self.origins, window)))

    def _subject(self, origins: Counter[OriginKey]) -> Subject:
        """Return who it is; what was said once is kept, so that the signal does not flicker."""
        before = self.subject
        ours = origins if self.is_many else Counter({key: n for key, n in origins.items() if key.group == self.key})
        ours = ours or origins
        least = GLIMPSES_OF_LOST_POOL_LEAST if self.gave_up_pool else GLIMPSES_LEAST
        if self.counted_per_second is not None and self.is_many and ours.total() < least:
            return before
        user = before.user or _nearly_all(ours, "user")
        database = before.database or _nearly_all(ours, "database")
        if self.is_many:
            service = self._seen_alone(ours) or before.application
            version = before.version if service is None else before.version or _nearly_all(ours, "version")
            return Subject(application=service, version=version, user=user, database=database)
        return Subject(
            application=self.key[1] if self.key[0] == "service" else None,
            version=before.version or _nearly_all(ours, "version"),
            user=user,
            database=database,
            client=next(iter(self.hosts)) if len(self.hosts) == 1 else None,
        )

    def _seen_alone(self, origins: Counter[OriginKey]) -> str | None:
        """Return the service that nearly all belong to, of a storm that was raised before anybody was seen."""
        return None if self.counted_per_second is None else _nearly_all(origins, "service")

    def exhaustion_seconds(self, window: Window) -> float:
        """Return when the slots run out if what it holds goes on growing; infinite when it does not grow."""
        slots = window.snapshot.slots if window.snapshot is not None else None
        if slots is None:
            return math.inf
        room = slots.usable - window.used
        if room <= 0:
            self.full_at = window.t
        if abs(window.t - self.full_at) <= FULL_SECONDS:  # a slot that is given back is taken in the same moment
            return 0.0
        counts = list(self.held)[-GROWTH_LOOKS:]
        if len(counts) < GROWTH_LOOKS:
            return math.inf
        third = GROWTH_LOOKS // 3
        grown = min(count for _, count in counts[-third:]) - max(count for _, count in counts[:third])
        most = counts[-1][1]
        if grown < max(GROWN_LEAST, GROWN_RATIO * most, GROWN_CHANCES * math.sqrt(most)):
            return math.inf
        (began, first), (ended, last) = counts[0], counts[-1]
        return room * (ended - began) / (last - first)


def held(origins: Iterable[OriginKey], window: Window) -> int:
    """Return how many sessions there are of these origins now."""
    return sum(len(window.origins[key].tracks) for key in origins if key in window.origins)


def finding(storm: Storm, window: Window, usual: Usual) -> Finding:
    """Return what is to be said of a storm now."""
    t = window.t
    exhaustion_seconds = storm.exhaustion_seconds(window)
    counted = storm.counted_per_second is not None
    before = sum(usual.per_second(group, t) for group in ((SERVER,) if counted else storm.groups))
    usually = "usually next to none" if before < RATE_TOLD_LEAST else f"usually {_rate(before)}"
    who = _who(storm)
    if storm.is_held:
        refused = f"is refused {storm.refused / SPAN_SECONDS:.2g} times/s" if storm.refused else "was refused"
        how = f"{who} holds what it used to close within moments, {refused} and comes again"
    elif storm.per_second < OVER_RATIO * storm.most_per_second:
        how = f"{who} opened up to {_rate(storm.most_per_second)} and closed them within moments"
    else:
        how = f"{who} {_opens(storm)} {_rate(storm.per_second)}, closed within moments"
    return Finding(
        kind="storm",
        key=storm.key,
        severity=storm.severity,
        subject=storm.subject,
        since=storm.since,
        sessions=max((count for _, count in storm.held), default=0),
        exhaustion_seconds=exhaustion_seconds,
        evidence=tuple(_evidence(storm, usual)),
        summary=f"{how} ({usually}); {_left(storm, window, exhaustion_seconds)}",
        undo=_undo(storm),
        action=_action(storm, usual),
        versions=versions_of(key.version for key in storm.fresh.elements()),
        fading=storm.quiet_since is not None,
    )


def _who(storm: Storm) -> str:
    if not storm.is_many or storm.subject.application is not None:
        return wording.culprit(storm.subject)
    services = {key.group for key in storm.glimpses}
    if storm.counted_per_second is not None and (len(services) <= 1 or storm.glimpses.total() < GLIMPSES_LEAST):
        return "clients whose sessions are too short to be seen"
    return "many applications at once"


def _opens(storm: Storm) -> str:
    return "opens" if not storm.is_many or storm.subject.application is not None else "open"


def after_deploy(found: Finding) -> Finding:
    """Return what is to be said of a storm that came with a deploy of that very service: its hosts are no strangers."""
    return replace(
        found,
        evidence=tuple(line.replace(MAYBE_ATTACK, NEW_PODS) for line in found.evidence),
        action="" if found.action == SHUT_OUT else found.action,
    )


def _rate(per_second: float) -> str:
    return f"{per_second:.0f} sessions/s" if per_second >= 10 else f"{per_second:.2g} sessions/s"  # noqa: PLR2004 - two digits


def _left(storm: Storm, window: Window, exhaustion_seconds: float) -> str:
    slots = window.snapshot.slots if window.snapshot is not None else None
    if slots is None:
        return "how many slots are left is not known"
    if exhaustion_seconds <= 0:
        return "no slot is left"
    if math.isfinite(exhaustion_seconds):
        return f"slots run out in {wording.duration(exhaustion_seconds)}"
    if storm.takes_slots:
        return f"it takes the slots: {wording.taken(window.used, slots.usable)} are taken"
    return f"{wording.taken(window.used, slots.usable)} slots are taken"


def _strangers(storm: Storm, usual: Usual) -> int:
    known: set[str] = set()
    for group in (SERVER,) if storm.is_many else storm.groups:
        known.update(usual.hosts_before(group, storm.since))
    return len(storm.hosts - known)


def _is_foreign(storm: Storm, usual: Usual) -> bool:
    """Whether most of its hosts were never seen before, and are too many for a deploy's new machines to be likely."""
    strangers = _strangers(storm, usual)
    return strangers >= STRANGERS_LEAST and strangers > STRANGERS_RATIO * len(storm.hosts)


def _evidence(storm: Storm, usual: Usual) -> Iterable[str]:
    yield (
        f"since {wording.clock_time(storm.since)}: {_rate(storm.per_second)} now,"
        f" {_rate(storm.most_per_second)} at most"
    )
    if storm.hosts:
        yield _hosts(storm, usual)
    if storm.refused:
        yield f"{storm.refused} connections were refused in the last {SPAN_SECONDS:.0f} s"
    if storm.after_restart:
        yield "it began when the server, or the way to it, had just come back: everybody connects again"
    names = sorted({group[1] or "unnamed" for group in storm.groups if len(group) > 1 and group != storm.key})
    if names:
        more = f" and {len(names) - OTHERS_TOLD} more" if len(names) > OTHERS_TOLD else ""
        told = ", ".join(names[:OTHERS_TOLD]) + more
        if storm.counted_per_second is not None:
            yield f"the server's own count of sessions tells it; seen among them: {told}"
        else:
            yield f"they are {told}" if storm.is_many else f"at the same time: {told}"
    elif storm.counted_per_second is not None:
        yield "only the server's own count of sessions tells it: no look has caught one of them"


def _hosts(storm: Storm, usual: Usual) -> str:
    count, strangers = len(storm.hosts), _strangers(storm, usual)
    hosts = "1 client host" if count == 1 else f"{count} client hosts"
    if not strangers:
        return f"from {hosts}: the clients are the same hosts as ever"
    if _is_foreign(storm, usual):
        return f"from {hosts}, {strangers} of them never seen before{MAYBE_ATTACK}"
    return f"from {hosts}, {strangers} of them new"


def _undo(storm: Storm) -> str:
    if storm.is_many and storm.subject.application is None:
        return ""
    who = wording.culprit(storm.subject)
    if storm.is_held:
        return f"Find what {who} waits for with its sessions in hand, and make it wait before it tries again."
    return f"Undo what changed in {who}: it opens a session for each piece of work instead of keeping some."


def _action(storm: Storm, usual: Usual) -> str:
    if _is_foreign(storm, usual):
        return SHUT_OUT
    if storm.is_many and (storm.subject.application is None or not storm.gave_up_pool):
        return "Make the clients wait between two attempts, or stop some of them until the others are in."
    return ""


def _nearly_all(origins: Counter[OriginKey], what: str) -> str | None:
    """Return the value that nearly all sessions share, else None."""
    values: Counter[str | None] = Counter()
    for key, count in origins.items():
        values[getattr(key, what)] += count
    (value, count), *_ = values.most_common(1)
    return value if count >= NEARLY_ALL_RATIO * values.total() else None
