"""Which services were at work before, and which came with what they do now.

Owns one question: a service that lends its sessions again and again, or has been there for a while, is at work; a batch
comes with its statement, uses each of its sessions once, and is gone for long after it. Whose health somebody asks for
is no batch, however new it is. It judges nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from batsignal.detect.tracks import Group
from batsignal.detect.window import Window

# So long seen without a break. A service without a pool is seen now and then: between two requests it has no session.
# What runs every few minutes is gone for longer than that.
PRESENT_SECONDS = 60.0
ABSENT_SECONDS = 180.0
# Or, where that is not seen yet: at so many looks a session had been used again since the look before.
REUSED_LOOKS = 5
PROBED_MOST = 1000

GroupKey = tuple[str, ...]


@dataclass(slots=True)
class _Service:
    since: float
    last: float
    reused_at: list[float] = field(default_factory=list)
    """The first looks at which a session had been used again."""


class Services:
    """Every group of sessions that was seen of late. Bounded by those that the window knows."""

    def __init__(self) -> None:
        self._known: dict[GroupKey, _Service] = {}
        self._probed: set[str] = set()
        """Services that have a health endpoint."""
        self._t: float | None = None

    def clear(self) -> None:
        """Forget all: the clock stepped back."""
        self._known.clear()
        self._t = None

    def add(self, window: Window) -> None:
        """Take in a look that succeeded."""
        known, t, before, self._t = self._known, window.t, self._t, window.t
        for probe in () if window.snapshot is None else window.snapshot.probes:
            if len(self._probed) < PROBED_MOST:
                self._probed.add(probe.service)
        patience = ABSENT_SECONDS + (window.looked_seconds or 0.0)
        for group in window.groups.values():
            if not group.sessions:
                continue
            service = known.get(group.key)
            if service is None or t - service.last > patience:
                known[group.key] = _Service(min(t, *_openings(group)), t)
                continue
            service.last = t
            if before is not None and len(service.reused_at) < REUSED_LOOKS and _is_reused(group, before):
                service.reused_at.append(t)
        if len(known) > 2 * len(window.origins) + 64:
            self._known = {group: one for group, one in known.items() if t - one.last <= 2 * patience}

    def were_at_work(self, group: GroupKey, since: float) -> bool:
        """Whether a group was at work before that instant, in Unix seconds."""
        service = self._known.get(group)
        if service is None:
            return False
        if group[0] == "service" and group[1] in self._probed:
            return True
        if since - service.since >= PRESENT_SECONDS:
            return True
        return len(service.reused_at) == REUSED_LOOKS and service.reused_at[-1] <= since


def _openings(group: Group) -> Iterable[float]:
    return (track.opened_at for origin in group.origins.values() for track in origin.tracks.values())


def _is_reused(group: Group, before: float) -> bool:
    """Whether a session that rests, and was there at the look before, has been used since then."""
    return any(
        track.opened_at < before and track.session.state == "idle" and (track.session.state_change or 0.0) > before
        for origin in group.origins.values()
        for track in origin.tracks.values()
    )
