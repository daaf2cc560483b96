from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.causes import (
    AFTERMATH_SECONDS,
    EMPTY_SECONDS,
    ENDPOINTS,
    EXPLAINS,
    Causes,
    causes_first,
    explains,
)
from batsignal.detect.signal import KINDS, Finding, Kind, Severity, Subject

T = 1_760_000_000.0


def found(kind: Kind, severity: Severity = "critical", since: float = T, **subject: Any) -> Finding:
    return Finding(kind=kind, key=(kind,), severity=severity, subject=Subject(**subject), since=since)


# Row by row what a cause silences; everything else it leaves alone.
TABLE: dict[Kind, set[Kind]] = {
    "database_unreachable": {"endpoint_down", "endpoint_slow", "pool_starvation"},
    "lock_pileup": {
        *("endpoint_down", "endpoint_slow", "saturation", "pool_starvation", "query_pileup", "idle_in_transaction")
    },
    "query_pileup": {"endpoint_down", "endpoint_slow", "saturation", "pool_starvation"},
    "storm": {"endpoint_down", "endpoint_slow", "saturation"},
    "pool_starvation": {"endpoint_down", "endpoint_slow", "leak", "idle_in_transaction"},
    "leak": {"endpoint_down", "endpoint_slow", "saturation", "idle_in_transaction"},
    "saturation": {"endpoint_down", "endpoint_slow"},
    "endpoint_down": {"endpoint_slow"},
    "endpoint_slow": set(),
    "idle_in_transaction": set(),
}


@pytest.mark.parametrize("cause", KINDS)
@pytest.mark.parametrize("symptom", KINDS)
def test_cause_silences_its_symptoms_and_nothing_else(cause: Kind, symptom: Kind) -> None:
    assert explains(found(cause), found(symptom)) == (symptom in TABLE[cause])


def test_nothing_is_its_own_cause_however_far_around() -> None:
    def reached(kind: Kind, seen: tuple[Kind, ...] = ()) -> None:
        assert kind not in seen
        for symptom in EXPLAINS.get(kind, frozenset()):
            reached(symptom, (*seen, kind))

    for kind in KINDS:
        reached(kind)


@pytest.mark.parametrize(
    ("cause", "symptom"), [(cause, symptom) for cause in KINDS for symptom in sorted(EXPLAINS.get(cause, ()))]
)
def test_cause_that_can_wait_does_not_silence_a_symptom_that_cannot(cause: Kind, symptom: Kind) -> None:
    assert not explains(found(cause, "warning"), found(symptom, "critical"))
    assert explains(found(cause, "warning"), found(symptom, "warning"))


PAIRS_OF_ONE_CLIENT = [
    (cause, symptom)
    for cause in KINDS
    for symptom in sorted(EXPLAINS.get(cause, ()))
    if symptom not in ENDPOINTS and (cause != "lock_pileup" or symptom == "idle_in_transaction")
]


@pytest.mark.parametrize(("cause", "symptom"), PAIRS_OF_ONE_CLIENT)
@pytest.mark.parametrize("key", ["application", "user", "database"])
def test_cause_silences_only_what_is_of_the_same_client_as_far_as_that_is_known(
    cause: Kind, symptom: Kind, key: str
) -> None:
    assert not explains(found(cause, **{key: "web"}), found(symptom, **{key: "billing"}))
    assert explains(found(cause, **{key: "web"}), found(symptom, **{key: "web"}))
    assert explains(found(cause, **{key: "web"}), found(symptom))
    assert explains(found(cause), found(symptom, **{key: "web"}))


@pytest.mark.parametrize("symptom", ["saturation", "pool_starvation", "query_pileup"])
def test_blocker_is_another_than_those_who_wait_for_it(symptom: Kind) -> None:
    blocker = found("lock_pileup", application="migrate", user="admin", database="shop", blocker=17)
    assert explains(blocker, found(symptom, application="web", user="web", database="shop"))
    assert not explains(blocker, found(symptom, application="web", user="web", database="other"))


