"""A server watched through a real PgBouncer: no application notices, and what stands in the way is said in its words.

Nobody should; its own address is better. But who has only that address must neither be blind nor do harm.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from batsignal.cli.check import check
from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.poll.guarded import GuardedSession
from batsignal.poll.manners import introduce
from batsignal.poll.resolve import Resolver
from batsignal.poll.sight import Sight
from batsignal.snapshot import Snapshot
from poolers import Pooler, in_front_of

Until = Callable[..., Any]
BACK_SECONDS = 5.0
SETTINGS_SEEN = """
SELECT pg_backend_pid(), current_setting('default_transaction_read_only'), current_setting('statement_timeout'),
       current_setting('search_path'), current_setting('jit'), (SELECT count(*) FROM pg_prepared_statements)
"""


@pytest.fixture(scope="module")
def front(servers: Callable[[str], EmbeddedServer]) -> Iterator[Pooler]:
    """A PgBouncer that lends single transactions, and logs everybody in as one role: all share one pool."""
    with in_front_of(servers("15"), database="user=watcher") as started:
        yield started


@pytest.fixture
def sight(front: Pooler) -> Iterator[Sight]:
    sight = sight_of(front.dsn())
    yield sight
    sight.close()


def sight_of(dsn: str) -> Sight:
    return Sight(server="db1", dsn=dsn, resolver=Resolver())


def application(front: Pooler) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(front.dsn(application_name="web@2.4.0"))
    connection.autocommit = True
    return connection


def settings(connection: psycopg2.extensions.connection) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(SETTINGS_SEEN)
        (row,) = cursor.fetchall()
    return tuple(row)


def test_sessions_that_applications_are_lent_after_us_are_as_they_were(front: Pooler, sight: Sight) -> None:
    with closing(application(front)) as app:
        before = settings(app)
        for _ in range(3):
            assert sight.look().failure is None
        assert settings(app) == before
    assert before[1:] == ("off", "0", '"$user", public', "on", 0)


def test_whichever_session_it_is_lent_it_leaves_that_out_of_what_it_counts(front: Pooler, sight: Sight) -> None:
    first = sight.look()
    assert first.failure is None
    assert (first.own_sessions, first.privileged, first.role) == (1, True, "watcher")
    with closing(application(front)) as app, app.cursor() as cursor:
        cursor.execute("BEGIN; SELECT pg_backend_pid()")
        ((taken,),) = cursor.fetchall()
        second = sight.look()
        cursor.execute("ROLLBACK")
    assert second.failure is None
    assert [(one.application_name, one.state) for one in second.sessions if one.pid == taken] == [
        ("web@2.4.0", "idle in transaction")
    ]
    assert not [one for one in second.sessions if one.application_name == "batsignal" and one.state == "active"]


def test_timeouts_and_read_only_hold_for_each_statement_of_ours(front: Pooler) -> None:
    deadline = time.monotonic() + 20
    parameters = dict(part.split("=") for part in front.dsn().split())
    with closing(GuardedSession(parameters)) as session:
        session.open(deadline)
        assert introduce(session, deadline).is_pooled
        with pytest.raises(psycopg2.errors.QueryCanceled):
            session.query("SELECT pg_catalog.pg_sleep(10)", {}, deadline)
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            session.query("CREATE TABLE t ()", {}, deadline)
        assert session.query("SELECT 1 WHERE 'a' = %(a)s", {"a": "a"}, deadline) == [(1,)]


def test_options_that_pgbouncer_refuses_are_left_out(front: Pooler) -> None:
    with closing(sight_of(front.dsn(options="-c statement_timeout=5s"))) as sight:
        assert sight.look().failure is None


def test_server_itself_is_no_pooler(front: Pooler) -> None:
    with closing(sight_of(front.server.dsn(user="watcher"))) as sight:
        assert sight.look().failure is None
        assert not sight.is_pooled


def test_it_is_seen_that_a_pooler_answers(sight: Sight) -> None:
    assert sight.look().failure is None
    assert sight.is_pooled


def back(sight: Sight, until: Until) -> None:
    until(lambda: sight.look().failure is None, "the server to be seen again", BACK_SECONDS)


def said(snapshot: Snapshot) -> tuple[str, str]:
    assert snapshot.met is not None
    return snapshot.met.reason, snapshot.met.text


def test_paused_pool_is_said_and_seen_again_when_it_goes_on(front: Pooler, sight: Sight, until: Until) -> None:
    assert sight.look().failure is None
    front.command("PAUSE")
    try:
        paused = sight.look()
        met, is_poolers = said(paused), paused.met is not None and paused.met.by_pooler
    finally:
        front.command("RESUME")
    assert met == ("timeout", "the pooler lent no session, or the server did not answer within 1 s")
    assert is_poolers
    back(sight, until)


def test_pool_that_others_have_emptied_is_no_server_that_hangs(front: Pooler, sight: Sight, until: Until) -> None:
    assert sight.look().failure is None
    with ExitStack() as stack:
        for _ in range(4):
            cursor = stack.enter_context(closing(application(front))).cursor()
            cursor.execute("BEGIN; SELECT 1")
        reason, text = said(sight.look())
    assert reason == "timeout"
    assert "the pooler lent no session" in text
    back(sight, until)


def test_pgbouncer_that_restarts_costs_a_few_looks(front: Pooler, sight: Sight, until: Until) -> None:
    assert sight.look().failure is None
    front.stop()
    try:
        assert said(sight.look()) == ("refused", f"nothing listens on {HOST} port {front.port}")
    finally:
        front.start(database="user=watcher")
    back(sight, until)


def test_database_that_is_killed_or_shut_in_the_console_is_said(front: Pooler, sight: Sight, until: Until) -> None:
    assert sight.look().failure is None
    front.command("KILL postgres")
    front.command("DISABLE postgres")
    try:
        reason, text = said(sight.look())
    finally:
        front.command("ENABLE postgres")
        front.command("RESUME postgres")
    assert (reason, text.partition(" (")[0]) == ("no_database", "the pooler's administrator has shut the database")
    back(sight, until)


@pytest.mark.parametrize("method", ["md5", "scram-sha-256", "plain"])
def test_login_that_pgbouncer_refuses_is_our_own_fault_and_no_dead_server(
    front: Pooler, until: Until, method: str
) -> None:
    front.stop()
    users = {"users": '"watcher" "right"\n"poolstats" ""\n'}
    front.start(files=users, auth_type=method, max_client_conn="2", database="user=watcher")
    try:
        for parameters in ({"password": "wrong"}, {"user": "ghost", "password": "wrong"}):
            with closing(sight_of(front.dsn(**parameters))) as sight:
                reason, text = said(sight.look())
                assert reason == "auth_failed"
                assert "wrong" not in text
        right = front.dsn(password="right")
        with closing(psycopg2.connect(right)), closing(psycopg2.connect(right)), closing(sight_of(right)) as sight:
            refused = sight.look().met
            assert refused is not None
            assert (refused.reason, "max_client_conn" in refused.text) == ("unreachable", True)
            assert refused.by_pooler
        with closing(sight_of(right)) as sight:
            back(sight, until)
    finally:
        front.stop()
        front.start(database="user=watcher")


def test_server_that_is_down_behind_it_is_said_and_seen_again(
    fresh_server: Callable[..., EmbeddedServer], until: Until
) -> None:
    server = fresh_server("15")
    with in_front_of(server) as front, closing(sight_of(front.dsn())) as sight:
        assert sight.look().failure is None
        server.stop()
        until(lambda: "the pooler cannot log in to the server" in said(sight.look())[1], "what PgBouncer says")
        server.start()
        back(sight, until)
        server.restart("immediate")
        back(sight, until)


def test_server_that_is_full_behind_it_is_full_and_not_down(
    fresh_server: Callable[..., EmbeddedServer], until: Until
) -> None:
    server = fresh_server("15")
    with in_front_of(server) as front, ExitStack() as stack:
        place = {"host": HOST, "port": server.port, "user": server.superuser, "dbname": "postgres"}
        with suppress(psycopg2.OperationalError):
            while True:
                stack.enter_context(closing(psycopg2.connect(**place)))
        with closing(sight_of(front.dsn())) as sight:
            until(lambda: said(sight.look())[0] == "slots_full", "what the server said to PgBouncer")
            stack.close()
            back(sight, until)


def test_check_notes_the_pooler_and_lists_nothing_but_facts(
    front: Pooler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"servers": [{"name": "db1", "dsn": front.dsn()}], "store": {"path": None}}
    (tmp_path / "batsignal.yml").write_text(yaml.safe_dump(config))
    assert check(str(tmp_path / "batsignal.yml")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "note server db1: a pooler answers there, and when its pool is empty nothing is seen: " in "\n".join(lines)
    assert {line[:5] for line in lines} <= {"ok   ", "note "}
