"""The poller against real servers of every major: what it sees, and what it makes of a server that misbehaves."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import psutil
import psycopg2
import pytest

from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.poll.entrance import HOLD_FIRST_SECONDS
from batsignal.poll.postgres import PATIENCE_SECONDS, PostgresPoller
from batsignal.poll.queries import catalog, sql
from batsignal.poll.resolve import Resolver
from batsignal.snapshot import PollFailure, Session, Snapshot
from frozen import frozen
from majors import EACH, major_of

# A look may take its deadline and a little, on a machine that does other things, too.
LOOK_SECONDS_AT_MOST = 3.0
MINUTE = 61.0

# What conftest's servers are set up with.
MAX_CONNECTIONS = 40
SUPERUSER_RESERVED = 3
RESERVED_FROM_16 = 2
PASSWORD = "s3cr&t/pa:ss@w%rd"

ARGUMENTS: dict[str, dict[str, Any]] = {
    "activity": {"since": 0.0},
    "blockers": {"pids": [1]},
    "counters": {"databases": [1, 5]},
    "end_session": {"pid": 1, "backend_start": 0.0, "state": "idle", "state_change": 0.0},
    "endable": {"roles": ["postgres"]},
    "leave": {"ports": [1]},
    "pooled": {"statement_timeout_ms": 900, "lock_timeout_ms": 200},
    "roles": {"roles": [10]},
    "session": {"statement_timeout_ms": 900, "lock_timeout_ms": 200},
}

Until = Callable[..., Any]


class Clock:
    """The monotonic clock, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Pollers:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.clock = Clock()

    def on(self, server: EmbeddedServer, **dsn: str) -> PostgresPoller:
        return self.of(server.dsn(**{"user": "watcher", **dsn}))

    def of(self, dsn: str) -> PostgresPoller:
        poller = PostgresPoller(server="db1", dsn=dsn, resolver=Resolver(), monotonic=self.clock)
        self._stack.callback(poller.close)
        return poller


@pytest.fixture
def pollers() -> Iterator[Pollers]:
    with ExitStack() as stack:
        yield Pollers(stack)


def seen(snapshot: Snapshot, connection: psycopg2.extensions.connection) -> Session:
    assert snapshot.failure is None, snapshot.failure
    (session,) = [one for one in snapshot.sessions if one.pid == connection.info.backend_pid]
    return session


def failure(poller: PostgresPoller) -> PollFailure:
    snapshot = poller.look()
    assert snapshot.failure is not None
    assert (snapshot.sessions, snapshot.view) == ((), "none")
    return snapshot.failure


