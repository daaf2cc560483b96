"""The checklist of a deploy, over looks that are made up: what is bad, what is not, and what cannot be told."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from batsignal.census import take_census
from batsignal.config import APPLICATION_PATTERN
from batsignal.deploys import conduct as conduct_module
from batsignal.deploys.conduct import LINE_SECONDS, LINES_KEPT, SERVICES_MOST, STATEMENTS_MOST, Conduct
from batsignal.deploys.verify import Verification, verify
from batsignal.detect.signal import DeployRef, Finding, Signal, Subject
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, PollFailure, ProbeResult, Session, Snapshot

AT = 1_760_000_000.0
WINDOW = 60.0
DEPLOY = Deploy(service="web", version="2", at=AT, previous="1")
PATTERN = ApplicationPattern(re.compile(APPLICATION_PATTERN))


def session(pid: int, version: str | None = "2", **facts: Any) -> Session:
    name = f"web@{version}" if version else "web"
    given = {"state": "idle", "state_change": AT + WINDOW, "query_id": "1"} | facts
    return Session(pid=pid, backend_start=AT, application_name=name, **given)


def pool(size: int, version: str | None = "2", **facts: Any) -> tuple[Session, ...]:
    return tuple(session(pid, version, **facts) for pid in range(size))


def probe(t: float, *, up: bool = True, seconds: float = 0.1) -> ProbeResult:
    return ProbeResult(endpoint="web", service="web", at=t, up=up, seconds=seconds)


class World:
    """A minute of version 1 before the deploy, and what comes after it."""

    def __init__(self, before: tuple[Session, ...] = pool(5, "1"), **facts: Any) -> None:
        self.conduct = Conduct(PATTERN)
        self.t = AT - 60
        self.go_on(60, before, **facts)

    def go_on(self, seconds: float, sessions: Iterable[Session], *, probes: Any = probe, **facts: Any) -> "World":
        end = self.t + seconds
        while self.t < end:
            probed = (probes(self.t),) if probes is not None else ()
            look = Snapshot(server="db1", t=self.t, sessions=tuple(sessions), probes=probed, privileged=True)
            look = replace(look, **facts)
            self.conduct.add(look, take_census(look))
            self.t += 1
        return self

    def judged(self, deploy: Deploy = DEPLOY) -> Verification:
        return verify(deploy, self.conduct, now=self.t, window_seconds=WINDOW)

    def check(self, name: str) -> tuple[str, str]:
        (found,) = (check for check in self.judged().checks if check.name == name)
        return found.status, found.text


def signal(kind: str = "leak", *, since: float = AT + 10, severity: str = "critical", **subject: Any) -> Signal:
    who = Subject(**subject)
    found = Finding(kind=kind, key=("x",), severity=severity, subject=who, since=since, summary="it is bad")  # type: ignore[arg-type]
    return Signal(id=f"{kind}{since}", server="db1", detected=since, raised_as=who, finding=found)


def test_a_deploy_like_the_one_before_is_ok_in_every_line() -> None:
    judged = World().go_on(WINDOW, pool(5)).judged()
    assert {check.status for check in judged.checks} == {"ok"}, judged.checks
    assert (judged.verdict, judged.is_over) == ("ok", True)
    assert judged.as_json()["deploy"]["previous"] == "1"


def test_before_its_window_is_over_it_says_so() -> None:
    assert World().go_on(WINDOW - 2, pool(5)).judged().is_over is False


@pytest.mark.parametrize(
    ("lit", "status"),
    [
        (signal(application="web", version="2"), "bad"),
        (signal(application="web"), "bad"),
        (signal(application="web", severity="warning"), "bad"),
        (signal("endpoint_down", application="web", endpoint="web"), "bad"),
        (signal("saturation", limit="server"), "bad"),
        (signal("saturation", limit="server", severity="warning"), "ok"),
        (signal(application="web", version="1"), "ok"),
        (signal(application="billing"), "ok"),
        (signal(user="bob"), "ok"),
        (signal(application="web", since=AT - 10), "ok"),
    ],
)
def test_a_signal_counts_against_it_when_it_came_after_it_and_may_be_of_it(lit: Signal, status: str) -> None:
    world = World().go_on(WINDOW, pool(5))
    world.conduct.lit("db1", (lit,), world.t)
    assert world.check("signals")[0] == status
    assert world.judged().verdict == status


def test_a_signal_that_blames_the_deploy_counts_whenever_it_began_and_also_when_it_is_over() -> None:
    world = World().go_on(WINDOW, pool(5))
    before = signal(application="web", since=AT - 10)
    blamed = replace(before, finding=replace(before.finding, deploy=DeployRef(service="web", version="2", at=AT)))
    world.conduct.lit("db1", (blamed,), world.t)
    world.conduct.lit("db1", (), world.t + 1)
    assert world.check("signals") == ("bad", "leak (critical) was lit: it is bad")


def test_another_service_s_signal_is_told_and_not_held_against_it() -> None:
    world = World().go_on(WINDOW, pool(5))
    world.conduct.lit("db1", (signal(application="billing"),), world.t)
    assert world.check("signals") == ("ok", "none lit by it; of others: leak (critical) lit: it is bad")


def test_a_version_that_never_came_while_the_old_one_runs_on_is_bad_at_the_end() -> None:
    world = World().go_on(WINDOW / 2, pool(5, "1"))
    assert world.check("version")[0] == "unknown"
    assert world.go_on(WINDOW / 2, pool(5, "1")).check("version") == ("bad", "2 was not seen, 1 runs")


def test_a_service_that_names_no_version_cannot_show_it() -> None:
    world = World(pool(5, None)).go_on(WINDOW, pool(5, None))
    assert world.check("version") == ("unknown", "its sessions name no version since the deploy")
    assert world.judged().verdict == "ok"


def test_a_deploy_of_which_nothing_was_seen_neither_passes_nor_is_blamed() -> None:
    world = World((), probes=None).go_on(WINDOW, (), probes=None)
    assert world.check("version") == (
        "unknown",
        "no session whose application_name says web was seen since the deploy",
    )
    assert (world.judged().verdict, world.judged().is_over) == ("unknown", True)


def test_a_version_that_never_opened_a_session_while_the_old_one_left_has_not_passed() -> None:
    world = World(probes=None).go_on(3, pool(5, "1"), probes=None).go_on(WINDOW, (), probes=None)
    assert world.check("version") == ("unknown", "only 1 was seen since the deploy")
    assert world.judged().verdict == "unknown"


@pytest.mark.parametrize(("up", "verdict"), [(True, "ok"), (False, "bad")])
def test_a_service_without_sessions_is_judged_by_its_health(up: bool, verdict: str) -> None:
    world = World(()).go_on(WINDOW, (), probes=lambda t: probe(t, up=up))
    assert world.check("version")[0] == "unknown"
    assert world.judged().verdict == verdict


def test_a_deploy_that_was_seen_for_a_moment_was_seen() -> None:
    world = World(probes=None).go_on(3, pool(1), probes=None).go_on(WINDOW, (), probes=None)
    assert world.judged().verdict == "ok"


def test_the_old_version_beside_the_new_one_is_told() -> None:
    both = (*pool(5), session(77, "1"))
    assert World().go_on(WINDOW, both).check("version") == ("ok", "2 runs, 5 sessions now; 1 still runs")


@pytest.mark.parametrize(("now", "status"), [(12, "ok"), (13, "bad"), (5, "ok"), (0, "ok")])
def test_far_more_sessions_than_before_are_bad_once_the_window_is_over(now: int, status: str) -> None:
    world = World().go_on(WINDOW / 2, pool(now))
    assert world.check("sessions")[0] == "ok"
    assert world.go_on(WINDOW / 2, pool(now)).check("sessions") == (status, f"{now} now, at most 5 before")


def test_without_a_look_before_the_deploy_nothing_is_compared() -> None:
    world = World()
    world.conduct = Conduct(PATTERN)
    world.go_on(WINDOW, pool(30))
    assert world.check("sessions") == ("unknown", "30 now; nobody looked before the deploy")
    assert world.check("statements")[0] == "unknown"
    assert world.judged().verdict == "ok"


def test_a_rollout_that_still_goes_on_may_hold_twice_as_much() -> None:
    both = (*pool(15), *(session(100 + n, "1") for n in range(5)))
    assert World().go_on(WINDOW, both).check("sessions") == ("ok", "20 now, at most 5 before")


def fresh(size: int) -> tuple[Session, ...]:
    return tuple(replace(one, pid=500 + one.pid, backend_start=AT + WINDOW - 10) for one in pool(size))


@pytest.mark.parametrize(("idle", "opened", "status"), [(7, 1, "ok"), (8, 0, "ok"), (8, 1, "bad")])
def test_sessions_that_are_not_used_while_more_are_opened_are_bad_at_the_end(
    idle: int, opened: int, status: str
) -> None:
    held = (*pool(idle, state_change=AT + 1), *fresh(opened))
    world = World().go_on(WINDOW - 5, held)
    assert world.check("unused")[0] == "ok"
    said = f"{idle} of {idle + opened} sessions not used for 30 s or more, {opened} opened since then"
    found = world.go_on(5, held).check("unused")
    assert found == (status, said)


def test_a_pool_at_rest_that_is_as_large_as_before_is_no_leak() -> None:
    held = (*pool(20, state_change=AT + 1), *fresh(1))
    assert World(pool(20, "1")).go_on(WINDOW, held).check("unused")[0] == "ok"


@pytest.mark.parametrize(("seconds", "status"), [(29.0, "ok"), (30.0, "bad")])
def test_a_transaction_that_is_left_open_is_bad(seconds: float, status: str) -> None:
    last = AT + WINDOW - 1
    facts = {"state": "idle in transaction", "state_change": last - seconds, "xact_start": last - seconds}
    world = World().go_on(WINDOW, (*pool(4), session(9, **facts)))
    assert world.check("transactions")[0] == status


def test_a_transaction_that_works_is_none_left_open() -> None:
    facts = {"state": "active", "state_change": AT + 1, "xact_start": AT + 1}
    assert World().go_on(WINDOW, pool(5, **facts)).check("transactions")[0] == "ok"


def test_new_statements_are_counted_and_are_no_fault() -> None:
    new = (session(1), session(2, query_id="2"), session(3, query_id="3"), session(4, query_id="4"))
    assert World().go_on(WINDOW, new).check("statements") == ("ok", "3 of 4 were never seen before (75%)")


@pytest.mark.parametrize(
    ("failing", "status"),
    [(0, "ok"), (0.19, "ok"), (0.2, "bad"), (1, "bad")],
)
def test_a_health_endpoint_that_was_well_and_fails_now_is_bad_at_once(failing: float, status: str) -> None:
    def some(t: float) -> ProbeResult:
        return probe(t, up=int((t - AT + 1) * failing) == int((t - AT) * failing))

    assert World().go_on(WINDOW - 10, pool(5), probes=some).check("health")[0] == status


def test_one_that_failed_before_is_not_the_deploy_s() -> None:
    def down(t: float) -> ProbeResult:
        return probe(t, up=False)

    world = World(probes=down).go_on(WINDOW, pool(5), probes=down)
    assert world.check("health")[0] == "ok"


@pytest.mark.parametrize(("seconds", "status"), [(0.3, "ok"), (0.59, "ok"), (0.61, "bad")])
def test_one_that_became_slow_is_bad_once_the_window_is_over(seconds: float, status: str) -> None:
    def slow(t: float) -> ProbeResult:
        return probe(t, seconds=seconds)

    world = World().go_on(WINDOW / 2, pool(5), probes=slow)
    assert world.check("health")[0] == "ok"
    assert world.go_on(WINDOW / 2, pool(5), probes=slow).check("health")[0] == status


def test_without_probes_health_is_unknown() -> None:
    assert World(probes=None).go_on(WINDOW, pool(5), probes=None).check("health")[0] == "unknown"


def test_refusals_where_there_were_none_are_bad() -> None:
    assert World().go_on(5, pool(5)).go_on(1, pool(5), refused=2).go_on(9, pool(5)).check("refusals")[0] == "bad"
    assert World(refused=1).go_on(WINDOW, pool(5), refused=1).check("refusals")[0] == "ok"


def test_a_server_that_is_not_seen_leaves_the_verdict_open() -> None:
    failure = PollFailure(reason="unreachable", text="gone")
    world = World().go_on(WINDOW, (), failure=failure)
    assert world.check("server") == ("unknown", "not seen now: db1")
    assert (world.check("sessions")[0], world.check("version")[0]) == ("unknown", "unknown")
    assert world.judged().verdict == "unknown"
    blind = World().go_on(WINDOW, pool(5), privileged=False)
    assert blind.judged().verdict == "unknown"


def test_what_is_kept_is_bounded_whatever_names_come() -> None:
    conduct = Conduct(PATTERN)
    for n in range(10_000):
        name = f"web@{n}" if n % 2 else f"service{n}@1"
        one = Session(pid=n, backend_start=AT, state="idle", application_name=name, query_id=str(n))
        look = Snapshot(server="db1", t=AT + n, sessions=(one,))
        conduct.add(look, take_census(look))
        conduct.lit("db1", (signal(application="web", since=AT + n),), AT + n)
    (sight,) = conduct.of("web")
    assert sight.service is not None
    assert len(sight.service.lines) <= LINES_KEPT
    assert max(len(line.sessions) for line in sight.service.lines) <= conduct_module.VERSIONS_MOST + 1
    assert len(sight.service.versions) <= 2 * conduct_module.VERSIONS_MOST
    assert len(sight.service.statements.first) <= STATEMENTS_MOST
    assert len(conduct.signals) <= conduct_module.SIGNALS_MOST
    assert len(conduct._servers["db1"].services) <= SERVICES_MOST + LINES_KEPT * LINE_SECONDS


def test_lines_that_are_equal_share_their_counts_and_none_changes_another() -> None:
    world = World(pool(5, "1")).go_on(30, pool(7, "1")).go_on(10, (*pool(7, "1"), *pool(2, "2")))
    (sight,) = world.conduct.of("web")
    assert sight.service is not None
    told = [line.sessions for line in sight.service.lines]
    assert told == [{"1": 5}] * 12 + [{"1": 7}] * 6 + [{"1": 7, "2": 2}] * 2
    assert len({id(one) for one in told[:-1]}) == 3


def test_a_server_that_is_watched_no_more_is_forgotten() -> None:
    world = World()
    world.conduct.lit("db1", (signal(application="web"),), world.t)
    world.conduct.watch_only(["db2"])
    assert (world.conduct.of("web"), world.conduct.signals, world.conduct.versions("web")) == ((), (), ())
