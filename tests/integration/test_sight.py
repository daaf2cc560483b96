"""Every way to see a real server whose every slot is taken, a superuser's too, and the change from one to the next."""

import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg2
import pytest

from batsignal.cli.check import check
from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.verdict import Judge
from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.names import ApplicationPattern
from batsignal.poll.resolve import Resolver
from batsignal.poll.sight import Sight
from batsignal.record.recording import RecordingWriter, read
from batsignal.snapshot import Snapshot
from frozen import frozen
from majors import EACH, major_of

MAX_CONNECTIONS = 40
# Two ticks may be lost in a change, at one tick a second.
LOOK_SECONDS = 0.1
LOOKS = 20
EMERGENCY = "emergency"
RESERVED_ROLE = "in_reserve"

Until = Callable[..., Any]


def run(server: EmbeddedServer, statement: str) -> None:
    with closing(psycopg2.connect(server.dsn())) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


@pytest.fixture
def sights() -> Iterator[Callable[..., Sight]]:
    with ExitStack() as stack:

        def on(server: EmbeddedServer, user: str = "watcher", **ways: Any) -> Sight:
            if ways.pop("emergency", False):
                ways["emergency_dsn"] = server.dsn(user=EMERGENCY)
            sight = Sight(server="db1", dsn=server.dsn(user=user), resolver=Resolver(), **ways)
            stack.callback(sight.close)
            return sight

        yield on


class Crowd:
    """Sessions that take every slot; the first of them witnesses what the server itself says."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.held: list[psycopg2.extensions.connection] = []

    def __enter__(self) -> Self:
        return self.fill()

    def __exit__(self, *_: object) -> None:
        for connection in self.held:
            connection.close()

    def open(self, **parameters: Any) -> psycopg2.extensions.connection:
        given = {"host": HOST, "port": self._server.port, "user": "postgres", "dbname": "postgres", **parameters}
        connection = psycopg2.connect(**given)
        connection.autocommit = True
        self.held.append(connection)
        return connection

    def fill(self) -> Self:
        for number in range(MAX_CONNECTIONS + 1):
            try:
                self.open(application_name=f"web@{number % 2}")
            except psycopg2.OperationalError:
                return self
        raise AssertionError("the server took more sessions than it has slots")

    def free(self, count: int) -> None:
        """Close so many sessions, and wait until the server has noticed."""
        least = self.taken() - count
        for _ in range(count):
            self.held.pop().close()
        end = time.monotonic() + 20
        while self.taken() > least:
            assert time.monotonic() < end, "waited in vain for the slots"
            time.sleep(0.02)

    def taken(self) -> int:
        return int(self.ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))

    def ask(self, statement: str) -> Any:
        with self.held[0].cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
        return None if row is None else row[0]

    def own_sessions(self) -> int:
        """Ours, a walsender's among them, by the server's word."""
        return int(self.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'batsignal'"))


def looks(sight: Sight, count: int = LOOKS) -> Iterator[Snapshot]:
    for _ in range(count):
        yield sight.look()
        time.sleep(LOOK_SECONDS)


def assert_sees_all(snapshot: Snapshot, view: str) -> None:
    assert snapshot.failure is None, snapshot.failure
    assert snapshot.view == view
    assert abs(snapshot.used - MAX_CONNECTIONS) <= 1


# -- every slot taken --------------------------------------------------------------------------------------------------


def test_kept_session_sees_all_of_a_full_server(postgres: EmbeddedServer, sights: Callable[..., Sight]) -> None:
    sight = sights(postgres)
    assert sight.look().view == "session"
    with Crowd(postgres) as crowd:
        for snapshot in looks(sight):
            assert_sees_all(snapshot, "session")
            assert snapshot.refusal is None
            assert crowd.own_sessions() == 1


def test_started_while_full_it_sees_all_through_a_walsender(
    postgres: EmbeddedServer, sights: Callable[..., Sight]
) -> None:
    with Crowd(postgres) as crowd:
        sight = sights(postgres, emergency=True)
        for snapshot in looks(sight):
            assert_sees_all(snapshot, "walsender")
            assert snapshot.refusal is not None
            assert snapshot.refusal.reason == "slots_full"
            assert snapshot.privileged is True
            assert {one.application_name for one in snapshot.sessions} >= {"web@0", "web@1"}
            assert all(one.state_change is not None for one in snapshot.sessions)
            assert crowd.own_sessions() <= 2


def test_full_server_that_hangs_under_a_walsender_never_sees_more_than_two_connections(
    fresh_server: Callable[..., EmbeddedServer], sights: Callable[..., Sight]
) -> None:
    server = fresh_server()
    ahead = 0.0
    with Crowd(server):
        others = len(connections_to(server))
        sight = sights(server, emergency=True, monotonic=lambda: time.monotonic() + ahead)
        assert sight.look().view == "walsender"
        with frozen(server.pid):
            for _ in range(5):
                sight.look()
                assert len(connections_to(server)) <= others + 2
                ahead += 10
        end = time.monotonic() + 10
        while (seen := sight.look()).failure is not None:
            assert time.monotonic() < end, seen.failure
        assert seen.view == "walsender"


def connections_to(server: EmbeddedServer) -> list[Any]:
    """Return this process's own connections to a server, those that it has not let in among them."""
    return [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == server.port]


