"""Calls a leak: sessions taken one after the other and never given back.

Signature (docs/detection.md): a leaked session is used once, soon after it was opened, and never again, while more of
the same follow. A pool never does that: it opens a session only when it has no idle one, fills in a burst and then
stands still, and opens one for one when it recycles. So what is counted is not sessions but *lost* ones (`lost`), and
what is asked is whether they came one by one, steadily, and stayed.

Owns the judgement and its memory from tick to tick. It has no clock: time is the snapshot's.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from batsignal.config import Thresholds
from batsignal.detect import lost as losses
from batsignal.detect import wording
from batsignal.detect.blame import versions_of
from batsignal.detect.holding import Explained, Holdings
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.window import Origin, Track, Window

# The onset is where the steady train of lost sessions begins: a gap this many times the usual one is before it.
GAP_FACTOR = 6.0
GAP_MOST_SECONDS = 900.0
GAP_SLACK_SECONDS = 10.0
# What a pool seemed to fill with belongs to the train after it when it came as steadily, or was a single session.
FILL_GAPS = 2.0
FILL_STEP_SECONDS = 2.0
# The rate is read off the newest lost sessions, so that it follows traffic.
RATE_SESSIONS = 30
# Of the sessions opened since the onset that are still there, less the first fill of each pool, this share was never
# used again. Workers that each open one session at their first request come close, and have used many again by then.
NEVER_USED_AGAIN_RATIO = 0.75
# An application that gives back this share of what it takes holds its sessions for long, and loses none.
GIVEN_BACK_RATIO = 0.3
GIVEN_BACK_SECONDS = 60.0
# Sessions that come in clumps with silence between them are pools that start one after the other.
CLUMP_SESSIONS = 2.0
CLUMP_OCCUPANCY_RATIO = 0.4
CLUMP_PENALTY = 6
# A pool opens a session only while all it has are at work: many small pools that each once needed one more, and never
# again, open none beside one that was idle. A leak does, from the second session of an origin on.
BESIDE_IDLE_RATIO = 0.5
ALONE_PENALTY = 2
# So much it must have grown before our own eyes, and nearly as much as it opened: at our own start, a pool recycled all
# night looks like a leak of hours, for what it closed in exchange is gone. Sessions that are given back look like one
# too until some are: that seven come by chance before one goes is seldom, and each that went asks for three more.
SEEN_GROWTH = 3
SEEN_GROWTH_AT_START = 7
SEEN_GROWTH_PER_GIVEN_BACK = 3
SEEN_GROWTH_RATIO = 0.75
# A leak that has stopped growing while there is room is over when it stood still this long.
STANDSTILL_SECONDS = 600.0
STANDSTILL_GAPS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Train:
    """Lost sessions of one group, in order of opening: one train of them, from its onset."""

    tracks: tuple[Track, ...]
    before: tuple[Track, ...]
    """What looks lost too, and is older: others came in the place of as many."""
    filling: tuple[Track, ...]
    """What came before it, looks lost too, and passes for the first fill of a pool."""
    returned: int
    """Sessions given back in the meantime, which the train only replaced."""
    reused: int
    """Sessions opened as late as the train that were used again, and took nobody's place."""

    @property
    def lost(self) -> int:
        return max(len(self.tracks) - self.returned, 0)

    @property
    def since(self) -> float:
        return self.tracks[0].opened_at

    @property
    def onset(self) -> float:
        """When it began, as a person would say it: with what came as steadily while the pool still seemed to fill."""
        origins = {id(track.origin) for track in self.tracks}
        came_before = sorted((track.opened_at for track in self.filling if id(track.origin) in origins), reverse=True)
        onset = self.since
        for index, opened_at in enumerate(came_before):
            alone = came_before[index + 1 : index + 2] == []
            step = onset - opened_at
            if step > FILL_GAPS * self.gap_seconds or not (alone or step <= FILL_STEP_SECONDS):
                break
            onset = opened_at
        return onset

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
    most: int
    """The most that were lost at once, and when that was last exceeded."""
    grew_at: float
    fewer_since: float | None = None


