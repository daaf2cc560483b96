"""A network that eats packets, and a name that stops resolving: neither costs more than the server's own ticks."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_fault.faults import restarted_immediately
from under_fault.names import NAME, Names
from under_fault.network import Network, NetworkError, far_stand, network
from under_fault.stand import Stand, until
from under_fault.witness import Witness, served_by

# Longer than both ends try again before they give a connection up.
LONG_SECONDS = 14.0


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    try:
        with network() as made:
            yield made
    except NetworkError as exc:
        pytest.fail(f"a network that eats packets cannot be made here: {exc}")


@pytest.fixture(scope="module")
def far(net: Network) -> Iterator[Stand]:
    with far_stand(net) as shared:
        yield shared


@pytest.mark.parametrize("seconds", [3.0, LONG_SECONDS])
def test_network_that_eats_packets_leaves_no_session_behind(net: Network, far: Stand, seconds: float) -> None:
    with Witness(far) as witness:
        with net.to_a.eating_packets():
            time.sleep(seconds)
            until(lambda: far.daemon.server("a")["state"] == "timeout", "A to be shown as silent")
            assert far.daemon.server("b")["state"] == "up"
            assert len(served_by(far.guest)) == 1, "the server knows nothing of it"
        witness.back()
        until(lambda: len(served_by(far.guest)) == 1, "what was left behind to be ended")
    witness.seen.hold()


@pytest.mark.long
def test_network_that_comes_and_goes_never_leaves_more_than_two_sessions(net: Network, far: Stand) -> None:
    with Witness(far) as witness:
        for _ in range(3):
            with net.to_a.eating_packets():
                until(lambda: not far.is_up(), "A to be lost")
                time.sleep(8)  # another session is tried meanwhile
            witness.back()
    witness.seen.hold()


def test_name_that_stops_resolving_is_reached_where_it_was_last_even_after_a_restart(tmp_path: Path) -> None:
    names = Names(tmp_path / "hosts")
    with names.stand() as named:
        with Witness(named) as witness, names.lost_over_a_restart(named):
            witness.back()
        witness.seen.hold()
        (said,) = named.daemon.said("name does not resolve, its last addresses stand")
        assert said["host"] == NAME
        with restarted_immediately(named):
            until(lambda: named.daemon.said("name resolves again"), "the log to say so")
