"""A pooled application under a steady stream of requests: the background of a drill, and the victim of many.

Owns its pool and the threads that bring the requests. It must not leak and must not outlive its ground: it waits on
`ground.stopped` instead of sleeping.
"""

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Literal

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.actors.pool import Pool, PoolExhaustedError
from batsignal.drills.ground import Ground

CHECKOUT_SECONDS = 2.0
LIFETIME_SECONDS = 1800.0
PRUNE_SECONDS = 1.0
RATE_CHECK_SECONDS = 0.5

Work = Callable[[Connection], None]


class Service:
    """An application `name@version` with a pool, or just `name`; a name of None is one that does not name itself.

    `work` is what a request does: `request_seconds` on the server unless given. Both can be changed while it runs, and
    so can the rate.
    """

    def __init__(
        self,
        ground: Ground,
        name: str | None,
        version: str | None = None,
        *,
        minimum: int = 6,
        maximum: int = 12,
        requests_per_second: float = 8.0,
        request_seconds: float = 0.02,
        host: int = 1,
        user: str | None = None,
        database: str | None = None,
        lifetime_seconds: float = LIFETIME_SECONDS,
        order: Literal["fifo", "lifo"] = "fifo",
        idle_seconds: float | None = None,
        overflow: int = 0,
        work: Work | None = None,
    ) -> None:
        self.application = name if version is None else f"{name}@{version}"
        self.requests_per_second = requests_per_second
        self.request_seconds = request_seconds
        self.failed = 0
        self.served = 0
        self._ground = ground
        self._minimum = minimum
        self._work = work or self._query
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._workers = maximum + overflow
        self.pool = Pool(
            lambda: ground.connect(self.application, user=user, database=database, host=host),
            minimum=minimum,
            maximum=maximum,
            lifetime_seconds=lifetime_seconds,
            order=order,
            idle_seconds=idle_seconds,
            overflow=overflow,
        )

    def start(self, *, is_filled: bool = True) -> None:
        """Open the pool's minimum (or leave it cold) and let requests come."""
        if is_filled:
            with contextlib.suppress(psycopg2.OperationalError):
                self.pool.fill()
        for run in [self._serve] * self._workers + [self._prune]:
            thread = threading.Thread(target=run, name=f"drill {self.application}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let no request come any more and close the pool, without waiting for what is being served."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(0.2 if thread is not threading.current_thread() else 0.0)
        self.pool.close()

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set() or self._ground.stopped.is_set()

    def _wait(self, seconds: float) -> bool:
        """Wait; True when it is time to end."""
        while seconds > 0 and not self.is_stopped:
            self._stopped.wait(min(seconds, 0.5))
            seconds -= 0.5
        return self.is_stopped

    def _serve(self) -> None:
        while not self._await_request():
            try:
                with self.pool.lend(timeout_seconds=CHECKOUT_SECONDS) as session:
                    self._work(session)
            except (psycopg2.Error, PoolExhaustedError):
                self.failed += 1
            else:
                self.served += 1
        self.pool.close()  # what came back after the last one looked

    def _await_request(self) -> bool:
        """Wait for the next request at the rate of the moment, which may change meanwhile; True when it is time to end.

        What is drawn is how many requests' worth of waiting is due, not seconds: so a wait that began without traffic
        ends soon after traffic is back.
        """
        due = random.expovariate(1.0)
        while due > 0:
            rate = self.requests_per_second / self._workers
            seconds = min(due / rate, RATE_CHECK_SECONDS) if rate > 0 else RATE_CHECK_SECONDS
            if self._wait(seconds):
                return True
            due -= seconds * max(rate, 0.0)
        return self.is_stopped

    def _prune(self) -> None:
        while not self._wait(PRUNE_SECONDS):
            self.pool.prune()

    def _query(self, session: Connection) -> None:
        with session.cursor() as cursor:
            # It reads a table: of sessions that touch none, PostgreSQL 18 counts commits only now and then, in a heap.
            cursor.execute(
                "SELECT pg_sleep(%s) FROM pg_database WHERE datname = current_database()", (self.request_seconds,)
            )