def test_started_while_full_it_sees_all_by_the_titles_of_processes(
    postgres: EmbeddedServer, sights: Callable[..., Sight]
) -> None:
    with Crowd(postgres) as crowd:
        sight = sights(postgres)
        for snapshot in looks(sight):
            assert_sees_all(snapshot, "process_titles")
            assert snapshot.refusal is not None
            assert snapshot.refusal.reason == "slots_full"
            assert {one.usename for one in snapshot.sessions} == {"postgres"}
            assert {one.datname for one in snapshot.sessions} == {"postgres"}
            assert {one.client_addr for one in snapshot.sessions} == {HOST}
            assert crowd.own_sessions() == 0
        held = {one.info.backend_pid for one in crowd.held}
        seen = {one.pid: one for one in snapshot.sessions}
        assert held <= seen.keys()
        # On a busy machine the process of a session that has given its slot back can still be there, title and all.
        assert len(seen) <= len(held) + 1, [one for pid, one in seen.items() if pid not in held]


@pytest.mark.parametrize("postgres", [one for one in EACH if int(str(one.values[0])) >= 16], indirect=True)
def test_reserved_slot_is_taken_and_said_and_is_an_ordinary_one_once_others_are_free(
    postgres: EmbeddedServer, sights: Callable[..., Sight], until: Until
) -> None:
    with Crowd(postgres) as crowd:
        crowd.free(4)  # the superuser's three and one of the two reserved
        assert sights(postgres).look().refusal is not None, "no ordinary role gets in"
        sight = sights(postgres, user=RESERVED_ROLE)
        for snapshot in looks(sight, 5):
            assert (snapshot.failure, snapshot.view) == (None, "reserved")
        crowd.free(10)
        until(lambda: sight.look().view == "session", "an ordinary seat")
        crowd.fill()
        assert sight.look().view == "session", "the seat was taken before the server was full"


def test_superuser_in_a_slot_of_its_own_says_reserved(postgres15: EmbeddedServer, sights: Callable[..., Sight]) -> None:
    with Crowd(postgres15) as crowd:
        crowd.free(2)
        assert sights(postgres15, user="postgres").look().view == "reserved"


# -- the change --------------------------------------------------------------------------------------------------------


def failed_in_a_row(seen: list[Snapshot]) -> int:
    most = now = 0
    for snapshot in seen:
        now = now + 1 if snapshot.failure is not None else 0
        most = max(most, now)
    return most


@pytest.mark.parametrize("way", ["walsender", "process_titles"])
def test_lost_session_on_a_full_server_changes_over_and_back_without_a_gap(
    postgres: EmbeddedServer, sights: Callable[..., Sight], tmp_path: Path, way: str
) -> None:
    sight = sights(postgres, emergency=way == "walsender")
    first = sight.look()
    assert first.view == "session"
    assert first.slots is not None
    seen = []
    with Crowd(postgres) as crowd:
        seen += looks(sight, 3)
        named = {one.key: one.application_name for one in seen[-1].sessions}
        crowd.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'batsignal'")
        crowd.fill()  # somebody else has its slot
        for snapshot in looks(sight):
            seen.append(snapshot)
            assert crowd.own_sessions() <= 2
            assert abs(snapshot.used - MAX_CONNECTIONS) <= 1
        assert seen[-1].view == way
        assert seen[-1].slots == first.slots, "what is known of the server stays known"
        assert {one.key: one.application_name for one in seen[-1].sessions}.items() >= named.items()
        crowd.free(10)
        end = time.monotonic() + 10
        while seen[-1].view != "session":
            assert time.monotonic() < end, seen[-1]
            seen += looks(sight, 1)
            assert crowd.own_sessions() <= 2
        seen += looks(sight, 3)
        assert [one.view for one in seen[-4:]] == ["session"] * 4
        assert crowd.own_sessions() == 1, "the walsender is given back"
    assert failed_in_a_row(seen) <= 2
    assert judged(replayed(seen, tmp_path)) == judged(seen), "a replay judges what was judged live"


