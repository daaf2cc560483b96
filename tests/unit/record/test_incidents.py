import math
from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.signal import DeployRef, Event, Finding, Subject
from batsignal.record.incidents import ABSENCE_SECONDS, RESUME_SECONDS, Incidents

T = 1_760_000_000.0

LEAK = Finding(
    kind="leak",
    key=("service", "web"),
    severity="warning",
    subject=Subject(application="web"),
    since=T - 30,
    sessions=8,
    exhaustion_seconds=4000.0,
)
SATURATION = Finding(
    kind="saturation", key=("server",), severity="critical", subject=Subject(limit="server"), since=T, sessions=90
)
LEAK_KEY = (LEAK.kind, LEAK.key)
SATURATION_KEY = (SATURATION.kind, SATURATION.key)


class Ticks:
    """Folds one tick's findings after the other, a second apart."""

    def __init__(self) -> None:
        self.incidents = Incidents("db1")
        self.t = T

    def tick(self, *findings: Finding, superseded: Any = None) -> list[Event]:
        self.t += 1.0
        return list(self.incidents.fold(self.t, findings, superseded or {}))


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def test_new_finding_is_raised_and_lit(ticks: Ticks) -> None:
    (event,) = ticks.tick(LEAK)
    assert (event.t, event.event, event.reason, event.by) == (T + 1, "raised", None, None)
    assert event.signal.detected == T + 1
    assert event.signal.finding == LEAK
    assert ticks.incidents.signals == (event.signal,)


def test_same_finding_says_nothing_more(ticks: Ticks) -> None:
    ticks.tick(LEAK)
    assert not ticks.tick(LEAK)
    assert not ticks.tick(replace(LEAK, exhaustion_seconds=3999.0, summary="in other words"))


def test_what_comes_again_before_its_end_began_no_later_than_it_was_told(ticks: Ticks) -> None:
    ticks.tick(LEAK)
    ticks.tick(replace(LEAK, since=T - 10))
    assert ticks.incidents.signals[0].finding.since == T - 10, "a corrected onset"
    ticks.tick(replace(LEAK, since=T + 2))
    assert ticks.incidents.signals[0].finding.since == T - 10


def test_nothing_begins_after_it_is_found_whatever_a_clock_that_was_set_back_left_behind(ticks: Ticks) -> None:
    (raised,) = ticks.tick(replace(LEAK, since=T + 3600))
    assert (raised.signal.finding.since, raised.signal.detected) == (T + 1, T + 1)
    ticks.tick(replace(LEAK, since=T + 3600))
    assert ticks.incidents.signals[0].finding.since == T + 1


def test_lit_signal_shows_the_newest_facts_although_they_are_no_news(ticks: Ticks) -> None:
    ticks.tick(LEAK)
    ticks.tick(replace(LEAK, sessions=9))
    (signal,) = ticks.incidents.signals
    assert signal.finding.sessions == 9


