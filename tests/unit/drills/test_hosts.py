import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from batsignal.drills.hosts import Hosts

SECONDS = 20.0
MUCH = b"x" * 3_000_000


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        yield listener


@pytest.fixture
def hosts(server: socket.socket) -> Iterator[Hosts]:
    relay = Hosts(server.getsockname()[1])
    yield relay
    relay.close()


def call(hosts: Hosts, number: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", hosts.port(number)), SECONDS)


@pytest.mark.parametrize("number", [1, 2, 77, 250])
def test_a_session_comes_from_the_address_of_its_host(hosts: Hosts, server: socket.socket, number: int) -> None:
    with call(hosts, number):
        accepted, address = server.accept()
        accepted.close()
    assert address[0] == f"127.0.0.{number}"


@pytest.mark.parametrize("number", [0, -1, 251])
def test_a_host_that_is_none_is_an_error(hosts: Hosts, number: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 250"):
        hosts.port(number)


def test_a_host_keeps_its_port(hosts: Hosts) -> None:
    assert hosts.port(5) == hosts.port(5) != hosts.port(6)


def test_all_bytes_arrive_in_both_directions_also_when_nobody_reads_for_a_while(
    hosts: Hosts, server: socket.socket
) -> None:
    with call(hosts, 2) as client:
        accepted, _ = server.accept()
        sender = threading.Thread(target=lambda: (client.sendall(MUCH), client.shutdown(socket.SHUT_WR)))
        sender.start()
        with accepted:
            accepted.settimeout(SECONDS)
            received = bytearray()
            while chunk := accepted.recv(65536):
                received += chunk
            sender.join()
            accepted.sendall(b"thank you")
        assert bytes(received) == MUCH
        assert client.recv(100) == b"thank you"
        assert client.recv(100) == b""


def test_a_client_that_goes_is_seen_by_the_server(hosts: Hosts, server: socket.socket) -> None:
    client = call(hosts, 3)
    accepted, _ = server.accept()
    accepted.settimeout(SECONDS)
    client.close()
    assert accepted.recv(1) == b""
    accepted.close()


def test_a_server_that_is_not_there_ends_the_session(hosts: Hosts, server: socket.socket) -> None:
    port = hosts.port(4)
    server.close()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as client, contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""


def test_the_end_cuts_what_is_left(hosts: Hosts, server: socket.socket) -> None:
    with call(hosts, 2) as client:
        accepted, _ = server.accept()
        hosts.close()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        accepted.close()