def test_lock_queue_silences_the_open_transaction_that_blocks_it_and_no_other() -> None:
    blocker = found("lock_pileup", application="web", blocker=17)
    assert explains(blocker, found("idle_in_transaction", application="web", blocker=17))
    assert not explains(blocker, found("idle_in_transaction", application="web", blocker=18))
    assert not explains(blocker, found("idle_in_transaction", application="billing", blocker=17))


@pytest.mark.parametrize("cause", ["leak", "pool_starvation"])
def test_what_is_wrong_within_a_service_silences_only_its_own_endpoint(cause: Kind) -> None:
    assert explains(found(cause, application="web"), found("endpoint_down", application="web"))
    assert not explains(found(cause, application="web"), found("endpoint_down", application="billing"))


@pytest.mark.parametrize("cause", ["database_unreachable", "lock_pileup", "query_pileup", "storm", "saturation"])
def test_what_takes_from_everybody_silences_every_endpoint(cause: Kind) -> None:
    assert explains(found(cause, application="web"), found("endpoint_down", application="billing"))


@pytest.mark.parametrize(("before", "is_explained"), [(120.0, True), (121.0, False)])
def test_endpoint_that_failed_long_before_has_another_cause(before: float, is_explained: bool) -> None:
    assert explains(found("leak"), found("endpoint_down", since=T - before)) == is_explained


def test_what_explains_a_symptom_is_said_even_where_it_is_explained_itself() -> None:
    lock, pileup, full = found("lock_pileup"), found("query_pileup"), found("saturation")
    kept, superseded = causes_first([full, pileup, lock])
    assert kept == [lock]
    assert superseded == {
        ("saturation", ("saturation",)): ("lock_pileup", ("lock_pileup",)),
        ("query_pileup", ("query_pileup",)): ("lock_pileup", ("lock_pileup",)),
    }


def test_two_incidents_at_once_are_both_said() -> None:
    leak, pileup = found("leak", application="web"), found("query_pileup", application="billing")
    assert causes_first([leak, pileup]) == ([leak, pileup], {})


def test_statement_that_piles_up_in_a_poolers_pool_is_told_as_what_it_does_and_elsewhere_as_itself() -> None:
    pool = found("pool_starvation", pool="shop/web", database="shop", user="web")
    inside = found("query_pileup", database="shop", user="web", query_id="7")
    assert explains(pool, inside)
    assert not explains(inside, pool)
    for outside in (found("query_pileup", database="shop", user="jobs"), found("query_pileup", database="shop")):
        assert not explains(pool, outside)
    assert explains(found("query_pileup", database="shop"), pool)
    assert explains(inside, found("pool_starvation", application="web", database="shop", user="web"))


def test_leak_of_more_sessions_than_a_poolers_empty_pool_has_goes_past_it_and_is_told() -> None:
    pool = replace(found("pool_starvation", pool="shop/web", database="shop", user="web"), sessions=6)
    leak = found("leak", database="shop", user="web")
    assert explains(pool, replace(leak, sessions=6))
    assert not explains(pool, replace(leak, sessions=7))
    # Of an application's own pool nobody knows the size.
    assert explains(replace(pool, subject=Subject(application="web")), replace(leak, sessions=7))


def test_server_that_is_away_wakes_somebody_itself_if_it_lasts_and_its_endpoints_do_not() -> None:
    away = replace(found("database_unreachable", "warning"), wakes_if_it_lasts=True)
    assert explains(away, found("endpoint_down"))
    assert not explains(replace(away, wakes_if_it_lasts=False), found("endpoint_down"))


def test_endpoint_that_outlives_its_cause_by_some_probes_lights_nothing() -> None:
    causes = Causes()
    away, down = found("database_unreachable"), found("endpoint_down", endpoint="web")
    assert causes.first([away, down], T)[0] == [away]
    assert causes.first([down], T + AFTERMATH_SECONDS) == ([], {})
    assert causes.first([], T + AFTERMATH_SECONDS + 1) == ([], {})
    assert causes.first([down], T + AFTERMATH_SECONDS + 2)[0] == [down], "it failed anew"


