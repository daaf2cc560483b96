"""The rules of scoring: each just under, at and just over its limit."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from batsignal.detect.signal import DeployRef, Subject
from batsignal.drills.truth import Truth
from detection.score import Said, Score, score

Make = Callable[..., Any]


def told(truth: Truth, *said: Said, may_warn: bool = False) -> Score:
    return score([truth], said, may_warn=may_warn)


def test_raise_of_the_right_kind_and_culprit_is_a_detection_and_no_false_page(truth: Make, raised: Make) -> None:
    scored = told(truth(), raised("a", 130).said())
    assert scored.truths[0].outcome == "detected"
    assert scored.truths[0].seconds == pytest.approx(30)
    assert scored.false_pages == ()


@pytest.mark.parametrize(("at", "within"), [(144.9, True), (145.0, True), (145.1, False)])
def test_raise_counts_as_within_its_bound_up_to_the_bound(truth: Make, raised: Make, at: float, within: bool) -> None:
    assert told(truth(), raised("a", at).said()).truths[0].within_bound is within


@pytest.mark.parametrize(("at", "outcome", "false"), [(99.9, "missed", 1), (100.0, "detected", 0)])
def test_raise_before_the_onset_is_a_false_page(truth: Make, raised: Make, at: float, outcome: str, false: int) -> None:
    scored = told(truth(), raised("a", at).said())
    assert (scored.truths[0].outcome, len(scored.false_pages)) == (outcome, false)


def test_wrong_kind_is_a_false_page(truth: Make, raised: Make) -> None:
    scored = told(truth(), raised("a", 130, kind="saturation").said())
    assert scored.truths[0].outcome == "missed"
    assert [page.severity for page in scored.false_pages] == ["critical"]


def test_wrong_culprit_is_a_false_page(truth: Make, raised: Make) -> None:
    scored = told(truth(), raised("a", 130, subject=Subject(application="billing")).said())
    assert scored.truths[0].outcome == "missed"
    assert len(scored.false_pages) == 1


def test_key_that_need_not_be_named_may_be_named(truth: Make, raised: Make) -> None:
    subject = Subject(application="web", version="2", user="app", client="10.0.0.4")
    assert told(truth(), raised("a", 130, subject=subject).said()).truths[0].outcome == "detected"


def test_key_that_must_be_named_and_is_not_makes_it_another_culprit(truth: Make, raised: Make) -> None:
    wanted = truth(subject=Subject(application="web", version="2"))
    assert told(wanted, raised("a", 130).said()).truths[0].outcome == "missed"


@pytest.mark.parametrize(("later", "outcome"), [(59.9, "detected"), (60.0, "detected"), (60.1, "missed")])
def test_culprit_may_become_known_within_a_minute_of_the_raise(
    truth: Make, raised: Make, later: float, outcome: str
) -> None:
    wanted = truth(subject=Subject(application="web", version="2"))
    life = raised("a", 130).update(130 + later, subject=Subject(application="web", version="2"))
    scored = told(wanted, life.said())
    assert scored.truths[0].outcome == outcome
    assert len(scored.false_pages) == (outcome == "missed")


def test_culprit_that_was_right_once_and_was_refined_later_stays_a_detection(truth: Make, raised: Make) -> None:
    life = raised("a", 130).update(150, subject=Subject(application="web", version="3"))
    assert told(truth(subject=Subject(application="web", version=None)), life.said()).truths[0].outcome == "detected"


@pytest.mark.parametrize(
    ("deploy", "right"),
    [
        (("web", "2", 90.0), True),
        (("web", "2", 150.0), True),
        (("web", "2", 150.1), False),
        (("web", "2", 30.0), True),
        (("web", "2", 29.9), False),
        (("web", "1", 90.0), False),
        (("billing", "2", 90.0), False),
    ],
)
def test_deploy_is_right_when_service_and_version_agree_and_its_time_within_a_minute(
    truth: Make, raised: Make, start: float, deploy: tuple[str, str, float], right: bool
) -> None:
    service, version, at = deploy
    life = raised("a", 130, deploy=DeployRef(service=service, version=version, at=start + at))
    assert told(truth(deploy=("web", "2", 90.0)), life.said()).truths[0].deploy_right is right


def test_deploy_that_is_never_named_is_wrong_and_without_a_deploy_there_is_nothing_to_name(
    truth: Make, raised: Make
) -> None:
    assert told(truth(deploy=("web", "2", 90.0)), raised("a", 130).said()).truths[0].deploy_right is False
    assert told(truth(), raised("a", 130).said()).truths[0].deploy_right is None


@pytest.mark.parametrize(
    ("predicted", "right"),
    [(66.6, False), (66.7, True), (100.0, True), (150.0, True), (150.1, False), (math.inf, False)],
)
def test_predicted_time_left_is_right_within_a_factor_of_one_and_a_half(
    truth: Make, raised: Make, predicted: float, right: bool
) -> None:
    scored = told(truth(exhaustion=230.0), raised("a", 130, exhaustion_seconds=predicted).said())
    assert scored.truths[0].exhaustion_right is right


def test_prediction_counts_as_it_was_at_the_raise(truth: Make, raised: Make) -> None:
    life = raised("a", 130, exhaustion_seconds=500.0).update(140, exhaustion_seconds=90.0)
    assert told(truth(exhaustion=230.0), life.said()).truths[0].exhaustion_ratio == pytest.approx(5.0)


@pytest.mark.parametrize("exhaustion", [None, 129.0, 130.0])
def test_nothing_is_predicted_where_nothing_runs_out_or_all_has_run_out(
    truth: Make, raised: Make, exhaustion: float | None
) -> None:
    scored = told(truth(exhaustion=exhaustion), raised("a", 130).said())
    assert scored.truths[0].exhaustion_right is None
    assert scored.truths[0].before_exhaustion is (exhaustion is None)


@pytest.mark.parametrize(("cleared", "false"), [(189.9, 0), (190.0, 0), (190.1, 1)])
def test_signal_that_the_right_one_supersedes_within_a_minute_is_no_false_page(
    truth: Make, raised: Make, cleared: float, false: int
) -> None:
    early = raised("early", 130, kind="saturation", subject=Subject(limit="server")).end(cleared, by="cause")
    assert len(told(truth(), early.said(), raised("cause", 150).said()).false_pages) == false


def test_signal_that_a_wrong_one_supersedes_stays_a_false_page(truth: Make, raised: Make) -> None:
    early = raised("early", 130, kind="saturation", subject=Subject(limit="server")).end(140, by="cause")
    wrong = raised("cause", 135, subject=Subject(application="billing"))
    assert len(told(truth(), early.said(), wrong.said()).false_pages) == 2


def test_signal_that_just_ended_is_not_superseded(truth: Make, raised: Make) -> None:
    early = raised("early", 130, kind="saturation", subject=Subject(limit="server")).end(140)
    assert len(told(truth(), early.said(), raised("cause", 150).said()).false_pages) == 1


def test_warning_that_turns_critical_is_one_false_critical(raised: Make) -> None:
    life = raised("a", 130, severity="warning").update(400, severity="critical")
    scored = score([], [life.said()], may_warn=True)
    assert [(page.severity, page.allowed) for page in scored.false_pages] == [("critical", False)]


@pytest.mark.parametrize(("severity", "allowed"), [("warning", True), ("critical", False)])
def test_row_that_may_warn_allows_a_warning_and_no_critical(raised: Make, severity: str, allowed: bool) -> None:
    scored = score([], [raised("a", 130, severity=severity).said()], may_warn=True)
    assert [page.allowed for page in scored.false_pages] == [allowed]


def test_warning_is_false_where_nothing_may_light(raised: Make) -> None:
    scored = score([], [raised("a", 130, severity="warning").said()], may_warn=False)
    assert [page.allowed for page in scored.false_pages] == [False]


def test_optional_truth_may_be_said_and_is_not_asked_for(truth: Make, raised: Make) -> None:
    symptom = truth(kind="endpoint_down", subject=Subject(endpoint="web"), optional=True)
    said = raised("a", 140, kind="endpoint_down", subject=Subject(endpoint="web")).said()
    assert told(symptom, said).false_pages == ()
    assert told(symptom).truths[0].outcome == "missed"
    assert told(symptom).truths[0].truth.optional


def test_two_raises_for_one_truth_are_one_repeat_and_no_false_page(truth: Make, raised: Make) -> None:
    first, second = raised("a", 130).end(150).said(), raised("b", 170).said()
    scored = told(truth(), second, first)
    assert scored.truths[0].seconds == pytest.approx(30)
    assert scored.truths[0].repeats == 1
    assert scored.false_pages == ()


def test_new_daemon_that_says_it_again_does_not_flap(truth: Make, raised: Make) -> None:
    scored = told(truth(), raised("a", 130).said(life=0), raised("a", 170).said(life=1))
    assert scored.truths[0].repeats == 0
    assert scored.false_pages == ()


def test_two_incidents_alike_take_a_signal_each(truth: Make, raised: Make) -> None:
    both = [truth(), truth(onset=300.0)]
    scored = score(both, [raised("a", 310).said(), raised("b", 320).said()], may_warn=False)
    assert [one.outcome for one in scored.truths] == ["detected", "detected"]
    assert [one.repeats for one in scored.truths] == [0, 0]


def test_required_truth_takes_the_signal_before_an_optional_one(truth: Make, raised: Make) -> None:
    scored = score([truth(optional=True), truth()], [raised("a", 130).said()], may_warn=False)
    assert [one.outcome for one in scored.truths] == ["missed", "detected"]


def test_who_is_blamed_at_the_raise_stays_blamed_whatever_an_update_says(truth: Make, raised: Make) -> None:
    life = raised("a", 130, subject=Subject(application="billing")).update(140, subject=Subject(application="web"))
    scored = told(truth(), life.said())
    assert scored.truths[0].outcome == "missed"
    assert len(scored.false_pages) == 1


def test_time_counts_until_the_culprit_is_named_and_not_only_that_something_is_wrong(truth: Make, raised: Make) -> None:
    late = raised("a", 130, subject=Subject()).update(160, subject=Subject(application="web"))
    assert told(truth(), late.said()).truths[0].seconds == pytest.approx(60)
    version = raised("a", 130).update(160, subject=Subject(application="web", version="2"))
    wanted = truth(subject=Subject(application="web", version="2"))
    assert told(wanted, version.said()).truths[0].seconds == pytest.approx(30), "a version may come later"


def test_second_signal_for_one_truth_beside_the_first_is_a_false_page(truth: Make, raised: Make) -> None:
    pods = [
        raised(f"pod{n}", 130 + n, subject=Subject(application="web", client=f"10.0.0.{n}")).said() for n in range(3)
    ]
    scored = told(truth(), *pods)
    assert scored.truths[0].outcome == "detected"
    assert [page.said.id for page in scored.false_pages] == ["pod1", "pod2"]


def test_deploy_that_nobody_made_is_named_wrongly(truth: Make, raised: Make, start: float) -> None:
    life = raised("a", 130, deploy=DeployRef(service="web", version="2", at=start + 90))
    assert told(truth(), life.said()).truths[0].deploy_right is False


@pytest.mark.parametrize(
    ("critical", "ended_in_time"),
    [(229.9, (300.0, True)), (230.0, (300.0, False)), (None, (300.0, False)), (None, (200.0, True))],
)
def test_somebody_must_be_woken_before_the_slots_run_out_if_they_do(
    truth: Make, raised: Make, start: float, critical: float | None, ended_in_time: tuple[float, bool]
) -> None:
    ended, in_time = ended_in_time
    life = raised("a", 130, severity="warning")
    if critical is not None:
        life.update(critical, severity="critical")
    scored = score([truth(exhaustion=230.0)], [life.said()], may_warn=False, ended=start + ended)
    assert scored.truths[0].before_exhaustion is in_time
    assert (scored.truths[0].critical_at is None) is (critical is None)


def test_all_clear_while_it_goes_on_is_a_lapse_and_being_superseded_is_none(truth: Make, raised: Make) -> None:
    assert told(truth(), raised("a", 130).end(150).said()).truths[0].lapses == 1
    assert told(truth(), raised("a", 130).end(150, by="b").said(), raised("b", 150).said()).truths[0].lapses == 0
    assert told(truth(), raised("a", 130).said()).truths[0].lapses == 0
