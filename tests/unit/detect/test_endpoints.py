from typing import Any

import pytest

from batsignal.config import Thresholds
from batsignal.detect.endpoints import EndpointDetector
from batsignal.snapshot import ProbeResult

T = 1_760_000_000.0


class Prober:
    """Probes one endpoint every five looks and says what the detector makes of it."""

    def __init__(self) -> None:
        self.detector = EndpointDetector(Thresholds())
        self.t = T

    def probe(self, *ups: bool, endpoint: str = "web", **facts: Any) -> list[Any]:
        found: list[Any] = []
        for up in ups:
            for _ in range(4):
                self.detector.look(())
            self.t += 5.0
            given = {"service": "web", "seconds": 0.05, "status": 200 if up else 503} | facts
            found = list(self.detector.look([ProbeResult(endpoint=endpoint, at=self.t, up=up, **given)]))
        return found

    def wait(self, looks: int) -> list[Any]:
        found: list[Any] = []
        for _ in range(looks):
            found = list(self.detector.look(()))
        return found


@pytest.fixture
def prober() -> Prober:
    return Prober()


def test_good_probe_says_nothing_of_why_it_was_down(prober: Prober) -> None:
    prober.probe(False, False, False)
    (found,) = prober.probe(True)
    assert found.summary.endswith("fails: HTTP 503")


def test_third_failed_probe_in_a_row_is_called(prober: Prober) -> None:
    assert not prober.probe(True, False, False)
    (found,) = prober.probe(False)
    assert found.kind == "endpoint_down"
    assert found.severity == "critical"
    assert (found.subject.endpoint, found.subject.application) == ("web", "web")
    assert found.since == T + 10


def test_failures_with_a_good_probe_between_them_are_not_called(prober: Prober) -> None:
    assert not prober.probe(*[False, False, True] * 10)


def test_two_good_probes_in_a_row_end_it_and_one_does_not(prober: Prober) -> None:
    prober.probe(False, False, False)
    assert prober.probe(True)
    assert prober.probe(False)
    assert prober.probe(True)
    assert not prober.probe(True)


def test_since_stays_while_it_is_down(prober: Prober) -> None:
    prober.probe(False, False, False)
    (found,) = prober.probe(True, False, False)
    assert found.since == T + 5


def test_it_stays_down_between_probes(prober: Prober) -> None:
    prober.probe(False, False, False)
    assert prober.wait(30)


def test_endpoint_that_is_not_probed_any_more_is_forgotten(prober: Prober) -> None:
    prober.probe(False, False, False)
    assert not prober.wait(200)


def test_slowly_probed_endpoint_is_remembered_from_probe_to_probe(prober: Prober) -> None:
    for _ in range(3):
        prober.wait(3599)
        prober.probe(False)
    assert prober.wait(3599)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"reason": "timed out after 2 s", "status": None}, "timed out after 2 s"),
        ({"status": 503}, "HTTP 503"),
        ({"status": None}, "no reason known"),
    ],
)
def test_reason_of_the_last_probe_is_said(prober: Prober, facts: dict[str, Any], said: str) -> None:
    (found,) = prober.probe(False, False, False, **facts)
    assert found.summary == f"the health endpoint web of web fails: {said}"


def test_endpoints_are_counted_one_by_one(prober: Prober) -> None:
    prober.probe(False, False)
    prober.probe(False, endpoint="api")
    (found,) = prober.probe(False)
    assert found.subject.endpoint == "web"
