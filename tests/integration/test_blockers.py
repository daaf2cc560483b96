"""Who blocks whom, read from real servers: prepared transactions, long queues, and the judge behind the poller."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import asyncpg
import pytest

from batsignal.cli.replay import Life
from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.poll.postgres import BLOCKERS_MAX, PostgresPoller
from batsignal.poll.resolve import Resolver
from batsignal.snapshot import Snapshot
from majors import EACH

QUEUE = 150
UPDATE = "UPDATE stock SET amount = amount - 1 WHERE id = 1"

Until = Callable[..., Any]


@contextmanager
def polling(server: EmbeddedServer) -> Iterator[PostgresPoller]:
    with closing(PostgresPoller(server="db1", dsn=server.dsn(), resolver=Resolver())) as poller:
        yield poller


async def _queue_behind(server: EmbeddedServer, holder: list[str], look: Callable[[], None]) -> None:
    """Let a session run the holder's statements, others wait for the row behind it, and look on."""

    async def connect(name: str) -> Any:
        where = {"host": HOST, "port": server.port, "user": server.superuser, "database": "postgres", "ssl": False}
        return await asyncpg.connect(**where, server_settings={"application_name": name})

    first = await connect("backoffice@2.1")
    for statement in ("CREATE TABLE IF NOT EXISTS stock (id int, amount int)", "INSERT INTO stock VALUES (1, 1)"):
        await first.execute(statement)
    for statement in holder:
        await first.execute(statement)
    waiters = [await connect("shop@1.0") for _ in range(QUEUE)]
    tasks = [asyncio.ensure_future(waiter.execute(UPDATE)) for waiter in waiters]
    try:
        await asyncio.get_running_loop().run_in_executor(None, look)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in (first, *waiters):
            connection.terminate()


def watch(server: EmbeddedServer, until: Until, holder: list[str]) -> tuple[Snapshot, Life]:
    """Look until all of the queue waits and somebody is named for it; return the last look and what judged it."""
    life = Life("db1")
    looks: list[Snapshot] = []

    def look() -> None:
        with polling(server) as poller:

            def named() -> bool:
                snapshot = poller.look()
                assert snapshot.failure is None
                looks.append(snapshot)
                life.look(snapshot)
                waiting = sum(session.wait_event_type == "Lock" for session in snapshot.sessions)
                lit = {signal.finding.kind for signal in life.incidents.signals}
                return waiting == QUEUE and "lock_pileup" in lit

            until(named, "a queue, and whom it is behind", seconds=30)

    asyncio.run(_queue_behind(server, holder, look))
    return looks[-1], life


@pytest.mark.parametrize("version", EACH)
def test_queue_behind_a_prepared_transaction_is_told_by_a_pid_of_0(
    fresh_server: Callable[..., EmbeddedServer], until: Until, version: str
) -> None:
    server = fresh_server(version, max_connections=200, max_prepared_transactions=2)
    snapshot, life = watch(server, until, ["BEGIN", UPDATE, "PREPARE TRANSACTION 'forgotten'"])
    heads = [session for session in snapshot.sessions if 0 in session.blocked_by]
    assert heads
    # No more than so many are asked about, and the heads of the queue are among them.
    assert sum(bool(session.blocked_by) for session in snapshot.sessions) <= BLOCKERS_MAX
    (signal,) = [one for one in life.incidents.signals if one.finding.kind == "lock_pileup"]
    assert signal.finding.subject.blocker == 0
    assert signal.finding.sessions == QUEUE
    assert snapshot.poll_seconds["sessions"] < 3


def test_queue_longer_than_what_is_asked_about_is_told_by_its_root(
    fresh_server: Callable[..., EmbeddedServer], until: Until
) -> None:
    server = fresh_server("18", max_connections=200)
    _, life = watch(server, until, ["BEGIN", UPDATE])
    (signal,) = [one for one in life.incidents.signals if one.finding.kind == "lock_pileup"]
    assert signal.finding.subject.application == "backoffice"
    assert signal.finding.sessions == QUEUE
