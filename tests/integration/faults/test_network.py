"""A network that eats packets, and a name that stops resolving: neither costs more than the server's own ticks."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_fault.faults import restarted_immediately
from under_fault.names import Names
from under_fault.network import Network, NetworkError, network
from under_fault.stand import Stand, stand, until
from under_fault.witness import Witness, served_by

# Longer than both ends try again before they give a connection up.
LONG_SECONDS = 14.0
BACK_SECONDS_MOST = 5.0


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    try:
        with network() as made:
            yield made
    except NetworkError as exc:
        pytest.fail(f"a network that eats packets cannot be made here: {exc}")


@pytest.fixture(scope="module")
def far(net: Network) -> Iterator[Stand]:
    hosts = (net.to_a.ours, net.to_b.ours)
    with stand(hosts=hosts, listen=hosts, prefix=net.prefix, host=net.to_b.theirs) as shared:
        yield shared


def assert_polite(witness: Witness) -> None:
    seen = witness.seen
    assert seen.own_sessions_most <= 2, seen.worst_moment
    assert (seen.pages_failed, seen.missed_ticks_of_b) == ([], 0)
    assert seen.slowest_scrape_seconds < 2.0
    assert seen.back_seconds is not None
    assert seen.back_seconds <= BACK_SECONDS_MOST


@pytest.mark.parametrize("seconds", [3.0, LONG_SECONDS])
def test_network_that_eats_packets_leaves_no_session_behind(net: Network, far: Stand, seconds: float) -> None:
    with Witness(far, network=Path(f"/proc/{far.daemon.process.pid}/net")) as witness:
        net.to_a.eat_packets()
        time.sleep(seconds)
        assert far.daemon.server("a")["state"] == "timeout"
        assert far.daemon.server("b")["state"] == "up"
        assert len(served_by(far.guest)) == 1, "the server knows nothing of it"
        net.to_a.mend()
        witness.back()
        until(lambda: len(served_by(far.guest)) == 1, "what was left behind to be ended")
    assert_polite(witness)


def test_network_that_comes_and_goes_never_leaves_more_than_two_sessions(net: Network, far: Stand) -> None:
    with Witness(far, network=Path(f"/proc/{far.daemon.process.pid}/net")) as witness:
        for _ in range(2):
            net.to_a.eat_packets()
            until(lambda: not far.is_up(), "A to be lost")
            time.sleep(8)  # the kept session is given up for another meanwhile
            net.to_a.mend()
            witness.back()
    assert_polite(witness)


def test_name_that_stops_resolving_is_reached_where_it_was_last_even_after_a_restart(tmp_path: Path) -> None:
    names = Names(tmp_path / "hosts")
    names.put(a_batsignal_test="127.0.0.1")
    with stand(hosts=("a.batsignal.test", "127.0.0.1"), prefix=names.prefix) as here, Witness(here) as witness:
        names.put(other_batsignal_test="127.0.0.1")
        with restarted_immediately(here):
            witness.back()
        assert_polite(witness)
        (said,) = here.daemon.said("name does not resolve, its last addresses stand")
        assert said["host"] == "a.batsignal.test"
        names.put(a_batsignal_test="127.0.0.1")
        with restarted_immediately(here):
            witness.back()
        assert_polite(witness)
        until(lambda: here.daemon.said("name resolves again"), "the log to say so")
