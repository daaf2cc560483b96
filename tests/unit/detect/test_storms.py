"""Storms: who is named, how soon, how bad; and what opens sessions every day and stays dark."""

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from batsignal.snapshot import Counters, PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0
ONSET = 320.0
BOUND = 10.0
MANY = Slots(max=500, superuser_reserved=3)

LookOn = Callable[..., list[Any]]


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world(slots=MANY)


def visits(
    world: Any,
    application: str | None,
    *,
    rate: float,
    at: float = 0.0,
    until: float = 1e9,
    hold: float = 0.03,
    clients: Iterable[str] = ("10.0.0.4", "10.0.0.5"),
    **place: Any,
) -> None:
    """Open a session for each request, from `at` on, and close it after it; who is refused gives up."""
    hosts = list(clients)

    def visit() -> Iterator[float]:
        seat = world.open(application, client=world.chance.choice(hosts), **place)
        if seat is not None:
            busy = world.chance.expovariate(1 / hold)
            seat.use(world.now + 0.005, busy)
            yield busy + 0.01
            world.close(seat)

    def go() -> Iterator[float]:
        while world.elapsed < until:
            yield world.chance.expovariate(rate)
            world.run(visit())

    world.run(go(), at)


def pooled_until(world: Any, at: float, application: str = "web@1") -> None:
    pool = world.pool(application, least=4, most=8, work=5)
    world.call(at, pool.close)


def without_counter(looks: Iterable[Snapshot]) -> Iterator[Snapshot]:
    for look in looks:
        yield replace(look, counters=None, refused=None)


def storms(watcher: Any) -> list[Any]:
    return list(watcher.raised("storm"))


def raised_after(event: Any, onset: float = ONSET) -> float:
    return float(event.t - T - onset)


# -- named -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", [0.02, 0.3, 2.0])
@pytest.mark.parametrize("rate", [25, 80])
def test_application_that_stops_pooling_is_named_within_the_bound(
    world: Any, look_on: LookOn, hold: float, rate: float
) -> None:
    pooled_until(world, ONSET)
    visits(world, "web@2", rate=rate, at=ONSET, hold=hold)
    world.pool("billing", least=4, most=8, work=3, place={"client": "10.9.0.1"})
    (watcher,) = look_on(world, ONSET + 100)
    (event,) = storms(watcher)
    assert 0 <= raised_after(event) <= BOUND
    found = event.signal.finding
    assert (found.subject.application, found.subject.version) == ("web", "2")
    assert found.subject.client is None
    assert found.severity == "warning"
    assert abs(found.since - T - ONSET) < 2
    assert watcher.at(ONSET + 100, "storm").severity == "critical"
    assert not watcher.cleared("storm")


def test_storm_is_named_where_no_counter_tells_what_was_missed(world: Any, make_watcher: Any) -> None:
    pooled_until(world, ONSET)
    visits(world, "web@2", rate=60, at=ONSET, hold=0.03)
    watcher = make_watcher().follow(without_counter(world.looks(ONSET + 60)))
    (event,) = storms(watcher)
    assert raised_after(event) <= BOUND
    assert event.signal.finding.subject.application == "web"


def test_critical_after_a_minute_and_over_soon_after_it_ends(world: Any, look_on: LookOn) -> None:
    visits(world, "web@2", rate=40, at=ONSET, until=ONSET + 90)
    (watcher,) = look_on(world, ONSET + 160)
    assert watcher.at(ONSET + 57, "storm").severity == "warning"
    assert watcher.at(ONSET + 63, "storm").severity == "critical"
    (cleared,) = watcher.cleared("storm")
    assert 15 <= raised_after(cleared, ONSET + 90) <= 40
    assert len(storms(watcher)) == 1


