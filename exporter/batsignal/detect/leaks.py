"""Calls a leak: sessions taken one after the other and never given back.

Signature (docs/detection.md): a leaked session is used once, soon after it was opened, and never again, while more of
the same follow. A pool never does that: it opens a session only when it has no idle one, fills in a burst and then
stands still, and opens one for one when it recycles. So what is counted is not sessions but *lost* ones, and what is
asked is whether they came one by one, steadily, and stayed.

Owns the judgement and its memory from tick to tick. It has no clock: time is the snapshot's.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from batsignal.config import Thresholds
from batsignal.detect import wording
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.window import Origin, Track, Window, resting_since

# The onset is where the steady train of lost sessions begins: a gap this many times the usual one is before it.
GAP_FACTOR = 6.0
GAP_MOST_SECONDS = 900.0
GAP_SLACK_SECONDS = 10.0
# The rate is read off the newest lost sessions, so that it follows traffic.
RATE_SESSIONS = 30
# Of the sessions opened since the onset that are still there, this share was never used again. Workers that each open
# one session at their first request come close, and by then have used every second one again.
NEVER_USED_AGAIN_RATIO = 0.75
# Sessions that come in clumps with silence between them are pools that start one after the other.
CLUMP_SESSIONS = 2.0
CLUMP_OCCUPANCY_RATIO = 0.4
CLUMP_PENALTY = 3
# What we saw open with our own eyes: at our own start, a pool recycled all night looks like a leak of hours.
SEEN_OPENINGS = 3
# A leak that has stopped growing while there is room is over when it stood still this long.
STANDSTILL_SECONDS = 600.0
STANDSTILL_GAPS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Train:
    """Lost sessions of one group, in order of opening: one train of them, from its onset."""

    tracks: tuple[Track, ...]
    returned: int
    """Sessions given back in the meantime, which the train only replaced."""
    reused: int
    """Sessions opened as late as the train that were used again."""

    @property
    def lost(self) -> int:
        return len(self.tracks) - self.returned

    @property
    def since(self) -> float:
        return self.tracks[0].opened_at

    @property
    def newest(self) -> float:
        return self.tracks[-1].opened_at

    @property
    def gap_seconds(self) -> float:
        return (self.newest - self.since) / max(len(self.tracks) - 1, 1)

    def rate(self, t: float) -> float:
        """Return sessions a second up to `t`: over the newest, or over all the time since when they stay away."""
        newest = self.tracks[-RATE_SESSIONS:]
        span = newest[-1].opened_at - newest[0].opened_at
        steps = len(newest) - 1
        if steps < 1 or span <= 0:
            return 0.0
        silence = t - newest[-1].opened_at
        return steps / (span if silence <= 2 * span / steps else span + silence)


@dataclass(slots=True)
class _Lit:
    """What is remembered of a leak while it is lit."""

    since: float
    severity: Severity
    fewer_since: float | None = None


class LeakDetector:
    """Finds leaks of any application, group by group."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._lit: dict[tuple[str, ...], _Lit] = {}
        self._last: tuple[Finding, ...] = ()

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the leaks of this tick. A look that failed changes nothing."""
        if window.snapshot is None or window.t != window.snapshot.t:
            return self._last
        groups: dict[tuple[str, ...], list[Origin]] = defaultdict(list)
        for origin in window.origins.values():
            if origin.tracks:
                groups[origin.key.group].append(origin)
        for group in [group for group in self._lit if group not in groups]:
            del self._lit[group]
        self._last = tuple(
            finding for group, origins in groups.items() if (finding := self._judge(group, origins, window)) is not None
        )
        return self._last

    def _judge(self, group: tuple[str, ...], origins: list[Origin], window: Window) -> Finding | None:
        if sum(len(origin.tracks) for origin in origins) < self._limits.leak_sessions // 2:
            self._lit.pop(group, None)
            return None
        train = self._train(origins, window.t)
        lit = self._lit.get(group)
        if lit is None:
            if train is None or not self._is_leak(train, window):
                return None
            lit = self._lit[group] = _Lit(since=train.since, severity="warning")
        elif self._is_over(lit, train, window):
            del self._lit[group]
            return None
        if train is None:
            return next((finding for finding in self._last if finding.key == group), None)
        lit.since = min(lit.since, train.since)
        return self._finding(group, train, lit, window)

    # -- the train -------------------------------------------------------------------------------------------------

    def _train(self, origins: list[Origin], t: float) -> _Train | None:
        lost = sorted((track for origin in origins for track in self._lost(origin, t)), key=_opened_at)
        onset = _onset_index(lost)
        if onset is None:
            return None
        lost = lost[onset:]
        since = lost[0].opened_at
        opened_later = [
            track
            for origin in origins
            for track in origin.tracks.values()
            if track.opened_at >= since and t - track.opened_at >= self._limits.leak_idle_seconds
        ]
        reused = sum(1 for track in opened_later if self._was_used_again(track))
        returned = sum(
            1
            for origin in origins
            for closing in origin.closings
            if closing.t >= since and closing.idle_seconds >= self._limits.leak_idle_seconds
        )
        return _Train(tracks=tuple(lost), returned=returned, reused=reused)

    def _lost(self, origin: Origin, t: float) -> Iterator[Track]:
        """Yield the sessions of an origin that were used once, left, and are not part of its first fill."""
        fill_until = origin.filling_since + self._limits.leak_fill_seconds
        filling = sorted(track.opened_at for track in origin.tracks.values() if track.opened_at <= fill_until)
        for track in origin.tracks.values():
            since = resting_since(track.session)
            if since is None or t - since < self._limits.leak_idle_seconds:
                continue
            if since - track.opened_at > self._limits.leak_first_use_seconds:
                continue
            if track.opened_at <= fill_until and self._is_in_burst(track.opened_at, filling):
                continue
            yield track

    def _is_in_burst(self, opened_at: float, openings: list[float]) -> bool:
        near = self._limits.leak_moment_seconds
        return sum(1 for other in openings if abs(other - opened_at) <= near) > 1

    def _was_used_again(self, track: Track) -> bool:
        since = resting_since(track.session)
        return since is None or since - track.opened_at > self._limits.leak_first_use_seconds

    # -- the judgement ---------------------------------------------------------------------------------------------

    def _is_leak(self, train: _Train, window: Window) -> bool:
        needed = self._limits.leak_sessions * (CLUMP_PENALTY if _is_clumped(train) else 1)
        if train.lost < needed:
            return False
        full = _is_full(window, self._limits.saturation_critical_ratio)
        span = train.newest - train.since
        if span < (self._limits.leak_span_seconds / 3 if full else self._limits.leak_span_seconds):
            return False
        if len(train.tracks) < NEVER_USED_AGAIN_RATIO * (len(train.tracks) + train.reused):
            return False
        if sum(1 for track in train.tracks if track.seen_opening) < SEEN_OPENINGS:
            return False
        silence = window.t - train.newest - self._limits.leak_idle_seconds
        return full or silence <= 3 * train.gap_seconds + GAP_SLACK_SECONDS

    def _is_over(self, lit: _Lit, train: _Train | None, window: Window) -> bool:
        """Whether the lost sessions are gone, used again, or have long stopped coming while there was room."""
        if train is None or train.lost < self._limits.leak_sessions / 2:
            lit.fewer_since = window.t if lit.fewer_since is None else lit.fewer_since
            return window.t - lit.fewer_since >= self._limits.leak_clear_seconds
        lit.fewer_since = None
        if _is_full(window, self._limits.saturation_critical_ratio):
            return False
        return window.t - train.newest > max(STANDSTILL_SECONDS, STANDSTILL_GAPS * train.gap_seconds)

    def _finding(self, group: tuple[str, ...], train: _Train, lit: _Lit, window: Window) -> Finding:
        # Younger ones cannot be told yet from sessions that will be used again.
        rate = train.rate(window.t - self._limits.leak_idle_seconds)
        exhaustion = _exhaustion_seconds(train, rate, window)
        within = self._limits.leak_critical_exhaustion_seconds * (2 if lit.severity == "critical" else 1)
        lit.severity = "critical" if exhaustion <= within else "warning"
        subject = _subject(train)
        who = wording.culprit(subject)
        left = (
            "no slot is left"
            if exhaustion <= 0
            else f"slots run out in {wording.duration(exhaustion)}"
            if math.isfinite(exhaustion)
            else "not growing now"
        )
        return Finding(
            kind="leak",
            key=group,
            severity=lit.severity,
            subject=subject,
            since=lit.since,
            sessions=train.lost,
            exhaustion_seconds=exhaustion,
            evidence=(
                (
                    f"{wording.sessions(len(train.tracks))} opened since {wording.clock_time(lit.since)},"
                    f" each used once and never again; {train.returned} given back"
                ),
                *_where(train),
            ),
            summary=f"{who} leaks connections: {train.lost} held, +{wording.rate(rate)}; {left}",
        )


def _opened_at(track: Track) -> float:
    return track.opened_at


def _onset_index(lost: list[Track]) -> int | None:
    """Return where the newest steady train of lost sessions begins; None when there is no train."""
    if len(lost) < 3:  # noqa: PLR2004 - two gaps are the least that can be compared
        return None
    gaps = [later.opened_at - earlier.opened_at for earlier, later in pairwise(lost)]
    usual = median(gaps[-16:])
    longest = min(max(GAP_FACTOR * usual, GAP_SLACK_SECONDS), GAP_MOST_SECONDS)
    for index in range(len(gaps) - 1, -1, -1):
        if gaps[index] > longest:
            return index + 1
    return 0


def _is_clumped(train: _Train) -> bool:
    seconds = {math.floor(track.opened_at) for track in train.tracks}
    span = max(train.newest - train.since, 1.0)
    return len(train.tracks) / len(seconds) >= CLUMP_SESSIONS and len(seconds) / span < CLUMP_OCCUPANCY_RATIO


def _is_full(window: Window, ratio: float) -> bool:
    snapshot = window.snapshot
    if snapshot is None or snapshot.slots is None or not snapshot.slots.usable:
        return False
    return snapshot.used >= ratio * snapshot.slots.usable


def _exhaustion_seconds(train: _Train, rate: float, window: Window) -> float:
    """Return when the first limit that the leak eats into is reached: the server's, its role's or its database's."""
    snapshot = window.snapshot
    if snapshot is None:
        return math.inf
    room = []
    if snapshot.slots is not None:
        room.append(snapshot.slots.usable - snapshot.used)
    user = wording.common(track.session.usename for track in train.tracks)
    database = wording.common(track.session.datname for track in train.tracks)
    clients = [session for session in snapshot.sessions if session.is_client]
    if user is not None and user in snapshot.role_limits:
        room.append(snapshot.role_limits[user] - sum(1 for session in clients if session.usename == user))
    if database is not None and database in snapshot.database_limits:
        room.append(snapshot.database_limits[database] - sum(1 for session in clients if session.datname == database))
    if not room:
        return math.inf
    if min(room) <= 0:
        return 0.0
    return min(room) / rate if rate > 0 else math.inf


def _subject(train: _Train) -> Subject:
    keys = [track.origin.key for track in train.tracks]
    return Subject(
        application=wording.common(key.service for key in keys),
        version=wording.common(key.version for key in keys),
        user=wording.common(key.user for key in keys),
        database=wording.common(key.database for key in keys),
        client=wording.common(key.client for key in keys),
        query_id=wording.common(track.session.statement_id for track in train.tracks),
    )


def _where(train: _Train) -> Iterator[str]:
    states = {track.session.state or "unknown" for track in train.tracks}
    hosts = {track.origin.key.client for track in train.tracks if track.origin.key.client}
    yield f"state: {', '.join(sorted(states))}" + (f"; from {len(hosts)} client addresses" if len(hosts) > 1 else "")
    query = wording.common(track.session.query for track in train.tracks)
    if query:
        yield f"last statement of each: {query[:120]}"
