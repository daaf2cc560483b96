"""Whether the database itself is well: what the incident is *not*, with the evidence.

Healthy is only what is known to be: it answers as quickly as ever, and nothing shows that its own work (writing,
reading, its memory) stands still. Sessions that wait for one another say nothing against the database once somebody is
named for it; until then they do. Full slots do not either: full is alive. Owns the baselines: what a ping takes and how
many transactions are committed usually, a median a minute over an hour, learnt only while nothing is lit.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

from batsignal.detect import wording
from batsignal.detect.memory import Memory
from batsignal.detect.reachability import FULL_REASONS
from batsignal.detect.signal import Finding, Kind
from batsignal.detect.window import Window
from batsignal.snapshot import Session, Snapshot

# Slow is what a person would call slow, or ten times the usual where the usual is slow already. Of the last five looks,
# so that one late answer (a hiccup of the network, a busy daemon) is not a verdict.
PING_SLOW_SECONDS = 0.05
PING_SLOW_FACTOR = 10.0
PINGS_JUDGED = 5
# Waits for locks are everyday life when they are short or few.
BLOCKED_HEALTHY_MOST = 2
BLOCKED_SECONDS = 5.0
# The server's own work stands still: half of those at work, and three at least, wait for its disks, its memory or its
# standby for so long, while it commits a tenth of the usual.
STALLED_SESSIONS = 3
STALLED_RATIO = 0.5
STALLED_SECONDS = 5.0
STALLED_COMMITS_RATIO = 0.1
# What a single statement does to itself is no illness: all of it would wait, whatever it runs.
STALLED_STATEMENT_RATIO = 0.5
STALLED_WAITS = frozenset({"IO", "LWLock", "IPC", "BufferPin"})
# The totals are asked for every 10 s: a rate needs two of them.
COMMITS_SECONDS = 20.0
TOTALS_APART_SECONDS = 5.0
TOTALS_KEPT = 8
# A total that has not moved for longer: nothing is committed.
TOTALS_STALE_SECONDS = 15.0
COMMITS_LEAST = 1.0
# Where nobody timed a ping, such a share of the usual flow shows life, and goes on to until it is less than that.
FLOWING_RATIO = 0.5
FLOWING_STILL_RATIO = 0.2
# A look that fails is a gap; what was known so shortly before still holds.
HELD_SECONDS = 3.0
# One that is refused for want of a slot was answered: full is alive. For so long what was known before still holds.
HELD_WHILE_FULL_SECONDS = 600.0
MEMORY_SHORT_RATIO = 0.97
MINUTE_SECONDS = 60.0
MINUTES_KEPT = 60
# Less calm than this is no baseline (but any ping is better than none).
MINUTES_LEAST = 5

# Sessions that wait for one another are what these say.
LOCK_KINDS: frozenset[Kind] = frozenset({"lock_pileup", "idle_in_transaction"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The verdict of one look: `healthy` is None when nothing is known, and `evidence` says by what it is.

    `is_full`: the look was refused for want of a slot, so that the server is alive, whatever else is known of it.
    """

    healthy: bool | None = None
    evidence: tuple[str, ...] = ()
    is_full: bool = False


@dataclass(slots=True)
class _Usual:
    """What one number usually is: the medians of the last minutes that were calm."""

    minutes: deque[float] = field(default_factory=lambda: deque(maxlen=MINUTES_KEPT))
    now: list[float] = field(default_factory=list)

    @property
    def value(self) -> float | None:
        return median(self.minutes) if len(self.minutes) >= MINUTES_LEAST else None

    def close_minute(self, *, calm: bool) -> None:
        if self.now and calm:
            self.minutes.append(median(self.now))
        self.now = []


