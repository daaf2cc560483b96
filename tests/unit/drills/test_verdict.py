from dataclasses import replace

import pytest

from batsignal.detect.signal import DeployRef, Subject
from batsignal.drills.act import OnsetFacts
from batsignal.drills.catalogue import ROWS
from batsignal.drills.truth import Truth
from batsignal.drills.verdict import Sighted, achieved_rate, judge, names, truth_of

T0 = 1_760_000_000.0
LEAK = Truth(kind="leak", subject=Subject(application="web", version="2.4.0"), onset=T0, bound_seconds=45.0)
RIGHT = Sighted(
    id="s1",
    kind="leak",
    severity="critical",
    subject={"application": "web", "version": "2.4.0", "user": "web", "client": None},
    detected=T0 + 30,
    cleared_at=None,
    summary="web@2.4.0 leaks connections",
)
SATURATION = replace(RIGHT, id="s2", kind="saturation", subject={"limit": "server"}, summary="slots run out")


def outcomes(
    row: str,
    truths: list[Truth],
    seen: list[Sighted],
    *,
    until: float = T0 + 100,
) -> list[tuple[str, bool]]:
    verdicts = judge(ROWS[row], truths, seen, until=until)
    return [(verdict.outcome, verdict.is_finding) for verdict in verdicts]


@pytest.mark.parametrize(
    ("after_seconds", "expected"), [(44.9, ("named", False)), (45.0, ("named", False)), (45.1, ("late", True))]
)
def test_a_signal_counts_up_to_its_bound(after_seconds: float, expected: tuple[str, bool]) -> None:
    assert outcomes("leak", [LEAK], [replace(RIGHT, detected=T0 + after_seconds)]) == [expected]


def test_a_kind_that_is_not_named_is_a_finding() -> None:
    assert outcomes("leak", [LEAK], []) == [("missed", True)]


def test_a_drill_that_ends_before_the_bound_finds_nothing() -> None:
    assert outcomes("leak", [LEAK], [], until=T0 + 44) == [("too_short", False)]


def test_a_drill_that_ends_before_its_incident_begins_finds_nothing() -> None:
    assert outcomes("leak", [], []) == [("too_short", False)]


DEPLOYED = replace(LEAK, deploy=DeployRef(service="web", version="2.4.0", at=T0 - 2))
NAMED = {"service": "web", "version": "2.4.0", "at": T0 - 1.0}


def test_the_verdict_says_whether_the_deploy_was_named() -> None:
    [with_it] = judge(ROWS["leak"], [DEPLOYED], [replace(RIGHT, deploy=NAMED)], until=T0 + 100)
    [without] = judge(ROWS["leak"], [DEPLOYED], [RIGHT], until=T0 + 100)
    assert with_it.text == "leak: named after 30 s (bound 45 s), with the deploy of web 2.4.0"
    assert without.text == "leak: named after 30 s (bound 45 s); its deploy, web 2.4.0, was not named"
    assert not with_it.is_finding
    assert not without.is_finding


@pytest.mark.parametrize("truth", [DEPLOYED, LEAK], ids=["another deploy", "no deploy"])
def test_a_wrong_deploy_is_a_finding(truth: Truth) -> None:
    wrong = replace(RIGHT, deploy={"service": "billing", "version": "1.7.3", "at": T0 - 60})
    [named, blamed] = judge(ROWS["leak"], [truth], [wrong], until=T0 + 100)
    assert (named.outcome, named.is_finding) == ("named", False)
    assert (blamed.outcome, blamed.is_finding) == ("wrong", True)
    assert "the deploy of billing 1.7.3" in blamed.text


def test_a_signal_that_was_lit_twice_is_told() -> None:
    first, second = replace(RIGHT, cleared_at=T0 + 50), replace(RIGHT, id="s9", detected=T0 + 60)
    [verdict] = judge(ROWS["leak"], [LEAK], [second, first], until=T0 + 100)
    assert verdict.text.endswith("; it went out meanwhile, and was lit 2 times")
    [verdict] = judge(ROWS["leak"], [LEAK], [first, replace(second, detected=T0 + 40)], until=T0 + 100)
    assert "times" not in verdict.text


def test_everyday_life_that_was_cut_short_is_not_called_quiet() -> None:
    [whole] = judge(ROWS["autoscaling"], [], [], until=T0 + 600)
    [cut_short] = judge(ROWS["autoscaling"], [], [], until=T0 + 6, is_whole=False)
    assert (whole.outcome, whole.text) == ("quiet", "nothing lit, as it should be")
    assert (cut_short.outcome, cut_short.is_finding) == ("too_short", False)
    assert "ended before its time" in cut_short.text


