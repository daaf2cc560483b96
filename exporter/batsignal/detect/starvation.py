"""Says when an application's own pool has nothing left to lend while the server has slots to spare.

Signature (docs/detection.md): the service's health probes wait or fail, and nearly all sessions of one of its pools are
held: passed over by a pool that went on lending the others, or left in the middle of something. A service that merely
hangs, or that nobody asks, stops using all its sessions at the same moment; one that loses them, one after the other.

Owns what the probes of each service said of late, and the judgement. Who waits for PgBouncer is `poolers`' affair.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from batsignal.detect import wording
from batsignal.detect.blame import versions_of
from batsignal.detect.lending import Lending, Lendings, together
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.window import Window
from batsignal.snapshot import PoolerPool, ProbeResult, Snapshot

# Fewer sessions make no pattern.
SESSIONS_LEAST = 3
HELD_LEAST = 2
SERVICE_SESSIONS_LEAST = 5
# Those lost last are not told from those that were free at the end, and a pool that lends at random leaves some of its
# sessions for long. A probe that fails without any waiting says little about a pool: then it takes more.
HELD_RATIO = 0.5
HELD_UNWAITED_RATIO = 0.75
# One in five may flicker: a session that comes back is lent at once to the next in the queue.
WORKING_MOST_RATIO = 0.2
# So many that lay free while probes waited, and were lent after, were to be had: what the probes waited for is no
# session.
FREE_MOST_RATIO = 0.2
# A probe that took so long waited for something, and so many times as long as it usually takes.
SLOW_SECONDS = 0.5
SLOW_FACTOR = 8.0
# Two bad probes in three; a single one of an endpoint that is asked seldom, once the pool has stood still for a while.
BAD_PROBES = 2
PROBES_LOOKED_AT = 3
ALONE_SECONDS = 20.0
# Probes that only are slow say less than one that failed: three of them, over a while.
SLOW_PROBES = 3
SLOW_FOR_SECONDS = 15.0
GOOD_PROBES = 2
# A pool that stood still so long before the last good probe is not what that probe asks: the side nobody uses any more.
STILL_BEFORE_GOOD_SECONDS = 120.0
# What could open one more session since the probes went bad is at no bound of its own; but the last place may have been
# taken just then.
GREW_SECONDS = 15.0
CLEAR_SECONDS = 10.0
# Above it the server itself is what is short.
ROOM_RATIO = 0.9
# An endpoint that has not been probed for so many looks, and so many times its own interval, was taken out.
FORGOTTEN_LOOKS = 60
FORGOTTEN_INTERVALS = 10
ENDPOINTS_MOST = 1000
USUAL_KEPT = 50


@dataclass(slots=True)
class _Endpoint:
    """What the probes of one endpoint said; instants are those of the looks that brought them."""

    service: str
    bad: deque[bool] = field(default_factory=lambda: deque(maxlen=PROBES_LOOKED_AT))
    usual: deque[float] = field(default_factory=lambda: deque(maxlen=USUAL_KEPT))
    good_in_a_row: int = 0
    bad_since: float | None = None
    bad_count: int = 0
    has_failed: bool = False
    """Since `bad_since`."""
    has_waited: bool = False
    """Whether a probe since then took long, failed or not."""
    good_at: float | None = None
    last: ProbeResult | None = None
    looks_silent: int = 0
    looks_between: int = 0

    def add(self, probe: ProbeResult, t: float, *, counts: bool = True) -> None:
        """Take in a probe. One asked while the server was full does not count: that is no pool's doing."""
        usual = median(self.usual) if self.usual else 0.0
        is_long = probe.seconds >= max(SLOW_SECONDS, SLOW_FACTOR * usual)
        is_bad = not probe.up or is_long
        self.last, self.service = probe, probe.service
        self.looks_between = max(self.looks_between, self.looks_silent)
        self.looks_silent = 0
        if is_bad and not counts:
            self.good_in_a_row = 0
            return
        self.bad.append(is_bad)
        if not is_bad:
            self.usual.append(probe.seconds)
            self.good_in_a_row += 1
            self.good_at = t - probe.seconds
            if self.good_in_a_row >= GOOD_PROBES:
                self.bad_since, self.bad_count, self.has_failed, self.has_waited = None, 0, False, False
            return
        self.good_in_a_row = 0
        self.bad_count += 1
        self.has_failed |= not probe.up
        self.has_waited |= is_long
        if self.bad_since is None:
            self.bad_since = t - probe.seconds

    @property
    def is_forgotten(self) -> bool:
        return self.looks_silent > FORGOTTEN_INTERVALS * self.looks_between + FORGOTTEN_LOOKS

    def hurts(self, starved_seconds: float, t: float) -> bool:
        """Whether it says that users are hurt, beside a pool that has been empty for so long."""
        if self.bad_since is None or not self.bad[-1]:
            return False
        if self.has_failed:
            return sum(self.bad) >= BAD_PROBES or starved_seconds >= ALONE_SECONDS
        return self.bad_count >= SLOW_PROBES and t - self.bad_since >= SLOW_FOR_SECONDS


