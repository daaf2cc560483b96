import threading
import time
from typing import Any, cast

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.actors.pool import Pool, PoolExhaustedError


class FakeSession:
    def __init__(self) -> None:
        self.autocommit = False
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeServer:
    """Hands out sessions while it has slots."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.sessions: list[FakeSession] = []

    def connect(self) -> Connection:
        if sum(not session.closed for session in self.sessions) >= self.slots:
            raise psycopg2.OperationalError("sorry, too many clients already")
        session = FakeSession()
        self.sessions.append(session)
        return cast("Connection", session)


def make_pool(server: FakeServer, **options: Any) -> Pool:
    return Pool(server.connect, **{"minimum": 2, "maximum": 3, "lifetime_seconds": 600.0, **options})


def test_fill_opens_the_minimum() -> None:
    server = FakeServer(slots=10)
    pool = make_pool(server)
    pool.fill()
    assert (pool.total, len(server.sessions)) == (2, 2)


def test_sessions_are_lent_in_turn_so_that_each_is_used() -> None:
    pool = make_pool(FakeServer(slots=10))
    pool.fill()
    lent = []
    for _ in range(4):
        with pool.lend(timeout_seconds=1) as session:
            lent.append(session)
    assert lent[0] is lent[2]
    assert lent[1] is lent[3]
    assert lent[0] is not lent[1]


def test_a_borrower_waits_until_a_session_comes_back() -> None:
    pool = make_pool(FakeServer(slots=10), minimum=1, maximum=1)
    taken = threading.Event()
    give_back = threading.Event()

    def hold() -> None:
        with pool.lend(timeout_seconds=1):
            taken.set()
            give_back.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    threading.Timer(0.05, give_back.set).start()
    with pool.lend(timeout_seconds=10):
        holder.join()
    assert pool.total == 1


def test_a_borrower_gives_up_when_all_are_lent() -> None:
    pool = make_pool(FakeServer(slots=10), minimum=1, maximum=1)
    with pool.lend(timeout_seconds=1), pytest.raises(PoolExhaustedError, match="1 of 1 open"):
        pool.lend(timeout_seconds=0.05).__enter__()


def test_a_refusal_by_the_server_is_counted_and_ends_in_giving_up() -> None:
    pool = make_pool(FakeServer(slots=0))
    with pytest.raises(PoolExhaustedError, match="0 of 3 open"):
        pool.lend(timeout_seconds=0.05).__enter__()
    assert pool.refused >= 1
    assert pool.total == 0


def test_a_session_past_its_lifetime_is_closed_and_replaced() -> None:
    server = FakeServer(slots=10)
    pool = make_pool(server, minimum=1, lifetime_seconds=0.0)
    pool.fill()
    with pytest.raises(PoolExhaustedError), pool.lend(timeout_seconds=0.0):
        pass
    assert server.sessions[0].closed
    with pool.lend(timeout_seconds=10):
        assert len(server.sessions) == 2


def test_a_session_whose_borrower_failed_is_closed() -> None:
    server = FakeServer(slots=10)
    pool = make_pool(server)
    pool.fill()
    with pytest.raises(RuntimeError), pool.lend(timeout_seconds=1):
        raise RuntimeError
    assert [session.closed for session in server.sessions] == [True, False]
    assert pool.total == 1


def test_many_borrowers_never_hold_more_than_the_maximum() -> None:
    server = FakeServer(slots=100)
    pool = make_pool(server, maximum=3)

    def borrow() -> None:
        for _ in range(20):
            with pool.lend(timeout_seconds=30):
                time.sleep(0.0005)

    threads = [threading.Thread(target=borrow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.sessions) <= 3


def test_a_lifo_pool_lends_the_same_session_again_and_lets_the_others_rest() -> None:
    pool = make_pool(FakeServer(slots=10), order="lifo")
    pool.fill()
    lent = []
    for _ in range(3):
        with pool.lend(timeout_seconds=1) as session:
            lent.append(session)
    assert lent[0] is lent[1] is lent[2]


def test_a_session_nobody_needed_for_long_is_ended_down_to_the_minimum() -> None:
    server = FakeServer(slots=10)
    pool = make_pool(server, minimum=1, maximum=3, idle_seconds=0.0)
    with pool.lend(timeout_seconds=1), pool.lend(timeout_seconds=1), pool.lend(timeout_seconds=1):
        pass
    assert pool.total == 3
    time.sleep(0.001)
    pool.prune()
    assert (pool.total, sum(not session.closed for session in server.sessions)) == (1, 1)


def test_a_pool_without_an_idle_time_keeps_what_it_has() -> None:
    pool = make_pool(FakeServer(slots=10))
    pool.fill()
    pool.prune()
    assert pool.total == 2


def test_overflow_is_opened_when_all_are_lent_and_closed_when_it_comes_back() -> None:
    server = FakeServer(slots=10)
    pool = make_pool(server, minimum=1, maximum=2, overflow=1)
    with pool.lend(timeout_seconds=1), pool.lend(timeout_seconds=1), pool.lend(timeout_seconds=1):
        assert pool.total == 3
        with pytest.raises(PoolExhaustedError):
            pool.lend(timeout_seconds=0.05).__enter__()
    assert pool.total == 2
    assert sum(not session.closed for session in server.sessions) == 2
