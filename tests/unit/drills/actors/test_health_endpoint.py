import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from batsignal.drills.actors.health_endpoint import HealthEndpoint

SECONDS = 20.0


@pytest.fixture
def endpoint() -> Iterator[HealthEndpoint]:
    one = HealthEndpoint("web", "2.3.9")
    yield one
    one.close()


def ask(endpoint: HealthEndpoint) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(endpoint.url, timeout=SECONDS) as answer:  # noqa: S310 - our own address
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read()


def test_an_endpoint_is_well_until_somebody_says_otherwise(endpoint: HealthEndpoint) -> None:
    assert ask(endpoint) == (200, b'{"status": "ok", "service": "web", "version": "2.3.9"}')
    assert endpoint.first_failure_at is None


def test_a_check_that_raises_is_a_503_and_the_first_one_is_remembered(endpoint: HealthEndpoint) -> None:
    def fail() -> None:
        raise KeyError

    endpoint.check = fail
    assert ask(endpoint) == (503, b'{"status": "failing", "reason": "KeyError"}')
    first = endpoint.first_failure_at
    assert first is not None
    ask(endpoint)
    assert endpoint.first_failure_at == first


def test_an_asker_who_gave_up_was_let_down(endpoint: HealthEndpoint) -> None:
    asked, has_left = threading.Event(), threading.Event()

    def dawdle() -> None:
        asked.set()
        has_left.wait(SECONDS)

    endpoint.check = dawdle
    port = int(endpoint.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), SECONDS) as asker:
        asker.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(SECONDS)
    has_left.set()
    endpoint.check = lambda: None
    deadline = threading.Event()
    for _ in range(200):
        if endpoint.first_failure_at is not None:
            return
        deadline.wait(0.05)
    pytest.fail("nobody noted that the asker had left")