@dataclass(slots=True)
class _Service:
    """What is remembered of a service whose pool looks empty."""

    starved_since: float
    """Of the look from which on it has looked so."""
    full_since: float | None = None
    """Since when it does not any more."""
    lit: Finding | None = None


class StarvationDetector:
    """Joins what health endpoints say to what the sessions of their services do."""

    def __init__(self) -> None:
        self._lendings = Lendings()
        self._endpoints: dict[str, _Endpoint] = {}
        self._services: dict[str, _Service] = {}
        # What PgBouncer lends is told by its own queue.
        self._pooled: Collection[tuple[str | None, str | None]] = ()
        # Of a pool that lends whole sessions that is so while clients wait (None); else so many are nobody's.
        self._spare: Mapping[tuple[str | None, str | None], int | None] = {}
        self._full_at = -math.inf
        self._last: tuple[Finding, ...] = ()

    def look(self, window: Window, probes: Iterable[ProbeResult]) -> Iterable[Finding]:
        """Return the services whose own pool is empty. A look that failed changes nothing but takes the probes in."""
        if window.snapshot is not None and window.began == window.t:
            self._start_anew()
        if window.snapshot is not None and not _has_room(window.snapshot, window.used):
            self._full_at = window.t
        self._take_in(probes, window.t)
        if window.snapshot is None or window.t != window.snapshot.t:
            return self._last
        services = {endpoint.service for endpoint in self._endpoints.values()}
        if window.snapshot.pools is not None:
            rows = window.snapshot.pools
            self._pooled = {(row.database, row.user) for row in rows if row.pool_mode != "session"}
            self._spare = {(row.database, row.user): _spare(row) for row in rows if row.pool_mode == "session"}
        self._lendings.look(window, services, self._pooled)
        for service in [service for service in self._services if service not in services]:
            del self._services[service]
        self._last = tuple(
            finding for service in sorted(services) if (finding := self._judge(service, window)) is not None
        )
        return self._last

    def _start_anew(self) -> None:
        """Forget instants: this is the first look, or the clock stepped back."""
        self._lendings.clear()
        self._services.clear()
        self._full_at = -math.inf
        for endpoint in self._endpoints.values():
            endpoint.good_at = endpoint.bad_since = None

    def _take_in(self, probes: Iterable[ProbeResult], t: float) -> None:
        for endpoint in self._endpoints.values():
            endpoint.looks_silent += 1
        for probe in probes:
            known = self._endpoints.get(probe.endpoint)
            if known is None:
                if len(self._endpoints) >= ENDPOINTS_MOST:
                    continue
                known = self._endpoints[probe.endpoint] = _Endpoint(probe.service)
            known.add(probe, t, counts=t - probe.seconds > self._full_at)
        for name in [name for name, endpoint in self._endpoints.items() if endpoint.is_forgotten]:
            del self._endpoints[name]

    def _judge(self, service: str, window: Window) -> Finding | None:
        endpoints = [one for one in self._endpoints.values() if one.service == service]
        known = self._services.get(service)
        if (known is None or known.lit is None) and all(endpoint.bad_since is None for endpoint in endpoints):
            self._services.pop(service, None)
            return None  # all is well: nothing to look into, and nothing to count from
        starved = self._starved(service, endpoints, window)
        if known is None:
            if starved is None:
                return None
            known = self._services[service] = _Service(window.t)
        known.full_since = None if starved is not None else known.full_since or window.t
        if known.lit is None:
            return self._raise(service, known, starved, endpoints, window)
        is_over = known.full_since is not None and window.t - known.full_since >= self._clear_seconds(service, window.t)
        if is_over or all(endpoint.bad_since is None for endpoint in endpoints):
            del self._services[service]
            return None
        if starved is not None:
            known.lit = _finding(service, starved, endpoints, window, known.lit)
        return known.lit

    def _clear_seconds(self, service: str, t: float) -> float:
        """Return how long it must not look empty to be over. The last place of one of its pools may be taken now."""
        grew = any(pool.grew_at >= t - GREW_SECONDS - CLEAR_SECONDS for pool in self._lendings.of(service, t))
        return GREW_SECONDS + CLEAR_SECONDS / 2 if grew else CLEAR_SECONDS

    def _raise(
        self,
        service: str,
        known: _Service,
        starved: Lending | None,
        endpoints: Sequence[_Endpoint],
        window: Window,
    ) -> Finding | None:
        if starved is None:
            del self._services[service]
            return None
        seconds = window.t - known.starved_since
        if any(endpoint.hurts(seconds, window.t) for endpoint in endpoints):
            known.lit = _finding(service, starved, endpoints, window, None)
        return known.lit

    def _without_spare(self, pool: Lending) -> Lending | None:
        """Return a pool less what PgBouncer has to spare in its place; None where PgBouncer's own queue tells of it."""
        key = pool.origins[0].key
        spare = self._spare.get((key.database, key.user), 0)
        return None if spare is None else _without(pool, spare)

    def _starved(self, service: str, endpoints: Collection[_Endpoint], window: Window) -> Lending | None:
        """Return the pools of a service that have nothing left to lend, None when there are none."""
        if window.snapshot is None or not _has_room(window.snapshot, window.used):
            return None
        waited = any(endpoint.has_waited for endpoint in endpoints)
        bad_since = min((one.bad_since for one in endpoints if one.bad_since is not None), default=math.inf)
        pools = self._lendings.of(service, window.t, bad_since)
        good_at = max((endpoint.good_at for endpoint in endpoints if endpoint.good_at is not None), default=None)
        if good_at is not None:
            pools = [pool for pool in pools if pool.worked_until >= good_at - STILL_BEFORE_GOOD_SECONDS]
        pools = [left for pool in pools if (left := self._without_spare(pool)) is not None]
        pools = [pool for pool in pools if not bad_since <= pool.grew_at > window.t - GREW_SECONDS]
        if not pools:
            return None
        empty = [pool for pool in pools if _is_empty(pool, SESSIONS_LEAST, waited=waited)]
        if empty:
            found = together(empty)
        else:
            # Small pools, or many behind one address: what one of them shows is too little, all together may do.
            found = together(pools)
            if not _is_empty(found, SERVICE_SESSIONS_LEAST, waited=waited):
                return None
        return None if _at_own_limit(found, window.snapshot) else found


