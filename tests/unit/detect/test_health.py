import re
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN
from batsignal.detect.health import HealthWatch
from batsignal.detect.signal import Finding, Kind, Subject
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Counters, HostLoad, PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0


class Looks:
    """A watch that is shown one look a second."""

    def __init__(self) -> None:
        self.watch = HealthWatch()
        self.window = Window(ApplicationPattern(re.compile(APPLICATION_PATTERN)))
        self.latest = Snapshot(server="db1", t=T)
        self.t = T
        self.committed = 0

    def look(self, seconds: int = 1, *, calm: bool = True, commits: int | None = 100, **facts: Any) -> "Looks":
        for _ in range(seconds):
            self.t += 1
            self.committed += commits or 0
            counters = None if commits is None else Counters(xact_commit=self.committed)
            self.latest = Snapshot(server="db1", t=self.t, **{"ping_seconds": 0.0004, "counters": counters} | facts)
            self.window.add(self.latest)
            self.watch.learn(self.window, calm=calm)
        return self

    def said(self, kind: Kind = "leak", *, locks_explained: bool = False) -> Any:
        finding = Finding(kind=kind, key=("x",), severity="critical", subject=Subject(), since=T)
        checkup = self.watch.check_up(self.window, self.latest)
        return None if checkup is None else checkup.of(finding, locks_explained=locks_explained)


@pytest.fixture
def looks() -> Looks:
    return Looks()


def at_work(t: float, wait: str | None, *, count: int = 6, seconds: float = 10.0, statements: int = 6) -> Any:
    return tuple(
        Session(
            pid=n,
            backend_start=T,
            state="active",
            query_start=t - seconds,
            wait_event_type=wait,
            query_id=str(n % statements),
        )
        for n in range(count)
    )


def test_quick_answers_and_commits_that_go_on_are_healthy(looks: Looks) -> None:
    health = looks.look(400).said()
    assert health.healthy is True
    assert health.evidence == ("ping 0.4 ms, no lock waits", "commits go on: 100/s (usually 100/s)")


def test_nothing_is_known_without_a_timed_answer_and_a_usual_flow_of_commits(looks: Looks) -> None:
    health = looks.look(10, ping_seconds=None).said()
    assert (health.healthy, health.evidence) == (None, ())
    assert looks.look(10, commits=None, ping_seconds=None).said().healthy is None


@pytest.mark.parametrize(("commits", "healthy"), [(20, True), (15, None)])
def test_commits_as_ever_stand_in_for_a_ping_that_nobody_timed(
    looks: Looks, commits: int, healthy: bool | None
) -> None:
    looks.look(400, ping_seconds=None)
    health = looks.look(60, commits=commits, ping_seconds=None).said()
    assert health.healthy is healthy
    assert health.evidence == (("no lock waits", "commits go on: 20/s (usually 100/s)") if healthy else ())


@pytest.mark.parametrize(("commits", "healthy"), [(55, True), (45, None)])
def test_commits_that_had_stopped_show_life_again_at_half_the_usual(
    looks: Looks, commits: int, healthy: bool | None
) -> None:
    looks.look(400, ping_seconds=None).look(60, commits=1, calm=False, ping_seconds=None)
    assert looks.look(60, commits=commits, calm=False, ping_seconds=None).said().healthy is healthy


@pytest.mark.parametrize(("failed", "healthy"), [(3, True), (4, None)])
def test_what_was_known_holds_through_a_few_failed_looks(looks: Looks, failed: int, healthy: bool | None) -> None:
    looks.look(10).said()
    looks.look(failed, failure=PollFailure(reason="timeout", text="no answer"))
    health = looks.said()
    assert (None if health is None else health.healthy) is healthy


def test_way_in_that_fails_from_the_first_look_says_nothing_of_health(looks: Looks) -> None:
    assert looks.look(failure=PollFailure(reason="timeout", text="no answer")).said() is None


@pytest.mark.parametrize(
    ("usual", "now", "is_healthy"),
    [(0.0004, 0.05, True), (0.0004, 0.051, False), (0.02, 0.2, True), (0.02, 0.21, False)],
)
def test_slow_is_over_50_ms_and_ten_times_the_usual(looks: Looks, usual: float, now: float, is_healthy: bool) -> None:
    looks.look(400, ping_seconds=usual)
    assert looks.look(5, ping_seconds=now).said().healthy is is_healthy


def test_what_is_seen_while_something_is_lit_does_not_become_usual(looks: Looks) -> None:
    looks.look(400)
    looks.look(3600, calm=False, ping_seconds=0.4)
    assert looks.said().healthy is False