def execute(connection: psycopg2.extensions.connection, statement: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def own_sessions(connection: psycopg2.extensions.connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE application_name = 'batsignal'"
            " AND backend_type = 'client backend'"
        )
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def connections_to(server: EmbeddedServer) -> list[Any]:
    """Return this process's own connections to a server, those that it has not let in among them."""
    return [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == server.port]


def fill(server: EmbeddedServer, sessions: Any) -> None:
    for _ in range(MAX_CONNECTIONS + 1):
        try:
            sessions.open(server)
        except psycopg2.OperationalError:
            return
    raise AssertionError("the server took more sessions than it has slots")


# -- what a look sees --------------------------------------------------------------------------------------------------


def test_every_sql_file_runs_and_all_versions_of_a_query_have_the_same_columns(
    postgres: EmbeddedServer, sessions: Any
) -> None:
    with sessions.open(postgres).cursor() as cursor:
        for query, texts in catalog().items():
            widths = set()
            for text in texts.values():
                cursor.execute(text, ARGUMENTS.get(query, {}))
                assert cursor.description is not None
                widths.add(len(cursor.description))
            assert len(widths) == 1, query


def test_first_look_already_knows_names_and_every_column(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers, until: Callable[..., Any]
) -> None:
    before = time.time()
    connection = sessions.open(postgres, application_name="web@2.4.0", user="nobody_special")
    connection.autocommit = False
    execute(connection, "SELECT 'secret', txid_current()")
    # The answer is out a moment before the session waits for its client again.
    waits = f"SELECT 1 FROM pg_stat_activity WHERE pid = {connection.info.backend_pid} AND wait_event = 'ClientRead'"
    until(lambda: sessions.run(postgres, waits), "the session to wait for its client")
    snapshot = pollers.on(postgres).look()
    session = seen(snapshot, connection)
    assert (session.datname, session.usename) == ("postgres", "nobody_special")
    assert session.application_name == "web@2.4.0"
    assert session.client_addr == "127.0.0.1"
    assert (session.state, session.wait_event_type, session.wait_event) == (
        "idle in transaction",
        "Client",
        "ClientRead",
    )
    assert session.query == "SELECT ?, txid_current()"
    assert session.query_id is not None
    assert int(session.query_id)
    assert session.backend_type == "client backend"
    assert session.backend_xid is not None
    assert session.blocked_by == ()
    assert session.leader_pid is None
    instants = (session.backend_start, session.xact_start, session.query_start, session.state_change)
    assert all(before - 5 < instant < time.time() + 5 for instant in instants if instant is not None)
    assert None not in instants
    assert snapshot.view == "session"
    assert snapshot.privileged is True
    assert snapshot.server_version_num is not None
    assert snapshot.server_version_num // 10000 == int(major_of(postgres))
    assert snapshot.ping_seconds is not None
    assert 0 < snapshot.ping_seconds < 3
    assert abs(snapshot.t - time.time()) < 5


def test_waiting_session_names_its_blocker(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers, until: Until
) -> None:
    holder, waiter = sessions.open(postgres), psycopg2.connect(postgres.dsn(), async_=True)
    until(lambda: waiter.poll() == psycopg2.extensions.POLL_OK, "an asynchronous session")
    execute(holder, "SELECT pg_advisory_lock(42)")
    waiter.cursor().execute("SELECT pg_advisory_lock(42)")
    poller = pollers.on(postgres)

    def waiting() -> Session | None:
        session = seen(poller.look(), waiter)
        return session if session.wait_event_type == "Lock" else None

    try:
        session = until(waiting, "a lock wait")
    finally:
        waiter.close()
    assert session.blocked_by == (holder.info.backend_pid,)
    assert session.state == "active"


def test_client_address_over_a_unix_socket_is_unknown(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    connection = sessions.open(postgres, host=str(postgres.socket_directory))
    assert seen(pollers.on(postgres).look(), connection).client_addr is None


def test_poller_itself_may_come_over_a_unix_socket(postgres: EmbeddedServer, pollers: Pollers) -> None:
    poller = pollers.of(f"host={postgres.socket_directory} port={postgres.port} user=watcher dbname=postgres")
    assert poller.look().failure is None


def test_own_session_is_in_no_row_but_takes_a_slot(postgres: EmbeddedServer, sessions: Any, pollers: Pollers) -> None:
    connection = sessions.open(postgres)
    snapshot = pollers.on(postgres).look()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        assert cursor.fetchone() == (snapshot.used,)
    assert snapshot.own_sessions == 1
    assert "batsignal" not in {session.application_name for session in snapshot.sessions}
    assert {session.backend_type for session in snapshot.sessions} == {"client backend"}


def test_slots_are_the_servers_own_numbers(postgres: EmbeddedServer, pollers: Pollers) -> None:
    slots = pollers.on(postgres).look().slots
    assert slots is not None
    assert (slots.max, slots.superuser_reserved) == (MAX_CONNECTIONS, SUPERUSER_RESERVED)
    assert slots.reserved == (RESERVED_FROM_16 if int(major_of(postgres)) >= 16 else 0)
    assert slots.usable == MAX_CONNECTIONS - SUPERUSER_RESERVED - slots.reserved


def test_limits_of_roles_and_databases_are_seen_but_not_those_of_superusers(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    sessions.run(postgres, "CREATE ROLE limited CONNECTION LIMIT 7", "CREATE ROLE boss SUPERUSER CONNECTION LIMIT 5")
    sessions.run(postgres, "CREATE DATABASE narrow CONNECTION LIMIT 9")
    try:
        snapshot = pollers.on(postgres).look()
        assert snapshot.role_limits == {"limited": 7}
        assert snapshot.database_limits == {"narrow": 9}
    finally:
        sessions.run(postgres, "DROP DATABASE narrow")
        sessions.run(postgres, "DROP ROLE limited", "DROP ROLE boss")


def test_count_of_sessions_grows_with_those_that_came_and_went(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers, until: Until
) -> None:
    poller = pollers.on(postgres)

    def count() -> int:
        pollers.clock.ahead += 11
        snapshot = poller.look()
        return (snapshot.counters.sessions or 0) if snapshot.counters else 0

    before = until(count, "a first count of sessions")
    for _ in range(3):
        sessions.run(postgres, "SELECT 1")
    until(lambda: count() >= before + 3, "three more sessions")


def test_name_of_a_role_that_came_later_is_found_in_the_same_look(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    poller = pollers.on(postgres)
    poller.look()
    sessions.run(postgres, "CREATE ROLE newcomer LOGIN")
    try:
        connection = sessions.open(postgres, user="newcomer")
        pollers.clock.ahead += 3
        assert seen(poller.look(), connection).usename == "newcomer"
        connection.close()
    finally:
        sessions.run(postgres, "DROP ROLE newcomer")


def test_renamed_database_gets_its_new_name_within_a_minute(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    sessions.run(postgres, "CREATE DATABASE before")
    poller = pollers.on(postgres)
    poller.look()
    sessions.run(postgres, "ALTER DATABASE before RENAME TO after")
    try:
        connection = sessions.open(postgres, dbname="after")
        pollers.clock.ahead += MINUTE
        assert seen(poller.look(), connection).datname == "after"
        connection.close()
    finally:
        sessions.run(postgres, "DROP DATABASE after WITH (FORCE)")


def test_session_of_a_dropped_role_has_no_name_and_stops_no_look(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    sessions.run(postgres, "CREATE ROLE leaver LOGIN")
    connection = sessions.open(postgres, user="leaver")
    sessions.run(postgres, "DROP ROLE leaver")
    poller = pollers.on(postgres)
    for _ in range(3):
        assert seen(poller.look(), connection).usename is None
        pollers.clock.ahead += 3


def test_application_name_set_after_connecting_is_seen(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    connection, poller = sessions.open(postgres), pollers.on(postgres)
    assert seen(poller.look(), connection).application_name == ""
    execute(connection, "SET application_name = 'billing@7'")
    assert seen(poller.look(), connection).application_name == "billing@7"


def test_session_that_did_not_change_is_the_same_object(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    still, busy, poller = sessions.open(postgres), sessions.open(postgres), pollers.on(postgres)
    execute(still, "SELECT 'still'")
    execute(busy, "SELECT 1 AS first")
    before = poller.look()
    execute(busy, "SELECT 1 AS second")
    after = poller.look()
    assert seen(after, still) is seen(before, still)
    assert seen(before, busy).query == "SELECT ? AS first"
    assert seen(after, busy).query == "SELECT ? AS second"


def test_code_path_in_a_statements_comment_is_seen_and_its_data_is_not(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    connection = sessions.open(postgres)
    execute(
        connection, "SELECT 'hunter2' AS one /*action='show',controller='users',route='%2Fusers%2F4711',user='bob'*/"
    )
    session = seen(pollers.on(postgres).look(), connection)
    assert (session.query, session.code) == ("SELECT ? AS one", "controller=users action=show route=/users/?")


def test_statement_longer_than_what_is_fetched_is_cut_and_its_literals_hidden(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    connection = sessions.open(postgres)
    execute(connection, "SELECT 1 AS beginning, '" + "secret " * 2000 + "'")
    assert seen(pollers.on(postgres).look(), connection).query == "SELECT ? AS beginning, ?"


# -- other encodings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", ["UTF8", "SQL_ASCII", "LATIN1", "EUC_JP"])
@pytest.mark.parametrize("length", ["short", "long"])
def test_texts_of_databases_in_other_encodings_stop_no_look(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers, ours: str, length: str
) -> None:
    names = {"UTF8": "postgres", "SQL_ASCII": "in_ascii", "LATIN1": "in_latin1", "EUC_JP": "in_euc_jp"}
    created = [(name, encoding) for encoding, name in names.items() if encoding != "UTF8"]
    existing = {row[0] for row in sessions.run(postgres, "SELECT datname FROM pg_database")}
    for name, encoding in created:
        if name not in existing:
            sessions.run(postgres, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    padding = "" if length == "short" else ", 1 AS filler" * 700
    in_utf8 = sessions.open(postgres, client_encoding="UTF8")
    execute(in_utf8, f'SELECT 1 AS "grün" {padding}')
    in_latin1 = sessions.open(postgres, dbname="in_latin1", client_encoding="LATIN1")
    execute(in_latin1, f'SELECT 1 AS "grün" {padding}'.encode("latin-1"))
    in_ascii = sessions.open(postgres, dbname="in_ascii")
    execute(in_ascii, f'SELECT 1 AS "gr_n" {padding}'.encode().replace(b"_", b"\xff"))
    poller = pollers.on(postgres, dbname=names[ours])
    for _ in range(2):
        snapshot = poller.look()
        for connection in (in_utf8, in_latin1, in_ascii):
            query = seen(snapshot, connection).query
            assert query is not None
            assert query.startswith('SELECT ? AS "gr')
    if ours == "UTF8":
        assert (seen(snapshot, in_utf8).query or "").startswith('SELECT ? AS "grün"')


# -- privileges --------------------------------------------------------------------------------------------------------


def test_role_without_pg_monitor_sees_how_many_and_who_but_not_what(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    connection = sessions.open(postgres, application_name="web@2.4.0")
    execute(connection, "SELECT 'hidden'")
    snapshot = pollers.on(postgres, user="nobody_special").look()
    session = seen(snapshot, connection)
    assert snapshot.privileged is False
    assert (session.usename, session.datname, session.application_name) == ("postgres", "postgres", "web@2.4.0")
    assert (session.state, session.query, session.backend_start) == (None, None, None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        assert cursor.fetchone() == (snapshot.used,), "no background worker is taken for a client"


def test_privilege_given_later_shows_within_ten_seconds_with_its_texts(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    sessions.run(postgres, "CREATE ROLE promoted LOGIN")
    connection = sessions.open(postgres)
    execute(connection, "SELECT 1 AS written_long_ago")
    poller = pollers.on(postgres, user="promoted")
    try:
        assert poller.look().privileged is False
        sessions.run(postgres, "GRANT pg_monitor TO promoted")
        pollers.clock.ahead += 11
        snapshot = poller.look()
        assert snapshot.privileged is True
        assert seen(snapshot, connection).query == "SELECT ? AS written_long_ago"
    finally:
        poller.close()
        sessions.run(postgres, "DROP ROLE promoted")


def test_privilege_taken_away_shows_at_the_next_look_and_nobody_seems_to_have_left(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    sessions.run(postgres, "CREATE ROLE demoted LOGIN IN ROLE pg_monitor")
    connection = sessions.open(postgres, application_name="web@2.4.0")
    poller = pollers.on(postgres, user="demoted")
    try:
        before = poller.look()
        sessions.run(postgres, "REVOKE pg_monitor FROM demoted")
        after = poller.look()
        assert (before.privileged, after.privileged) == (True, False)
        assert seen(after, connection).key == seen(before, connection).key
        assert seen(after, connection).state is None
        sessions.run(postgres, "GRANT pg_monitor TO demoted")
        poller.look()
        again = poller.look()
        assert again.privileged is True
        assert seen(again, connection).key == seen(before, connection).key
    finally:
        poller.close()
        sessions.run(postgres, "DROP ROLE demoted")


def test_defaults_of_the_role_change_nothing_in_what_a_look_reads(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    sessions.run(
        postgres,
        "CREATE ROLE peculiar LOGIN IN ROLE pg_monitor",
        "ALTER ROLE peculiar SET extra_float_digits = -10",
        "ALTER ROLE peculiar SET idle_session_timeout = 300",
        "ALTER ROLE peculiar SET statement_timeout = 200",
        "ALTER ROLE peculiar SET DateStyle = 'German'",
        "ALTER ROLE peculiar SET search_path = 'nowhere'",
    )
    connection = sessions.open(postgres)
    pid = connection.info.backend_pid
    truth = f"SELECT date_part('epoch', backend_start) FROM pg_stat_activity WHERE pid = {pid}"
    ((begun,),) = sessions.run(postgres, truth)
    poller = pollers.on(postgres, user="peculiar")
    try:
        assert seen(poller.look(), connection).backend_start == begun
        kept = poller.process
        time.sleep(0.6)
        assert poller.look().failure is None
        assert poller.process == kept, "an idle seat is not given up"
    finally:
        poller.close()
        sessions.run(postgres, "DROP ROLE peculiar")


# -- locks in the catalog ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("catalogs", ["pg_authid", "pg_database", "pg_authid, pg_database"])
def test_locked_catalog_stops_no_look(postgres: EmbeddedServer, sessions: Any, pollers: Pollers, catalogs: str) -> None:
    poller = pollers.on(postgres)
    assert poller.look().failure is None
    vandal = sessions.open(postgres)
    vandal.autocommit = False
    execute(vandal, f"LOCK TABLE {catalogs} IN ACCESS EXCLUSIVE MODE")
    for _ in range(3):
        pollers.clock.ahead += MINUTE  # everything is due
        session = seen(poller.look(), vandal)
        assert (session.usename, session.datname) == ("postgres", "postgres")


# -- a session that is lost, a server that goes away -------------------------------------------------------------------


def test_session_that_somebody_ended_is_replaced_within_the_same_look(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    poller, witness = pollers.on(postgres), sessions.open(postgres)
    for _ in range(3):
        assert poller.look().failure is None
        assert own_sessions(witness) == 1
        execute(
            witness,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'batsignal'",
        )
        assert poller.look().failure is None
        assert own_sessions(witness) == 1


@pytest.mark.parametrize("version", EACH)
def test_server_that_stops_is_refused_and_back_soon_after_it_started(
    fresh_server: Callable[..., EmbeddedServer], pollers: Pollers, until: Until, version: str
) -> None:
    server = fresh_server(version)
    poller = pollers.on(server)
    assert poller.look().failure is None
    server.stop("immediate")
    assert failure(poller).reason in {"refused", "not_accepting"}
    assert until(lambda: failure(poller).reason == "refused", "the port to be closed")
    assert poller.process is None
    server.start()
    until(lambda: poller.look().failure is None, "the server to be seen again", seconds=15)


@pytest.mark.parametrize("version", EACH)
def test_frozen_server_costs_each_look_a_second_and_keeps_its_session(
    fresh_server: Callable[..., EmbeddedServer], sessions: Any, pollers: Pollers, until: Until, version: str
) -> None:
    server = fresh_server(version)
    poller, witness = pollers.on(server), sessions.open(server)
    assert poller.look().failure is None
    assert poller.process is not None
    pid = poller.process.backend_pid
    with frozen(server.pid):
        for _ in range(3):
            began = time.monotonic()
            assert failure(poller).reason == "timeout"
            assert time.monotonic() - began < LOOK_SECONDS_AT_MOST
    until(lambda: poller.look().failure is None, "the server to be seen again", seconds=15)
    assert poller.process is not None
    assert poller.process.backend_pid == pid
    assert own_sessions(witness) == 1


def test_server_frozen_for_long_is_tried_once_more_and_never_sees_more_than_two(
    fresh_server: Callable[..., EmbeddedServer], sessions: Any, pollers: Pollers, until: Until
) -> None:
    server = fresh_server()
    poller, witness = pollers.on(server), sessions.open(server)
    others = len(connections_to(server))
    assert poller.look().failure is None
    assert poller.process is not None
    with frozen(server.pid):
        assert failure(poller).reason == "timeout"
        for _ in range(6):
            pollers.clock.ahead += PATIENCE_SECONDS + 1
            began = time.monotonic()
            assert failure(poller).reason == "timeout"
            assert time.monotonic() - began < LOOK_SECONDS_AT_MOST
            assert len(connections_to(server)) == others + 2, "the session that hangs, and one attempt"
        assert poller.process is not None, "the seat is not given up for a promise"
    most = 0

    def seen_again() -> bool:
        nonlocal most
        most = max(most, own_sessions(witness))
        return poller.look().failure is None

    until(seen_again, "the server to be seen again", seconds=15)
    until(lambda: own_sessions(witness) == 1, "the other session to go")
    assert most <= 2


def test_session_that_hangs_alone_is_replaced_by_another_and_ended(
    fresh_server: Callable[..., EmbeddedServer], sessions: Any, pollers: Pollers, until: Until
) -> None:
    server = fresh_server()
    poller, witness = pollers.on(server), sessions.open(server)
    assert poller.look().failure is None
    assert poller.process is not None
    backend = psutil.Process(poller.process.backend_pid)
    backend.suspend()
    try:
        assert failure(poller).reason == "timeout"
        pollers.clock.ahead += PATIENCE_SECONDS + 1
        until(lambda: poller.look().failure is None, "a look through another session")
        assert poller.process.backend_pid != backend.pid
        assert own_sessions(witness) == 2
    finally:
        backend.resume()
    until(lambda: own_sessions(witness) == 1, "the old session to go")


def test_attempt_that_waits_for_a_locked_catalog_is_not_repeated_beside_it(
    fresh_server: Callable[..., EmbeddedServer], sessions: Any, pollers: Pollers, until: Until
) -> None:
    server = fresh_server()
    holder, witness = sessions.open(server), sessions.open(server)
    holder.autocommit = False
    execute(holder, "LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
    others = len(connections_to(server))
    poller = pollers.on(server)
    for _ in range(4):
        assert failure(poller).reason == "timeout"
        assert len(connections_to(server)) == others + 1
        pollers.clock.ahead += 10
    holder.rollback()
    until(lambda: poller.look().failure is None, "the server to be seen", seconds=5)
    assert own_sessions(witness) == 1


def test_attempt_that_nobody_answers_for_minutes_makes_room_for_another(pollers: Pollers) -> None:
    with socket.create_server((HOST, 0)) as silent:
        poller = pollers.of(f"host={HOST} port={silent.getsockname()[1]} user=watcher dbname=postgres")
        assert failure(poller).reason == "timeout"
        first, _ = silent.accept()
        with first:
            assert failure(poller).reason == "timeout"
            pollers.clock.ahead += HOLD_FIRST_SECONDS
            assert failure(poller).reason == "timeout"
            first.setblocking(False)
            assert first.recv(10_000), "the startup packet"
            with pytest.raises(ConnectionResetError):
                first.recv(1)
            pollers.clock.ahead += 10
            assert failure(poller).reason == "timeout"
            silent.settimeout(5)
            silent.accept()[0].close()


def test_frozen_backend_alone_is_a_timeout_and_no_second_session(
    fresh_server: Callable[..., EmbeddedServer], sessions: Any, pollers: Pollers
) -> None:
    server = fresh_server()
    poller, witness = pollers.on(server), sessions.open(server)
    assert poller.look().failure is None
    assert poller.process is not None
    backend = psutil.Process(poller.process.backend_pid)
    backend.suspend()
    try:
        for _ in range(2):
            assert failure(poller).reason == "timeout"
            assert own_sessions(witness) == 1
    finally:
        backend.resume()
    assert poller.look().failure is None


def test_killed_server_recovers_to_a_good_look(
    fresh_server: Callable[..., EmbeddedServer], sessions: Any, pollers: Pollers, until: Until
) -> None:
    server = fresh_server()
    poller = pollers.on(server)
    assert poller.look().failure is None
    # One backend that dies badly makes the postmaster end all sessions and start anew.
    victim = sessions.open(server)
    psutil.Process(victim.info.backend_pid).send_signal(signal.SIGKILL)
    until(lambda: poller.look().failure is None, "the server to recover", seconds=10)


# -- why it does not let us in -----------------------------------------------------------------------------------------


def uri(server: EmbeddedServer, password: str = PASSWORD, dbname: str = "postgres", **options: str) -> str:
    query = "&".join(f"{key}={value}" for key, value in options.items())
    return f"postgresql://with_password:{quote(password, safe='')}@{HOST}:{server.port}/{dbname}?{query}"


def keywords(server: EmbeddedServer, password: str = PASSWORD, dbname: str = "postgres", **options: str) -> str:
    rest = " ".join(f"{key}={value}" for key, value in options.items())
    return f"host={HOST} port={server.port} user=with_password password='{password}' dbname={dbname} {rest}"


SPELLINGS = pytest.mark.parametrize("spell", [uri, keywords])


@SPELLINGS
def test_right_password_opens(postgres: EmbeddedServer, pollers: Pollers, spell: Callable[..., str]) -> None:
    assert pollers.of(spell(postgres)).look().failure is None


@SPELLINGS
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"password": "wr%ng pa/ssword"}, "auth_failed"),
        ({"dbname": "no_such_database"}, "no_database"),
        ({"sslmode": "require"}, "tls_failed"),
    ],
)
def test_refusal_says_which_and_never_the_password(
    postgres: EmbeddedServer, pollers: Pollers, spell: Callable[..., str], wrong: dict[str, str], reason: str
) -> None:
    poller = pollers.of(spell(postgres, **wrong))
    said = failure(poller)
    assert said.reason == reason
    password = wrong.get("password", PASSWORD)
    for secret in (password, quote(password, safe=""), quote(password)):
        assert secret not in said.text
        assert secret not in repr(poller.look())
    assert "\n" not in said.text


def test_role_that_pg_hba_rejects_is_auth_failed(postgres: EmbeddedServer, pollers: Pollers) -> None:
    assert failure(pollers.on(postgres, user="rejected")).reason == "auth_failed"


def test_string_that_libpq_cannot_read_is_a_failure_without_its_words(pollers: Pollers) -> None:
    said = failure(pollers.of("host=127.0.0.1 password=s3cret nonsense"))
    assert (said.reason, said.text) == ("unreachable", "libpq cannot read the connection string")


def test_nothing_listening_is_refused(pollers: Pollers, fresh_server: Callable[..., EmbeddedServer]) -> None:
    server = fresh_server()
    server.stop("immediate")
    assert failure(pollers.on(server)).reason == "refused"


def test_name_that_does_not_resolve_is_unreachable_and_named(pollers: Pollers) -> None:
    said = failure(pollers.of("host=no-such-host.invalid user=watcher dbname=postgres"))
    assert said.reason == "unreachable"
    assert "no-such-host.invalid" in said.text


def test_second_host_is_tried_when_the_first_has_no_address(postgres: EmbeddedServer, pollers: Pollers) -> None:
    hosts = f"host=no-such-host.invalid,localhost port={postgres.port}"
    assert pollers.of(f"{hosts} user=watcher dbname=postgres").look().failure is None


def test_second_host_is_tried_when_the_first_refuses(
    postgres: EmbeddedServer, pollers: Pollers, fresh_server: Callable[..., EmbeddedServer]
) -> None:
    stopped = fresh_server()
    stopped.stop("immediate")
    places = f"host={HOST},{HOST} port={stopped.port},{postgres.port}"
    assert pollers.of(f"{places} user=watcher dbname=postgres").look().failure is None


def test_full_server_is_slots_full_at_connect_and_kept_session_sees_on(
    postgres: EmbeddedServer, sessions: Any, pollers: Pollers
) -> None:
    kept = pollers.on(postgres)
    assert kept.look().failure is None
    fill(postgres, sessions)
    poller = pollers.on(postgres)
    refused = poller.look()
    assert refused.failure is not None
    assert (refused.failure.reason, refused.failure.sqlstate, refused.refused) == ("slots_full", "53300", 1)
    snapshot = kept.look()
    assert snapshot.failure is None
    assert snapshot.used == MAX_CONNECTIONS
    assert poller.look().refused == 0, "a look that only waits for the next try met no refusal"


def test_role_limit_is_told_from_a_full_server(postgres: EmbeddedServer, sessions: Any, pollers: Pollers) -> None:
    sessions.run(postgres, "CREATE ROLE single LOGIN CONNECTION LIMIT 1")
    try:
        holder = sessions.open(postgres, user="single")
        assert failure(pollers.on(postgres, user="single")).reason == "role_limit"
        holder.close()
    finally:
        sessions.run(postgres, "DROP ROLE single")


def test_database_limit_is_told_from_a_full_server(postgres: EmbeddedServer, sessions: Any, pollers: Pollers) -> None:
    sessions.run(postgres, "CREATE DATABASE tiny CONNECTION LIMIT 1")
    try:
        holder = sessions.open(postgres, dbname="tiny", user="watcher")
        assert failure(pollers.on(postgres, dbname="tiny")).reason == "database_limit"
        holder.close()
    finally:
        sessions.run(postgres, "DROP DATABASE tiny WITH (FORCE)")


def test_query_without_a_file_for_this_server_is_an_error(postgres: EmbeddedServer) -> None:
    assert sql("activity", int(major_of(postgres)) * 10000) == catalog()["activity"][14]
