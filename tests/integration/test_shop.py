"""The shop against a real server: its leak is exact, and it really breaks when the slots run out."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest

from batsignal.drills.actors.shoppers import Shoppers
from batsignal.drills.embedded import EmbeddedServer

DEADLINE_SECONDS = 40.0


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(max_connections=30) as server:
        with closing(psycopg2.connect(server.dsn())) as connection, connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE web LOGIN; GRANT CREATE ON SCHEMA public TO web")
        yield server


@contextmanager
def shop_of(server: EmbeddedServer, *options: str) -> Iterator[int]:
    dsn = server.dsn(user="web")
    command = [sys.executable, "-m", "batsignal.drills.actors.shop", "--dsn", dsn, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shop:
        assert shop.stdout is not None
        word, port = shop.stdout.readline().split()
        assert word == "ready"
        try:
            yield int(port)
        finally:
            shop.terminate()
        assert shop.wait(DEADLINE_SECONDS) == 0


def get(port: int, path: str) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def sessions(server: EmbeddedServer, application_name: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    with closing(psycopg2.connect(server.dsn())) as connection, connection.cursor() as cursor:
        cursor.execute(query, (application_name,))
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_healthy_shop_sells_answers_for_its_health_and_names_its_sessions(server: EmbeddedServer) -> None:
    with shop_of(server, "--version", "2.3.9") as port:
        assert get(port, "/buy")[0] == 200
        assert get(port, "/healthz") == (200, {"status": "ok", "version": "2.3.9"})
        assert get(port, "/nothing")[0] == 404
        assert sessions(server, "web@2.3.9") == 6
        assert get(port, "/stats")[1]["leaked"] == 0


def test_the_leak_keeps_its_pace_by_the_clock_and_ends_with_the_shop(server: EmbeddedServer) -> None:
    with shop_of(server, "--version", "2.4.0", "--leak-per-second", "4") as port:

        def is_in_pace() -> bool:
            """Whether there are many, and the newest was due just now: one every quarter of a second from the first."""
            stats = get(port, "/stats")[1]
            leaked = stats["leaked"]
            return leaked >= 9 and abs(time.time() - stats["first_leak_at"] - (leaked - 1) / 4) < 0.75

        # A busy machine may be late with some of them, and makes up for it.
        assert wait_for(is_in_pace)
        assert sessions(server, "web@2.4.0") >= 6 + 9
    assert wait_for(lambda: sessions(server, "web@2.4.0") == 0)


def test_when_the_slots_run_out_customers_and_health_really_fail(server: EmbeddedServer) -> None:
    options = ("--version", "2.4.0", "--leak-per-second", "20", "--session-seconds", "4")
    with shop_of(server, *options) as port:
        started = time.time()
        shoppers = Shoppers(port)
        shoppers.start()
        assert wait_for(lambda: shoppers.mood().failed_ratio > 0.9)
        assert shoppers.first_failure_since(started) is not None
        p50_seconds = shoppers.mood().p50_seconds
        assert p50_seconds is not None
        assert p50_seconds > 1
        status, content = get(port, "/healthz")
        assert (status, content["status"]) == (503, "unavailable")
        shoppers.stop()