class HealthWatch:
    """Knows what is usual for one server, and judges a look by it."""

    def __init__(self) -> None:
        self._ping = _Usual()
        self._commits = _Usual()
        self._totals: deque[tuple[float, int]] = deque(maxlen=TOTALS_KEPT)
        self._minute_since: float | None = None
        self._calm = True
        self._flows = False

    def remembered(self) -> Memory:
        """Return the baselines: seconds a ping takes, commits a second."""
        return {"ping_seconds": list(self._ping.minutes), "commits_per_second": list(self._commits.minutes)}

    def recall(self, memory: Memory) -> None:
        """Take over an earlier life's baselines; raises ValueError, TypeError or KeyError when they do not fit."""
        pings = [float(value) for value in memory["ping_seconds"]]
        commits = [float(value) for value in memory["commits_per_second"]]
        if not all(0 <= value < float("inf") for value in (*pings, *commits)):
            raise ValueError("a baseline is a list of numbers from 0 on")
        self._ping.minutes.extend(pings)
        self._commits.minutes.extend(commits)

    def learn(self, window: Window, *, calm: bool) -> None:
        """Take in a look; what is learnt while something is lit is not usual."""
        snapshot = window.snapshot
        if snapshot is None or snapshot.t != window.t:
            return
        if window.began == window.t:
            self._totals.clear()
            self._minute_since, self._flows = None, False
        if self._minute_since is None:
            self._minute_since = window.t
        self._calm = self._calm and calm
        if snapshot.ping_seconds is not None and snapshot.ping_seconds >= 0:
            self._ping.now.append(snapshot.ping_seconds)
        self._count_commits(snapshot)
        if window.t - self._minute_since >= MINUTE_SECONDS:
            for usual in (self._ping, self._commits):
                usual.close_minute(calm=self._calm)
            self._minute_since, self._calm = window.t, calm

    def _count_commits(self, snapshot: Snapshot) -> None:
        total = snapshot.counters.xact_commit if snapshot.counters else None
        if total is None:
            return
        if self._totals:
            at, before = self._totals[-1]
            if total < before:
                self._totals.clear()  # somebody reset them, or dropped a database
            elif total == before or snapshot.t - at < TOTALS_APART_SECONDS:
                return
        self._totals.append((snapshot.t, total))
        rate = self._commits_per_second(snapshot.t)
        if rate is not None:
            self._commits.now.append(rate)
            usual = self._commits.value or 0.0
            ratio = FLOWING_STILL_RATIO if self._flows else FLOWING_RATIO
            self._flows = usual >= COMMITS_LEAST and rate >= ratio * usual

    def _commits_per_second(self, t: float) -> float | None:
        """Return what was committed a second of late; None when two totals are not known yet."""
        if not self._totals:
            return None
        *before, (last, total) = self._totals
        end = last if t - last <= TOTALS_STALE_SECONDS else t
        known = [one for one in before if end - one[0] >= COMMITS_SECONDS][-1:] or before[:1]
        return next(((total - then) / (end - at) for at, then in known if end - at >= COMMITS_SECONDS / 2), None)

    # -- the judgement ---------------------------------------------------------------------------------------------

    def check_up(self, window: Window, latest: Snapshot) -> "Checkup | None":
        """Return what the last look that succeeded shows of the database; None when looks have failed for a while."""
        snapshot = window.snapshot
        held_seconds = HELD_WHILE_FULL_SECONDS if is_full(latest) else HELD_SECONDS
        if snapshot is None or window.t - snapshot.t > held_seconds:
            return None
        pings = [] if snapshot.ping_seconds is None else list(islice(reversed(window.pings), PINGS_JUDGED))
        usual = self._ping.value
        return Checkup(
            snapshot=snapshot,
            ping_seconds=median(pings) if pings else None,
            usual_ping_seconds=usual if usual is not None else median(window.pings) if pings else 0.0,
            waiting=_waiting_for_locks(snapshot),
            stalled=_stalled(snapshot),
            commits_per_second=self._commits_per_second(snapshot.t),
            usual_commits_per_second=self._commits.value,
            flows=self._flows,
        )