def _without(pool: Lending, spare: int) -> Lending:
    """Return a pool without the sessions that most likely are nobody's: PgBouncer resets what comes back to it."""
    idle = [track for track in pool.held if track.session.state == "idle"]
    reset = [track for track in idle if (track.session.query or "").upper().startswith("DISCARD ALL")]
    gone = {id(track) for track in (reset or idle)[:spare]}
    held = tuple(track for track in pool.held if id(track) not in gone)
    return replace(pool, held=held, sessions=pool.sessions - len(gone))


def _is_empty(pool: Lending, least: int, *, waited: bool) -> bool:
    ratio = HELD_RATIO if waited else HELD_UNWAITED_RATIO
    if pool.sessions < least or len(pool.held) < max(HELD_LEAST, ratio * pool.sessions):
        return False
    if waited:
        return pool.to_be_had <= FREE_MOST_RATIO * pool.sessions
    return pool.share_working() <= WORKING_MOST_RATIO


def _spare(row: PoolerPool) -> int | None:
    """Return how many sessions of PgBouncer's pool are nobody's; None when somebody waits for one."""
    if row.cl_waiting:
        return None
    return sum(count or 0 for count in (row.sv_idle, row.sv_used, row.sv_tested, row.sv_login))


def _has_room(snapshot: Snapshot, used: int) -> bool:
    slots = snapshot.slots
    return slots is None or used < ROOM_RATIO * slots.usable