class LeakDetector:
    """Finds leaks of any application, group by group."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._lit: dict[tuple[str, ...], _Lit] = {}
        self._holdings = Holdings(thresholds)
        self._last: tuple[Finding, ...] = ()

    def look(self, window: Window) -> Iterable[Finding]:
        """Return the leaks of this tick. A look that failed changes nothing."""
        if window.snapshot is None or window.t != window.snapshot.t:
            return self._last
        if window.began == window.t:
            self._lit.clear()  # the first look, or the clock stepped back: what was noted lies in the future
            self._holdings.clear()
        self._holdings.learn(window)
        groups: dict[tuple[str, ...], list[Origin]] = defaultdict(list)
        for origin in window.origins.values():
            if origin.tracks or origin.closings:
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
        lit = self._lit.get(group)
        train = self._train(origins, window, lit)
        if lit is None:
            if train is None or not self._is_leak(group, train, origins, window):
                return None
            lit = _Lit(since=train.onset, severity="warning", most=train.lost, grew_at=window.t)
            self._lit[group] = lit
        elif self._is_over(lit, group, train, origins, window):
            del self._lit[group]
            return None
        if train is None:
            return next((finding for finding in self._last if finding.key == group), None)
        return self._finding(group, train, lit, window)

    # -- the train -------------------------------------------------------------------------------------------------

    def _train(self, origins: list[Origin], window: Window, lit: _Lit | None) -> _Train | None:
        """Return the newest train of lost sessions; once it is lit, all that were lost since."""
        sorted_out = [losses.sort_out(origin, window.t, self._limits) for origin in origins]
        lost = sorted((track for one in sorted_out for track in one.lost), key=losses.opened_at)
        oldest = lost
        if lit is not None:
            lost = [track for track in lost if track.opened_at >= lit.since]
            returned = losses.returned_since(lit.since, origins, self._limits)
        elif len(lost) < self._limits.leak_sessions:
            return None
        else:
            lost = _believable(lost[_onset_index(lost, self._limits.leak_moment_seconds) :], window.began)
            count, begin = losses.unreplaced(lost, window.t, self._limits)
            lost = lost[begin:]
            returned = len(lost) - count
        if not lost:
            return None
        since = lost[0].opened_at
        used = [track for one in sorted_out for track in one.reused if track.opened_at >= since]
        filling = [track for one in sorted_out for track in one.filling if track.opened_at < since]
        return _Train(
            tracks=tuple(lost),
            before=tuple(track for track in oldest if track.opened_at < since),
            filling=tuple(filling),
            returned=returned,
            reused=losses.unreplaced_count(since, used),
        )

    # -- the judgement ---------------------------------------------------------------------------------------------

    def _is_leak(self, group: tuple[str, ...], train: _Train, origins: list[Origin], window: Window) -> bool:
        doubt = CLUMP_PENALTY if _is_clumped(train) else 1 if self._is_beside_idle(train) else ALONE_PENALTY
        least = self._limits.leak_sessions * doubt
        full = _is_full(window, self._limits.saturation_critical_ratio)
        if train.lost < least or not self._is_steady(train, window.t, full=full):
            return False
        if not self._is_seen(group, train, window, full=full):
            return False
        explained = self._explain(group, train, window.t)
        if explained.outlived >= least:
            return True
        if train.lost - explained.usual < least:
            return False
        return explained.is_settled or not self._is_given_back(train, origins, window)

    def _is_steady(self, train: _Train, t: float, *, full: bool) -> bool:
        """Whether it went on for a while, goes on, and few others are opened that are used again."""
        if train.newest - train.since < (
            self._limits.leak_span_seconds / 3 if full else self._limits.leak_span_seconds
        ):
            return False
        if len(train.tracks) < NEVER_USED_AGAIN_RATIO * (len(train.tracks) + train.reused):
            return False
        silence = t - train.newest - losses.telling_seconds(train.tracks[-1], self._limits)
        return full or silence <= 3 * train.gap_seconds + GAP_SLACK_SECONDS

    def _is_seen(self, group: tuple[str, ...], train: _Train, window: Window, *, full: bool) -> bool:
        """Whether it grew enough before our own eyes: what was given back before them, we do not know."""
        growth = losses.growth_since(max(train.since, window.began), train.tracks)
        if full or train.since >= window.began:
            return growth >= SEEN_GROWTH
        known = self._explain(group, train, window.t).known
        return growth >= SEEN_GROWTH_AT_START + SEEN_GROWTH_PER_GIVEN_BACK * known

    def _explain(self, group: tuple[str, ...], train: _Train, t: float) -> Explained:
        return self._holdings.explain(group, train.tracks, train.before, t, beside_idle=self._is_beside_idle(train))

    def _is_given_back(self, train: _Train, origins: list[Origin], window: Window) -> bool:
        """Whether much of what was taken came back: asked as long as nobody knows how this group holds its sessions."""
        since = max(train.since, window.began)
        taken = sum(1 for track in train.tracks if track.opened_at >= since)
        return losses.given_back(since, train.gap_seconds, origins, self._limits) > GIVEN_BACK_RATIO * taken

    def _is_beside_idle(self, train: _Train) -> bool:
        idle_seconds = self._limits.leak_idle_seconds
        beside = sum(1 for track in train.tracks if track.beside_idle_seconds >= idle_seconds)
        return beside >= BESIDE_IDLE_RATIO * len(train.tracks)

    def _is_over(
        self, lit: _Lit, group: tuple[str, ...], train: _Train | None, origins: list[Origin], window: Window
    ) -> bool:
        """Whether the lost sessions are gone, used again, given back, or have long stopped coming while room was."""
        if train is None or self._is_explained(group, train, origins, window.t):
            lit.fewer_since = window.t if lit.fewer_since is None else lit.fewer_since
            return window.t - lit.fewer_since >= self._limits.leak_clear_seconds
        lit.fewer_since = None
        if train.lost > lit.most or train.lost <= lit.most / 2:
            lit.most, lit.grew_at = train.lost, window.t
        if _is_full(window, self._limits.saturation_critical_ratio):
            return False
        return window.t - lit.grew_at > max(STANDSTILL_SECONDS, STANDSTILL_GAPS * train.gap_seconds)

    def _is_explained(self, group: tuple[str, ...], train: _Train, origins: list[Origin], t: float) -> bool:
        """Whether what is still lost is little, or what the group holds and gives back every day."""
        least = self._limits.leak_sessions / 2
        if train.lost < least:
            return True
        explained = self._explain(group, train, t)
        if explained.outlived >= least:
            return False
        return train.lost - explained.usual < least or self._gives_back(train, origins, t)

    def _gives_back(self, train: _Train, origins: list[Origin], t: float) -> bool:
        """Whether as many sessions come back of late as are taken."""
        since = t - max(GIVEN_BACK_SECONDS, STANDSTILL_GAPS * train.gap_seconds)
        back = losses.given_back(since, train.gap_seconds, origins, self._limits)
        return back > SEEN_GROWTH and back >= sum(1 for track in train.tracks if track.opened_at >= since)

    def _finding(self, group: tuple[str, ...], train: _Train, lit: _Lit, window: Window) -> Finding:
        # Younger ones cannot be told yet from sessions that will be used again.
        rate = train.rate(window.t - losses.telling_seconds(train.tracks[-1], self._limits))
        exhaustion, limit = _exhaustion(train, rate, window)
        within = self._limits.leak_critical_exhaustion_seconds * (2 if lit.severity == "critical" else 1)
        # What comes in clumps may be pools that start behind one address: it wakes somebody once room is short.
        may_wake = not _is_clumped(train) or _is_full(window, self._limits.saturation_warning_ratio)
        lit.severity = "critical" if exhaustion <= within and may_wake else "warning"
        subject = replace(_subject(train), limit=limit)
        who = wording.culprit(subject)
        left = _left(exhaustion, limit)
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
            undo=_undo(subject),
            versions=versions_of(track.origin.key.version for track in train.tracks),
        )


def _onset_index(lost: Sequence[Track], moment_seconds: float) -> int:
    """Return where the newest steady train of lost sessions begins."""
    gaps = [later.opened_at - earlier.opened_at for earlier, later in pairwise(lost)]
    if not gaps:
        return 0
    # Of sessions that come several at a time, the time between the times is what is usual.
    usual = median([gap for gap in gaps if gap > moment_seconds][-16:] or gaps)
    longest = min(max(GAP_FACTOR * usual, GAP_SLACK_SECONDS), GAP_MOST_SECONDS)
    for index in range(len(gaps) - 1, -1, -1):
        if gaps[index] > longest:
            return index + 1
    return 0


def _believable(lost: list[Track], began: float) -> list[Track]:
    """Return the lost sessions that count: those from before our first look only if the later ones replaced nobody."""
    seen = [track for track in lost if track.opened_at >= began]
    is_growing = losses.growth_since(began, lost) >= SEEN_GROWTH_RATIO * len(seen)
    return lost if is_growing else seen


def _is_clumped(train: _Train) -> bool:
    seconds = {math.floor(track.opened_at) for track in train.tracks}
    span = max(train.newest - train.since, 1.0)
    return len(train.tracks) / len(seconds) >= CLUMP_SESSIONS and len(seconds) / span < CLUMP_OCCUPANCY_RATIO


def _is_full(window: Window, ratio: float) -> bool:
    snapshot = window.snapshot
    if snapshot is None or snapshot.slots is None or not snapshot.slots.usable:
        return False
    return window.used >= ratio * snapshot.slots.usable


def _left(exhaustion: float, limit: str | None) -> str:
    """Say what is left until a limit; None is the server's own."""
    kind, _, name = (limit or "").partition(":")
    if not math.isfinite(exhaustion):
        return "not growing now"
    if limit is None:
        return "no slot is left" if exhaustion <= 0 else f"slots run out in {wording.duration(exhaustion)}"
    return (
        f"the limit of {kind} {name} is reached"
        if exhaustion <= 0
        else f"the limit of {kind} {name} is reached in {wording.duration(exhaustion)}"
    )


