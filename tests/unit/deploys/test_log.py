import re
import threading
from dataclasses import replace
from typing import Any

import pytest

from batsignal.census import Census, take_census
from batsignal.config import APPLICATION_PATTERN
from batsignal.deploys.find import DEPLOYS_KEPT
from batsignal.deploys.log import DeployLog
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, Session, Snapshot

T = 1_760_000_000.0


@pytest.fixture
def log() -> DeployLog:
    return DeployLog(ApplicationPattern(re.compile(APPLICATION_PATTERN)))


def look(server: str, t: float, *applications: str, **facts: Any) -> tuple[Snapshot, Census]:
    sessions = tuple(
        Session(pid=n, backend_start=T + t, state="idle", application_name=name) for n, name in enumerate(applications)
    )
    snapshot = Snapshot(server=server, t=T + t, sessions=sessions, **facts)
    return snapshot, take_census(snapshot)


def test_deploy_is_known_from_the_look_that_shows_it_on(log: DeployLog) -> None:
    assert log.add(*look("db1", 0, "web@1")) == ()
    (deploy,) = log.add(*look("db1", 10, "web@1", "web@2"))
    assert deploy.version == "2"
    assert log.add(*look("db1", 11, "web@2")) == log.known == (deploy,)


def test_deploy_that_two_servers_show_is_one(log: DeployLog) -> None:
    for server in ("db1", "db2"):
        log.add(*look(server, 0, "web@1"))
    log.add(*look("db1", 10, "web@2"))
    log.add(*look("db2", 40, "web@2"))
    assert [(deploy.version, deploy.at) for deploy in log.known] == [("2", T + 10)]


def test_deploys_stand_in_order_of_time(log: DeployLog) -> None:
    log.add(*look("db1", 0, "web@1", "api@1"))
    log.add(*look("db1", 50, "web@2", "api@1"))
    marked = Deploy(service="billing", version="7", at=T + 20)
    log.add(*look("db1", 60, "web@2", "api@2", deploys=(marked,)))
    assert [deploy.service for deploy in log.known] == ["billing", "web", "api"]


def test_only_the_newest_are_kept(log: DeployLog) -> None:
    for n in range(DEPLOYS_KEPT + 30):
        log.add(*look("db1", n * 700, f"web@{n}"))
    assert len(log.known) == DEPLOYS_KEPT
    assert log.known[-1].version == str(DEPLOYS_KEPT + 29)


def test_servers_that_tick_at_once_lose_no_deploy(log: DeployLog) -> None:
    servers = [f"s{n}" for n in range(8)]
    begin = threading.Barrier(len(servers))

    def tick(server: str) -> None:
        begin.wait()
        for n in range(11):
            log.add(*look(server, n * 700, f"{server}@{n}"))

    threads = [threading.Thread(target=tick, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.known) == 80


def test_a_marked_deploy_is_known_at_once_and_told_once(log: DeployLog) -> None:
    marked = Deploy(service="web", version="2", at=T)
    assert log.mark(marked) == (marked, True)
    assert log.mark(Deploy(service="web", version="2", at=T + 30)) == (marked, False)
    assert log.known == (marked,)
    assert log.add(*look("db1", 5)) == (marked,)


def test_deploys_of_an_earlier_life_are_known_oldest_first() -> None:
    earlier = [Deploy(service="web", version=str(n), at=T - n) for n in range(DEPLOYS_KEPT + 5)]
    log = DeployLog(ApplicationPattern(re.compile(APPLICATION_PATTERN)), known=earlier)
    assert [deploy.version for deploy in log.known] == [str(n) for n in reversed(range(DEPLOYS_KEPT))]


def test_deploy_that_was_marked_and_seen_is_one_since_the_first_that_says_so(log: DeployLog) -> None:
    log.add(*look("db1", 0, "web@1"))
    log.add(*look("db1", 40, "web@2"))
    marked = Deploy(service="web", version="2", at=T + 20)
    assert log.add(*look("db1", 300, "web@2", deploys=(marked,))) == (
        Deploy(service="web", version="2", at=T + 20, previous="1"),
    )
    assert log.mark(replace(marked, at=T + 90))[1] is False


def test_version_is_spelled_as_sessions_spell_it(log: DeployLog) -> None:
    log.add(*look("db1", 0, "web@1.9"))
    log.mark(Deploy(service="web", version="v2.0", at=T + 5))
    log.add(*look("db1", 30, "web@2.0"))
    assert log.known == (Deploy(service="web", version="2.0", at=T + 5, previous="1.9"),)


def test_marked_deploy_learns_what_ran_before_it(log: DeployLog) -> None:
    log.add(*look("db1", 0, "web@1", "billing"))
    assert log.mark(Deploy(service="web", version="2", at=T + 5))[0].previous == "1"
    assert log.mark(Deploy(service="billing", version="7", at=T + 6))[0].previous is None
    assert log.mark(Deploy(service="billing", version="8", at=T + 7))[0].previous == "7"


def test_same_version_deployed_again_much_later_is_another_deploy(log: DeployLog) -> None:
    log.mark(Deploy(service="web", version="2", at=T))
    assert log.mark(Deploy(service="web", version="2", at=T + 601))[1] is True
    assert len(log.known) == 2


def test_version_that_is_cut_off_in_the_name_is_the_one_that_was_marked(log: DeployLog) -> None:
    name = f"web@2.4.0-{'a' * 80}"
    log.add(*look("db1", 0, "web@2.3.9"))
    log.mark(Deploy(service="web", version=name.removeprefix("web@"), at=T + 5))
    log.mark(Deploy(service="web", version="2.4.0", at=T + 6))
    log.add(*look("db1", 30, name[:63]))
    assert [deploy.version for deploy in log.known] == [name[:63].removeprefix("web@"), "2.4.0"]


def test_deploy_that_an_earlier_life_kept_twice_is_one() -> None:
    kept = [
        Deploy(service="web", version="2.0", at=T),
        Deploy(service="web", version="v2.0", at=T + 30, previous="1.9"),
    ]
    log = DeployLog(ApplicationPattern(re.compile(APPLICATION_PATTERN)), known=kept)
    assert log.known == (Deploy(service="web", version="2.0", at=T, previous="1.9"),)
