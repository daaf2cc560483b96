import re

from batsignal.config import APPLICATION_PATTERN
from batsignal.deploys.find import DEPLOYS_KEPT
from batsignal.deploys.log import DeployLog
from batsignal.snapshot import ApplicationPattern, Deploy, Session, Snapshot

T = 1_760_000_000.0


def log() -> DeployLog:
    return DeployLog(ApplicationPattern(re.compile(APPLICATION_PATTERN)))


def look(second: float, name: str, server: str = "db1", *deploys: Deploy) -> Snapshot:
    session = Session(pid=1, backend_start=T + second, state="idle", application_name=name)
    return Snapshot(server=server, t=T + second, sessions=(session,), deploys=deploys)


def test_one_deploy_seen_on_two_servers_is_one_deploy() -> None:
    deploys = log()
    for server in ("db1", "db2"):
        deploys.add(look(0, "web@1", server))
    deploys.add(look(10, "web@2", "db1"))
    assert len(deploys.add(look(12, "web@2", "db2"))) == 1


def test_a_deploy_that_a_recording_tells_of_is_known() -> None:
    marked = Deploy(service="web", version="2", at=T + 1)
    assert log().add(look(5, "web@2", "db1", marked)) == (marked,)


def test_deploys_are_kept_in_order_and_bounded() -> None:
    deploys = log()
    deploys.add(look(0, "web@0"))
    for version in range(1, DEPLOYS_KEPT + 20):
        deploys.add(look(version * 1000.0, f"web@{version}"))
    assert len(deploys.known) == DEPLOYS_KEPT
    assert [deploy.at for deploy in deploys.known] == sorted(deploy.at for deploy in deploys.known)
    assert deploys.known[-1].version == str(DEPLOYS_KEPT + 19)
