import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.blame import Blame
from batsignal.detect.health import Health
from batsignal.detect.signal import DeployRef, Finding, Kind, Subject
from batsignal.detect.verdict import Judge, told
from batsignal.names import ApplicationPattern
from batsignal.record.incidents import Incidents
from batsignal.snapshot import (
    FAILURE_REASONS,
    Counters,
    Deploy,
    HostLoad,
    PollFailure,
    ProbeResult,
    Session,
    Slots,
    Snapshot,
)

ONSET = 60.0


def judged(snapshots: Iterable[Snapshot], deploys: Iterable[Deploy] = ()) -> list[Any]:
    """Return what is found at each look."""
    judge = Judge(thresholds=Thresholds(), pattern=ApplicationPattern(re.compile(APPLICATION_PATTERN)))
    return [judge.look(snapshot, deploys).findings for snapshot in snapshots]


def leaking(world: Any, application: str = "web@2.4.0") -> list[Snapshot]:
    world.leak(application, every=2.0, at=ONSET)
    return list(world.looks(110))


# -- the deploy before it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "is_named"),
    [(ONSET - 20, True), (ONSET - 23 * 3600, True), (ONSET - 25 * 3600, False), (ONSET + 4, True), (ONSET + 30, False)],
)
def test_deploy_is_named_when_it_came_in_the_day_before_the_onset(
    world: Any, start: float, at: float, is_named: bool
) -> None:
    deploy = Deploy(service="web", version="2.4.0", at=start + at, previous="2.3.9")
    ((found,),) = judged(leaking(world), [deploy])[-1:]
    assert (found.deploy is not None) == is_named
    if is_named:
        assert found.action.startswith("Roll back web to 2.3.9.")
    else:
        assert found.action.startswith("Restart or roll back web@2.4.0")


def test_newest_of_several_deploys_is_named(world: Any, start: float) -> None:
    deploys = [Deploy(service="web", version="2.4.0", at=start + at) for at in (-5000, 50, -300)]
    ((found,),) = judged(leaking(world), deploys)[-1:]
    assert found.deploy.at == start + 50
    assert found.action.startswith("Roll back web@2.4.0.")


@pytest.mark.parametrize(("service", "version"), [("billing", "2.4.0"), ("web", "2.3.9")])
def test_deploy_of_another_service_or_version_is_not_named(
    world: Any, start: float, service: str, version: str
) -> None:
    ((found,),) = judged(leaking(world), [Deploy(service=service, version=version, at=start)])[-1:]
    assert found.deploy is None


def test_deploy_that_came_after_the_onset_is_not_blamed(world: Any, watcher: Any) -> None:
    world.pool("web@2.3.9", work=5, least=4)
    world.leak("web", every=2.0, at=ONSET)
    world.pool("web@2.4.0", work=5, least=4, at=ONSET + 35)
    watcher.follow(world.looks(120))
    assert [deploy.version for deploy in watcher.deploys.known] == ["2.4.0"]
    assert watcher.at(120).deploy is None


def test_leak_of_the_old_version_and_the_new_one_was_not_brought_by_the_deploy(world: Any, watcher: Any) -> None:
    world.pool("web@2.3.9", work=5, least=4)
    world.pool("web@2.4.0", work=5, least=4, at=ONSET - 10)
    world.leak("web@2.3.9", every=4.0, at=ONSET)
    world.leak("web@2.4.0", every=4.0, at=ONSET + 2)
    watcher.follow(world.looks(130))
    assert [deploy.version for deploy in watcher.deploys.known] == ["2.4.0"]
    found = watcher.at(130)
    assert (found.subject.application, found.subject.version, found.deploy) == ("web", None, None)


def test_leak_of_the_new_version_only_names_it_and_its_deploy(world: Any, watcher: Any) -> None:
    world.pool("web@2.3.9", work=5, least=4)
    world.pool("web@2.4.0", work=5, least=4, at=ONSET - 10)
    world.leak("web@2.4.0", every=4.0, at=ONSET)
    watcher.follow(world.looks(130))
    found = watcher.at(130)
    assert (found.subject.version, found.deploy.version, found.deploy.previous) == ("2.4.0", "2.4.0", "2.3.9")
    assert found.action.startswith("Roll back web to 2.3.9. Do not restart the database")


def test_deploy_that_is_told_of_later_becomes_known_in_an_update(world: Any, watcher: Any, start: float) -> None:
    world.leak("web", every=2.0, at=ONSET)
    late = Deploy(service="web", version="2.4.0", at=start + ONSET - 20)
    for look in world.looks(130):
        watcher.look(replace(look, deploys=(late,)) if int(look.t - start) == 120 else look)
    (raised,) = watcher.raised("leak")
    assert raised.signal.finding.deploy is None
    updated = [event.signal for event in watcher.events if event.event == "updated" and event.signal.finding.deploy]
    assert updated[0].finding.deploy.version == "2.4.0"
    assert updated[0].id == raised.signal.id


