"""A storm on real servers of both majors, through the real poller: named within its bound, by glimpses alone.

Five minutes of calm are not waited for: what was learnt in an earlier life of the daemon stands in for them.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.signal import Finding
from batsignal.detect.verdict import Judge
from batsignal.drills.embedded import EmbeddedServer
from batsignal.drills.truth import BOUND_SECONDS
from batsignal.names import ApplicationPattern
from batsignal.poll.postgres import PostgresPoller
from batsignal.poll.resolve import Resolver

CALM = {"watched_seconds": 400.0, "habits": [], "hosts": []}
PER_SECOND = 30.0
CLIENTS = 8
# Before, and after the bound: a machine that does other things looks late.
CALM_SECONDS, STORM_SECONDS, SLACK_SECONDS = 4.0, 25.0, 5.0


@pytest.fixture
def storm(postgres: EmbeddedServer) -> Iterator[Callable[[], None]]:
    """Clients that open a session for each piece of work, from the call on."""
    stop, threads = threading.Event(), []

    def visit() -> None:
        while not stop.wait(CLIENTS / PER_SECOND):
            with contextlib.suppress(psycopg2.Error):
                connection = psycopg2.connect(postgres.dsn(application_name="gateway@3.2.0"))
                with contextlib.closing(connection), connection.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(0.1)")

    def start() -> None:
        for _ in range(CLIENTS):
            threads.append(threading.Thread(target=visit, daemon=True))
            threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(5.0)


def test_application_that_opens_a_session_for_each_piece_of_work_is_named(
    postgres: EmbeddedServer, storm: Callable[[], None]
) -> None:
    judge = Judge(thresholds=Thresholds(), pattern=ApplicationPattern(re.compile(APPLICATION_PATTERN)))
    assert judge.recall({"storms": CALM}) == ()
    poller = PostgresPoller(server="db1", dsn=postgres.dsn(user="watcher"), resolver=Resolver())
    with contextlib.closing(poller):
        found = _look_on(judge, poller, CALM_SECONDS)
        assert found is None
        storm()
        began = time.time()
        found = _look_on(judge, poller, STORM_SECONDS)
    assert found is not None
    assert time.time() - began <= BOUND_SECONDS["storm"] + SLACK_SECONDS
    assert (found.subject.application, found.subject.version) == ("gateway", "3.2.0")
    assert found.severity == "warning"


def _look_on(judge: Judge, poller: PostgresPoller, seconds: float) -> Finding | None:
    """Look once a second until a storm is found that names somebody, for so long at most.

    A machine that does other things may count a storm before it has caught any session of it with its name.
    """
    until, unnamed = time.monotonic() + seconds, None
    while time.monotonic() < until:
        due = time.monotonic() + 1.0
        found: Any = judge.look(poller.look(), ()).findings
        storms = [finding for finding in found if finding.kind == "storm"]
        if storms:
            unnamed = storms[0]
            if unnamed.subject.application is not None:
                return unnamed  # type: ignore[no-any-return]
        time.sleep(max(due - time.monotonic(), 0.0))
    return unnamed