def test_storm_that_takes_the_slots_is_critical_at_once_and_explains_the_full_server(
    make_world: Any, look_on: LookOn
) -> None:
    world = make_world()
    pooled_until(world, ONSET)
    visits(world, "web@2", rate=60, at=ONSET, hold=3.0)
    (watcher,) = look_on(world, ONSET + 60)
    (event,) = storms(watcher)
    assert raised_after(event) <= BOUND
    assert watcher.at(ONSET + 12, "storm").severity == "critical"
    assert not [finding for _, finding in watcher.said if finding.kind == "saturation" and finding in watcher.now]
    assert all(one.reason == "superseded" for one in watcher.cleared("saturation"))


def test_refusals_make_it_critical(make_world: Any, look_on: LookOn) -> None:
    world = make_world()
    world.role_limits, world.tells_refusals = {"web": 30}, True
    pooled_until(world, ONSET)
    visits(world, "web@2", rate=120, at=ONSET, hold=0.5, user="web")
    (watcher,) = look_on(world, ONSET + 30)
    assert watcher.at(ONSET + 20, "storm").severity == "critical"
    assert any("were refused" in line for line in watcher.at(ONSET + 20, "storm").evidence)


def hang(world: Any, *, tries: int, idle: tuple[float, float] | None = None) -> None:
    """An application without a pool, as busy as ever, whose requests hold their sessions for seconds from ONSET on.

    The server works for them; or they do nothing for so many seconds, and wait for somebody else.
    """
    world.tells_refusals = True
    pool = world.pool("billing@1", least=4, most=8, work=5)
    assert pool is not None

    def request() -> Iterator[float]:
        for _ in range(tries):
            seat = world.open("booking@3", client="10.0.0.4", user="booking")
            if seat is not None:
                is_slow = idle is None and world.elapsed > ONSET
                busy = world.chance.uniform(2.5, 4.5) if is_slow else 0.02
                seat.use(world.now + 0.005, busy)
                yield busy + 0.01
                if idle is not None and world.elapsed > ONSET:
                    yield world.chance.uniform(*idle)
                world.close(seat)
                return
            yield world.chance.uniform(0.05, 0.2)

    def requests() -> Iterator[float]:
        while True:
            yield world.chance.expovariate(25)
            world.run(request())

    world.run(requests(), 0.0)


def test_refusals_that_are_tried_again_and_again_are_a_storm_though_no_more_get_in_than_ever(
    make_world: Any, look_on: LookOn
) -> None:
    world = make_world(slots=Slots(max=53, superuser_reserved=3))
    hang(world, tries=50)
    (watcher,) = look_on(world, ONSET + 40)
    (event,) = storms(watcher)
    assert raised_after(event) <= 20.0  # it takes seconds until the slots are gone
    assert event.signal.finding.severity == "critical"
    assert event.signal.finding.subject.application == "booking"


@pytest.mark.parametrize("idle", [(8.0, 12.0), (14.0, 19.0)])
def test_refusals_that_are_tried_again_are_a_storm_though_what_got_in_is_held_and_no_leak(
    make_world: Any, look_on: LookOn, idle: tuple[float, float]
) -> None:
    world = make_world(slots=Slots(max=150, superuser_reserved=3))
    hang(world, tries=50, idle=idle)
    (watcher,) = look_on(world, ONSET + 90)
    (event,) = storms(watcher)
    assert raised_after(event) <= 25.0  # it takes seconds until the slots are gone
    finding = event.signal.finding
    assert (finding.severity, finding.subject.application, finding.subject.version) == ("critical", "booking", "3")
    assert "booking@3 holds what it used to close within moments, is refused " in finding.summary
    assert "Find what booking@3 waits for" in finding.action
    assert not watcher.raised("leak"), watcher.sentences()


def test_refusals_that_nobody_tries_again_are_a_full_server_and_no_storm(make_world: Any, look_on: LookOn) -> None:
    world = make_world(slots=Slots(max=53, superuser_reserved=3))
    hang(world, tries=1)
    (watcher,) = look_on(world, ONSET + 40)
    assert not storms(watcher)
    assert watcher.raised("saturation")


