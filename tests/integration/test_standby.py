"""A streaming replica on each major, watched like any other server: its promotion, its pauses, its conflicts."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.verdict import Judge
from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.names import ApplicationPattern
from batsignal.poll.postgres import PostgresPoller
from batsignal.poll.resolve import Resolver
from batsignal.snapshot import Snapshot
from majors import EACH
from under_fault.stand import daemon, watched

Until = Callable[..., Any]
LOOKS = 10
LOOK_SECONDS = 0.1
CLOCK, REAL_CLOCK = "pg_catalog.clock_timestamp()", "pg_catalog.real_clock_timestamp()"


Replica = Callable[..., tuple[EmbeddedServer, EmbeddedServer]]


@pytest.fixture
def replicated(fresh_server: Callable[..., EmbeddedServer], sessions: Any, until: Until) -> Replica:
    """Start a primary of a major and its standby; settings are the standby's."""

    def start(major: str, **settings: str) -> tuple[EmbeddedServer, EmbeddedServer]:
        primary, replica = fresh_server(major), fresh_server(major)
        sessions.run(primary, "CREATE ROLE streamer LOGIN REPLICATION")
        hba = primary.data_directory / "pg_hba.conf"
        hba.write_text(f"host replication streamer {HOST}/32 trust\n" + hba.read_text())
        primary.stop()
        copy(primary, replica, settings)
        primary.start()
        # A standby calls itself "standby" where `start` waits for "ready".
        command = [str(replica._programs / "postgres"), "-D", str(replica.data_directory), "-p", str(replica.port)]
        replica._process = replica._run(command)
        streams = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"
        until(lambda: sessions.run(primary, streams), "the standby to stream", 30)
        return primary, replica

    return start


def copy(primary: EmbeddedServer, replica: EmbeddedServer, settings: dict[str, str]) -> None:
    """Make a standby's files of those of a primary that is stopped: not every major here has pg_basebackup."""
    replica.stop()
    owner = replica.data_directory.stat()
    shutil.rmtree(replica.data_directory)
    shutil.copytree(primary.data_directory, replica.data_directory)
    (replica.data_directory / "standby.signal").touch()
    given = {
        "unix_socket_directories": str(replica.socket_directory),
        "primary_conninfo": f"host={HOST} port={primary.port} user=streamer",
        **settings,
    }
    with (replica.data_directory / "postgresql.conf").open("a") as file:
        file.writelines(f"{key} = '{text}'\n" for key, text in given.items())
    for path in [replica.data_directory, *replica.data_directory.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)


def poller_on(server: EmbeddedServer) -> PostgresPoller:
    return PostgresPoller(server="db1", dsn=server.dsn(user="watcher"), resolver=Resolver())


def judge_of() -> Judge:
    return Judge(thresholds=Thresholds(), pattern=ApplicationPattern(re.compile(APPLICATION_PATTERN)))


@pytest.mark.parametrize("major", EACH)
def test_standby_is_seen_without_a_failure_or_a_signal_and_so_is_its_promotion(
    replicated: Replica, sessions: Any, until: Until, major: str
) -> None:
    _, standby = replicated(major)
    judge = judge_of()

    def look() -> Snapshot:
        snapshot = poller.look()
        assert snapshot.failure is None, snapshot.failure
        assert judge.look(snapshot, ()).findings == ()
        time.sleep(LOOK_SECONDS)
        return snapshot

    with (
        closing(poller_on(standby)) as poller,
        daemon({"servers": [watched("a", standby.dsn(user="watcher"))], "store": {"path": None}}) as watching,
    ):
        reader = sessions.open(standby, application_name="web@2.4.0")
        for statement in (
            "SELECT pg_wal_replay_pause()",
            "SELECT pg_wal_replay_resume()",
            "SELECT pg_is_in_recovery()",
        ):
            (answer,) = sessions.run(standby, statement)
            for _ in range(LOOKS):
                snapshot = look()
        assert answer == (True,)
        assert reader.info.backend_pid in {one.pid for one in snapshot.sessions}
        assert {one.backend_type for one in snapshot.sessions} == {"client backend"}, "no walreceiver among the clients"
        assert snapshot.privileged is True
        assert sessions.run(standby, "SELECT pg_promote()") == [(True,)]
        for _ in range(LOOKS):
            snapshot = look()
        assert sessions.run(standby, "SELECT pg_is_in_recovery()") == [(False,)]
        assert reader.info.backend_pid in {one.pid for one in snapshot.sessions}
        promoted = time.time()
        until(lambda: watching.server("a")["last_poll"] > promoted, "the daemon to have looked since")
        assert watching.json("/api/v1/signals")["signals"] == []
        assert [line["event"] for line in watching.lines() if line["level"] != "info"] == []


