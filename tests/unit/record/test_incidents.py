from dataclasses import replace
from typing import Any

from batsignal.detect.signal import Event, Finding, Subject
from batsignal.record.incidents import Incidents

T = 1_760_000_000.0


def finding(**facts: Any) -> Finding:
    given: dict[str, Any] = {
        "kind": "leak",
        "key": ("service", "web"),
        "severity": "warning",
        "subject": Subject(application="web", user="web"),
        "since": T - 30,
        "sessions": 8,
    }
    return Finding(**(given | facts))


def names(events: tuple[Event, ...]) -> list[tuple[str, str]]:
    return [(event.event, event.signal.finding.kind) for event in events]


def test_a_finding_is_raised_once_and_keeps_its_identity() -> None:
    incidents = Incidents("db1")
    (raised,) = incidents.fold(T, [finding()], {})
    assert (raised.event, raised.signal.detected, raised.signal.server) == ("raised", T, "db1")
    assert incidents.fold(T + 1, [finding()], {}) == ()
    (updated,) = incidents.fold(T + 2, [finding(severity="critical")], {})
    assert updated.event == "updated"
    assert (updated.signal.id, updated.signal.detected) == (raised.signal.id, T)


def test_a_count_is_news_only_when_it_moved_by_more_than_a_quarter_since_it_was_told() -> None:
    incidents = Incidents("db1")
    incidents.fold(T, [finding(sessions=8)], {})
    assert incidents.fold(T + 1, [finding(sessions=10)], {}) == ()
    assert names(incidents.fold(T + 2, [finding(sessions=11)], {})) == [("updated", "leak")]
    assert incidents.fold(T + 3, [finding(sessions=13)], {}) == ()


def test_what_is_shown_follows_every_tick_though_no_event_says_so() -> None:
    incidents = Incidents("db1")
    incidents.fold(T, [finding(sessions=8)], {})
    incidents.fold(T + 1, [finding(sessions=9, summary="nine held")], {})
    (signal,) = incidents.signals
    assert signal.finding.summary == "nine held"


def test_what_an_alert_is_made_of_stays_as_it_was_at_the_raise() -> None:
    incidents = Incidents("db1")
    incidents.fold(T, [finding(subject=Subject(user="web"))], {})
    incidents.fold(T + 1, [finding(subject=Subject(application="web", user="web"))], {})
    (signal,) = incidents.signals
    assert signal.raised_as == Subject(user="web")
    assert signal.as_json()["subject"]["application"] == "web"


def test_a_finding_that_is_gone_is_cleared_as_ended() -> None:
    incidents = Incidents("db1")
    (raised,) = incidents.fold(T, [finding()], {})
    (cleared,) = incidents.fold(T + 1, [], {})
    assert (cleared.event, cleared.reason, cleared.by, cleared.signal.id) == (
        "cleared",
        "ended",
        None,
        raised.signal.id,
    )
    assert incidents.signals == ()


def test_a_finding_that_a_cause_explains_is_cleared_as_superseded_by_it() -> None:
    incidents = Incidents("db1")
    symptom = finding(kind="saturation", key=("server",))
    incidents.fold(T, [symptom], {})
    events = incidents.fold(T + 1, [finding()], {("saturation", ("server",)): ("leak", ("service", "web"))})
    assert names(events) == [("raised", "leak"), ("cleared", "saturation")]
    assert (events[1].reason, events[1].by) == ("superseded", events[0].signal.id)


def test_a_finding_that_comes_back_is_a_new_signal() -> None:
    incidents = Incidents("db1")
    (first,) = incidents.fold(T, [finding()], {})
    incidents.fold(T + 1, [], {})
    (second,) = incidents.fold(T + 2, [finding()], {})
    assert second.signal.id != first.signal.id


def test_two_culprits_are_two_signals() -> None:
    incidents = Incidents("db1")
    other = replace(finding(), key=("service", "api"), subject=Subject(application="api"))
    incidents.fold(T, [finding(), other], {})
    assert len({signal.id for signal in incidents.signals}) == 2


def test_the_same_history_gives_the_same_ids() -> None:
    assert Incidents("db1").fold(T, [finding()], {}) == Incidents("db1").fold(T, [finding()], {})
    (here,) = Incidents("db1").fold(T, [finding()], {})
    (there,) = Incidents("db2").fold(T, [finding()], {})
    assert here.signal.id != there.signal.id
