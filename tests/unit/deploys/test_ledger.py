import re
from typing import Any

import pytest

from batsignal.census import take_census
from batsignal.config import APPLICATION_PATTERN
from batsignal.deploys.ledger import Ledger, UnknownDeployError
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, Session, Snapshot

T = 1_760_000_000.0


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(ApplicationPattern(re.compile(APPLICATION_PATTERN)))


def look(ledger: Ledger, t: float, *names: str) -> tuple[Deploy, ...]:
    rows = tuple(
        Session(pid=pid, backend_start=T, state="idle", application_name=name) for pid, name in enumerate(names)
    )
    snapshot = Snapshot(server="db1", t=T + t, sessions=rows, privileged=True)
    return ledger.add(snapshot, take_census(snapshot))


def verified(ledger: Ledger, version: str) -> Any:
    return ledger.verify("web", version, now=T + 100, window_seconds=60).deploy


def test_a_look_shows_the_log_and_the_conduct_the_same(ledger: Ledger) -> None:
    look(ledger, 0, "web@1")
    (found,) = look(ledger, 50, "web@1", "web@2")
    assert verified(ledger, "2") == found == ledger.known[0]


def test_a_version_that_was_there_before_the_watch_is_judged_since_it_was_seen(ledger: Ledger) -> None:
    look(ledger, 7, "web@1")
    assert verified(ledger, "1") == Deploy(service="web", version="1", at=T + 7)


def test_of_two_deploys_of_one_version_the_newest_is_judged(ledger: Ledger) -> None:
    for at in (T, T + 5000):
        ledger.mark(Deploy(service="web", version="1", at=at))
    assert verified(ledger, "1").at == T + 5000


def test_a_version_that_nobody_knows_is_refused_with_those_seen(ledger: Ledger) -> None:
    look(ledger, 0, "web@1", "api@9")
    look(ledger, 1, "web@2")
    with pytest.raises(UnknownDeployError, match="versions seen: 2, 1") as refused:
        verified(ledger, "3")
    assert refused.value.seen == ("2", "1")


def test_a_ledger_that_follows_another_knows_its_deploys(ledger: Ledger) -> None:
    marked, is_news = ledger.mark(Deploy(service="web", version="2", at=T))
    again = Ledger(ApplicationPattern(re.compile("(?P<service>.+)")), known=ledger.known)
    assert (again.known, is_news) == ((marked,), True)