@pytest.mark.parametrize("major", EACH)
def test_statement_of_ours_that_conflicts_with_recovery_costs_a_look_and_not_the_seat(
    replicated: Replica, sessions: Any, until: Until, major: str
) -> None:
    primary, standby = replicated(major, max_standby_streaming_delay="0", hot_standby_feedback="off")
    # The clock that each look asks for first takes its time, under a snapshot.
    sessions.run(
        primary,
        "CREATE TABLE t AS SELECT 1 AS n",
        f"ALTER FUNCTION {CLOCK} RENAME TO real_clock_timestamp",
        f"CREATE FUNCTION {CLOCK} RETURNS timestamptz LANGUAGE plpgsql AS $$"
        f" BEGIN PERFORM pg_catalog.pg_sleep(0.5); RETURN {REAL_CLOCK}; END $$",
    )

    def is_replayed() -> bool:
        try:
            return bool(sessions.run(standby, "SELECT 1 FROM pg_proc WHERE proname = 'real_clock_timestamp'"))
        except psycopg2.OperationalError:
            return False  # whoever asks may be in the way of the replay, too

    until(is_replayed, "the replay")
    judge = judge_of()
    with closing(poller_on(standby)) as poller:
        until(lambda: poller.look().failure is None, "a first look")
        seat = poller.process
        ended = threading.Event()

        def vacuum() -> None:
            while not ended.wait(0.1):
                sessions.run(primary, "DELETE FROM t", "INSERT INTO t VALUES (1)", "VACUUM t")

        vacuuming = threading.Thread(target=vacuum)
        vacuuming.start()
        try:
            failures = []

            def is_cancelled() -> bool:
                snapshot = poller.look()
                assert {one.kind for one in judge.look(snapshot, ()).findings} <= {"database_unreachable"}
                failures.append(snapshot.failure)
                return snapshot.failure is not None and snapshot.failure.sqlstate == "40001"

            until(is_cancelled, "a conflict")
        finally:
            ended.set()
            vacuuming.join()
        assert "conflict with recovery" in failures[-1].text
        until(lambda: poller.look().failure is None, "an answer", 5)
        assert poller.process == seat


@pytest.mark.parametrize("major", EACH)
def test_standby_that_takes_no_sessions_is_not_accepting_and_lights_nothing_else(
    fresh_server: Callable[..., EmbeddedServer], until: Until, major: str
) -> None:
    primary, standby = fresh_server(major), fresh_server(major)
    primary.stop()
    copy(primary, standby, {"hot_standby": "off"})
    standby._process = standby._run(
        [str(standby._programs / "postgres"), "-D", str(standby.data_directory), "-p", str(standby.port)]
    )
    judge, kinds = judge_of(), set[tuple[str, str]]()

    def look() -> tuple[str, str | None]:
        snapshot = poller.look()
        kinds.update((one.kind, one.severity) for one in judge.look(snapshot, ()).findings)
        time.sleep(LOOK_SECONDS)
        assert snapshot.failure is not None
        return snapshot.failure.reason, snapshot.failure.sqlstate

    with closing(poller_on(standby)) as poller:
        until(lambda: look() == ("not_accepting", "57P03") and kinds, "it to be said")
        assert [look() for _ in range(LOOKS)] == [("not_accepting", "57P03")] * LOOKS
    assert kinds == {("database_unreachable", "warning")}
