import socket

import pytest

from batsignal.errors import ConfigError, UnreachableError
from batsignal.expose.listen import bind, split_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:9988", "127.0.0.1", 9988),
        ("localhost:0", "localhost", 0),
        ("[::1]:9988", "::1", 9988),
        ("[fe80::1%lo]:80", "fe80::1%lo", 80),
        (":9988", "", 9988),
        (" 0.0.0.0:65535 ", "0.0.0.0", 65535),  # noqa: S104  # only parsed
    ],
)
def test_address_is_read_as_prometheus_reads_it(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    ["", "9988", "localhost", "localhost:", "localhost:http", "::1:9988", "127.0.0.1:65536", "http://a:80", "a b:1"],
)
def test_bad_spelling_names_the_address_and_what_was_expected(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(address)
    assert str(caught.value) == (
        f"listen address {address!r}: expected HOST:PORT, [IPv6]:PORT or :PORT, with a port from 0 to 65535"
    )


def test_taken_port_says_by_what_address() -> None:
    with bind("127.0.0.1:0") as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(UnreachableError) as caught:
            bind(address)
    assert str(caught.value) == f"cannot listen on {address}: address already in use"


def test_address_that_is_not_ours_is_refused_in_one_line() -> None:
    with pytest.raises(UnreachableError, match=r"^cannot listen on 192\.0\.2\.1:0: cannot assign requested address$"):
        bind("192.0.2.1:0")


def test_address_without_a_host_is_reached_through_loopback() -> None:
    with bind(":0") as sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=5) as client:
        assert client.getpeername()[1] == sock.getsockname()[1]


def test_socket_says_tcp_so_that_asyncio_turns_nagle_off() -> None:
    with bind("127.0.0.1:0") as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_port_is_free_again_at_once_after_a_restart() -> None:
    with bind("127.0.0.1:0") as sock:
        address = sock.getsockname()
        with socket.create_connection(address, timeout=5):
            sock.setblocking(True)
            sock.accept()[0].close()
    with bind(f"127.0.0.1:{address[1]}") as again:
        assert again.getsockname() == address