def _exhaustion(train: _Train, rate: float, window: Window) -> tuple[float, str | None]:
    """Return when the first limit that the leak eats into is reached, and which: None is the server's own."""
    snapshot = window.snapshot
    if snapshot is None:
        return math.inf, None
    room: list[tuple[int, str | None]] = []
    if snapshot.slots is not None:
        room.append((snapshot.slots.usable - window.used, None))
    user = wording.common(track.session.usename for track in train.tracks)
    database = wording.common(track.session.datname for track in train.tracks)
    clients = [session for session in snapshot.sessions if session.is_client]
    if user is not None and user in snapshot.role_limits:
        held = sum(1 for session in clients if session.usename == user)
        room.append((snapshot.role_limits[user] - held, f"role:{user}"))
    if database is not None and database in snapshot.database_limits:
        held = sum(1 for session in clients if session.datname == database)
        room.append((snapshot.database_limits[database] - held, f"database:{database}"))
    if not room:
        return math.inf, None
    least, limit = min(room, key=lambda one: one[0])
    if least <= 0:
        return 0.0, limit
    return (least / rate if rate > 0 else math.inf), limit


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


def _undo(subject: Subject) -> str:
    """Say what ends it when no deploy is known that brought it."""
    does_not = "it does not give its connections back."
    if subject.application is not None:
        return f"Restart or roll back {wording.culprit(subject)}: {does_not}"
    return f"Find the application of {wording.culprit(subject)} and restart it: {does_not}"


def _where(train: _Train) -> Iterator[str]:
    states = {track.session.state or "unknown" for track in train.tracks}
    hosts = {track.origin.key.client for track in train.tracks if track.origin.key.client}
    yield f"state: {', '.join(sorted(states))}" + (f"; from {len(hosts)} client addresses" if len(hosts) > 1 else "")
    query = wording.common(track.session.query for track in train.tracks)
    if query:
        yield f"last statement of each: {query[:120]}"
    code = wording.code_paths(track.session.code for track in train.tracks)
    if code:
        yield code
