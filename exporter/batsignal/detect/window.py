"""What detectors look through: every session's track over time, grouped by where it comes from.

The window is fed one snapshot after the other and remembers what a single look cannot show: which sessions were seen
to open, which closed and how they had been used, when an application's first session came. It judges nothing, has no
clock (time is `snapshot.t`) and does no I/O. A failed look changes nothing: it is a gap, not an empty server. So is one
by the titles of processes, which tell neither whose sessions those are nor since when they rest (`counting`); and one
from which the server hides that since a moment ago, because our role has lost `pg_monitor`: nothing has ended by that.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence

from batsignal.detect.rests import rest_before_use, rest_of
from batsignal.detect.tracks import IDLE_BESIDE_SECONDS, Closing, Group, Origin, OriginKey, Track
from batsignal.names import Application, ApplicationPattern
from batsignal.snapshot import CLIENT_BACKEND, Session, SessionKey, Snapshot

# Memory is bounded by these, whatever names come by; an origin without sessions is forgotten after the time.
ORIGINS_MOST = 20_000
ORIGIN_LIFE_SECONDS = 3600.0
FORGET_EVERY_SECONDS = 60.0
# Whoever takes our privilege away most likely did not mean to, and gives it back; if not, nothing is known any more.
HIDDEN_SECONDS = 600.0
# A session that lived shorter is none that a pool would have to replace.
CLOSING_LIFE_SECONDS = 5.0
# Between its login and its first statement a session rests for a moment, too.
LENT_AGAIN_SECONDS = 0.5


def _is_same_place(before: Session, now: Session) -> bool:
    return (
        before.application_name == now.application_name
        and before.usename == now.usename
        and before.datname == now.datname
        and before.client_addr == now.client_addr
    )


def _note_idle_beside(joined: Iterable[Track]) -> None:
    """Note at each session that is new to its origin how long another one there had been unused by then.

    A session that has rested since before the opening, and still does, was free at the opening, whenever we look.
    """
    idle_since: dict[int, list[float]] = {}
    for track in joined:
        origin = track.origin
        rests = idle_since.get(id(origin))
        if rests is None:
            rests = sorted(rest for other in origin.tracks.values() if (rest := other.resting_since) is not None)
            idle_since[id(origin)] = rests
        track.beside_idle_seconds = max(track.opened_at - rests[0], 0.0) if rests else 0.0
        track.idle_beside = bisect_right(rests, track.opened_at - IDLE_BESIDE_SECONDS)


class Window:
    """The state of one server's sessions through time."""

    def __init__(self, pattern: ApplicationPattern, *, takes_titles: bool = False) -> None:
        """`takes_titles`: a look by the titles of processes counts as one, for what is judged by numbers alone."""
        self._pattern = pattern
        self._takes_titles = takes_titles
        self._tracks: dict[SessionKey, Track] = {}
        self.groups: dict[tuple[str, ...], Group] = {}
        self.origins: dict[OriginKey, Origin] = {}
        self.opened: list[Track] = []
        """What came since the look before the last one that succeeded; all that was there, at the first."""
        self.changed: list[Track] = []
        """What was there before and shows another row now."""
        self.left: list[Track] = []
        """What left since then, however short it was there."""
        self.closed: list[tuple[Origin, Closing]] = []
        """Of what left, that which had lived for a while, and whose it was."""
        self.looked_seconds: float | None = None
        """How long since the look before; None at the first one, and after the clock stepped back."""
        self.used = 0
        """Slots taken at the last look that succeeded."""
        self.pings: deque[float] = deque(maxlen=300)
        self.snapshot: Snapshot | None = None
        """The last look that succeeded."""
        self.began = 0.0
        """The first look: what was opened or closed before it, nobody has seen."""
        self.t = 0.0
        self._forget_at = 0.0

    def add(self, snapshot: Snapshot) -> None:
        """Take in the next look. Time that steps back empties the window: ages would lie."""
        if snapshot.t < self.t - 1.0:
            self._empty()
        self.t = snapshot.t
        if not self._tells(snapshot):
            return
        if self.snapshot is None:
            self.began = snapshot.t
        self.looked_seconds = None if self.snapshot is None else snapshot.t - self.snapshot.t
        self.closed = []
        joined = self._take_in(snapshot.sessions)
        _note_idle_beside(joined)
        self._forget_the_gone()
        self.used = len(self._tracks) + snapshot.authenticating + snapshot.own_sessions
        if snapshot.ping_seconds is not None:
            self.pings.append(snapshot.ping_seconds)
        self.snapshot = snapshot

    def _tells(self, snapshot: Snapshot) -> bool:
        if snapshot.failure is not None:
            return False
        if self._takes_titles:
            return True
        before = self.snapshot
        if before is not None and before.privileged and snapshot.privileged is False:
            return snapshot.t - before.t > HIDDEN_SECONDS
        return snapshot.is_detailed

    def _take_in(self, rows: Sequence[Session]) -> list[Track]:
        """Take in the rows of a look and return the sessions that are new where they say to come from.

        A look has one row a session: who polls and who reads recordings sees to that.
        """
        come: dict[SessionKey, Session] = {}
        moved: dict[Track, Session] = {}
        tracks, same = self._tracks, 0
        for row in rows:
            key = (row.pid, row.backend_start)  # as `row.key`, without a call for every row of every look
            known = tracks.get(key)
            if known is not None and known.session is row:  # so is one that did not change
                same += 1
            elif row.backend_type == CLIENT_BACKEND:
                if known is None:
                    come[key] = row
                else:
                    moved[known] = row
        self.left = self._gone(rows) if same + len(moved) != len(tracks) else []
        for track in self.left:
            del tracks[track.session.key]
            self._close(track)
        # What moved comes before what was opened: who came back was not passed over by what is new at the same look.
        self.changed = list(moved)
        joined = [track for track, row in moved.items() if self._change(track, row)]
        self.opened = [self._open(row) for row in come.values()]
        return joined + self.opened

    def _gone(self, rows: Iterable[Session]) -> list[Track]:
        here = {row.key for row in rows if row.is_client}
        return [track for key, track in self._tracks.items() if key not in here]

    def _empty(self) -> None:
        self._tracks.clear()
        self.groups.clear()
        self.origins.clear()
        self.pings.clear()
        self.snapshot = None

    @property
    def has_failed(self) -> bool:
        """Whether the last look told nothing: what was judged by then still holds."""
        return self.snapshot is None or self.t != self.snapshot.t

    @property
    def begins(self) -> bool:
        """Whether it is the first look, or the clock stepped back: what was noted of earlier looks is worth nothing."""
        return self.began == self.t

    @property
    def sessions(self) -> int:
        return len(self._tracks)

    def track_of(self, session: Session) -> Track | None:
        """Return the track of a session of the last look; None of what is no client's."""
        return self._tracks.get((session.pid, session.backend_start))

    def who(self, session: Session) -> Application:
        """Return service and version of a session, as its name tells them."""
        return self._pattern.split(session.application_name)

    def group_of(self, session: Session) -> tuple[str, ...]:
        """Return whom a signal about this session is about: its origin's group."""
        return self._origin_key(session).group

    def _open(self, session: Session) -> Track:
        opened_at = self.t if session.backend_start is None else session.backend_start
        origin = self._origin(session, opened_at)
        track = Track(session, origin, opened_at, at_use=origin.group.uses, lost_at=opened_at)
        track.resting_since = rest_of(track, session, self.t)
        self._tracks[session.key] = track
        self._join(track)
        return track

    def _join(self, track: Track) -> None:
        origin = track.origin
        if not origin.tracks:
            origin.filling_since = track.opened_at
            origin.empty_since = None
        origin.filling_since = min(origin.filling_since, track.opened_at)
        origin.tracks[track.session.key] = track
        origin.newest = max(origin.newest, track.opened_at)
        origin.changes += 1
        origin.group.sessions += 1
        origin.group.changes += 1

    def _leave(self, track: Track) -> None:
        origin = track.origin
        del origin.tracks[track.session.key]
        origin.changes += 1
        origin.group.sessions -= 1
        origin.group.changes += 1
        if not origin.tracks:
            origin.empty_since = self.t

    def _close(self, track: Track) -> None:
        if self.t - track.opened_at >= CLOSING_LIFE_SECONDS:
            closing = Closing(
                self.t,
                track.opened_at,
                track.resting_since,
                track.longest_rest_seconds,
                track.beside_idle_seconds,
            )
            track.origin.closings.append(closing)
            self.closed.append((track.origin, closing))
        self._leave(track)

    def _change(self, track: Track, session: Session) -> bool:
        """Take in what a session does now and return whether it says to come from somewhere else than before."""
        before, rested_at = track.session, track.resting_since
        if rested_at is not None and (rested_seconds := rest_before_use(rested_at, session, self.t)) > 0:
            self._note_rest(track, rested_seconds)
        track.resting_since = rest_of(track, session, self.t)
        track.session = session
        if session.state_change != before.state_change:
            group = track.origin.group
            group.uses += 1
            track.at_use = group.uses
        if _is_same_place(before, session):
            return False
        key = self._origin_key(session)
        if key == track.origin.key:
            return False
        # Many drivers set their application_name only after they are in.
        self._leave(track)
        track.origin = self._origin(session, track.opened_at)
        self._join(track)
        return True

    @staticmethod
    def _note_rest(track: Track, seconds: float) -> None:
        """Note for how long a session had been left unused that is used again, `track` being as it was before."""
        origin, rested_at = track.origin, track.resting_since
        track.longest_rest_seconds = max(track.longest_rest_seconds, seconds)
        passed = rested_at is not None and rested_at + IDLE_BESIDE_SECONDS <= origin.newest
        if passed and seconds > track.longest_passed_seconds:
            track.longest_passed_seconds = seconds
        if seconds >= LENT_AGAIN_SECONDS and track.opened_at > origin.newest_lent:
            origin.newest_lent = track.opened_at
        if seconds > track.longest_stuck_seconds and track.session.state != "idle":
            track.longest_stuck_seconds = seconds

    def _origin_key(self, session: Session) -> OriginKey:
        who = self.who(session)
        return OriginKey(who.service, who.version, session.usename, session.datname, session.client_addr)

    def _origin(self, session: Session, opened_at: float) -> Origin:
        key = self._origin_key(session)
        origin = self.origins.get(key)
        if origin is None:
            group = self.groups.get(key.group)
            if group is None:
                group = self.groups[key.group] = Group(key.group)
            origin = self.origins[key] = group.origins[key] = Origin(key, group, filling_since=opened_at)
        return origin

    def _forget_the_gone(self) -> None:
        if len(self.origins) <= 64:  # noqa: PLR2004 - too few to be worth a pass each tick
            return
        if self.t < self._forget_at and len(self.origins) <= ORIGINS_MOST:
            return
        self._forget_at = self.t + FORGET_EVERY_SECONDS
        empty = [(key, origin.empty_since) for key, origin in self.origins.items() if origin.empty_since is not None]
        excess = len(self.origins) - ORIGINS_MOST
        for number, (key, since) in enumerate(sorted(empty, key=lambda one: one[1])):
            if number < excess or self.t - since > ORIGIN_LIFE_SECONDS:
                group = self.origins.pop(key).group
                del group.origins[key]
                group.changes += 1
                if not group.origins:
                    del self.groups[group.key]
