"""Under every fault of the server: never more than two sessions, nothing else held up, and back within seconds."""

from collections.abc import Iterator

import pytest

from under_fault.faults import FAULTS, Fault, accepts_and_says_nothing, hung
from under_fault.stand import Stand, stand, until
from under_fault.witness import Witness, play


@pytest.fixture(scope="module")
def at() -> Iterator[Stand]:
    with stand() as shared:
        yield shared


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.title)
def test_daemon_stays_a_polite_guest_under(fault: Fault, at: Stand) -> None:
    seen = play(at, fault)
    seen.hold()
    assert seen.state in fault.shown_as
    assert "Traceback" not in at.daemon.log_path.read_text()


def test_server_that_hangs_is_said_by_metric_page_log_and_signal(at: Stand) -> None:
    with hung(at):
        until(lambda: at.daemon.metric('batsignal_up{server="a"}') == 0, "A to be shown down")
        assert at.daemon.metric('batsignal_server_state{server="a",state="timeout"}') == 1
        assert at.daemon.metric('batsignal_view{server="a",view="none"}') == 1
        (lit,) = until(lambda: at.daemon.json("/api/v1/signals")["signals"], "the signal")
        assert "no way into a" in at.daemon.text("/")
        assert lit["kind"] == "database_unreachable"
        assert at.daemon.said("server not seen")[-1]["state"] == "timeout"
        assert at.daemon.server("b")["state"] == "up"
    until(at.is_up, "A to be seen again")
    until(lambda: at.daemon.said("signal cleared"), "the signal to end")


def test_server_that_says_nothing_is_given_one_connection(at: Stand) -> None:
    with accepts_and_says_nothing(at) as taken:
        until(lambda: len(taken) >= 1, "the daemon to knock")
        until(lambda: at.daemon.server("a")["state"] == "timeout", "A to be shown as silent")
        before = at.daemon.metric('batsignal_last_tick_timestamp_seconds{server="a"}') or 0
        until(
            lambda: (at.daemon.metric('batsignal_last_tick_timestamp_seconds{server="a"}') or 0) > before + 3,
            "more ticks",
        )
        assert len(taken) == 1
    with Witness(at) as witness:
        witness.back()
    witness.seen.hold()
