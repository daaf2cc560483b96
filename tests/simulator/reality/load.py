"""Puts one real pool under the load of its setup, in a process of its own: `python -m simulator.reality.load`.

Owns the real side's requests. A request is sent when its time has come, whether or not the ones before it have ended.
At the end it prints one line of JSON: how many requests failed, when each was sent, and how fast the machine was. What
the pool did is no business of its: that is read off the recording of the server's sessions.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import fmean
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg_pool
import sqlalchemy

from simulator.reality.setups import SETUPS, Request, Setup, requests

HOST = "127.0.0.1"
USER = "postgres"
DATABASE = "postgres"
WAIT_SECONDS = 30.0
READY = "ready"
# More than a pool lends: the others wait for it, as an application's threads do.
THREADS = 64


class Clock:
    """Takes the machine's times: when the pool was asked, how long a login took, how long a session was lent."""

    def __init__(self, start_at: float) -> None:
        self._start_at = start_at
        self.asked_at: dict[float, float] = {}
        """By the time at which a request was to come."""
        self.connect_seconds: list[float] = []
        self.overhead_seconds: list[float] = []

    @contextlib.contextmanager
    def connecting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.connect_seconds.append(time.perf_counter() - begin)

    def asked(self, request: Request) -> None:
        self.asked_at[request.at] = time.time() - self._start_at

    def lent(self, seconds: float, request: Request) -> None:
        self.overhead_seconds.append(seconds - request.busy_seconds - request.think_seconds)


Send = Callable[[Request], None]


def main() -> None:
    """Take the setup's application and the server's port as arguments; say so when ready.

    Then standard input says at which Unix time the load begins.
    """
    application, port = sys.argv[1], int(sys.argv[2])
    setup = next(one for one in SETUPS if one.application == application)
    print(READY, flush=True)  # noqa: T201 - to the process that started this one
    start_at = float(sys.stdin.readline())
    clock = Clock(start_at)
    if setup.kind == "minimum":
        outcome = asyncio.run(_load_minimum_pool(setup, port, start_at, clock))
    elif setup.kind == "queue":
        outcome = _load_queue_pool(setup, port, start_at, clock)
    else:
        outcome = _load_psycopg_pool(setup, port, start_at, clock)
    asked_at = [clock.asked_at[request.at] for request in requests(setup)]
    times = {
        "asked_at": asked_at,
        "connect_seconds": fmean(clock.connect_seconds),
        "overhead_seconds": fmean(clock.overhead_seconds),
    }
    print(json.dumps(outcome | times))  # noqa: T201 - the answer to the process that started this one


def _load_queue_pool(setup: Setup, port: int, start_at: float, clock: Clock) -> dict[str, int]:
    facts = setup.facts
    dsn = f"host={HOST} port={port} user={USER} dbname={DATABASE} sslmode=disable gssencmode=disable"

    def connect() -> Any:
        with clock.connecting():
            return psycopg2.connect(dsn, application_name=setup.application)

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://",
        creator=connect,
        pool_size=int(facts["size"]),
        max_overflow=int(facts["overflow"]),
        pool_recycle=facts["recycle_seconds"],
        pool_use_lifo=bool(facts["lifo"]),
        pool_timeout=WAIT_SECONDS,
    )
    sleep = sqlalchemy.text("SELECT pg_sleep(:seconds)")

    def send(request: Request) -> None:
        clock.asked(request)
        with engine.connect() as connection:
            begin = time.perf_counter()
            with connection.begin():
                _transact(request, lambda seconds: connection.execute(sleep, {"seconds": seconds}))
        clock.lent(time.perf_counter() - begin, request)

    try:
        return _send_from_threads(send, start_at, requests(setup))
    finally:
        engine.dispose()


def _load_psycopg_pool(setup: Setup, port: int, start_at: float, clock: Clock) -> dict[str, int]:
    facts = setup.facts

    class Connection(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, *arguments: Any, **parameters: Any) -> Any:
            with clock.connecting():
                return super().connect(*arguments, **parameters)

    _sleep_until(start_at)
    with psycopg_pool.ConnectionPool(
        f"host={HOST} port={port} user={USER} dbname={DATABASE} sslmode=disable gssencmode=disable",
        connection_class=Connection,
        kwargs={"application_name": setup.application},
        min_size=int(facts["least"]),
        max_size=int(facts["most"]),
        max_lifetime=facts["lifetime_seconds"],
        max_idle=facts["idle_seconds"],
        timeout=WAIT_SECONDS,
    ) as pool:

        def send(request: Request) -> None:
            clock.asked(request)
            with pool.connection() as connection:
                begin = time.perf_counter()
                _transact(request, lambda seconds: connection.execute("SELECT pg_sleep(%s)", (seconds,)))
            clock.lent(time.perf_counter() - begin, request)

        return _send_from_threads(send, start_at, requests(setup))


def _transact(request: Request, sleep: Callable[[float], Any]) -> None:
    if request.think_seconds:
        sleep(request.busy_seconds / 2)
        time.sleep(request.think_seconds)
        sleep(request.busy_seconds / 2)
    else:
        sleep(request.busy_seconds)


def _send_from_threads(send: Send, start_at: float, plan: list[Request]) -> dict[str, int]:
    sent: list[Future[None]] = []
    with ThreadPoolExecutor(THREADS) as threads:
        for request in plan:
            _sleep_until(start_at + request.at)
            sent.append(threads.submit(send, request))
    return _outcome([one.exception() for one in sent])


async def _load_minimum_pool(setup: Setup, port: int, start_at: float, clock: Clock) -> dict[str, int]:
    facts = setup.facts

    async def connect(*arguments: Any, **parameters: Any) -> Any:
        with clock.connecting():
            return await asyncpg.connect(*arguments, **parameters)

    await asyncio.sleep(start_at - time.time())
    async with asyncpg.create_pool(
        host=HOST,
        port=port,
        user=USER,
        database=DATABASE,
        connect=connect,
        ssl=False,
        server_settings={"application_name": setup.application},
        min_size=int(facts["least"]),
        max_size=int(facts["most"]),
        max_inactive_connection_lifetime=facts["idle_seconds"],
    ) as pool:

        async def send(request: Request) -> None:
            clock.asked(request)
            async with pool.acquire(timeout=WAIT_SECONDS) as connection:
                begin = time.perf_counter()
                async with connection.transaction():
                    parts = 2 if request.think_seconds else 1
                    await connection.execute("SELECT pg_sleep($1)", request.busy_seconds / parts)
                    if request.think_seconds:
                        await asyncio.sleep(request.think_seconds)
                        await connection.execute("SELECT pg_sleep($1)", request.busy_seconds / parts)
            clock.lent(time.perf_counter() - begin, request)

        sent = []
        for request in requests(setup):
            await asyncio.sleep(max(start_at + request.at - time.time(), 0.0))
            sent.append(asyncio.create_task(send(request)))
        return _outcome(await asyncio.gather(*sent, return_exceptions=True))


def _sleep_until(instant: float) -> None:
    time.sleep(max(instant - time.time(), 0.0))


def _outcome(answers: list[Any]) -> dict[str, int]:
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if failures:
        print(f"the first failure: {failures[0]!r}", file=sys.stderr)  # noqa: T201 - for whoever started this
    return {"requests": len(answers), "failed": len(failures)}


if __name__ == "__main__":
    main()