def test_leak_names_the_code_that_its_sessions_last_ran(world: Any) -> None:
    coded = [
        replace(look, sessions=tuple(replace(one, code="controller=users action=show") for one in look.sessions))
        for look in leaking(world)
    ]
    ((found,),) = judged(coded)[-1:]
    assert "code path: controller=users action=show" in found.evidence


# -- the health of the database ----------------------------------------------------------------------------------------


def slowed(looks: list[Snapshot], last: int) -> list[Snapshot]:
    return [*looks[:-last], *(replace(look, ping_seconds=0.4) for look in looks[-last:])]


def test_database_that_answers_slowly_is_not_called_healthy(world: Any) -> None:
    ((found,),) = judged(slowed(leaking(world), 5))[-1:]
    assert found.database_healthy is False
    assert "Do not restart" not in found.action
    assert "ping 400 ms (usually 0.4 ms), no lock waits" in found.evidence
    assert "the database is not well: it answers slowly" in found.evidence


@pytest.mark.parametrize(("slow", "is_healthy"), [(2, True), (3, False)])
def test_one_late_answer_is_no_verdict(world: Any, slow: int, is_healthy: bool) -> None:
    ((found,),) = judged(slowed(leaking(world), slow))[-1:]
    assert found.database_healthy is is_healthy


@pytest.mark.parametrize(("waiting", "is_healthy"), [(2, True), (3, False)])
def test_lock_waits_that_nobody_is_named_for_are_not_called_healthy(world: Any, waiting: int, is_healthy: bool) -> None:
    looks = leaking(world)
    blocked = tuple(replace(session, wait_event_type="Lock") for session in looks[-1].sessions[:waiting])
    ((found,),) = judged([*looks[:-1], replace(looks[-1], sessions=blocked + looks[-1].sessions[waiting:])])[-1:]
    assert found.database_healthy is is_healthy
    assert f"ping 0.4 ms, {waiting} sessions waiting for locks" in found.evidence


def test_health_is_unknown_without_a_ping_or_an_answer(world: Any) -> None:
    looks = leaking(world)
    ((found,),) = judged([*looks[:-1], replace(looks[-1], ping_seconds=None)])[-1:]
    assert found.database_healthy is None
    failed = Snapshot(server="db1", t=looks[-1].t + 4, failure=PollFailure(reason="timeout", text="no answer"))
    found = judged([*looks, failed])[-1][0]
    assert found.database_healthy is None
    assert "Do not restart" not in found.action


WELL, ILL = Health(healthy=True, evidence=("ping 0.4 ms, no lock waits",)), Health(healthy=False)


def bare(kind: Kind, **facts: Any) -> Finding:
    return Finding(kind=kind, key=("x",), severity="critical", subject=Subject(application="web"), since=0.0, **facts)


def test_action_undoes_the_deploy_first_then_says_what_else_and_what_not() -> None:
    deploy = DeployRef(service="web", version="2.4.0", at=0.0, previous="2.3.9")
    leak = bare("leak", undo="Restart web.")
    assert told(leak, WELL, Blame(deploy=deploy)).action == (
        "Roll back web to 2.3.9. Do not restart the database: it is healthy."
    )
    assert told(leak, WELL, Blame()).action == "Restart web. Do not restart the database: it is healthy."
    pileup = bare("query_pileup", action="Cancel the statement.")
    assert told(pileup, Health(), Blame(deploy=deploy)).action == "Roll back web to 2.3.9. Cancel the statement."


def test_lock_queue_in_a_healthy_database_says_what_its_sessions_wait_for() -> None:
    assert told(bare("lock_pileup"), WELL, Blame()).action == (
        "Do not restart the database: it is healthy. Its sessions wait for one another."
    )


def test_pileup_that_takes_the_processor_says_that_a_restart_is_no_cure() -> None:
    assert told(bare("query_pileup"), ILL, Blame()).action.startswith("A restart of the database is no cure")
    assert told(bare("query_pileup"), Health(), Blame()).action == ""
    assert told(bare("saturation"), ILL, Blame()).action == ""


def test_exhaustion_of_the_server_is_that_of_its_nearest_cause(world: Any, pattern: ApplicationPattern) -> None:
    judge = Judge(thresholds=Thresholds(), pattern=pattern)
    for snapshot in leaking(world):
        verdict = judge.look(snapshot, ())
    assert verdict.exhaustion_seconds == pytest.approx(verdict.findings[0].exhaustion_seconds, rel=0.5)
    failed = Snapshot(server="db1", t=snapshot.t + 1, failure=PollFailure(reason="timeout", text="no answer"))
    assert judge.look(failed, ()).exhaustion_seconds is None


