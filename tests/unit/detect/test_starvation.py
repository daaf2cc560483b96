"""An empty pool of an application's own: told from a hung service, a side nobody asks, and a server that is full."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from batsignal.detect.signal import Finding
from batsignal.snapshot import PollFailure, PoolerPool, ProbeResult, Session, Slots, Snapshot
from simulator.pool_kinds import hikari_pool, psycopg_pool, queue_pool
from simulator.probes import Answer, ask_pool

KIND = "pool_starvation"
ONSET = 300.0
SIZE = 10
EVERY = 4.0
EMPTY = ONSET + SIZE * EVERY

POOLS: dict[str, dict[str, Any]] = {
    "lifo, filled": hikari_pool(least=SIZE, most=SIZE, lifetime_seconds=None),
    "lifo, grows": queue_pool(size=SIZE, overflow=0, lifo=True),
    "fifo, grows": psycopg_pool(least=2, most=SIZE),
    "fifo, filled": {"least": SIZE, "most": SIZE, "order": "fifo"},
}

Looks = list[Snapshot]


def lose_all(world: Any, pool: Any, *, every: float = EVERY, rest: str = "idle") -> None:
    """Lose session after session of a pool, until nothing is left."""

    def go() -> Iterable[float]:
        while True:
            pool.lose(0.02, rest=rest)
            yield every

    world.run(go(), ONSET)


def ask(world: Any, pool: Any, name: str = "web", service: str = "web", **facts: Any) -> None:
    world.endpoint(name, service, lambda: ask_pool(world, pool), at=2.0, **facts)


def said(watcher: Any, kind: str = KIND) -> list[Finding]:
    return [finding for _, finding in watcher.said if finding.kind == kind]


@pytest.fixture
def starving(world: Any) -> Callable[..., Looks]:
    """Look on while a service loses its pool, and for a while after it is empty."""

    def run(rules: dict[str, Any], *, rest: str = "idle", seconds: float = EMPTY + 60, **facts: Any) -> Looks:
        pool = world.pool(
            "web@2.4.0", work=5.0, place={"client": "10.0.0.4", "user": "app", "database": "shop"}, **rules
        )
        ask(world, pool, **facts)
        lose_all(world, pool, rest=rest)
        return list(world.looks(seconds))

    return run


@pytest.mark.parametrize("rules", POOLS.values(), ids=POOLS)
def test_pool_that_loses_all_it_has_is_named_soon_after_its_probes_begin_to_fail(
    starving: Callable[..., Looks], watcher: Any, rules: dict[str, Any]
) -> None:
    looks = starving(rules)
    watcher.follow(looks)
    failed_at = next(probe.at for look in looks for probe in look.probes if not probe.up)
    (raised,) = watcher.raised(KIND)
    assert 0 <= raised.t - failed_at <= 20, watcher.sentences()
    found = said(watcher)[-1]
    assert found.severity == "critical"
    assert (found.subject.application, found.subject.version) == ("web", "2.4.0")
    assert (found.subject.user, found.subject.database, found.subject.client) == ("app", "shop", "10.0.0.4")
    assert found.summary.startswith("web@2.4.0 has an empty pool of its own: ")
    assert "the server has room" in found.summary
    assert "Do not restart the database: it is healthy." in found.action
    assert found.since == pytest.approx(failed_at, abs=10)
    assert not watcher.cleared(KIND)
    assert not said(watcher, "endpoint_down")


def test_one_that_loses_sessions_in_the_middle_of_transactions_is_named(
    starving: Callable[..., Looks], watcher: Any
) -> None:
    watcher.follow(starving(POOLS["fifo, filled"], rest="idle in transaction"))
    assert len(watcher.raised(KIND)) == 1
    assert any("idle in transaction" in line for line in said(watcher)[-1].evidence)


def test_endpoint_asked_once_a_minute_is_enough_when_its_pool_stands_still(
    starving: Callable[..., Looks], watcher: Any
) -> None:
    looks = starving(POOLS["fifo, filled"], seconds=EMPTY + 120, interval_seconds=60.0)
    watcher.follow(looks)
    failed_at = next(probe.at for look in looks for probe in look.probes if not probe.up)
    (raised,) = watcher.raised(KIND)
    assert raised.t - failed_at <= 30


def test_without_an_endpoint_nothing_is_known_of_anybody_in_pain(world: Any, watcher: Any) -> None:
    pool = world.pool("web@2.4.0", work=5.0, **POOLS["fifo, filled"])
    lose_all(world, pool)
    watcher.follow(world.looks(EMPTY + 60))
    assert not said(watcher)


@pytest.mark.parametrize("rules", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("answer", [Answer(seconds=math.inf), Answer(status=503), Answer(seconds=1.0, status=500)])
def test_service_that_hangs_stops_all_its_sessions_at_once_and_is_only_down(
    world: Any, watcher: Any, rules: dict[str, Any], answer: Answer
) -> None:
    pool = world.pool("web@2.4.0", work=lambda t: 5.0 if t < EMPTY else 0.0, **rules)
    world.endpoint("web", "web", lambda: ask_pool(world, pool) if world.elapsed < EMPTY else answer, at=2.0)
    watcher.follow(world.looks(EMPTY + 90))
    assert not said(watcher), watcher.sentences()
    assert said(watcher, "endpoint_down")


@pytest.mark.parametrize("rules", POOLS.values(), ids=POOLS)
def test_quiet_night_with_a_failing_endpoint_is_no_empty_pool(world: Any, watcher: Any, rules: dict[str, Any]) -> None:
    pool = world.pool("web@2.4.0", work=lambda t: max(8.0 * (1 - t / 1500), 0.0), **rules)
    world.endpoint(
        "web", "web", lambda: ask_pool(world, pool) if world.elapsed < 1800 else Answer(seconds=math.inf), at=2.0
    )
    watcher.follow(world.looks(1900))
    assert not said(watcher), watcher.sentences()


def test_pool_that_works_on_while_its_endpoint_fails_is_not_empty(world: Any, watcher: Any) -> None:
    world.pool("web@2.4.0", work=5.0, **POOLS["fifo, filled"])
    world.endpoint("web", "web", lambda: Answer(seconds=math.inf), at=2.0)
    watcher.follow(world.looks(200))
    assert not said(watcher)


def test_leak_in_another_service_than_the_one_that_fails_is_not_this(world: Any, watcher: Any) -> None:
    lose_all(world, world.pool("web@2.4.0", work=5.0, **POOLS["fifo, filled"]))
    world.pool("billing", work=2.0, least=4, most=4)
    world.endpoint("pay", "billing", lambda: Answer(seconds=math.inf if world.elapsed > ONSET else 0.01), at=2.0)
    watcher.follow(world.looks(EMPTY + 60))
    assert not said(watcher)
    assert said(watcher, "endpoint_down")


def test_pool_that_goes_on_growing_has_something_to_lend_though_probes_flicker(world: Any, watcher: Any) -> None:
    pool = world.pool("web@2.4.0", work=5.0, order="fifo", least=2, most=80)
    lose_all(world, pool)
    # Two in three of its probes are lost with the session that they had taken, for a while; the server keeps room.
    probes = iter(range(1000))

    def flicker() -> Any:
        return Answer(seconds=math.inf) if next(probes) % 3 and world.elapsed > EMPTY else ask_pool(world, pool)

    world.endpoint("web", "web", flicker, at=2.0)
    watcher.follow(world.looks(EMPTY + 120))
    assert not said(watcher), watcher.sentences()
    assert said(watcher, "leak")


def test_failed_probe_now_and_then_is_not_added_up_over_good_ones(world: Any, watcher: Any) -> None:
    pool = world.pool("web@2.4.0", work=5.0, order="fifo", least=2, most=80)
    lose_all(world, pool, every=20.0)
    probes = iter(range(1000))

    def seldom() -> Any:
        return Answer(seconds=math.inf) if next(probes) % 5 == 0 and world.elapsed > EMPTY else ask_pool(world, pool)

    world.endpoint("web", "web", seldom, at=2.0)
    watcher.follow(world.looks(EMPTY + 300))
    assert not said(watcher), watcher.sentences()


def test_server_without_a_slot_left_is_another_incident(starving: Callable[..., Looks], watcher: Any) -> None:
    looks = starving(POOLS["fifo, filled"])
    watcher.follow(replace(look, slots=Slots(max=look.used + 3, superuser_reserved=3)) for look in looks)
    assert not said(watcher)


@pytest.mark.parametrize(("room_seconds", "is_named"), [(4, False), (40, True)], ids=["just now", "for long"])
def test_probe_that_failed_while_no_slot_was_left_says_nothing_of_a_pool_once_some_are(
    starving: Callable[..., Looks], watcher: Any, room_seconds: int, *, is_named: bool
) -> None:
    looks = starving(POOLS["fifo, filled"])
    full = [replace(look, slots=Slots(max=look.used + 3, superuser_reserved=3)) for look in looks[:-room_seconds]]
    watcher.follow([*full, *looks[-room_seconds:]])
    assert bool(said(watcher)) == is_named


def test_role_at_its_own_limit_is_another_incident(starving: Callable[..., Looks], watcher: Any) -> None:
    watcher.follow(replace(look, role_limits={"app": SIZE}) for look in starving(POOLS["fifo, filled"]))
    assert not said(watcher)


def test_sessions_that_a_pooler_lends_are_told_by_its_queue(starving: Callable[..., Looks], watcher: Any) -> None:
    row = PoolerPool(database="shop", user="app", cl_waiting=0, sv_active=SIZE, maxwait_seconds=0.0)
    watcher.follow(replace(look, pools=(row,)) for look in starving(POOLS["fifo, filled"]))
    assert not said(watcher)


@pytest.mark.parametrize(
    ("rest", "facts", "is_named"),
    [
        ("idle", {}, True),
        ("idle", {"sv_idle": SIZE}, False),
        ("idle in transaction", {"sv_idle": SIZE}, True),
        ("idle in transaction", {"cl_waiting": 3}, False),
        ("idle in transaction", {"pool_mode": "transaction"}, False),
    ],
    ids=["all are lent", "as many to spare", "others to spare", "clients wait", "by transaction"],
)
def test_pool_of_an_application_behind_a_pooler_that_lends_it_whole_sessions_is_its_own(
    starving: Callable[..., Looks], watcher: Any, rest: str, facts: dict[str, Any], *, is_named: bool
) -> None:
    row = PoolerPool(database="shop", user="app", cl_waiting=0, sv_active=SIZE, sv_idle=0, pool_mode="session")
    row = replace(row, **facts)
    watcher.follow(replace(look, pools=(row,)) for look in starving(POOLS["fifo, filled"], rest=rest))
    assert (KIND in [finding.kind for finding in watcher.now if finding.subject.pool is None]) == is_named


def test_last_session_that_another_pool_of_the_service_opens_does_not_make_two_incidents_of_it(
    starving: Callable[..., Looks], watcher: Any
) -> None:
    looks = starving(POOLS["fifo, filled"])
    opened_at = looks[-30].t
    watcher.follow(looks[:-30])
    assert said(watcher)
    like = next(session for session in looks[-30].sessions if session.is_client)
    for look in looks[-30:]:
        instants = dict.fromkeys(("query_start", "state_change"), look.t)
        one = replace(like, pid=like.pid + 50_000, backend_start=opened_at - 0.5, **instants)
        watcher.look(replace(look, sessions=(*look.sessions, one)))
    assert len(watcher.raised(KIND)) == 1
    assert not list(watcher.cleared(KIND))


def test_it_ends_when_the_service_is_restarted_and_answers(world: Any, watcher: Any) -> None:
    pools = [world.pool("web@2.4.0", work=5.0, **POOLS["fifo, filled"])]
    world.endpoint("web", "web", lambda: ask_pool(world, pools[-1]), at=2.0)
    lose_all(world, pools[0])

    def restart() -> None:
        pools[0].close()
        pools.append(world.pool("web@2.3.9", work=5.0, at=world.elapsed, **POOLS["fifo, filled"]))

    world.call(EMPTY + 60, restart)
    watcher.follow(world.looks(EMPTY + 120))
    (cleared,) = watcher.cleared(KIND)
    assert cleared.t - watcher.raised(KIND)[0].t > 30
    assert not watcher.now, watcher.sentences()


def test_failed_looks_neither_raise_nor_clear_it(starving: Callable[..., Looks], watcher: Any) -> None:
    *looks, last = starving(POOLS["fifo, filled"])
    watcher.follow(looks)
    away = PollFailure(reason="not_accepting", text="shutting down")
    for second in (1, 2):
        watcher.look(Snapshot(server="db1", t=last.t + second, failure=away))
        assert KIND in [finding.kind for finding in watcher.now]


def test_an_endpoint_at_home_elsewhere_is_joined_here_and_not_said_here(
    starving: Callable[..., Looks], watcher: Any
) -> None:
    def away(probe: ProbeResult) -> ProbeResult:
        return replace(probe, is_home=False)

    watcher.follow(replace(look, probes=tuple(map(away, look.probes))) for look in starving(POOLS["fifo, filled"]))
    assert len(watcher.raised(KIND)) == 1
    world_of_failures = [
        Snapshot(
            server="db1",
            t=watcher.events[-1].t + 1000 + second,
            probes=(ProbeResult(endpoint="w", service="w", at=0.0, up=False, seconds=2.0, is_home=False),),
        )
        for second in range(20)
    ]
    watcher.follow(world_of_failures)
    assert not said(watcher, "endpoint_down")


def held(pid: int, state: str, since: float) -> Session:
    return Session(pid=pid, backend_start=1.0, state=state, state_change=since, application_name="web")


@pytest.mark.parametrize("missing", ["query_start", "usename", "application_name", "client_addr", "state_change"])
def test_rows_with_nulls_raise_no_exception(starving: Callable[..., Looks], watcher: Any, missing: str) -> None:
    for look in starving(POOLS["fifo, filled"]):
        watcher.look(
            replace(look, sessions=tuple(replace(session, **{missing: None}) for session in look.sessions), slots=None)
        )


def probe(t: float, *, up: bool = True, seconds: float = 0.02) -> ProbeResult:
    return ProbeResult(endpoint="web", service="web", at=t, up=up, seconds=seconds)


def transactions(count: int, t: float, age: float, idle: int = 0) -> tuple[Session, ...]:
    left = [held(n, "idle in transaction", t - age) for n in range(count)]
    return (*left, *(held(100 + n, "idle", 1_759_998_000.0 - n) for n in range(idle)))


@pytest.mark.parametrize(
    ("sessions", "is_named"),
    [
        pytest.param(lambda t: transactions(5, t, 6.0), True, id="all left in a transaction"),
        pytest.param(lambda t: transactions(5, t, 4.0), False, id="used a moment ago"),
        pytest.param(lambda t: transactions(5, t, 6.0, idle=5), True, id="half of them"),
        pytest.param(lambda t: transactions(5, t, 6.0, idle=6), False, id="less than half of them"),
        pytest.param(lambda t: transactions(2, t, 6.0), False, id="too few"),
    ],
)
def test_half_of_a_pool_must_be_held_while_probes_wait(
    watcher: Any, sessions: Callable[[float], tuple[Session, ...]], *, is_named: bool
) -> None:
    t = 1_760_000_000.0
    for n in range(12):
        now = t + n
        probes = (probe(now, up=False, seconds=2.0),) if n in {4, 9} else ()
        watcher.look(Snapshot(server="db1", t=now, sessions=sessions(now), probes=probes))
    assert bool(watcher.raised(KIND)) == is_named


@pytest.mark.parametrize(("bad", "is_named"), [((9,), False), ((4, 9), True), ((1, 9), True)])
def test_two_of_three_probes_must_be_bad(watcher: Any, bad: tuple[int, ...], *, is_named: bool) -> None:
    t = 1_760_000_000.0
    for n in range(12):
        now = t + n
        probes = (probe(now, up=n not in bad, seconds=2.0 if n in bad else 0.02),) if n in {1, 4, 9} else ()
        watcher.look(Snapshot(server="db1", t=now, sessions=transactions(5, now, 6.0), probes=probes))
    assert bool(watcher.raised(KIND)) == is_named


def test_probes_that_only_are_slow_warn_and_wake_somebody_once_one_fails(watcher: Any) -> None:
    t = 1_760_000_000.0
    for n in range(60):
        now = t + n
        probes = (probe(now, up=n < 40, seconds=1.5),) if n % 5 == 0 else ()
        watcher.look(Snapshot(server="db1", t=now, sessions=transactions(5, now, 6.0), probes=probes))
        if n == 39:
            assert [finding.severity for finding in said(watcher)][-1] == "warning"
    assert said(watcher)[-1].severity == "critical"
    assert len(watcher.raised(KIND)) == 1


class Bursts:
    """A pool of 15 under bursts of requests that come seldom, each of which holds its session for a while."""

    SIZE = 15
    T = 1_760_000_000.0

    def __init__(
        self, take: str, *, bursts_per_second: float, burst: float, hold: float, loses_at: float, seed: int = 2
    ) -> None:
        self.chance = Random(seed)  # noqa: S311 - no secret
        self.take, self.rate, self.burst, self.hold, self.loses_at = take, bursts_per_second, burst, hold, loses_at
        self.free_at = [-float(n) for n in range(self.SIZE)]
        """When each comes back; infinity once it is lost."""
        self.began_at = list(self.free_at)
        self.ended_at = list(self.free_at)
        """The end of its last statement: before it is given back."""
        self.next_burst = 1.0
        self.rows: dict[int, Session] = {}

    def lend(self, t: float) -> None:
        """Lend one session at an instant, if one is free."""
        free = [n for n in range(self.SIZE) if self.free_at[n] <= t]
        if not free:
            return
        newest = max(free, key=lambda n: self.free_at[n])
        chosen = {"lowest": free[0], "random": self.chance.choice(free), "newest": newest}[self.take]
        held = self.hold * self.chance.lognormvariate(0, 0.7)
        self.began_at[chosen], self.ended_at[chosen], self.free_at[chosen] = t, t + 0.6 * held, t + held

    def go_on(self, until: float) -> None:
        """Let pass what comes before an instant."""
        while self.next_burst < until:
            t = self.next_burst
            for _ in range(1 + int(self.chance.expovariate(1 / self.burst))):
                self.lend(t)
            lendable = [n for n in range(self.SIZE) if self.free_at[n] < math.inf]
            if t >= self.loses_at and lendable:
                self.loses_at = t + 4.0
                self.free_at[max(lendable, key=lambda n: self.began_at[n])] = math.inf
            self.next_burst += self.chance.expovariate(self.rate)

    def sessions(self, t: float) -> tuple[Session, ...]:
        """Show its sessions as the server does; what did not change is the same object, as a poller gives it."""
        for n, (began, ended) in enumerate(zip(self.began_at, self.ended_at, strict=True)):
            row = Session(
                pid=1 + n,
                backend_start=self.T - 7200.0,
                state="active" if ended > t else "idle",
                state_change=self.T + (began if ended > t else ended),
                query_start=self.T + began,
                application_name="web",
            )
            if self.rows.get(n) != row:
                self.rows[n] = row
        return tuple(self.rows.values())

    def looks(self, seconds: int, bad: Callable[[int], bool]) -> Iterable[Snapshot]:
        """Yield a look a second, with a probe at every fifth, which times out when it is `bad`."""
        for second in range(1, seconds + 1):
            self.go_on(float(second))
            now, is_bad = self.T + second, bad(second)
            probes = (probe(now, up=not is_bad, seconds=2.0 if is_bad else 0.02),) if second % 5 == 0 else ()
            yield Snapshot(server="db1", t=now, sessions=self.sessions(float(second)), probes=probes)

    @property
    def is_empty(self) -> bool:
        return all(free_at == math.inf for free_at in self.free_at)


@pytest.mark.parametrize(
    ("take", "rules"),
    [
        ("lowest", {"bursts_per_second": 1.0, "burst": 8.0, "hold": 0.1, "seed": 4}),
        ("lowest", {"bursts_per_second": 0.5, "burst": 6.0, "hold": 0.2, "seed": 6}),
        ("random", {"bursts_per_second": 1.0, "burst": 8.0, "hold": 0.1, "seed": 4}),
        ("newest", {"bursts_per_second": 1.0, "burst": 2.0, "hold": 1.0, "seed": 4}),
    ],
)
def test_little_traffic_leaves_sessions_alone_that_a_slow_endpoint_does_not_wait_for(
    watcher: Any, take: str, rules: dict[str, Any]
) -> None:
    pool = Bursts(take, loses_at=math.inf, **rules)
    watcher.follow(pool.looks(550, lambda second: second > 400))
    assert not said(watcher), watcher.sentences()
    assert said(watcher, "endpoint_down")


@pytest.mark.parametrize("take", ["lowest", "random", "newest"])
def test_the_same_pool_is_empty_once_it_has_lost_all_of_them(watcher: Any, take: str) -> None:
    pool = Bursts(take, bursts_per_second=2.0, burst=2.0, hold=0.2, loses_at=400.0)
    watcher.follow(pool.looks(550, lambda _: pool.is_empty))
    assert len(watcher.raised(KIND)) == 1
    assert not watcher.cleared(KIND)


def test_memory_of_endpoints_is_bounded(watcher: Any) -> None:
    for n in range(30):
        names = tuple(
            ProbeResult(endpoint=f"e{n}-{m}", service=f"s{n}-{m}", at=0.0, up=True, seconds=0.01) for m in range(100)
        )
        watcher.look(Snapshot(server="db1", t=1e9 + n, probes=names))
    judge = watcher._life._judge
    assert len(judge._starvation._endpoints) <= 1000
    assert len(judge._slowness._endpoints) <= 1000
