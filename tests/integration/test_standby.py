"""A streaming replica, watched like any other server, and its promotion."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.verdict import Judge
from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.names import ApplicationPattern
from batsignal.poll.postgres import PostgresPoller
from batsignal.poll.resolve import Resolver
from batsignal.snapshot import Snapshot
from majors import AT_HAND

Until = Callable[..., Any]
LOOKS = 20
LOOK_SECONDS = 0.1


@pytest.fixture
def standby(fresh_server: Callable[..., EmbeddedServer], sessions: Any, until: Until) -> EmbeddedServer:
    """A hot standby of a fresh primary, which streams."""
    primary, replica = fresh_server("15"), fresh_server("15")
    sessions.run(primary, "CREATE ROLE streamer LOGIN REPLICATION")
    hba = primary.data_directory / "pg_hba.conf"
    hba.write_text(f"host replication streamer {HOST}/32 trust\n" + hba.read_text())
    sessions.run(primary, "SELECT pg_reload_conf()")
    replica.stop()
    owner = replica.data_directory.stat()
    shutil.rmtree(replica.data_directory)
    copy = [str(AT_HAND["15"] / "pg_basebackup"), "--pgdata", str(replica.data_directory), "--write-recovery-conf"]
    copy += [
        "--dbname",
        f"host={HOST} port={primary.port} user=streamer",
        "--checkpoint",
        "fast",
        "--wal-method",
        "stream",
    ]
    # As the server's own user, who it is where we are root.
    who: Any = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": ()} if os.geteuid() == 0 else {}
    subprocess.run(copy, check=True, cwd="/", **who)
    with (replica.data_directory / "postgresql.conf").open("a") as file:
        file.write(f"unix_socket_directories = '{replica.socket_directory}'\n")
    # A standby calls itself "standby" where `start` waits for "ready".
    command = [str(replica._programs / "postgres"), "-D", str(replica.data_directory), "-p", str(replica.port)]
    replica._process = replica._run(command)
    streams = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"
    until(lambda: sessions.run(primary, streams), "the standby to stream", 30)
    return replica


def test_standby_is_seen_without_a_failure_or_a_signal_and_so_is_its_promotion(
    standby: EmbeddedServer, sessions: Any
) -> None:
    poller = PostgresPoller(server="db1", dsn=standby.dsn(user="watcher"), resolver=Resolver())
    judge = Judge(thresholds=Thresholds(), pattern=ApplicationPattern(re.compile(APPLICATION_PATTERN)))

    def look() -> Snapshot:
        snapshot = poller.look()
        assert snapshot.failure is None, snapshot.failure
        assert judge.look(snapshot, ()).findings == ()
        time.sleep(LOOK_SECONDS)
        return snapshot

    try:
        reader = sessions.open(standby, application_name="web@2.4.0")
        for _ in range(LOOKS):
            snapshot = look()
        assert sessions.run(standby, "SELECT pg_is_in_recovery()") == [(True,)]
        assert reader.info.backend_pid in {one.pid for one in snapshot.sessions}
        assert {one.backend_type for one in snapshot.sessions} == {"client backend"}, "no walreceiver among the clients"
        assert snapshot.privileged is True
        assert sessions.run(standby, "SELECT pg_promote()") == [(True,)]
        for _ in range(LOOKS):
            snapshot = look()
        assert sessions.run(standby, "SELECT pg_is_in_recovery()") == [(False,)]
        assert reader.info.backend_pid in {one.pid for one in snapshot.sessions}
    finally:
        poller.close()
