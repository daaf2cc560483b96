"""Who parks sessions in open transactions as a matter of course: a tool's window, a notebook, somebody's console.

Where a server shows neither ids of transactions nor statements, nothing tells a transaction that has only read, and
hurts nobody, from one that was forgotten. What does: tools park theirs again and again, several at a time, and come
back to them. So each rest in a transaction that lasted is remembered for a while, but those of a service at work.

Owns that memory, bounded whatever names come by. It judges nobody, has no clock and does no I/O.
"""

from collections import OrderedDict

from batsignal.detect.tracks import Track
from batsignal.detect.window import Window

# Nobody's pool rests in a transaction for so long.
PARKED_SECONDS = 60.0
# Another one of the same application, now or before; or so many of anybody: one other may be a second forgotten one.
OTHERS_LEAST = 2
# A day, as a tool that is opened each morning; of so many rests, the latest.
REMEMBERED_SECONDS = 86_400.0
RESTS_MOST = 500
# A service at work: looks saw its sessions used so many times a second while this one rested. A person's tool is not.
USES_PER_SECOND = 0.5

Rest = tuple[int, float | None, float]
"""A session, and since when it rested in its transaction."""
Group = tuple[str, ...]


class Parking:
    """The transactions of one server in which somebody rested for long, now and before."""

    def __init__(self) -> None:
        self._rests: OrderedDict[Rest, tuple[Group, float]] = OrderedDict()
        """Whose each was and when it was last seen; the one seen longest ago first."""

    def clear(self) -> None:
        """Forget all: the clock stepped back."""
        self._rests.clear()

    def note(self, track: Track, window: Window) -> None:
        """Note a session that rests in its transaction at this look."""
        rest = _rest_of(track)
        if rest is None or window.t - rest[-1] < PARKED_SECONDS or is_of_a_service_at_work(track, rest[-1], window):
            return
        self._rests[rest] = (track.origin.key.group, window.t)
        self._rests.move_to_end(rest)
        oldest_at = next(iter(self._rests.values()))[1]
        if len(self._rests) > RESTS_MOST or window.t - oldest_at > REMEMBERED_SECONDS:
            self._rests.popitem(last=False)

    def is_usual(self, track: Track) -> bool:
        """Return whether others rest, or rested, as this session does: of its application, or of several."""
        own = _rest_of(track)
        if len(self._rests) - (own in self._rests) >= OTHERS_LEAST:
            return True
        return any(group == track.origin.key.group for rest, (group, _) in self._rests.items() if rest != own)


def is_of_a_service_at_work(track: Track, rested_since: float, window: Window) -> bool:
    """Return whether other sessions of the same service were used all the while one rested since an instant."""
    seen_seconds = window.t - max(rested_since, window.began)
    return track.origin.group.uses - track.at_use >= USES_PER_SECOND * max(seen_seconds, 1.0)


def _rest_of(track: Track) -> Rest | None:
    session = track.session
    return None if session.state_change is None else (session.pid, session.backend_start, session.state_change)
