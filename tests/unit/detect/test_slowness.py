"""Slow against its own past: for a while, by much, and never because of a rhythm or one slow probe."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from batsignal.detect.slowness import SlownessDetector
from batsignal.snapshot import ProbeResult

if TYPE_CHECKING:
    from batsignal.detect.signal import Finding

T = 1_760_000_000.0
ONSET = 400.0

Curve = Callable[[float], float]


class Prober:
    """Probes one endpoint once an interval and says what the detector makes of it."""

    def __init__(self, detector: SlownessDetector | None = None, *, interval: float = 5.0, t: float = 0.0) -> None:
        self.detector = detector or SlownessDetector()
        self.interval = interval
        self.t = t
        self.said: list[tuple[float, Finding]] = []

    def probe(self, seconds: Curve, until: float, *, up: Curve = lambda _t: 1.0, endpoint: str = "web") -> "Prober":
        while self.t < until:
            self.t += self.interval
            result = ProbeResult(
                endpoint=endpoint, service="shop", at=T + self.t, up=up(self.t) > 0, seconds=seconds(self.t)
            )
            found = list(self.detector.look([result], T + self.t))
            self.said += [(self.t, finding) for finding in found]
        return self

    @property
    def lit(self) -> list[float]:
        return [t for t, _ in self.said]


def step(before: float, after: float, at: float = ONSET) -> Curve:
    return lambda t: before if t < at else after


@pytest.mark.parametrize("interval", [1.0, 2.0, 5.0, 10.0, 15.0, 20.0])
def test_endpoint_that_becomes_slow_is_named_within_a_minute(interval: float) -> None:
    prober = Prober(interval=interval).probe(step(0.02, 0.6), ONSET + 120)
    assert ONSET + 10 <= prober.lit[0] <= ONSET + 60
    found = prober.said[0][1]
    assert (found.kind, found.severity) == ("endpoint_slow", "warning")
    assert (found.subject.endpoint, found.subject.application) == ("web", "shop")
    assert found.since == pytest.approx(T + ONSET, abs=interval)
    assert found.summary.startswith("the health endpoint web of shop is slow: 600 ms instead of 20 ms, since ")
    assert prober.lit[-1] >= ONSET + 100


@pytest.mark.parametrize(
    ("usual", "slow", "is_named"),
    [(0.02, 0.119, False), (0.02, 0.121, True), (0.2, 0.59, False), (0.2, 0.61, True)],
)
def test_slow_is_three_times_the_usual_and_a_tenth_of_a_second_more(
    usual: float, slow: float, *, is_named: bool
) -> None:
    assert bool(Prober().probe(step(usual, slow), ONSET + 120).said) == is_named


@pytest.mark.parametrize(("onset", "is_named"), [(240.0, False), (300.0, True)])
def test_five_minutes_of_the_past_are_needed(onset: float, *, is_named: bool) -> None:
    prober = Prober().probe(step(0.02, 0.6, onset), onset + 40)
    assert bool(prober.said) == is_named


def test_single_slow_probes_say_nothing() -> None:
    assert not Prober().probe(lambda t: 1.5 if t % 30 == 0 else 0.02, 3600).said


def test_two_slow_probes_in_a_row_say_nothing() -> None:
    assert not Prober().probe(lambda t: 1.5 if t in {600, 605} else 0.02, 1200).said


def test_traffic_that_doubles_an_endpoints_time_says_nothing() -> None:
    assert not Prober().probe(step(0.08, 0.16), 2000).said


def test_daily_rhythm_that_was_seen_before_says_nothing() -> None:
    def day(t: float) -> float:
        return 0.05 * (1.0 + 1.8 * (0.5 - 0.5 * math.cos(t / 86_400 * 2 * math.pi)))

    assert not Prober(interval=60.0).probe(day, 3 * 86_400.0).said


def test_failed_probes_are_not_slow_ones() -> None:
    assert not Prober().probe(step(0.02, 2.0), 800, up=step(1.0, 0.0)).said


def test_it_ends_when_it_is_quick_again_and_not_by_one_quick_probe() -> None:
    def seconds(t: float) -> float:
        return 0.6 if ONSET <= t < ONSET + 200 and t != ONSET + 100 else 0.02

    prober = Prober().probe(seconds, ONSET + 400)
    gaps = [later - earlier for earlier, later in zip(prober.lit, prober.lit[1:], strict=False)]
    assert set(gaps) == {5.0}
    assert ONSET + 210 <= prober.lit[-1] <= ONSET + 245


def test_slowness_that_goes_on_is_not_learnt_as_usual() -> None:
    assert Prober().probe(step(0.02, 0.6), ONSET + 4 * 3600).lit[-1] == ONSET + 4 * 3600


def test_what_has_been_so_for_a_day_is_usual() -> None:
    prober = Prober(interval=30.0).probe(step(0.02, 0.6), ONSET + 30 * 3600)
    assert ONSET + 23 * 3600 < prober.lit[-1] < ONSET + 25 * 3600


def test_past_outlives_a_restart_of_the_daemon() -> None:
    before = Prober().probe(lambda _t: 0.02, 400)
    again = SlownessDetector()
    again.recall(before.detector.remembered())
    assert Prober(again, t=500).probe(lambda _t: 0.6, 540).said
    assert not Prober(t=500).probe(lambda _t: 0.6, 540).said


def test_a_whole_day_is_remembered_in_few_numbers() -> None:
    minutes = Prober(interval=30.0).probe(lambda t: 0.02 if t < 40_000 else 0.08, 86_400).detector.remembered()["web"]
    assert 250 <= len(minutes["minutes"]) <= 288
    assert (minutes["minutes"][0], minutes["minutes"][-1]) == (0.02, 0.08)
    assert minutes["seconds"] > 86_000


@pytest.mark.parametrize(
    "memory",
    [{"web": 1}, {"web": {"minutes": [0.1]}}, {"web": {"seconds": 1, "minutes": ["x"]}}, {"web": {"seconds": -1.0}}],
)
def test_memory_that_does_not_fit_is_refused(memory: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        SlownessDetector().recall(memory)


def test_clock_that_steps_back_keeps_the_past_and_forgets_the_moment() -> None:
    prober = Prober().probe(step(0.02, 0.6), ONSET + 60)
    assert prober.said
    prober.t -= 3600
    prober.said.clear()
    prober.probe(lambda _t: 0.02, prober.t + 30)
    assert not prober.said
    prober.probe(lambda _t: 0.6, prober.t + 60)
    assert prober.said


def test_endpoint_that_is_not_probed_any_more_is_forgotten() -> None:
    prober = Prober().probe(step(0.02, 0.6), ONSET + 60)
    found: Iterable[Finding] = ()
    for second in range(100):
        found = list(prober.detector.look([], T + prober.t + second))
    assert not found
