from typing import Any

import pytest

from batsignal.config import Thresholds
from batsignal.detect.reachability import ReachabilityDetector
from batsignal.snapshot import FAILURE_REASONS, PollFailure, Snapshot

T = 1_760_000_000.0
NO_WAY_IN = [reason for reason in FAILURE_REASONS if reason not in {"slots_full", "role_limit", "database_limit"}]


class Server:
    """Answers or fails, a second after the last time."""

    def __init__(self) -> None:
        self.detector = ReachabilityDetector(Thresholds())
        self.t = T

    def answer(self) -> list[Any]:
        self.t += 1.0
        return list(self.detector.look(Snapshot(server="db1", t=self.t)))

    def fail(self, reason: Any = "refused", *, times: int = 1, seconds: float = 1.0) -> list[Any]:
        found: list[Any] = []
        for _ in range(times):
            self.t += seconds
            failure = PollFailure(reason=reason, text="it said so", sqlstate="57P03")
            found = list(self.detector.look(Snapshot(server="db1", t=self.t, failure=failure)))
        return found


@pytest.fixture
def server() -> Server:
    server = Server()
    server.answer()
    return server


def test_first_failed_look_says_nothing(server: Server) -> None:
    assert not server.fail()


def test_one_look_that_failed_late_says_nothing(server: Server) -> None:
    assert not server.fail(seconds=5.0)


def test_three_seconds_without_an_answer_warn(server: Server) -> None:
    assert not server.fail(times=2)
    (found,) = server.fail()
    assert (found.kind, found.severity) == ("database_unreachable", "warning")
    assert found.since == T + 1
    assert found.summary == "no way into db1: it said so"
    assert "reason: refused (SQLSTATE 57P03)" in found.evidence


@pytest.mark.parametrize(
    ("reason", "does"),
    [("timeout", "The pooler in the dsn lends no session: "), ("unreachable", "The pooler in the dsn answers in the")],
)
def test_a_pooler_in_the_way_is_said_and_the_server_is_not_called_hung(reason: Any, does: str) -> None:
    detector = ReachabilityDetector(Thresholds())
    failure = PollFailure(reason=reason, text="it said so", by_pooler=True)
    found: list[Any] = []
    for n in range(10):
        found = list(detector.look(Snapshot(server="db1", t=T + n, failure=failure)))
    assert found[0].action.startswith(does)
    assert "hangs" not in found[0].action


def test_45_seconds_without_an_answer_are_critical(server: Server) -> None:
    (found,) = server.fail(times=44)
    assert found.severity == "warning"
    (found,) = server.fail()
    assert found.severity == "critical"


def test_an_answer_ends_it_at_once(server: Server) -> None:
    assert server.fail(times=10)
    assert not server.answer()
    assert not server.fail(times=2)


def test_answers_now_and_then_keep_it_dark(server: Server) -> None:
    for _ in range(30):
        assert not server.fail(times=2)
        server.answer()


@pytest.mark.parametrize("reason", ["slots_full", "role_limit", "database_limit"])
def test_full_server_is_not_unreachable(server: Server, reason: str) -> None:
    assert not server.fail(reason, times=120)


def test_refusal_because_the_slots_are_full_is_a_sign_of_life(server: Server) -> None:
    server.fail("timeout", times=60)
    assert not server.fail("slots_full")
    assert not server.fail("timeout", times=2)
    (found,) = server.fail("timeout")
    assert found.severity == "warning"


@pytest.mark.parametrize("reason", NO_WAY_IN)
def test_every_other_reason_is_called_with_what_to_do(server: Server, reason: str) -> None:
    (found,) = server.fail(reason, times=5)
    assert found.action


def test_server_that_refuses_with_a_code_we_do_not_know_is_not_called_a_network_fault(server: Server) -> None:
    (found,) = server.fail("unreachable", times=5)
    assert "server answers" in found.action
    assert "network" not in found.action


@pytest.mark.parametrize("reason", ["auth_failed", "tls_failed", "no_database"])
def test_wrong_login_of_ours_wakes_nobody(server: Server, reason: str) -> None:
    (found,) = server.fail(reason, times=600)
    assert found.severity == "warning"


def test_server_that_never_answered_says_so() -> None:
    (found,) = Server().fail(times=5)
    assert found.since == T + 1
    assert "it has not answered since the watch began" in found.evidence


def test_clock_that_steps_back_starts_the_count_anew(server: Server) -> None:
    server.fail(times=2)
    server.t -= 3600
    assert not server.fail()
    assert server.fail(times=3)