@pytest.mark.parametrize(
    "change",
    [
        {"severity": "critical"},
        {"subject": Subject(application="web", version="2.4.0")},
        {"deploy": DeployRef(service="web", version="2.4.0", at=T)},
        {"since": T - 31},
        {"database_healthy": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_fact_is_an_update_of_the_same_signal(ticks: Ticks, change: dict[str, Any]) -> None:
    (raised,) = ticks.tick(LEAK)
    (updated,) = ticks.tick(replace(LEAK, **change))
    assert updated.event == "updated"
    assert (updated.signal.id, updated.signal.detected) == (raised.signal.id, raised.signal.detected)
    assert updated.signal.raised_as == Subject(application="web")


def test_numbers_are_compared_with_what_was_told_last(ticks: Ticks) -> None:
    ticks.tick(LEAK)
    ticks.t += 10
    assert not ticks.tick(replace(LEAK, sessions=10))
    assert ticks.tick(replace(LEAK, sessions=11))
    ticks.t += 10
    assert not ticks.tick(replace(LEAK, sessions=13))


def test_finding_that_is_gone_is_cleared_as_ended(ticks: Ticks) -> None:
    (raised,) = ticks.tick(LEAK)
    (cleared,) = ticks.tick()
    assert (cleared.event, cleared.reason, cleared.by) == ("cleared", "ended", None)
    assert cleared.signal == raised.signal
    assert ticks.incidents.signals == ()


def test_symptom_is_superseded_by_the_cause_that_is_lit(ticks: Ticks) -> None:
    ticks.tick(SATURATION)
    raised, cleared = ticks.tick(LEAK, superseded={SATURATION_KEY: LEAK_KEY})
    assert (raised.event, raised.signal.finding.kind) == ("raised", "leak")
    assert (cleared.event, cleared.reason, cleared.by) == ("cleared", "superseded", raised.signal.id)
    assert not ticks.tick(LEAK, superseded={SATURATION_KEY: LEAK_KEY})


def test_symptom_that_never_lit_is_not_mentioned(ticks: Ticks) -> None:
    (event,) = ticks.tick(LEAK, superseded={SATURATION_KEY: LEAK_KEY})
    assert event.signal.finding.kind == "leak"


def test_same_thing_found_again_later_is_another_signal(ticks: Ticks) -> None:
    (first,) = ticks.tick(LEAK)
    ticks.tick()
    (second,) = ticks.tick(LEAK)
    assert first.signal.id != second.signal.id


def test_ids_are_the_same_in_a_replay_and_differ_between_servers_and_things() -> None:
    def raised(server: str, finding: Finding) -> str:
        return Incidents(server).fold(T, [finding], {})[0].signal.id

    assert raised("db1", LEAK) == raised("db1", replace(LEAK, sessions=99))
    assert len({raised("db1", LEAK), raised("db2", LEAK), raised("db1", replace(LEAK, key=("service", "api")))}) == 3


def test_oldest_signal_comes_first(ticks: Ticks) -> None:
    ticks.tick(SATURATION)
    ticks.tick(LEAK, SATURATION)
    assert [signal.finding.kind for signal in ticks.incidents.signals] == ["saturation", "leak"]


def test_cleared_event_reads_as_the_contract_has_it(ticks: Ticks) -> None:
    ticks.tick(SATURATION)
    raised, cleared = ticks.tick(LEAK, superseded={SATURATION_KEY: LEAK_KEY})
    line = cleared.as_json()
    assert list(line)[:4] == ["t", "event", "reason", "by"]
    assert (line["event"], line["reason"], line["by"]) == ("cleared", "superseded", raised.signal.id)
    assert "reason" not in raised.as_json()


def test_signal_reads_as_the_contract_has_it(ticks: Ticks) -> None:
    found = replace(
        LEAK,
        exhaustion_seconds=math.inf,
        deploy=DeployRef(service="web", version="2.4.0", at=T - 60, previous="2.3.9"),
        evidence=("one", "two"),
    )
    (event,) = ticks.tick(found)
    told = event.signal.as_json()
    assert set(told) == {
        *("id", "kind", "severity", "server", "subject", "since", "detected", "sessions", "exhaustion_seconds"),
        *("deploy", "database_healthy", "evidence", "summary", "action"),
    }
    assert told["exhaustion_seconds"] is None
    assert told["deploy"] == {"service": "web", "version": "2.4.0", "at": T - 60}
    assert told["evidence"] == ["one", "two"]
    assert set(told["subject"]) == {
        *("application", "version", "user", "database", "client", "query_id", "endpoint", "pool", "limit", "blocker"),
    }


def left_lit(*findings: Finding, left_at: float, looked: float) -> tuple[Ticks, list[Event]]:
    """Return a second life that begins at `looked`, after one that looked last at `left_at` with these lit."""
    first = Ticks()
    first.t = left_at - 1.0
    raised = first.tick(*findings)
    second = Ticks()
    second.incidents.resume(first.incidents.signals, left_at=left_at)
    second.t = looked - 1.0
    return second, raised


def test_what_an_earlier_life_left_lit_goes_on_as_the_same_incident_once_it_is_found_again() -> None:
    second, (raised,) = left_lit(LEAK, left_at=T, looked=T + 5)
    assert not second.tick()
    assert not second.incidents.signals  # it may have ended meanwhile
    second.t = T + 40
    (event,) = second.tick(replace(LEAK, since=T + 10, subject=Subject(application="web", version="2")))
    assert (event.event, event.signal.id, event.signal.detected) == ("updated", raised.signal.id, T)
    assert event.signal.raised_as == LEAK.subject
    assert event.signal.finding.since == LEAK.since
    assert event.signal.finding.subject.version == "2"
    second.tick(replace(LEAK, since=T + 10))
    assert second.incidents.signals[0].finding.since == LEAK.since


def test_an_onset_that_is_known_to_be_earlier_than_an_earlier_life_knew_counts() -> None:
    second, _ = left_lit(LEAK, left_at=T, looked=T + 5)
    (event,) = second.tick(replace(LEAK, since=T - 90))
    assert event.signal.finding.since == T - 90


def test_the_same_again_after_its_end_is_another_incident_with_its_own_onset() -> None:
    second, (raised,) = left_lit(LEAK, left_at=T, looked=T + 5)
    second.tick(LEAK)
    (cleared,) = second.tick()
    assert (cleared.event, cleared.signal.id) == ("cleared", raised.signal.id)
    (again,) = second.tick(replace(LEAK, since=T + 6))
    assert (again.event, again.signal.finding.since) == ("raised", T + 6)
    assert again.signal.id != raised.signal.id


def test_what_is_not_found_again_is_cleared_as_ended_after_a_while() -> None:
    second, (raised,) = left_lit(LEAK, left_at=T, looked=T + 5)
    second.tick()
    second.t = T + 4 + RESUME_SECONDS
    assert not second.tick()
    (event,) = second.tick()
    assert (event.event, event.reason, event.signal.id) == ("cleared", "ended", raised.signal.id)
    assert not second.tick()


def test_after_a_long_absence_what_began_during_it_is_an_incident_of_its_own() -> None:
    second, (raised,) = left_lit(LEAK, left_at=T, looked=T + ABSENCE_SECONDS + 1)
    new, ended = second.tick(replace(LEAK, since=T + 100))
    assert (new.event, ended.event, ended.reason) == ("raised", "cleared", "ended")
    assert (ended.signal.id, new.signal.id != raised.signal.id) == (raised.signal.id, True)


@pytest.mark.parametrize(("absence", "since"), [(ABSENCE_SECONDS, T + 100), (86_400.0, LEAK.since)])
def test_a_short_absence_or_an_onset_before_it_makes_it_the_same_incident(absence: float, since: float) -> None:
    second, (raised,) = left_lit(LEAK, left_at=T, looked=T + absence)
    (event,) = second.tick(replace(LEAK, since=since))
    assert (event.event, event.signal.id) == ("updated", raised.signal.id)


def test_a_symptom_that_an_earlier_life_left_lit_is_superseded_by_the_cause_that_is_found() -> None:
    second, (raised,) = left_lit(SATURATION, left_at=T, looked=T + 5)
    new, gone = second.tick(LEAK, superseded={SATURATION_KEY: LEAK_KEY})
    assert (new.event, new.signal.finding.kind) == ("raised", "leak")
    assert (gone.event, gone.reason, gone.by, gone.signal.id) == (
        "cleared",
        "superseded",
        new.signal.id,
        raised.signal.id,
    )


def test_a_clock_that_steps_back_prolongs_the_wait_for_what_was_left_lit_by_no_more_than_the_step() -> None:
    second, _ = left_lit(LEAK, left_at=T, looked=T + 5)
    second.tick()
    second.t = T - 3600
    assert not second.tick()
    second.t += RESUME_SECONDS
    (event,) = second.tick()
    assert event.event == "cleared"
