"""A change of view: what is judged by numbers goes on through the titles of processes, the rest holds its breath."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from batsignal.snapshot import PollFailure, Session, Slots, Snapshot

FULL = PollFailure(reason="slots_full", sqlstate="53300", text="no slot is left")

IsTitles = Callable[[float], bool]


def small(usable: int) -> Slots:
    return Slots(max=usable + 3, superuser_reserved=3)


def by_titles(
    looks: Iterable[Snapshot], is_titles: IsTitles, start: float, refusal: PollFailure | None = FULL
) -> Iterator[Snapshot]:
    """Show some looks as the titles of processes would: who was seen before keeps its name, nobody what it did."""
    seen: dict[tuple[int, float | None], Session] = {}
    for look in looks:
        if look.failure is not None or not is_titles(look.t - start):
            seen = {row.key: row for row in look.sessions}
            yield look
            continue
        rows = tuple(titled(row, seen.get(row.key)) for row in look.sessions)
        yield replace(
            look,
            sessions=rows,
            view="process_titles",
            refusal=refusal,
            counters=None,
            ping_seconds=None,
            own_sessions=0,
        )


def titled(row: Session, seen: Session | None) -> Session:
    begun = None if row.backend_start is None else row.backend_start + 0.4
    return Session(
        pid=row.pid,
        # Of who came later, the kernel tells the begin, and a little otherwise.
        backend_start=row.backend_start if seen else begun,
        state=row.state,
        datname=row.datname,
        usename=row.usename,
        application_name=seen.application_name if seen else None,
        client_addr=row.client_addr,
    )


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world(slots=small(100))


@pytest.mark.parametrize("seconds", [1, 7, 40])
def test_everyday_life_stays_dark_however_often_the_view_changes(
    world: Any, watcher: Any, start: float, seconds: int
) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    world.pool("api@7", work=30, least=2, most=20, lifetime_seconds=60)
    world.visits("cron", rate=0.5)
    watcher.follow(by_titles(world.looks(300), lambda t: t // seconds % 2 == 1, start, refusal=None))
    assert watcher.sentences() == []


def test_leak_that_is_lit_keeps_name_and_identity_through_the_titles_and_back(
    world: Any, watcher: Any, start: float
) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=60.0)
    watcher.follow(by_titles(world.looks(360), lambda t: 150 <= t < 300, start))
    (raised,) = watcher.raised("leak")
    assert raised.t - start < 150
    assert watcher.cleared("leak") == []
    for second in (160.0, 299.0, 359.0):
        found = watcher.at(second)
        assert (found.subject.application, found.key) == ("web", raised.signal.finding.key)
    assert watcher.at(359.0).sessions > watcher.at(299.0).sessions, "what came meanwhile is counted once it is seen"


def test_leak_that_begins_behind_the_titles_is_called_once_all_is_seen(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=small(400))
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=100.0)
    watcher.follow(by_titles(world.looks(330), lambda t: 60 <= t < 240, start))
    (raised,) = watcher.raised("leak")
    assert 240 <= raised.t - start <= 300
    assert raised.signal.finding.subject.application == "web"


def test_limit_that_is_reached_is_told_by_the_titles_with_the_largest_holders(
    world: Any, watcher: Any, start: float
) -> None:
    world.pool("web@2.3.9", work=1, least=60, most=60)
    for n in range(36):
        world.pool(f"job{n}", at=200.0 + n, least=1, most=1, work=1)
    watcher.follow(by_titles(world.looks(300), lambda t: t >= 150, start))
    (raised,) = watcher.raised("saturation")
    found = watcher.now[0]
    assert (found.kind, found.severity) == ("saturation", "critical")
    assert raised.t - start < 250
    assert "web" in found.evidence[0]


def test_limit_that_is_lit_stays_lit_when_the_view_changes_both_ways(world: Any, watcher: Any, start: float) -> None:
    world.pool("web@2.3.9", work=1, least=95, most=95)
    watcher.follow(by_titles(world.looks(200), lambda t: t >= 30 and t // 20 % 2 == 1, start))
    assert len(watcher.raised("saturation")) == 1
    assert watcher.cleared("saturation") == []


def test_full_server_seen_by_titles_alone_is_said_though_nobody_told_how_many_slots_there_are(
    make_world: Any, watcher: Any, start: float
) -> None:
    world = make_world(slots=None)
    world.pool("web@2.3.9", work=1, least=40, most=40)
    watcher.follow(by_titles(world.looks(30), lambda _: True, start))
    (raised,) = watcher.raised("saturation")
    assert raised.t - start <= 10
    assert raised.signal.finding.subject.limit == "server"
    assert raised.signal.finding.severity == "critical"


def visits(world: Any, *, at: float, until: float, rate: float = 40.0) -> None:
    def visit() -> Iterator[float]:
        seat = world.open("shop@2", client="10.0.0.9")
        if seat is not None:
            seat.use(world.now + 0.005, 0.4)
            yield 0.5
            world.close(seat)

    def go() -> Iterator[float]:
        while world.elapsed < until:
            yield world.chance.expovariate(rate)
            world.run(visit())

    world.run(go(), at)


def test_storm_lights_behind_the_titles(make_world: Any, watcher: Any, start: float) -> None:
    world = make_world(slots=small(400))
    world.pool("web@2.3.9", work=10, least=8)
    visits(world, at=400.0, until=1e9)
    watcher.follow(by_titles(world.looks(440), lambda t: t >= 380, start))
    (raised,) = watcher.raised("storm")
    assert raised.t - start - 400 <= 15


def test_end_of_the_titles_is_no_storm_of_all_who_came_meanwhile(make_world: Any, watcher: Any, start: float) -> None:
    world = make_world(slots=small(600))
    world.pool("web@2.3.9", work=10, least=8)
    for n in range(120):
        world.pool(f"job{n % 7}", at=400.0 + n / 60, least=1, most=1, work=1, place={"client": f"10.1.0.{n}"})
    watcher.follow(by_titles(world.looks(430), lambda t: 390 <= t < 404, start))
    assert watcher.raised("storm") == []


def test_way_in_that_is_shut_for_another_reason_is_told_whatever_the_titles_show(
    world: Any, watcher: Any, start: float
) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    silent = PollFailure(reason="timeout", text="no answer")
    for look in by_titles(world.looks(60), lambda t: t >= 30, start):
        watcher.look(replace(look, refusal=silent) if look.refusal else look)
    (raised,) = watcher.raised("database_unreachable")
    assert raised.t - start - 30 <= 6


@pytest.mark.parametrize("shown", ["by number", "as rows"])
def test_slots_that_are_held_by_who_never_logs_in_are_told_as_theirs(
    make_world: Any, watcher: Any, start: float, shown: str
) -> None:
    world = make_world(slots=small(40))
    world.pool("web@2.3.9", work=1, least=4, most=4)
    for seen in world.looks(30):
        look = seen
        if look.t - start >= 10:
            rows = tuple(Session(pid=9000 + n, backend_start=start + 10, state="starting") for n in range(36))
            given = {"authenticating": 36} if shown == "by number" else {"sessions": (*look.sessions, *rows)}
            look = replace(look, **given)
        watcher.look(look)
    (raised,) = watcher.raised("saturation")
    assert raised.t - start <= 20
    assert "sessions that have not logged in 36" in raised.signal.finding.evidence[0]


def hidden(looks: Iterable[Snapshot], is_hidden: IsTitles, start: float) -> Iterator[Snapshot]:
    """Show some looks as to a role that has lost `pg_monitor`: who is there, and not what they do."""
    for look in looks:
        if not is_hidden(look.t - start):
            yield look
            continue
        rows = tuple(
            replace(row, state=None, xact_start=None, query_start=None, state_change=None, wait_event_type=None,
                    wait_event=None, query=None, query_id=None, blocked_by=())
            for row in look.sessions
        )  # fmt: skip
        yield replace(look, sessions=rows, privileged=False)


def test_leak_that_is_lit_goes_on_while_our_privilege_is_gone_and_is_the_same_afterwards(
    world: Any, watcher: Any, start: float
) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=60.0)
    watcher.follow(hidden(world.looks(360), lambda t: 150 <= t < 300, start))
    (raised,) = watcher.raised("leak")
    assert raised.t - start < 150
    assert watcher.cleared("leak") == []
    assert watcher.raised("storm") == []


def test_saturation_is_still_counted_while_our_privilege_is_gone(make_world: Any, watcher: Any, start: float) -> None:
    world = make_world(slots=small(100))
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=1.0, at=120.0)
    watcher.follow(hidden(world.looks(260), lambda t: t >= 100, start))
    assert [one.signal.finding.kind for one in watcher.raised("saturation")] == ["saturation"]


def test_privilege_that_stays_away_ends_what_nobody_can_see_any_more(world: Any, watcher: Any, start: float) -> None:
    world.leak("web@2.4.0", every=4.0, at=20.0)
    watcher.follow(hidden(world.looks(900), lambda t: t >= 200, start))
    assert len(watcher.raised("leak")) == 1
    assert [one.t - start > 790 for one in watcher.cleared("leak")] == [True]