# -- causes before symptoms --------------------------------------------------------------------------------------------


def test_saturation_that_lit_first_is_superseded_by_the_leak_behind_it(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=Slots(max=100, superuser_reserved=3))
    world.pool("billing", least=60, most=60, place={"user": "billing"})
    world.leak("web@2.4.0", every=0.5, at=ONSET)
    watcher.follow(world.looks(120))
    (saturation,), (leak,) = watcher.raised("saturation"), watcher.raised("leak")
    assert saturation.t < leak.t
    (cleared,) = watcher.cleared("saturation")
    assert (cleared.t, cleared.reason, cleared.by) == (leak.t, "superseded", leak.signal.id)
    assert cleared.t - saturation.t <= 60
    assert [signal.finding.kind for signal in watcher.incidents.signals] == ["leak"]


def test_leak_of_a_role_does_not_silence_the_limit_of_another_role(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=Slots(max=503, superuser_reserved=3))
    world.role_limits = {"app": 60, "batch": 10}
    world.leak("web", every=2.0, at=ONSET)
    world.pool("nightly", least=10, place={"user": "batch"})
    watcher.follow(world.looks(110))
    lit = {(found.kind, found.subject.limit) for found in watcher.now}
    assert lit == {("leak", "role:app"), ("saturation", "role:batch")}


def test_leak_that_can_wait_does_not_silence_a_saturation_that_cannot(make_world: Any, watcher: Any) -> None:
    world = make_world(slots=Slots(max=103, superuser_reserved=3))
    world.pool("web", least=60, most=60)
    world.leak("billing", every=280.0, at=ONSET, user="billing", jitter=0)
    for n in range(20):
        world.pool("shop", least=1, at=2550 + n, place={"client": f"10.0.0.{n}", "user": "shop"})
    watcher.follow(world.looks(2545, 5.0))
    assert [(found.kind, found.severity) for found in watcher.now] == [("leak", "warning")]
    watcher.follow(world.looks(55))
    assert {(found.kind, found.severity) for found in watcher.now} == {("leak", "warning"), ("saturation", "critical")}


# -- what must not matter ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looks() -> dict[str, list[Snapshot]]:
    return {}


def facts(findings: Iterable[Any], shift: float = 0.0) -> list[Any]:
    """Return what a verdict comes to, less names and identities."""
    return [
        (found.kind, found.severity, found.sessions, found.database_healthy, round(found.since - shift, 2))
        for found in findings
    ]


def moved(session: Session, seconds: float, pids: int, service: str) -> Session:
    def later(instant: float | None) -> float | None:
        return None if instant is None else instant + seconds

    return replace(
        session,
        pid=session.pid + pids,
        backend_start=later(session.backend_start),
        state_change=later(session.state_change),
        query_start=later(session.query_start),
        xact_start=later(session.xact_start),
        application_name=f"{service}@2.4.0",
    )


NAMES = st.text(st.characters(exclude_characters="@", exclude_categories=["C", "Z"]), min_size=3, max_size=40).map(
    lambda name: f"s-{name}"
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seconds=st.integers(-(10**9), 10**9), pids=st.integers(-900, 10**6), service=NAMES)
def test_time_pids_and_names_change_nothing_of_the_verdict(
    make_world: Any, looks: dict[str, list[Snapshot]], seconds: int, pids: int, service: str
) -> None:
    if not looks:
        looks["plain"] = leaking(make_world())
    plain = looks["plain"]
    other = [
        replace(
            snapshot,
            t=snapshot.t + seconds,
            sessions=tuple(moved(session, seconds, pids, service) for session in snapshot.sessions),
        )
        for snapshot in plain
    ]
    assert [facts(found, seconds) for found in judged(other)] == [facts(found) for found in judged(plain)]
    assert judged(other)[-1][0].subject.application == service


# -- nothing raises ----------------------------------------------------------------------------------------------------

