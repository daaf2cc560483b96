"""What must be true of any incident and of everyday life, however it is told: held over plays of the simulator."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import pytest

from batsignal.snapshot import Snapshot
from properties.altered import Names, Pids, failing, shifted, shuffled, spread, without
from properties.said import Fact, events_of, facts_of
from simulator.scenario import build

INCIDENTS = (
    "leak",
    "leak-in-transaction",
    "leak-unnamed",
    "pool-starvation",
    "pgbouncer-starvation",
    "query-pileup",
    "query-pileup-old",
    "lock-pileup",
    "lock-pileup-transaction",
    "storm",
    "storm-refused",
    "pileup-behind-storm",
    "idle-in-transaction",
    "saturation",
    "saturation-role",
    "endpoint-down",
    "endpoint-slow",
    "database-unreachable",
)
EVERYDAY = ("cron-batch", "rolling-deploy", "server-restart", "short-lock-waits", "no-pool-steady", "staggered-batch")
SEED = 3
# Told by what endpoints answer, or by looks that fail.
PROBED = ("endpoint-down", "endpoint-slow", "database-unreachable")
# The looks that `failing` takes away are refused for want of a slot, and that is said of itself.
TOLD_BY_A_REFUSAL = {"saturation"}
TOLD_BY_PROBES = {"endpoint_down", "endpoint_slow", "database_unreachable"}
# These are told by what they do to the server, at the same moment. Who sees a pool's processes apart tells a leak too,
# sooner or later: the first session of each passes for its fill.
WHATEVER_THE_HOST = ("query-pileup", "lock-pileup", "lock-pileup-transaction", "saturation", "idle-in-transaction")
LEAKS = ("leak", "leak-in-transaction", "leak-unnamed")

# Plays that end, or give way to another signal, before a minute's gap is over.
SHORT = ("pgbouncer-starvation", "lock-pileup-transaction", "database-unreachable")

Interrupt = Callable[[Sequence[Snapshot], float, float], list[Snapshot]]

# What one test has played, the others alter and judge: they stay together.
pytestmark = [pytest.mark.xdist_group("properties"), pytest.mark.takes(seconds=0.5)]

plays = pytest.mark.parametrize("row", INCIDENTS + EVERYDAY)


@lru_cache(maxsize=64)
def looks_of(row: str) -> Sequence[Snapshot]:
    return tuple(build(row, SEED, quick=True).looks())


@lru_cache(maxsize=64)
def facts_as_it_was(row: str) -> Sequence[Fact]:
    return tuple(facts_of(looks_of(row)))


@plays
def test_what_happened_at_another_time_is_judged_the_same(row: str) -> None:
    # Over midnights, and to where a float still holds the same fractions of a second.
    for seconds in (43_201, -300_000_123):
        assert facts_of(shifted(looks_of(row), seconds)) == list(facts_as_it_was(row))


@plays
def test_pids_are_only_numbers(row: str) -> None:
    pids = Pids(SEED)
    assert facts_of(pids.of(looks_of(row)), pids.old) == list(facts_as_it_was(row))


@plays
def test_names_are_only_names(row: str) -> None:
    names = Names(SEED)
    assert facts_of(names.of(looks_of(row)), names.old) == list(facts_as_it_was(row))


@plays
def test_the_order_of_the_rows_says_nothing(row: str) -> None:
    assert facts_of(shuffled(looks_of(row), SEED)) == list(facts_as_it_was(row))


@pytest.mark.parametrize("row", ["leak-unnamed", "pool-starvation", "query-pileup", "storm", "server-restart"])
def test_judged_twice_the_very_same_is_said(row: str) -> None:
    once, twice = ([event.as_json() for event in events_of(looks_of(row))] for _ in range(2))
    assert once == twice


@pytest.mark.parametrize("row", WHATEVER_THE_HOST)
def test_spread_over_more_hosts_it_is_the_same_incident(row: str) -> None:
    looks = looks_of(row)
    assert raised(spread(looks, 40)) == raised(spread(looks, 1))


@pytest.mark.parametrize("hosts", [3, 40])
@pytest.mark.parametrize("row", LEAKS)
def test_a_leak_that_is_split_over_more_hosts_is_the_same_leak(row: str, hosts: int) -> None:
    looks = looks_of(row)
    said = [(kind, subject) for _, kind, subject in raised(spread(looks, hosts))]
    assert said == [(kind, subject) for _, kind, subject in raised(looks)]


def raised(looks: Sequence[Snapshot]) -> list[tuple[float, str, tuple[tuple[str, object], ...]]]:
    return [
        (fact.seconds, fact.kind, tuple(pair for pair in fact.subject if pair[0] != "client"))
        for fact in facts_of(looks)
        if fact.event == "raised"
    ]


@pytest.mark.parametrize("row", [row for row in INCIDENTS if row not in PROBED])
def test_a_failed_look_neither_raises_nor_clears(row: str) -> None:
    looks = looks_of(row)
    lit_at = next((fact.seconds for fact in facts_as_it_was(row) if fact.event == "raised"), 30.0)
    for begin, gap in ((lit_at - 5.0, 20.0), (lit_at + 10.0, 150.0)):
        changed = [
            (event.t - looks[0].t, event.event, event.signal.finding.kind)
            for event in events_of(failing(looks, begin, gap))
            if event.event != "updated"
            and event.signal.finding.kind not in TOLD_BY_PROBES | TOLD_BY_A_REFUSAL
            and begin <= event.t - looks[0].t < begin + gap
        ]
        assert changed == []


@pytest.mark.parametrize("row", [row for row in INCIDENTS if row not in SHORT])
def test_an_incident_that_goes_on_in_a_gap_keeps_its_signal(row: str) -> None:
    gap = 60.0
    looks = looks_of(row)
    begin = next(fact.seconds for fact in facts_as_it_was(row) if fact.event == "raised") + 20.0
    assert begin + gap + 30.0 <= looks[-1].t - looks[0].t
    assert not [e for e in events_of(looks) if e.event == "cleared" and e.t - looks[0].t < begin + gap + 30.0]
    cleared = [
        event.signal.finding.summary
        for event in events_of(without(looks, begin, gap))
        if event.event == "cleared" and event.reason == "ended" and event.t - looks[0].t < begin + gap + 30.0
    ]
    assert cleared == []


@pytest.mark.parametrize("row", EVERYDAY)
@pytest.mark.parametrize("interrupt", [without, failing])
def test_a_gap_in_everyday_life_lights_nothing(row: str, interrupt: Interrupt) -> None:
    looks = looks_of(row)
    usual = {(fact.kind, fact.severity) for fact in facts_as_it_was(row)}
    lasts = looks[-1].t - looks[0].t
    for share, gap in ((0.2, 5.0), (0.5, 150.0), (0.8, 30.0)):
        facts = facts_of(interrupt(looks, share * lasts, gap))
        said = {(fact.kind, fact.severity) for fact in facts if fact.kind not in TOLD_BY_A_REFUSAL}
        assert said <= usual
