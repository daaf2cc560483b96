import re
from collections.abc import Iterable
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN
from batsignal.detect.blame import Blame, blame
from batsignal.detect.signal import Finding, Kind, Subject
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, Session, Snapshot

T = 1_760_000_000.0
MINUTE, HOUR = 60.0, 3600.0


def found(kind: Kind = "leak", **facts: Any) -> Finding:
    subject = {"application": "web", "version": "2"} | {
        key: facts.pop(key) for key in list(facts) if key in Subject.__dataclass_fields__
    }
    return Finding(
        kind=kind,
        key=("service", "web"),
        severity="critical",
        subject=Subject(**subject),
        since=T,
        **{"sessions": 9} | facts,
    )


def deployed(before: float, version: str = "2", service: str = "web", previous: str | None = None) -> Deploy:
    return Deploy(service=service, version=version, at=T - before, previous=previous)


def looked_at(*sessions: Session) -> Window:
    window = Window(ApplicationPattern(re.compile(APPLICATION_PATTERN)))
    window.add(Snapshot(server="db1", t=T + 30, sessions=sessions))
    return window


def blamed(finding: Finding, *deploys: Deploy, sessions: Iterable[Session] = ()) -> Blame:
    return blame(finding, deploys, looked_at(*sessions))


@pytest.mark.parametrize(
    ("kind", "most_seconds"),
    [
        ("leak", 24 * HOUR),
        ("pool_starvation", 24 * HOUR),
        ("query_pileup", HOUR),
        ("storm", 30 * MINUTE),
        ("idle_in_transaction", 30 * MINUTE),
        ("lock_pileup", 15 * MINUTE),
        ("endpoint_down", 15 * MINUTE),
        ("endpoint_slow", 15 * MINUTE),
    ],
)
def test_deploy_is_named_as_long_after_it_as_its_doing_may_first_show(kind: Kind, most_seconds: float) -> None:
    for before, is_named in [(20.0, True), (most_seconds, True), (most_seconds + 1, False), (-16.0, False)]:
        assert (blamed(found(kind), deployed(before)).deploy is not None) == is_named


@pytest.mark.parametrize("kind", ["saturation", "database_unreachable"])
def test_what_has_no_culprit_has_no_deploy(kind: Kind) -> None:
    assert blamed(found(kind, application=None, version=None), deployed(20)) == Blame()


def test_evidence_says_how_long_before() -> None:
    assert blamed(found(), deployed(20)).evidence == (
        "web@2 was deployed at 08:53:00 UTC, 20 s before the first of them",
    )
    assert blamed(found("endpoint_down", version=None, sessions=0), deployed(20)).evidence == (
        "web@2 was deployed at 08:53:00 UTC, 20 s before it began",
    )


def test_version_in_the_name_tells_which_of_two_deploys() -> None:
    both = (deployed(3 * HOUR), deployed(2 * HOUR, "3"))
    assert blamed(found(version="2"), *both).deploy.version == "2"  # type: ignore[union-attr]
    assert blamed(found(version="3"), *both).deploy.version == "3"  # type: ignore[union-attr]
    assert blamed(found(version="1"), *both).deploy is None


def test_version_that_is_spelled_as_a_tag_is_the_version_in_the_name() -> None:
    assert blamed(found(version="2.4.0"), deployed(20, "v2.4.0")).deploy is not None
    assert blamed(found(version=None, versions=("2.4.0",)), deployed(20, "v2.4.0")).deploy is not None


def test_deploy_that_was_only_marked_is_named_for_a_service_without_a_version_in_its_name() -> None:
    assert blamed(found(version=None), deployed(20)).deploy is not None


@pytest.mark.parametrize(("after", "is_named"), [(5.0, True), (6.0, False)])
def test_marked_deploy_of_a_service_without_a_version_came_first_but_for_the_clocks(
    after: float, is_named: bool
) -> None:
    assert (blamed(found(version=None), deployed(-after)).deploy is not None) == is_named


def test_deploy_after_which_the_same_was_seen_to_do_no_harm_is_not_the_cause() -> None:
    assert blamed(found("query_pileup", harmless_at=T - 100), deployed(200)).deploy is None
    assert blamed(found("query_pileup", harmless_at=T - 200), deployed(100)).deploy is not None


def test_versions_from_before_the_deploy_that_do_the_same_clear_it() -> None:
    mixed = found(version=None, versions=("1", "2"))
    assert blamed(mixed, deployed(20)).deploy is None


def test_version_that_came_later_and_does_the_same_does_not_clear_the_deploy() -> None:
    mixed = found(version=None, versions=("2", "3"))
    named = blamed(mixed, deployed(20), deployed(-300, "3")).deploy
    assert named is not None
    assert named.version == "2"


def test_deploy_of_the_same_service_shortly_before_is_a_second_candidate() -> None:
    named = blamed(found(version="3"), deployed(320), deployed(20, "3"))
    assert named.deploy is not None
    assert named.deploy.version == "3"
    assert any("two candidates: web@2 was deployed 5m20s before, too" in one for one in named.evidence)
    assert not any(
        "two candidates" in one for one in blamed(found(version="3"), deployed(621), deployed(20, "3")).evidence
    )


def test_deploy_of_another_service_is_told_and_never_named() -> None:
    alone = blamed(found(version=None), deployed(40, "7", "billing"))
    assert alone.deploy is None
    assert alone.evidence == ("billing@7 was deployed 40 s before",)
    beside = blamed(found(version=None), deployed(40, "7", "billing"), deployed(20))
    assert beside.deploy is not None
    assert beside.deploy.service == "web"
    assert "billing@7 was deployed 40 s before, too" in beside.evidence


def test_other_deploys_of_long_ago_are_not_told() -> None:
    assert blamed(found(version=None), deployed(301, "7", "billing")) == Blame()


def test_unnamed_culprit_has_no_deploy_but_the_service_that_logs_in_alike_is_told() -> None:
    unnamed = found(application=None, version=None, user="app", client="10.0.0.4")
    alike = Session(
        pid=1, backend_start=T - 60, state="idle", application_name="web@2", usename="app", client_addr="10.0.0.4"
    )
    told = blamed(unnamed, deployed(40), sessions=[alike])
    assert told.deploy is None
    assert told.evidence == ("web@2, which logs in as the same user from the same host, was deployed 40 s before",)


def test_after_a_roll_back_nobody_is_sent_back_to_what_was_rolled_back() -> None:
    away, back = deployed(400, "2", previous="1"), deployed(100, "1", previous="2")
    named = blamed(found("endpoint_down", version=None), away, back).deploy
    assert named is not None
    assert (named.version, named.previous) == ("1", None)
