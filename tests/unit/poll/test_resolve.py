import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog.testing

from batsignal.poll.resolve import ResolveError, Resolver

WAIT = 10.0


class Dns:
    """Stands for getaddrinfo: answers once it is let go, and counts how often it was asked."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.answering.set()
        self.asked = 0
        self.answer: Callable[[], list[str]] = lambda: ["10.0.0.1"]

    def __call__(self, _host: str, _port: None, **_: Any) -> list[Any]:
        self.asked += 1
        assert self.answering.wait(WAIT)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.answer()]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    stand_in = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", stand_in)
    yield stand_in
    stand_in.answering.set()


def raising(error: Exception) -> Callable[[], list[str]]:
    def answer() -> list[str]:
        raise error

    return answer


def test_addresses_come_in_the_resolvers_order_each_once(dns: Dns) -> None:
    dns.answer = lambda: ["fd00::2", "10.0.0.1", "fd00::2"]
    assert Resolver().addresses("db1", WAIT) == ("fd00::2", "10.0.0.1")


def test_name_is_asked_for_anew_each_time(dns: Dns) -> None:
    resolver = Resolver()
    resolver.addresses("db1", WAIT)
    dns.answer = lambda: ["10.0.0.9"]
    assert resolver.addresses("db1", WAIT) == ("10.0.0.9",)


def test_resolver_that_hangs_costs_the_wait_and_one_thread(dns: Dns) -> None:
    dns.answering.clear()
    resolver = Resolver()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(ResolveError, match=r"^the name db1 was not resolved in time$"):
            resolver.addresses("db1", 0.05)
        assert time.monotonic() - began < WAIT / 2
    assert dns.asked == 1


def test_name_is_found_once_the_resolver_answers_again(dns: Dns) -> None:
    dns.answering.clear()
    resolver = Resolver()
    with pytest.raises(ResolveError):
        resolver.addresses("db1", 0.01)
    dns.answering.set()
    assert resolver.addresses("db1", WAIT) == ("10.0.0.1",)


def test_one_name_that_hangs_holds_up_no_other(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    dns.answering.clear()
    resolver = Resolver()
    with pytest.raises(ResolveError):
        resolver.addresses("db1", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", Dns())
    assert resolver.addresses("db2", WAIT) == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("out of files"), "out of files"),
        (UnicodeError("label too long"), "label too long"),
        (ValueError("embedded null character"), "embedded null character"),
    ],
)
def test_name_that_has_no_address_says_why_and_can_be_asked_for_again(dns: Dns, error: Exception, said: str) -> None:
    dns.answer = raising(error)
    resolver = Resolver()
    with pytest.raises(ResolveError, match=rf"^the name db1 does not resolve: {said}$"):
        resolver.addresses("db1", WAIT)
    dns.answer = lambda: ["10.0.0.1"]
    assert resolver.addresses("db1", WAIT) == ("10.0.0.1",)


@pytest.mark.parametrize("is_hanging", [False, True])
def test_name_that_resolves_no_more_keeps_its_last_addresses_and_takes_new_ones_later(
    dns: Dns, is_hanging: bool
) -> None:
    resolver = Resolver()
    resolver.addresses("db1", WAIT)
    dns.answer = raising(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    if is_hanging:
        dns.answering.clear()
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            assert resolver.addresses("db1", 0.05 if is_hanging else WAIT) == ("10.0.0.1",)
        dns.answer = lambda: ["10.0.0.9"]
        dns.answering.set()
        assert resolver.addresses("db1", WAIT) == ("10.0.0.9",)
    assert [(line["event"], line["host"]) for line in said] == [
        ("name does not resolve, its last addresses stand", "db1"),
        ("name resolves again", "db1"),
    ]


def test_numeric_address_is_its_own() -> None:
    assert Resolver().addresses("127.0.0.1", WAIT) == ("127.0.0.1",)