INSTANTS = st.none() | st.floats(0, 4e9)
TEXTS = st.none() | st.text(max_size=63)
STATES = st.sampled_from([None, "idle", "active", "idle in transaction", "disabled", "starting", ""]) | TEXTS
SESSIONS = st.builds(
    Session,
    pid=st.integers(1, 40),
    backend_start=INSTANTS,
    state=STATES,
    datname=TEXTS,
    usename=TEXTS,
    application_name=TEXTS,
    client_addr=TEXTS,
    xact_start=INSTANTS,
    query_start=INSTANTS,
    state_change=INSTANTS,
    wait_event_type=st.sampled_from([None, "Lock", "Client"]) | TEXTS,
    wait_event=st.sampled_from([None, "ClientRead"]) | TEXTS,
    query_id=TEXTS,
    query=TEXTS,
    backend_type=st.sampled_from(["client backend", None, "walsender"]),
)
FAILURES = st.builds(PollFailure, reason=st.sampled_from(FAILURE_REASONS), text=st.text(max_size=40))
PROBES = st.builds(
    ProbeResult,
    endpoint=st.sampled_from(["web", "api", ""]),
    service=st.text(max_size=10),
    at=st.floats(0, 4e9),
    up=st.booleans(),
    seconds=st.floats(0, 100),
    status=st.none() | st.integers(100, 599),
)
DEPLOYS = st.builds(
    Deploy,
    service=st.sampled_from(["web", ""]) | st.text(max_size=80),
    version=st.text(min_size=1, max_size=80),
    at=st.floats(0, 4e9),
    previous=TEXTS,
)
COUNTERS = st.builds(
    Counters, sessions=st.none() | st.integers(0, 2**62), xact_commit=st.none() | st.integers(0, 2**62)
)
HOSTS = st.builds(
    HostLoad,
    cpu_ratio=st.floats(-1, 9),
    memory_used_ratio=st.floats(-1, 9),
    load1=st.floats(0, 1e6),
    cpu_count=st.integers(-1, 999),
)
LIMITS = st.dictionaries(st.text(max_size=5), st.integers(-1, 5), max_size=3)
SNAPSHOTS = st.builds(
    Snapshot,
    server=st.just("db1"),
    t=st.floats(0, 4e9),
    sessions=st.lists(SESSIONS, max_size=12).map(tuple),
    own_sessions=st.integers(0, 2),
    slots=st.none() | st.builds(Slots, max=st.integers(0, 20), superuser_reserved=st.integers(0, 5)),
    role_limits=LIMITS,
    database_limits=LIMITS,
    ping_seconds=st.none() | st.floats(0, 1e4),
    failure=st.none() | FAILURES,
    probes=st.lists(PROBES, max_size=2).map(tuple),
    deploys=st.lists(DEPLOYS, max_size=3).map(tuple),
    counters=st.none() | COUNTERS,
    host=st.none() | HOSTS,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(snapshots=st.lists(SNAPSHOTS, max_size=6), steps=st.lists(st.floats(-4000, 4000), max_size=12))
def test_no_look_whatever_it_shows_raises(
    pattern: ApplicationPattern, snapshots: list[Snapshot], steps: list[float]
) -> None:
    judge = Judge(thresholds=Thresholds(), pattern=pattern)
    incidents = Incidents("db1")
    t = 1e9
    for n, step in enumerate([0.0, *steps]):
        t += step
        for snapshot in snapshots[n : n + 1] or [Snapshot(server="db1", t=t)]:
            verdict = judge.look(replace(snapshot, t=t) if n % 2 else snapshot, snapshot.deploys)
            for event in incidents.fold(t, verdict.findings, verdict.superseded):
                assert event.as_json()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_broken_column_in_the_middle_of_a_leak_raises(
    make_world: Any, looks: dict[str, list[Snapshot]], data: st.DataObject
) -> None:
    if not looks:
        looks["plain"] = leaking(make_world())
    hostile = data.draw(st.lists(SESSIONS, min_size=1, max_size=6))
    step = data.draw(st.floats(-100, 100))
    mixed = [
        replace(snapshot, t=snapshot.t + (step if n > 90 else 0), sessions=(*snapshot.sessions, *hostile[: n % 7]))
        for n, snapshot in enumerate(looks["plain"])
    ]
    assert len(judged(mixed)) == len(mixed)


@pytest.mark.parametrize("names", [("web",), ("web", "api", "shop", "cart", "mail")])
def test_whose_health_endpoint_suffers_from_a_cause_is_among_its_evidence(
    make_world: Any, watcher: Any, names: tuple[str, ...]
) -> None:
    world = make_world(slots=Slots(max=203, superuser_reserved=3))
    world.leak("web@2.4.0", every=1.0, at=60.0)
    for n, look in enumerate(world.looks(140)):
        probes = [
            ProbeResult(
                endpoint=name, service="web", at=look.t, up=n < 100, seconds=0.01, status=200 if n < 100 else 503
            )
            for name in names
        ]
        watcher.look(replace(look, probes=tuple(probes) if n % 5 == 0 else ()))
    assert not watcher.raised("endpoint_down")
    said = [line for line in watcher.at(140).evidence if line.startswith("the health endpoint ")]
    assert said[0] == f"the health endpoint {min(names)} of web fails: HTTP 503"
    assert len(said) == min(len(names), 3)
    assert ("so do 2 more" in watcher.at(140).evidence) == (len(names) == 5)