def replayed(seen: list[Snapshot], folder: Path) -> list[Snapshot]:
    writer = RecordingWriter(folder / "seen.jsonl", server="db1", interval_seconds=LOOK_SECONDS)
    for snapshot in seen:
        writer.write(snapshot)
    writer.close()
    return list(read(folder / "seen.jsonl")[1])


def judged(seen: list[Snapshot]) -> list[Any]:
    judge = Judge(thresholds=Thresholds(), pattern=ApplicationPattern(re.compile(APPLICATION_PATTERN)))
    return [judge.look(snapshot, ()) for snapshot in seen]


def test_remote_server_without_an_emergency_dsn_has_no_view_and_says_so(
    postgres: EmbeddedServer, sights: Callable[..., Sight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batsignal.poll.postmaster.is_own_address", lambda _: False)
    with Crowd(postgres):
        snapshot = sights(postgres).look()
    assert snapshot.failure is not None
    assert (snapshot.failure.reason, snapshot.view, snapshot.sessions) == ("slots_full", "none", ())


def test_emergency_dsn_that_does_not_serve_is_told_beside_the_reason(
    postgres: EmbeddedServer, sights: Callable[..., Sight]
) -> None:
    with Crowd(postgres):
        sight = sights(postgres, emergency_dsn=postgres.dsn(user="nobody_special"))
        snapshot = sight.look()
    assert snapshot.view == "process_titles"
    assert snapshot.refusal is not None
    assert snapshot.refusal.reason == "slots_full"
    assert "; emergency_dsn: " in snapshot.refusal.text
    assert "REPLICATION" in snapshot.refusal.text


# -- what the titles show ----------------------------------------------------------------------------------------------


def knock(server: EmbeddedServer, user: str = "with_password") -> socket.socket:
    """Open a session that never answers when it is asked for its password."""
    connection = socket.create_connection((HOST, server.port), 5)
    payload = struct.pack("!I", 3 << 16) + f"user\0{user}\0database\0postgres\0\0".encode()
    connection.sendall(struct.pack("!I", len(payload) + 4) + payload)
    connection.recv(1)
    return connection


def test_slots_of_sessions_that_never_authenticate_are_counted_on_the_kept_session(
    postgres: EmbeddedServer, sights: Callable[..., Sight], until: Until
) -> None:
    sight = sights(postgres)
    before = sight.look()
    assert before.slots is not None
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS - before.used):
            stack.enter_context(closing(knock(postgres)))
        # A process that was just begun has no title yet that says what it is.
        until(lambda: abs(sight.look().used - MAX_CONNECTIONS) <= 1, "a look that counts them all")
        snapshot = sight.look()
        assert (snapshot.failure, snapshot.view) == (None, "session")
        assert abs(snapshot.used - MAX_CONNECTIONS) <= 1
        assert snapshot.authenticating == (snapshot.used - before.used if int(major_of(postgres)) < 18 else 0)
        late = sights(postgres)
        late.look()  # who came in the moment before it, is not told from an attempt of ours
        blind = late.look()
        assert_sees_all(blind, "process_titles")
        assert blind.authenticating >= MAX_CONNECTIONS - before.used - 1
    until(lambda: sight.look().used == before.used, "the slots to be free again")


def test_connections_that_say_nothing_take_no_slot(postgres: EmbeddedServer, sights: Callable[..., Sight]) -> None:
    sight = sights(postgres)
    before = sight.look().used
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(closing(socket.create_connection((HOST, postgres.port), 5)))
        assert all(snapshot.used == before for snapshot in looks(sight, 5))


def test_connections_that_say_nothing_shut_others_out_in_the_end_and_that_is_told_beside_free_slots(
    postgres: EmbeddedServer, sights: Callable[..., Sight], until: Until
) -> None:
    sight = sights(postgres)
    assert sight.look().refusal is None
    with ExitStack() as stack:
        for _ in range(4 * MAX_CONNECTIONS):
            stack.enter_context(closing(socket.create_connection((HOST, postgres.port), 5)))
        snapshot = until(lambda: one if (one := sight.look()).refusal is not None else None, "a refusal")
        assert (snapshot.failure, snapshot.view) == (None, "session")
        assert snapshot.refusal.reason == "slots_full"
        assert snapshot.slots is not None
        assert snapshot.used < snapshot.slots.usable
    until(lambda: sight.look().refusal is None, "others to get in again")


@pytest.fixture(params=EACH)
def odd_server(request: pytest.FixtureRequest, fresh_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    server = fresh_server(request.param, cluster_name="the: main (one) 1.2.3.4(5)")
    for statement in (
        'CREATE ROLE "a b" LOGIN',
        'CREATE DATABASE "x y"',
        "CREATE ROLE checkpointer LOGIN",
        'CREATE ROLE "startup 1.2.3.4(5) idle" LOGIN',
    ):
        run(server, statement)
    return server


def test_odd_names_a_cluster_name_and_every_state_are_read_off_the_titles(
    odd_server: EmbeddedServer, sights: Callable[..., Sight], until: Until
) -> None:
    with ExitStack() as stack:
        crowd = stack.enter_context(Crowd(odd_server))
        crowd.free(12)
        plain = crowd.open(user="checkpointer", dbname="x y")
        crowd.open(user="a b", dbname="postgres")
        odd = crowd.open(user="startup 1.2.3.4(5) idle", host=str(odd_server.socket_directory))
        both = crowd.open(user="a b", dbname="x y")
        named = (("plain", plain), ("odd", odd), ("both", both), ("witness", crowd.held[0]))
        pid = {name: one.info.backend_pid for name, one in named}
        waiter = psycopg2.connect(odd_server.dsn(), async_=True)
        stack.callback(waiter.close)
        until(lambda: waiter.poll() == psycopg2.extensions.POLL_OK, "a session")
        crowd.ask("SELECT pg_advisory_lock(1)")
        waiter.cursor().execute("SELECT pg_advisory_lock(1)")
        walsender = psycopg2.connect(odd_server.dsn(user=EMERGENCY) + "&replication=database")
        stack.callback(walsender.close)
        both.autocommit = False
        both.cursor().execute("SELECT 1")
        odd.autocommit = False
        with pytest.raises(psycopg2.Error):
            odd.cursor().execute("SELECT 1/0")
        crowd.fill()
        count = crowd.taken()
        sight = sights(odd_server)
        waiting_pid = waiter.info.backend_pid
        by_pid = until(
            lambda: (
                rows
                if (rows := {one.pid: one for one in sight.look().sessions})[waiting_pid].wait_event_type == "Lock"
                else None
            ),
            "the wait to show",
        )
        assert sight.look().used == count
    assert (by_pid[pid["plain"]].usename, by_pid[pid["plain"]].datname) == ("checkpointer", "x y")
    assert (by_pid[pid["both"]].usename, by_pid[pid["both"]].datname) == ("a b", "x y")
    assert by_pid[pid["both"]].state == "idle in transaction"
    assert by_pid[pid["odd"]].state == "idle in transaction (aborted)"
    assert by_pid[pid["odd"]].client_addr is None, "a Unix socket has no address"
    assert by_pid[waiting_pid].state == "active"
    assert by_pid[pid["witness"]].state == "idle"
    assert all(one.backend_type == "client backend" for one in by_pid.values())
    assert all(abs((one.backend_start or 0) - time.time()) < 60 for one in by_pid.values())


@pytest.mark.parametrize("version", EACH)
def test_without_titles_that_are_kept_up_to_date_the_sessions_are_counted_all_the_same(
    fresh_server: Callable[..., EmbeddedServer], sights: Callable[..., Sight], version: str
) -> None:
    server = fresh_server(version, update_process_title="off")
    with Crowd(server):
        sight = sights(server)
        sight.look()  # who came in the moment before it, is not told from an attempt of ours
        snapshot = sight.look()
    assert_sees_all(snapshot, "process_titles")
    assert {one.state for one in snapshot.sessions} == {None}
    assert {one.usename for one in snapshot.sessions} == {"postgres"}


def test_proxy_and_foreign_server_on_this_host_are_not_taken_for_the_server(
    postgres15: EmbeddedServer, postgres18: EmbeddedServer, sights: Callable[..., Sight]
) -> None:
    with Crowd(postgres15), ExitStack() as stack:
        proxy = stack.enter_context(closing(socket.create_server((HOST, 0))))
        through = f"postgresql://watcher@{HOST}:{proxy.getsockname()[1]}/postgres?sslmode=disable"
        foreign = str(postgres18.data_directory)

        def places_lead_to(sight: Sight) -> bool:
            return sight._processes.prove_by_place(sight._ordinary.places)

        behind_a_proxy = Sight(server="db1", dsn=through, resolver=Resolver())
        stack.callback(behind_a_proxy.close)
        assert behind_a_proxy.look().failure is not None
        assert not places_lead_to(behind_a_proxy)
        # The config names the directory of another server of this host: the port does not fit, the socket decides.
        snapshot = sights(postgres15, data_directory=foreign).look()
        assert_sees_all(snapshot, "process_titles")
        assert psutil.Process(snapshot.sessions[0].pid).ppid() == postgres15.pid


def test_data_directory_and_unix_socket_lead_to_the_server_as_well(
    postgres: EmbeddedServer, sights: Callable[..., Sight], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Crowd(postgres):
        by_socket = Sight(
            server="db1",
            dsn=f"host={postgres.socket_directory} port={postgres.port} user=watcher dbname=postgres",
            resolver=Resolver(),
        )
        assert_sees_all(by_socket.look(), "process_titles")
        # As for a user who may not see whose sockets are whose.
        monkeypatch.setattr("batsignal.poll.postmaster.psutil.net_connections", lambda _: [])
        assert sights(postgres).look().failure is not None
        assert_sees_all(sights(postgres, data_directory=str(postgres.data_directory)).look(), "process_titles")


def test_ordinary_way_is_taken_at_the_next_look_once_slots_are_seen_to_be_free(
    postgres: EmbeddedServer, sights: Callable[..., Sight], until: Until
) -> None:
    sight = sights(postgres, emergency=True)
    sight.look()
    with Crowd(postgres) as crowd:
        crowd.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'batsignal'")
        crowd.fill()
        # By now the pause between two attempts is as long as it gets.
        until(lambda: [one.refused for one in looks(sight, 10)].count(1) == 0, "a long pause")
        crowd.free(10)
        views = [snapshot.view for snapshot in looks(sight, 3)]
    assert views in (["walsender", "session", "session"], ["session", "session", "session"])


# -- what `batsignal check` says of it ---------------------------------------------------------------------------------


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run_check(dsn: str, **keys: str) -> tuple[int, str]:
        lines = [f"    {key}: '{value}'\n" for key, value in keys.items()]
        config = f"servers:\n  - name: db1\n    dsn: '{dsn}'\n{''.join(lines)}store: {{path: null}}\n"
        (tmp_path / "batsignal.yml").write_text(config)
        code = check(str(tmp_path / "batsignal.yml"))
        return code, capsys.readouterr().out

    return run_check


def test_check_says_which_ways_are_open(postgres: EmbeddedServer, checked: Callable[..., tuple[int, str]]) -> None:
    code, said = checked(postgres.dsn(user="watcher"), emergency_dsn=postgres.dsn(user=EMERGENCY))
    assert code == 0, said
    assert "ok   server db1: emergency_dsn: a walsender shows every session" in said
    assert "ok   server db1: runs on this host: the titles of its processes are a last way" in said
    assert ("no slot is reserved for the role" in said) is (int(major_of(postgres)) >= 16)


def test_check_fails_for_sessions_that_do_not_report_what_they_do(
    postgres15: EmbeddedServer, sessions: Any, checked: Callable[..., tuple[int, str]]
) -> None:
    sessions.open(postgres15, options="-c track_activities=off")
    code, said = checked(postgres15.dsn(user="watcher"))
    assert code == 1
    assert "FAIL server db1: 1 of " in said
    assert "run with track_activities off" in said


def test_check_says_when_no_server_runs_in_the_data_directory_that_is_named(
    checked: Callable[..., tuple[int, str]],
) -> None:
    _, said = checked("host=127.0.0.1 port=1 user=watcher", data_directory="/nowhere/data")
    assert "note server db1: data_directory: no running server" in said
    assert "is found in '/nowhere/data'" in said


def test_check_fails_for_an_emergency_dsn_that_will_not_serve(
    postgres15: EmbeddedServer, checked: Callable[..., tuple[int, str]]
) -> None:
    code, said = checked(postgres15.dsn(user="watcher"), emergency_dsn=postgres15.dsn(user="nobody_special"))
    assert code == 1
    assert "FAIL server db1: emergency_dsn: auth_failed: the role has no REPLICATION privilege" in said


def test_check_of_a_full_server_says_so_and_by_which_way_it_is_seen(
    postgres15: EmbeddedServer, checked: Callable[..., tuple[int, str]]
) -> None:
    with Crowd(postgres15):
        code, said = checked(postgres15.dsn(user="watcher"))
    assert code == 1
    assert "FAIL server db1: slots_full: " in said
    assert "; seen by way of process_titles: 40 slots taken" in said
