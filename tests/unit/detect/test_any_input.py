"""No input makes a detector raise an exception, or say what no reader can take."""

import json
import math
from collections.abc import Iterable
from functools import lru_cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batsignal.cli.replay import Life
from batsignal.snapshot import Snapshot
from properties.strange import Nonsense, spoiled
from simulator.scenario import build

ROWS = (
    *("leak", "leak-in-transaction", "pool-starvation", "pgbouncer-starvation", "query-pileup", "lock-pileup"),
    *("lock-pileup-transaction", "storm", "storm-refused", "storm-reconnect", "idle-in-transaction", "saturation-role"),
    *("endpoint-slow", "database-unreachable", "cron-batch", "rolling-deploy"),
)


def judge(looks: Iterable[Snapshot]) -> None:
    """Judge looks, and check that whatever is said can be shown, sent and remembered."""
    life = Life("db1")
    for look in looks:
        verdict, events = life.look(look)
        assert verdict.exhaustion_seconds is None or not math.isnan(verdict.exhaustion_seconds)
        for event in events:
            said = json.loads(json.dumps(event.as_json(), allow_nan=False))["signal"]
            assert said["exhaustion_seconds"] is None or said["exhaustion_seconds"] >= 0
            assert said["sessions"] >= 0
            for text in (said["summary"], said["action"]):
                assert text.isprintable(), text
                assert len(text) < 1000
    remembered = json.loads(json.dumps(life._judge.remembered(), allow_nan=False))
    assert Life("db1")._judge.recall(remembered) == ()


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32))
@example(seed=2_842_439_495)  # a statement from before 1970, of which a daemon refused its own memory
def test_nonsense_is_judged_without_an_exception(seed: int) -> None:
    judge(Nonsense(seed).looks(60))


@lru_cache(maxsize=32)
def looks_of(row: str) -> tuple[Snapshot, ...]:
    return tuple(build(row, 5, quick=True).looks())


@pytest.mark.parametrize("row", ROWS)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**32))
def test_an_incident_spoiled_here_and_there_is_judged_without_an_exception(row: str, seed: int) -> None:
    judge(spoiled(looks_of(row), seed))


def test_what_was_remembered_by_somebody_else_is_refused_and_not_half_taken() -> None:
    names = Life("db1")._judge.remembered()
    for nonsense in ("", [], {}, {"x": 1}, [[]], 3, None, {"": {"": []}}, [None], {"groups": "x"}):
        life = Life("db1")
        unfit = life._judge.recall(dict.fromkeys(names, nonsense))
        assert set(unfit) <= set(names)
        for look in Nonsense(1).looks(20):
            life.look(look)