def test_endpoint_that_goes_on_failing_long_after_its_cause_has_another() -> None:
    causes = Causes()
    away, down = found("database_unreachable"), found("endpoint_down", endpoint="web")
    causes.first([away, down], T)
    assert causes.first([down], T + AFTERMATH_SECONDS + 1)[0] == [down]


def test_what_does_not_outlive_its_cause_is_said_at_once_when_it_is_still_there() -> None:
    causes = Causes()
    leak, full = found("leak"), found("saturation", limit="server")
    causes.first([leak, full], T)
    assert causes.first([full], T + 1)[0] == [full]


def lost(sessions: int, *, left: float = 600.0, severity: Severity = "critical") -> Finding:
    return replace(found("leak", severity, application="web"), sessions=sessions, exhaustion_seconds=left)


def empty(sessions: int) -> Finding:
    return replace(found("pool_starvation", application="web"), sessions=sessions)


def test_leak_that_grows_past_the_one_pool_of_its_service_that_is_empty_goes_on_as_a_leak() -> None:
    kept, superseded = causes_first([empty(20), lost(30)])
    assert [one.kind for one in kept] == ["leak"]
    assert superseded == {("pool_starvation", ("pool_starvation",)): ("leak", ("leak",))}


@pytest.mark.parametrize(
    "leak",
    [lost(22), lost(30, left=float("inf")), lost(30, left=0.0), lost(30, severity="warning")],
    ids=["little more", "stands still", "nothing left", "wakes nobody"],
)
def test_leak_that_its_pools_bound_is_told_as_the_empty_pool(leak: Finding) -> None:
    kept, superseded = causes_first([leak, empty(20)])
    assert [one.kind for one in kept] == ["pool_starvation"]
    assert superseded == {("leak", ("leak",)): ("pool_starvation", ("pool_starvation",))}


@pytest.mark.parametrize("severity", ["warning", "critical"])
def test_what_a_pool_had_lost_is_no_leak_of_its_own_when_it_is_well_again(severity: Severity) -> None:
    causes = Causes()
    causes.first([lost(20, left=float("inf")), empty(20)], T)
    gone = lost(18, left=float("inf"), severity=severity)
    assert causes.first([gone], T + 1)[0] == []
    assert causes.first([gone], T + 1 + AFTERMATH_SECONDS)[0] == [gone]
    causes.first([lost(20, left=float("inf")), empty(20)], T + 100)
    assert causes.first([lost(40)], T + 101)[0] == [lost(40)]


def test_pool_that_stays_empty_beside_a_leak_is_what_the_leak_comes_to_and_no_longer_takes_turns_with_it() -> None:
    causes = Causes()
    said = []
    for tick in range(60):
        findings = [lost(30), empty(20)] if not 5 <= tick < 8 else [lost(30)]
        said.append([one.kind for one in causes.first(findings, T + tick)[0]])
    begin = 8 + int(EMPTY_SECONDS)
    assert said == [["leak"]] * begin + [["pool_starvation"]] * (60 - begin)


def test_leak_that_is_found_beside_a_pool_that_was_said_to_be_empty_changes_nothing() -> None:
    causes = Causes()
    causes.first([empty(20)], T)
    assert [one.kind for one in causes.first([lost(30), empty(20)], T + 1)[0]] == ["pool_starvation"]


@pytest.mark.parametrize(("began", "is_said"), [(-20.0, False), (5.0, True)], ids=["meanwhile", "after it"])
def test_endpoint_that_is_found_to_fail_a_moment_after_the_end_of_what_brought_it_is_told_only_if_it_lasts(
    began: float, is_said: bool
) -> None:
    causes = Causes()
    shut = replace(found("database_unreachable", "warning", since=T - 30), wakes_if_it_lasts=True)
    assert causes.first([shut], T)[0] == [shut]
    down = found("endpoint_down", since=T + began)
    assert bool(causes.first([down], T + 10)[0]) == is_said
    assert causes.first([down], T + AFTERMATH_SECONDS + 1)[0] == [down]