@pytest.mark.parametrize("key", ["application", "version"])
def test_a_signal_that_names_another_culprit_is_wrong_and_names_nothing(key: str) -> None:
    wrong = replace(RIGHT, subject={**RIGHT.subject, key: "other"})
    assert outcomes("leak", [LEAK], [wrong]) == [("missed", True), ("wrong", True)]


def test_a_key_that_the_truth_leaves_open_may_be_anything() -> None:
    assert names(LEAK, replace(RIGHT, subject={**RIGHT.subject, "client": "127.0.0.9"}))


def test_a_signal_from_before_the_onset_names_nothing() -> None:
    assert outcomes("leak", [LEAK], [replace(RIGHT, detected=T0 - 3)]) == [("missed", True), ("wrong", True)]


@pytest.mark.parametrize(
    ("lit_seconds", "expected"), [(59.0, ("tolerated", False)), (61.0, ("wrong", True)), (None, ("wrong", True))]
)
def test_a_signal_that_gives_way_to_the_right_one_in_time_is_no_wrong_page(
    lit_seconds: float | None, expected: tuple[str, bool]
) -> None:
    cleared_at = None if lit_seconds is None else T0 + 5 + lit_seconds
    before = replace(SATURATION, detected=T0 + 5, cleared_at=cleared_at)
    assert outcomes("leak", [LEAK], [before, RIGHT]) == [("named", False), expected]


def test_a_signal_that_is_cleared_without_the_right_one_is_wrong() -> None:
    before = replace(SATURATION, detected=T0 + 5, cleared_at=T0 + 20)
    assert outcomes("leak", [LEAK], [before], until=T0 + 44) == [("too_short", False), ("wrong", True)]


def test_a_symptom_may_be_said_and_may_be_left_unsaid() -> None:
    symptom = Truth(
        kind="endpoint_down", subject=Subject(application="web"), onset=T0, bound_seconds=30.0, optional=True
    )
    said = replace(RIGHT, id="s3", kind="endpoint_down", subject={"endpoint": "web"})
    assert outcomes("leak", [LEAK, symptom], [RIGHT, said]) == [("named", False)]
    assert outcomes("leak", [LEAK, symptom], [RIGHT]) == [("named", False)]


def test_nothing_at_all_may_light_in_everyday_life() -> None:
    assert outcomes("cron-batch", [], []) == [("quiet", False)]
    assert outcomes("cron-batch", [], [replace(SATURATION, severity="warning")]) == [("wrong", True)]


def test_a_row_that_allows_a_warning_allows_no_critical() -> None:
    assert outcomes("server-restart", [], [replace(SATURATION, severity="warning")]) == [("tolerated", False)]
    assert outcomes("server-restart", [], [SATURATION]) == [("wrong", True)]


def test_the_bound_of_a_leak_comes_from_what_was_really_lost() -> None:
    deploy = DeployRef(service="web", version="2.4.0", at=T0)
    facts = OnsetFacts(kind="leak", subject=Subject(application="web"), deploy=deploy, at=T0)
    slow = truth_of(facts, lost_at=[T0 + 45 * n for n in range(10)], exhaustion=None)
    assert (slow.bound_seconds, slow.deploy) == (420.0, deploy)


def test_the_bound_of_a_leak_with_one_session_lost_comes_from_the_pace_asked_for() -> None:
    facts = OnsetFacts(kind="leak", subject=Subject(application="web"), at=T0)
    slow = truth_of(facts, lost_at=[T0], exhaustion=None, asked_per_second=1 / 240)
    assert slow.bound_seconds == pytest.approx(9 * 240 + 15)
    assert outcomes("leak-crawl", [slow], [], until=T0 + 100) == [("too_short", False)]


def test_a_bound_that_the_act_gives_is_taken() -> None:
    facts = OnsetFacts(kind="idle_in_transaction", subject=Subject(), at=T0, bound_seconds=15.0)
    assert truth_of(facts, lost_at=[], exhaustion=None).bound_seconds == 15.0
    assert truth_of(replace(facts, bound_seconds=None), lost_at=[], exhaustion=None).bound_seconds == 315.0


@pytest.mark.parametrize(("lost_at", "rate"), [([], None), ([T0], None), ([T0, T0], None), ([T0, T0 + 2, T0 + 4], 0.5)])
def test_a_rate_needs_two_instants(lost_at: list[float], rate: float | None) -> None:
    assert achieved_rate(lost_at) == rate