def is_full(snapshot: Snapshot) -> bool:
    """Return whether a look was refused for want of a slot: the server answered."""
    return snapshot.met is not None and snapshot.met.reason in FULL_REASONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What one look shows of the database, before it is known what the incident is."""

    snapshot: Snapshot
    ping_seconds: float | None
    """None when nobody timed it."""
    usual_ping_seconds: float
    waiting: Sequence[Session]
    """Those that wait for locks."""
    stalled: int
    """Sessions that the server itself keeps waiting, where they are most of those at work."""
    commits_per_second: float | None
    usual_commits_per_second: float | None
    flows: bool
    """Whether it commits about as ever."""

    def of(self, finding: Finding, *, locks_explained: bool) -> Health:
        """Return the verdict that belongs to a finding; `locks_explained` when somebody is named for the lock waits."""
        if finding.kind == "database_unreachable":
            return Health()
        ills = list(self._ills(locks_explained=locks_explained or finding.kind in LOCK_KINDS))
        evidence = [self._pulse(), *self._flow(), *self._room()]
        if ills:
            evidence.append(f"the database is not well: {'; '.join(ills)}")
        healthy = False if ills else True if self.is_alive else None
        return Health(healthy=healthy, evidence=tuple(evidence) if healthy is not None else ())

    def _ills(self, *, locks_explained: bool) -> Iterator[str]:
        if self.is_slow:
            yield "it answers slowly"
        long = sum(_age(session, self.snapshot.t) >= BLOCKED_SECONDS for session in self.waiting)
        if long > BLOCKED_HEALTHY_MOST and not locks_explained:
            yield f"{wording.sessions(long)} wait for locks"
        if self.stalled and self.has_stopped:
            yield f"{wording.sessions(self.stalled)} wait for its disks, its memory or a standby"
        if self.snapshot.host is not None and self.snapshot.host.memory_used_ratio >= MEMORY_SHORT_RATIO:
            yield "the host's memory is nearly used up"

    @property
    def is_alive(self) -> bool:
        """Whether it is seen to work: it answers as quickly as ever, or, if nobody timed that, commits as ever."""
        return not self.is_slow if self.ping_seconds is not None else self.flows

    @property
    def is_slow(self) -> bool:
        return self.ping_seconds is not None and self.ping_seconds > max(
            PING_SLOW_SECONDS, PING_SLOW_FACTOR * self.usual_ping_seconds
        )

    @property
    def has_stopped(self) -> bool:
        """Whether hardly anything is committed any more, where it is known what is usual."""
        now, usual = self.commits_per_second, self.usual_commits_per_second
        return now is not None and usual is not None and usual >= COMMITS_LEAST and now < STALLED_COMMITS_RATIO * usual

    def _pulse(self) -> str:
        count = len(self.waiting)
        waits = f"{wording.sessions(count)} waiting for locks" if count else "no lock waits"
        if self.ping_seconds is None:
            return waits
        usually = f" (usually {wording.latency(self.usual_ping_seconds)})" if self.is_slow else ""
        return f"ping {wording.latency(self.ping_seconds)}{usually}, {waits}"

    def _flow(self) -> Iterator[str]:
        now, usual = self.commits_per_second, self.usual_commits_per_second
        if now is not None and now > 0:
            compared = f" (usually {wording.rate(usual)})" if usual else ""
            flow = "commits have nearly stopped" if self.has_stopped else "commits go on"
            yield f"{flow}: {wording.rate(now)}{compared}"

    def _room(self) -> Iterator[str]:
        slots, host = self.snapshot.slots, self.snapshot.host
        if slots is not None and slots.usable and self.snapshot.used >= slots.usable:
            yield "every slot is taken, and the server answers: it is full, but alive"
        if host is not None:
            yield f"its host: processor {host.cpu_ratio:.0%} busy, memory {host.memory_used_ratio:.0%} used"


def _age(session: Session, t: float) -> float:
    """Return how long a session has been at what it does, in seconds; without end when that is not known."""
    since = session.state_change if session.query_start is None else session.query_start
    return float("inf") if since is None else t - since


def _waiting_for_locks(snapshot: Snapshot) -> tuple[Session, ...]:
    return tuple(session for session in snapshot.sessions if session.wait_event_type == "Lock")


def _stalled(snapshot: Snapshot) -> int:
    """Return how many sessions the server's own work keeps waiting; 0 when they are few, or all run one statement."""
    working = [session for session in snapshot.sessions if session.state == "active" and session.is_client]
    stalled = [
        session
        for session in working
        if session.wait_event_type in STALLED_WAITS and _age(session, snapshot.t) >= STALLED_SECONDS
    ]
    if len(stalled) < max(STALLED_SESSIONS, STALLED_RATIO * len(working)):
        return 0
    commonest = max(Counter(session.statement_id for session in stalled).values())
    return len(stalled) if commonest <= STALLED_STATEMENT_RATIO * len(stalled) else 0