def _at_own_limit(pool: Lending, snapshot: Snapshot) -> bool:
    """Whether the server would refuse it one more, by the limit of its role or its database."""
    for name, limits in (("usename", snapshot.role_limits), ("datname", snapshot.database_limits)):
        for value in {getattr(track.session, name) for track in pool.held}:
            limit = limits.get(value) if value is not None else None
            if limit is not None and limit >= 0:
                held = sum(1 for one in snapshot.sessions if one.is_client and getattr(one, name) == value)
                if held >= limit:
                    return True
    return False


def _finding(
    service: str, pool: Lending, endpoints: Sequence[_Endpoint], window: Window, lit: Finding | None
) -> Finding:
    keys = [origin.key for origin in pool.origins]
    has_failed = any(endpoint.has_failed for endpoint in endpoints)
    severity: Severity = "critical" if has_failed or (lit is not None and lit.severity == "critical") else "warning"
    since = pool.worked_until if lit is None else lit.since
    subject = Subject(
        application=wording.common(key.service for key in keys) or service,
        version=wording.common(key.version for key in keys),
        user=wording.common(key.user for key in keys),
        database=wording.common(key.database for key in keys),
        client=wording.common(key.client for key in keys),
    ).settled(None if lit is None else lit.subject)
    who = wording.culprit(subject)
    return Finding(
        kind="pool_starvation",
        key=("service", service),
        severity=severity,
        subject=subject,
        since=since,
        sessions=len(pool.held),
        evidence=tuple(_evidence(pool, endpoints)),
        summary=(
            f"{who} has an empty pool of its own: {len(pool.held)} of {wording.sessions(pool.sessions)} are held and"
            f" unused, the last since {wording.clock_time(since)}; {_room(window)}"
        ),
        undo=f"Restart or roll back {who}: it does not give its own sessions back.",
        versions=versions_of(track.origin.key.version for track in pool.held),
    )


def _room(window: Window) -> str:
    slots = window.snapshot.slots if window.snapshot is not None else None
    return (
        "the server is not full"
        if slots is None
        else f"the server has room ({window.used} of {slots.usable} slots taken)"
    )


def _evidence(pool: Lending, endpoints: Iterable[_Endpoint]) -> Iterable[str]:
    opened = sorted(track.opened_at for track in pool.held)
    states = {track.session.state or "unknown" for track in pool.held}
    yield (
        f"{len(pool.held)} of {pool.sessions} sessions held ({', '.join(sorted(states))}),"
        f" opened since {wording.clock_time(opened[0])}; none opened since {wording.clock_time(pool.opened_last)}"
    )
    for endpoint in endpoints:
        if endpoint.last is not None and endpoint.bad_since is not None:
            reason = endpoint.last.reason or ("slow" if endpoint.last.up else "failed")
            took = wording.latency(endpoint.last.seconds)
            yield f"health endpoint {endpoint.last.endpoint}: {reason}, after {took}"
    clients = {track.origin.key.client for track in pool.held if track.origin.key.client}
    if len(clients) > 1:
        yield f"from {len(clients)} client addresses"
    query = wording.common(track.session.query for track in pool.held)
    if query:
        yield f"last statement of each: {query[:120]}"
