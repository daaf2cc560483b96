import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batsignal.census import take_census
from batsignal.config import APPLICATION_PATTERN
from batsignal.deploys import find
from batsignal.deploys.find import VersionWatch
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, PollFailure, Session, Snapshot

T = 1_760_000_000.0
PATTERN = ApplicationPattern(re.compile(APPLICATION_PATTERN))


class Looks:
    """Shows the watch which applications run, each as (name, opened) or a name alone."""

    def __init__(self) -> None:
        self.watch = VersionWatch(PATTERN)

    def look(self, t: float, *applications: Any, server: str = "db1") -> tuple[Deploy, ...]:
        rows = [one if isinstance(one, tuple) else (one, t) for one in applications]
        sessions = tuple(
            Session(pid=n, backend_start=None if opened is None else T + opened, state="idle", application_name=name)
            for n, (name, opened) in enumerate(rows)
        )
        snapshot = Snapshot(server=server, t=T + t, sessions=sessions)
        return self.watch.add(snapshot, take_census(snapshot))


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_versions_that_run_at_the_first_look_are_no_deploys(looks: Looks) -> None:
    assert not looks.look(0, "web@1", "web@2", "billing@7")


def test_new_version_of_a_known_service_is_a_deploy_since_its_oldest_session(looks: Looks) -> None:
    looks.look(0, "web@1", "web@1")
    (deploy,) = looks.look(100, "web@1", ("web@2", 99.5), ("web@2", 99.1))
    assert deploy == Deploy(service="web", version="2", at=T + 99.1, previous="1")


def test_deploy_is_told_once(looks: Looks) -> None:
    looks.look(0, "web@1")
    assert looks.look(1, "web@1", "web@2")
    assert not looks.look(2, "web@2")
    assert not looks.look(3, "web@1", "web@2")


def test_first_version_of_a_service_is_no_deploy(looks: Looks) -> None:
    looks.look(0, "web@1")
    assert not looks.look(1, "web@1", "billing@7")


@pytest.mark.parametrize("name", ["web", "psql", "", None])
def test_sessions_without_a_version_are_passed_over(looks: Looks, name: str | None) -> None:
    looks.look(0, "web@1")
    assert not looks.look(1, "web@1", name)


def test_rollback_to_a_version_that_was_gone_is_a_deploy_again(looks: Looks) -> None:
    looks.look(0, "web@1")
    looks.look(1, "web@2")
    (deploy,) = looks.look(602, ("web@1", 601.5))
    assert (deploy.version, deploy.previous, deploy.at) == ("1", "2", T + 601.5)


def steadily(looks: Looks, begin: int, end: int, *applications: str) -> None:
    for t in range(begin, end, 5):
        assert not looks.look(t, *applications)


@pytest.mark.parametrize(("away", "is_deploy"), [(59, False), (60, True)])
def test_version_of_a_pool_that_comes_back_in_place_of_another_was_rolled_back_to(
    looks: Looks, away: int, is_deploy: bool
) -> None:
    steadily(looks, 0, 66, "web@1")
    assert looks.look(66, "web@2")
    steadily(looks, 70, 65 + away, "web@2")
    found = looks.look(65 + away, "web@1", "web@2")
    assert [(deploy.version, deploy.previous) for deploy in found] == [("1", "2")] * is_deploy


def test_version_that_was_away_alone_has_only_been_restarted(looks: Looks) -> None:
    looks.look(0, "web@0")
    looks.look(1, "web@1")
    steadily(looks, 5, 100, "web@1")
    steadily(looks, 100, 300, "billing@7")
    assert not looks.look(300, "web@1")


def test_version_that_comes_and_goes_beside_another_is_no_deploy_each_time(looks: Looks) -> None:
    looks.look(0, "job@1", "job@2")
    for t in range(0, 1200, 100):
        steadily(looks, t, t + 100, "job@2")
        assert not looks.look(t + 100, "job@1", "job@2")


def test_pooled_session_that_is_older_than_the_version_that_borrows_it_dates_no_deploy(looks: Looks) -> None:
    looks.look(0, ("web@1", -5000))
    looks.look(30, ("web@1", -5000))
    (deploy,) = looks.look(31, ("web@2", -5000))
    assert deploy.at == T + 30


@pytest.mark.parametrize(("away", "is_deploy"), [(599, False), (600, False), (601, True)])
def test_version_is_gone_after_ten_minutes_without_a_session(looks: Looks, away: float, is_deploy: bool) -> None:
    looks.look(0, "web@1", "web@2")
    assert bool(looks.look(away, "web@1")) == is_deploy


def test_previous_version_is_the_one_seen_last(looks: Looks) -> None:
    looks.look(0, "web@1")
    looks.look(10, "web@2")
    (deploy,) = looks.look(20, "web@3")
    assert deploy.previous == "2"


def test_of_two_versions_that_run_the_one_with_more_sessions_is_the_previous(looks: Looks) -> None:
    looks.look(0, "web@canary", "web@1", "web@1")
    (deploy,) = looks.look(10, "web@canary", "web@1", "web@1", "web@2")
    assert deploy.previous == "1"


def test_each_server_begins_with_its_own_first_look(looks: Looks) -> None:
    looks.look(0, "web@1")
    assert not looks.look(5, "web@1", "web@2", server="db2")


def test_failed_look_is_no_first_look(looks: Looks) -> None:
    failed = Snapshot(server="db1", t=T, failure=PollFailure(reason="timeout", text="no answer"))
    assert not looks.watch.add(failed, take_census(failed))
    assert not looks.look(1, "web@1", "web@2")


def test_session_without_a_start_is_dated_by_the_look(looks: Looks) -> None:
    looks.look(0, "web@1")
    (deploy,) = looks.look(7, ("web@2", None))
    assert deploy.at == T + 7


def test_memory_of_versions_stays_bounded(looks: Looks) -> None:
    for n in range(3 * find.VERSIONS_MOST):
        looks.look(n, f"web@{n}")
    assert len(looks.watch._services["db1"]["web"].last_seen) <= find.VERSIONS_MOST


def test_memory_of_services_stays_bounded(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "SERVICES_MOST", 5)
    looks.look(0, *(f"service-{n}@1" for n in range(50)))
    assert len(looks.watch._services["db1"]) == 5


def test_names_of_hosts_where_versions_stand_are_no_deploys(looks: Looks) -> None:
    hosts = [f"celery@host-{n}" for n in range(4)]
    looks.look(0, *hosts)
    assert not looks.look(10, *hosts, "celery@host-4")
    looks.look(20, *(f"web@{n}" for n in range(3)))
    assert looks.look(30, "web@3")


NAMES = st.none() | st.text(max_size=63) | st.sampled_from(["web@1", "web@2", "@", "web@", "@1", "a@b@c"])


@settings(max_examples=60)
@given(
    looks_shown=st.lists(st.tuples(st.floats(-5000, 5000), st.lists(st.tuples(NAMES, st.floats(0, 1e6)))), max_size=5)
)
def test_no_look_whatever_it_shows_raises(looks_shown: list[Any]) -> None:
    looks = Looks()
    for t, applications in looks_shown:
        for deploy in looks.look(t, *applications):
            assert deploy.version