def test_storm_of_an_unnamed_application_names_user_and_client(world: Any, look_on: LookOn) -> None:
    visits(world, None, rate=40, at=ONSET, clients=["10.0.0.7"], user="php")
    (watcher,) = look_on(world, ONSET + 20)
    (event,) = storms(watcher)
    subject = event.signal.finding.subject
    assert (subject.application, subject.user, subject.client) == (None, "php", "10.0.0.7")


def test_everybody_at_once_is_one_signal_that_names_nobody(world: Any, look_on: LookOn) -> None:
    names = ("accounts", "basket", "mail", "prices")
    for name in names:
        world.pool(f"{name}@1", least=3, most=6, work=3)
    world.restart(ONSET - 5, 5)
    for name in names:
        visits(world, f"{name}@1", rate=15, at=ONSET, hold=0.3)
    (watcher,) = look_on(world, ONSET + 100)
    (event,) = storms(watcher)
    assert raised_after(event) <= BOUND
    assert event.signal.finding.subject.application is None
    assert event.signal.finding.severity == "warning"
    found = watcher.at(ONSET + 100, "storm")
    assert found.severity == "critical"
    assert any("just come back" in line for line in found.evidence)
    assert any("accounts" in line for line in found.evidence)


def test_two_storms_at_different_times_are_two_signals(world: Any, look_on: LookOn) -> None:
    visits(world, "web@2", rate=40, at=ONSET)
    visits(world, "mail@7", rate=40, at=ONSET + 50, clients=["10.7.0.1"])
    (watcher,) = look_on(world, ONSET + 80)
    assert [event.signal.finding.subject.application for event in storms(watcher)] == ["web", "mail"]


def test_far_more_than_an_application_without_a_pool_usually_opens_is_a_storm(world: Any, look_on: LookOn) -> None:
    visits(world, "php@1", rate=6)
    visits(world, "php@1", rate=60, at=ONSET)
    (watcher,) = look_on(world, ONSET + 30)
    (event,) = storms(watcher)
    assert raised_after(event) <= BOUND
    (usually,) = re.findall(r"usually ([\d.]+) sessions/s", event.signal.finding.summary)
    assert 4 <= float(usually) <= 8


# -- the hosts ---------------------------------------------------------------------------------------------------------


def test_same_hosts_as_ever_are_said_to_be_those(world: Any, look_on: LookOn) -> None:
    for client in ("10.0.0.4", "10.0.0.5"):
        world.pool("web@1", least=2, most=4, work=2, place={"client": client})
    visits(world, "web@1", rate=40, at=ONSET)
    (watcher,) = look_on(world, ONSET + 20)
    assert any("2 client hosts: the clients are the same hosts as ever" in line for line in evidence(watcher))


def test_many_new_hosts_are_maybe_an_attack(world: Any, look_on: LookOn) -> None:
    world.pool("web@1", least=2, most=4, work=2)
    visits(world, "web@1", rate=80, at=ONSET, hold=0.3, clients=[f"203.0.113.{n}" for n in range(40)])
    (watcher,) = look_on(world, ONSET + 20)
    assert any("never seen before: maybe an attack" in line for line in evidence(watcher))
    assert "firewall" in watcher.at(ONSET + 20, "storm").action


def test_new_hosts_of_a_deploy_are_its_pods_and_no_attack(world: Any, look_on: LookOn) -> None:
    pooled_until(world, ONSET)
    visits(world, "web@2", rate=80, at=ONSET, hold=0.3, clients=[f"203.0.113.{n}" for n in range(40)])
    (watcher,) = look_on(world, ONSET + 20)
    found = watcher.at(ONSET + 20, "storm")
    assert found.deploy.version == "2"
    assert any("never seen before: a deploy's new pods have new addresses" in line for line in found.evidence)
    assert found.action.startswith("Roll back web to 1.")
    assert "firewall" not in found.action


def evidence(watcher: Any) -> tuple[str, ...]:
    return tuple(watcher.at(ONSET + 20, "storm").evidence)


# -- everyday life -----------------------------------------------------------------------------------------------------


