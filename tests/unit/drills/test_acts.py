import pytest

from batsignal.detect.signal import Subject
from batsignal.drills import acts
from batsignal.drills.act import ActSpec, OnsetFacts, Pace, Tell, Told
from batsignal.drills.catalogue import ROWS
from batsignal.errors import ConfigError


def test_every_row_of_the_catalogue_is_an_act_and_every_act_a_row() -> None:
    assert set(acts._ALL) == set(acts.ACTS) == set(ROWS)


def test_no_act_stands_in_two_modules() -> None:
    assert sum(len(module.ACTS) for module in acts._MODULES) == len(acts.ACTS)


@pytest.mark.parametrize("name", ["query-pileup", "query_pileup", " Query-Pileup "])
def test_a_name_is_found_however_its_words_are_joined(name: str) -> None:
    row, spec = acts.find(name, option="drill")
    assert (row.name, spec) == ("query-pileup", acts.ACTS["query-pileup"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("leek", "did you mean leak"), ("pileup", "query-pileup"), ("xyzzy", "lists all"), ("", "--list")],
)
def test_an_unknown_name_is_an_error_with_what_comes_close(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        acts.find(name, option="drill")


@pytest.mark.parametrize("name", ROWS)
def test_an_act_has_a_length_a_calm_and_a_size(name: str) -> None:
    spec = acts.ACTS[name]
    assert spec.duration_seconds > 0
    assert spec.calm_seconds >= 0
    assert spec.least_slots >= 1


def quiet(_ground: object, _pace: Pace, _tell: Tell) -> None:
    """Do nothing."""


SPEC = ActSpec(run=quiet, rate_per_second=0.5, size=7, duration_seconds=60.0, calm_seconds=9.0)


def test_a_pace_that_nobody_asked_for_is_the_acts_own() -> None:
    assert SPEC.paced(Pace()) == Pace(rate_per_second=0.5, size=7, duration_seconds=60.0, calm_seconds=9.0)


def test_a_pace_that_was_asked_for_wins_also_when_it_is_zero() -> None:
    asked = Pace(rate_per_second=2.0, size=1, duration_seconds=3.0, calm_seconds=0.0)
    assert SPEC.paced(asked) == asked


def test_only_the_first_onset_of_a_kind_counts() -> None:
    told: list[Told] = []
    tell = Tell(told.append)
    tell.onset(OnsetFacts(kind="leak", subject=Subject(application="web"), at=10.0))
    tell.onset(OnsetFacts(kind="leak", subject=Subject(application="billing"), at=20.0))
    tell.onset(OnsetFacts(kind="storm", subject=Subject(application="web"), at=30.0))
    assert [(facts.kind, facts.at) for facts in tell.onsets.values()] == [("leak", 10.0), ("storm", 30.0)]
    assert [one.event for one in told] == ["onset", "onset"]


def test_what_was_lost_is_told_in_order_of_time_with_its_count() -> None:
    told: list[Told] = []
    tell = Tell(told.append)
    tell.lost(12.0)
    tell.lost(10.0)
    assert tell.lost_at == (10.0, 12.0)
    assert [one.facts["sessions"] for one in told] == [1, 2]
