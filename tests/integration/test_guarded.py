"""The guarded session on a real server: what is asked often is planned once, and still asked when that is lost."""

import time
from collections.abc import Iterator

import pytest

from batsignal.drills.embedded import EmbeddedServer
from batsignal.poll.guarded import DeadlineError, GuardedSession

TEXT = "-- %(first)s and then %(second)s\nSELECT %(second)s::int, %(first)s::text"
ARGUMENTS = {"first": "it's", "second": 2}


@pytest.fixture
def session(postgres: EmbeddedServer) -> Iterator[GuardedSession]:
    session = GuardedSession({"dsn": postgres.dsn()})
    session.open(soon())
    yield session
    session.close()


def soon() -> float:
    return time.monotonic() + 10.0


def prepared(session: GuardedSession) -> int:
    ((count,),) = session.query("SELECT count(*) FROM pg_prepared_statements", {}, soon())
    return int(count)


def test_statement_asked_often_is_prepared_once_and_takes_new_values_each_time(session: GuardedSession) -> None:
    assert session.query_often(TEXT, ARGUMENTS, soon()) == [(2, "it's")]
    assert session.query_often(TEXT, {"first": "100 %", "second": 3}, soon()) == [(3, "100 %")]
    assert session.query_often("SELECT 1", {}, soon()) == [(1,)]
    assert session.query_often("SELECT 1", {}, soon()) == [(1,)]
    assert prepared(session) == 2


def test_statement_that_a_pooler_lost_is_asked_without_preparing_from_then_on(session: GuardedSession) -> None:
    session.query_often(TEXT, ARGUMENTS, soon())
    session.query("DEALLOCATE ALL", {}, soon())
    assert session.query_often(TEXT, ARGUMENTS, soon()) == [(2, "it's")]
    assert session.query_often("SELECT 1", {}, soon()) == [(1,)]
    assert prepared(session) == 0


def test_name_that_a_pooler_handed_on_is_no_obstacle(session: GuardedSession) -> None:
    session.query("PREPARE batsignal_1 AS SELECT 'not ours'", {}, soon())
    assert session.query_often(TEXT, ARGUMENTS, soon()) == [(2, "it's")]


def test_late_answer_to_a_statement_asked_often_is_waited_for(session: GuardedSession) -> None:
    slow = "SELECT 1 FROM pg_sleep(0.5)"
    session.query_often("SELECT 1", {}, soon())
    for _ in range(2):
        with pytest.raises(DeadlineError):
            session.query_often(slow, {}, time.monotonic() + 0.1)
        session.finish(soon())
    assert session.query_often(slow, {}, soon()) == [(1,)]