def batch(world: Any, at: float, sessions: int, *, within: float, lasts: float) -> None:
    def worker() -> Iterator[float]:
        seat = world.open("import@1", client="10.4.0.1")
        if seat is not None:
            seat.use(world.now + 0.01, lasts * 0.9)
            yield lasts * world.chance.uniform(0.5, 1.0)
            world.close(seat)

    for n in range(sessions):
        world.run(worker(), at + within * n / sessions)


@pytest.mark.parametrize("within", [0.3, 6.0, 20.0])
@pytest.mark.parametrize("lasts", [0.5, 4.0, 60.0])
def test_batch_of_thirty_is_dark_even_the_first_one(world: Any, look_on: LookOn, within: float, lasts: float) -> None:
    for n in range(3):
        batch(world, 330 + 300 * n, 30, within=within, lasts=lasts)
    for watcher in look_on(world, 1000, starts=(0.0, 335.0)):
        assert not storms(watcher), watcher.sentences()


def test_application_that_never_pools_is_dark_and_so_is_its_traffic_that_doubles(world: Any, look_on: LookOn) -> None:
    visits(world, "php@1", rate=30, hold=0.02)
    visits(world, "php@1", rate=35, at=700, hold=0.02)
    for watcher in look_on(world, 900, starts=(0.0, 500.0)):
        assert not watcher.events, watcher.sentences()


def test_new_version_of_an_application_that_never_pools_has_the_habits_of_the_old(world: Any, look_on: LookOn) -> None:
    visits(world, "php@1", rate=30, until=500)
    visits(world, "php@2", rate=30, at=500)
    (watcher,) = look_on(world, 600)
    assert not watcher.events, watcher.sentences()


def test_application_that_never_pools_is_dark_where_no_counter_tells_what_was_missed(
    world: Any, make_watcher: Any
) -> None:
    visits(world, "php@1", rate=30, hold=0.02)
    visits(world, "cron@1", rate=0.3, hold=0.02)
    watcher = make_watcher().follow(without_counter(world.looks(1800)))
    assert not watcher.events, watcher.sentences()


def test_restart_after_which_everybody_comes_back_and_stays_is_no_storm(world: Any, look_on: LookOn) -> None:
    for n in range(12):
        world.pool("web@1", least=10, most=20, work=5, place={"client": f"10.0.1.{n}"})
    world.restart(400, 10)
    (watcher,) = look_on(world, 600)
    assert not storms(watcher), watcher.sentences()


def test_storm_in_the_first_minutes_of_a_daemon_is_none_for_nobody_knows_what_is_usual(
    world: Any, look_on: LookOn
) -> None:
    visits(world, "php@1", rate=40, at=100)
    (watcher,) = look_on(world, 600)
    assert not storms(watcher), watcher.sentences()


def test_storm_that_takes_the_slots_needs_no_baseline(make_world: Any, look_on: LookOn) -> None:
    world = make_world()
    world.pool("web@1", least=4, most=8, work=5)
    visits(world, "jobs@2", rate=80, at=30, hold=3.0)
    (watcher,) = look_on(world, 60)
    (event,) = storms(watcher)
    assert raised_after(event, 30) <= BOUND
    assert event.signal.finding.severity == "critical"


# -- gaps, clocks, memory ----------------------------------------------------------------------------------------------


def test_failed_look_holds_what_was_said_and_a_gap_clears_nothing(world: Any, make_watcher: Any) -> None:
    visits(world, "web@2", rate=40, at=ONSET)
    watcher = make_watcher().follow(world.looks(ONSET + 20))
    failure = PollFailure(reason="timeout", text="no answer")
    for n in range(5):
        watcher.look(Snapshot(server="db1", t=T + ONSET + 20 + n, failure=failure))
    assert "storm" in [found.kind for found in watcher.now]
    for _ in world.looks(200, interval=200):
        pass
    watcher.follow(world.looks(30))
    assert not watcher.cleared("storm")
    assert len(storms(watcher)) == 1