def test_baseline_outlives_a_restart(looks: Looks) -> None:
    memory = looks.look(400, ping_seconds=0.03).watch.remembered()
    reborn = Looks()
    reborn.watch.recall(memory)
    assert reborn.look(5, ping_seconds=0.25).said().healthy is True
    assert Looks().look(5, ping_seconds=0.25).said().healthy is True
    assert reborn.look(5, ping_seconds=0.35).said().healthy is False


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"ping_seconds": 1, "commits_per_second": []},
        {"ping_seconds": ["x"], "commits_per_second": []},
        {"ping_seconds": [-1], "commits_per_second": []},
        {"ping_seconds": [float("nan")], "commits_per_second": []},
    ],
)
def test_memory_that_does_not_fit_is_refused(looks: Looks, memory: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        looks.watch.recall(memory)
    assert looks.watch.remembered() == HealthWatch().remembered()


@pytest.mark.parametrize(("count", "seconds", "is_healthy"), [(3, 5.0, False), (2, 5.0, True), (3, 4.9, True)])
def test_three_who_wait_long_for_locks_are_not_well(looks: Looks, count: int, seconds: float, is_healthy: bool) -> None:
    looks.look(9).look(sessions=at_work(T + 10, "Lock", count=count, seconds=seconds))
    assert looks.said().healthy is is_healthy


def test_lock_waits_are_no_illness_once_somebody_is_named_for_them(looks: Looks) -> None:
    looks.look(9).look(sessions=at_work(T + 10, "Lock"))
    assert looks.said(locks_explained=True).healthy is True
    assert looks.said("lock_pileup").healthy is True
    assert looks.said("idle_in_transaction").healthy is True
    assert "ping 0.4 ms, 6 sessions waiting for locks" in looks.said("lock_pileup").evidence


def test_server_whose_disks_hang_is_not_well_however_quick_its_ping(looks: Looks) -> None:
    looks.look(400)
    for _ in range(30):
        looks.look(commits=1, sessions=at_work(looks.t + 1, "IO"))
    assert looks.said().healthy is False
    assert "the database is not well: 6 sessions wait for its disks, its memory or a standby" in looks.said().evidence
    assert any(one.startswith("commits have nearly stopped: ") for one in looks.said().evidence)


@pytest.mark.parametrize(
    "facts", [{"commits": 50}, {"commits": None}, {"statements": 1}, {"seconds": 4.0}, {"count": 2}]
)
def test_busy_disks_are_no_illness_while_commits_go_on_or_one_statement_waits(
    looks: Looks, facts: dict[str, Any]
) -> None:
    commits = facts.pop("commits", 1)
    looks.look(400)
    for _ in range(30):
        looks.look(commits=commits, sessions=at_work(looks.t + 1, "IO", **facts))
    assert looks.said().healthy is True


def test_counters_that_were_reset_are_no_stop(looks: Looks) -> None:
    looks.look(400)
    looks.committed = 0
    looks.look(15)
    assert looks.said().healthy is True


@pytest.mark.parametrize(("used", "is_healthy"), [(0.96, True), (0.97, False)])
def test_host_without_memory_is_not_well(looks: Looks, used: float, is_healthy: bool) -> None:
    host = HostLoad(cpu_ratio=0.31, memory_used_ratio=used, load1=1.0, cpu_count=2)
    health = looks.look(9, host=host).said()
    assert health.healthy is is_healthy
    assert f"its host: processor 31% busy, memory {used:.0%} used" in health.evidence


def test_full_server_that_answers_is_alive(looks: Looks) -> None:
    looks.look(9, slots=Slots(max=9, superuser_reserved=3), sessions=at_work(T, None))
    assert looks.said().healthy is True
    assert "every slot is taken, and the server answers: it is full, but alive" in looks.said().evidence


def test_clock_that_steps_back_begins_the_minute_anew(looks: Looks) -> None:
    looks.look(400)
    looks.t -= 3600
    assert looks.look(400).said().healthy is True


def test_memory_is_bounded(looks: Looks) -> None:
    looks.look(10_000)
    assert all(len(values) <= 60 for values in looks.watch.remembered().values())


def test_what_was_known_holds_while_looks_are_refused_for_want_of_a_slot(looks: Looks) -> None:
    full = PollFailure(reason="slots_full", text="no slot is left")
    looks.look(30).look(600, failure=full)
    assert looks.said().healthy is True
    assert looks.look(1, failure=full).said() is None
