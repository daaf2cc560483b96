import re
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN
from batsignal.deploys.find import SERVICES_MOST, VERSION_GONE_SECONDS, VersionWatch
from batsignal.snapshot import ApplicationPattern, Deploy, PollFailure, Session, Snapshot

T = 1_760_000_000.0


@pytest.fixture
def watch() -> VersionWatch:
    return VersionWatch(ApplicationPattern(re.compile(APPLICATION_PATTERN)))


def look(second: float, *names: str, server: str = "db1", **facts: Any) -> Snapshot:
    sessions = tuple(
        Session(pid=pid, backend_start=T + second - 0.5, state="idle", application_name=name)
        for pid, name in enumerate(names)
    )
    return Snapshot(server=server, t=T + second, sessions=sessions, **facts)


def test_versions_that_run_when_the_watch_begins_are_no_deploys(watch: VersionWatch) -> None:
    assert watch.add(look(0, "web@1", "web@2")) == ()


def test_a_new_version_of_a_known_service_is_a_deploy_that_knows_the_version_before(watch: VersionWatch) -> None:
    watch.add(look(0, "web@1", "api@1"))
    found = watch.add(look(10, "web@1", "web@2", "api@1"))
    assert found == (Deploy(service="web", version="2", at=T + 9.5, previous="1"),)
    assert watch.add(look(11, "web@2", "api@1")) == (), "it is found once"


def test_a_service_that_is_seen_for_the_first_time_is_no_deploy(watch: VersionWatch) -> None:
    watch.add(look(0, "web@1"))
    assert watch.add(look(10, "web@1", "batch@7")) == ()


def test_a_rollback_to_a_version_long_gone_is_a_deploy(watch: VersionWatch) -> None:
    watch.add(look(0, "web@1"))
    watch.add(look(1, "web@2"))
    back = 2 + VERSION_GONE_SECONDS
    (found,) = watch.add(look(back, "web@1"))
    assert (found.version, found.previous) == ("1", "2")


def test_a_version_without_a_session_for_some_minutes_was_not_deployed_again(watch: VersionWatch) -> None:
    watch.add(look(0, "web@1"))
    watch.add(look(1, "web@2"))
    assert watch.add(look(VERSION_GONE_SECONDS - 1, "web@2", "web@1")) == ()


def test_a_failed_look_finds_and_forgets_nothing(watch: VersionWatch) -> None:
    watch.add(look(0, "web@1"))
    failure = PollFailure(reason="timeout", text="")
    assert watch.add(Snapshot(server="db1", t=T + 1, failure=failure, view="none")) == ()
    assert len(watch.add(look(2, "web@2"))) == 1


def test_each_server_has_a_beginning_of_its_own(watch: VersionWatch) -> None:
    watch.add(look(0, "web@1", server="db1"))
    assert watch.add(look(1, "web@2", server="db2")) == ()


def test_unnamed_and_unversioned_sessions_are_no_deploys(watch: VersionWatch) -> None:
    watch.add(look(0, "web@1"))
    assert watch.add(look(1, "web@1", "web", "psql", "")) == ()


def test_memory_is_bounded_however_many_names_come(watch: VersionWatch) -> None:
    watch.add(look(0))
    watch.add(look(1, *(f"service{n}@1" for n in range(SERVICES_MOST + 500))))
    for version in range(200):
        watch.add(look(2 + version, f"service0@{version}"))
    services = watch._services["db1"]
    assert len(services) == SERVICES_MOST
    assert len(services["service0"].last_seen) <= 50