def test_clock_that_steps_back_raises_and_breaks_nothing(world: Any, make_watcher: Any) -> None:
    visits(world, "web@2", rate=40, at=ONSET)
    watcher = make_watcher().follow(world.looks(ONSET + 20))
    for look in world.looks(40):
        sessions = tuple(
            replace(one, backend_start=None if one.backend_start is None else one.backend_start - 3600)
            for one in look.sessions
        )
        watcher.look(replace(look, t=look.t - 3600, sessions=sessions))
    assert len(storms(watcher)) == 1
    assert not watcher.cleared("storm")


def test_what_is_usual_outlives_a_restart_of_the_daemon(world: Any, make_judge: Callable[[], Any]) -> None:
    visits(world, "php@1", rate=30)
    visits(world, "web@2", rate=40, at=400)
    first, second, forgetful = make_judge(), make_judge(), make_judge()
    said: dict[str, set[str | None]] = {"second": set(), "forgetful": set()}
    for look in world.looks(440):
        if look.t - T < 390:
            first.look(look, ())
            continue
        if not said["second"] and look.t - T < 391:
            assert second.recall(json.loads(json.dumps(first.remembered()))) == ()
        for name, judge in (("second", second), ("forgetful", forgetful)):
            said[name] |= {one.subject.application for one in judge.look(look, ()).findings if one.kind == "storm"}
    assert said == {"second": {"web"}, "forgetful": set()}


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"watched_seconds": -1, "habits": [], "hosts": []},
        {"watched_seconds": 400, "habits": [{"group": ["user", "php"], "busiest": 1.0}], "hosts": []},
        {"watched_seconds": 400, "habits": [], "hosts": [[["service", 1], []]]},
        {"watched_seconds": "long", "habits": None, "hosts": None},
    ],
)
def test_memory_that_does_not_fit_is_told_and_stays_unused(make_judge: Callable[[], Any], memory: Any) -> None:
    judge = make_judge()
    assert judge.recall({"storms": memory}) == ("storms",)
    assert judge.remembered()["storms"]["watched_seconds"] == 0


def test_memory_is_bounded_at_ten_thousand_names(make_judge: Callable[[], Any]) -> None:
    judge = make_judge()
    sessions: tuple[Session, ...] = ()
    for n in range(110):
        t = T + n
        sessions = tuple(
            Session(
                pid=100 * n + m + 1,
                backend_start=t - 0.01,
                state="idle",
                application_name=f"name-{100 * n + m}",
                usename="app",
                client_addr=f"10.1.{n}.{m}",
                state_change=t,
            )
            for m in range(100)
        )
        judge.look(Snapshot(server="db1", t=t, sessions=sessions, counters=Counters(sessions=100 * n)), ())
    memory = judge.remembered()["storms"]
    assert len(memory["habits"]) <= 500
    assert len(memory["hosts"]) <= 500
    assert all(len(hosts) <= 500 for _, hosts in memory["hosts"])
    detector = judge._storms
    assert len(detector._churn) <= 2000


def test_random_rows_never_raise(make_judge: Callable[[], Any]) -> None:
    chance = random.Random(4)  # noqa: S311 - the same every time
    judge = make_judge()
    t = T
    for _ in range(300):
        t += chance.choice((1.0, 1.0, 1.0, 0.0, 30.0, -100.0))
        sessions = tuple(
            Session(
                pid=pid,
                backend_start=chance.choice((None, t - chance.random() * 20)),
                state=chance.choice((None, "idle", "active", "starting")),
                application_name=chance.choice((None, "web@1", "psql")),
                usename=chance.choice((None, "app")),
                client_addr=chance.choice((None, "10.0.0.1")),
            )
            for pid in chance.sample(range(60), chance.randint(0, 50))
        )
        counters = chance.choice((None, Counters(), Counters(sessions=chance.randint(0, 10_000))))
        slots = chance.choice((None, Slots(max=40, superuser_reserved=3), Slots(max=3, superuser_reserved=3)))
        judge.look(
            Snapshot(
                server="db1",
                t=t,
                sessions=sessions,
                counters=counters,
                slots=slots,
                refused=chance.choice((None, 0, 50)),
            ),
            (),
        )
