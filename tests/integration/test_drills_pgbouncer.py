"""A real PgBouncer, starved for real: its own SHOW POOLS says so, and nothing of it stays."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from batsignal.drills.act import Pace, Tell
from batsignal.drills.actors.pooler import PgBouncer
from batsignal.drills.acts import pgbouncer
from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.drills.ground import Ground, on_embedded, on_given
from batsignal.drills.truth import POOLER_WAIT_BOUND_SECONDS
from batsignal.errors import ConfigError, UnreachableError

POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
END_SECONDS = 8.0

Until = Callable[..., Any]


@pytest.fixture
def ground() -> Iterator[Ground]:
    with on_embedded() as ground:
        yield ground


@contextmanager
def starving(ground: Ground, **asked: Any) -> Iterator[tuple[Tell, str]]:
    """Play the act in the block; yields what it tells and the console's connection string."""
    spec, tell = pgbouncer.ACTS["pgbouncer-starvation"], Tell()
    assert spec.prepare is not None
    console = spec.prepare(ground)["pgbouncer_dsn"]
    pace = spec.paced(Pace(**asked), calm_seconds=0)
    thread = threading.Thread(target=spec.run, args=(ground, pace, tell), daemon=True)
    thread.start()
    try:
        yield tell, console
    finally:
        ground.stopped.set()
        thread.join(END_SECONDS)
    assert not thread.is_alive(), "the act did not end"


def pools(console: str) -> list[Mapping[str, Any]]:
    with closing(psycopg2.connect(console)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SHOW POOLS")
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def pool(console: str, database: str) -> Mapping[str, Any]:
    return next((row for row in pools(console) if row["database"] == database), {"cl_waiting": 0, "sv_active": 0})


def test_clients_wait_while_transactions_that_never_end_hold_every_session(ground: Ground, until: Until) -> None:
    held = "application_name = 'checkout@2.4.0' AND state = 'idle in transaction'"
    with starving(ground, size=4, rate_per_second=4.0) as (tell, console):
        until(lambda: "pool_starvation" in tell.onsets, "the onset")
        # Whoever has asked so far waits: 16 clients ask about once a second.
        until(lambda: pool(console, "shop")["cl_waiting"] > 10, "waiting clients")
        row = pool(console, "shop")
        assert (row["sv_active"], row["sv_idle"], row["pool_mode"]) == (4, 0, "transaction")
        until(lambda: pool(console, "shop")["maxwait"] >= 2, "a long wait")
        [(sessions, all_sessions)] = ground.execute(
            f"SELECT count(*) FILTER (WHERE {held}), count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND usename = 'web'"
        )
        assert (sessions, all_sessions) == (4, 4), "the server has slots to spare"
        onset = tell.onsets["pool_starvation"]
        assert onset.subject.pool == "shop/web"
        assert onset.bound_seconds == POOLER_WAIT_BOUND_SECONDS
        assert onset.deploy is not None
        assert (onset.deploy.service, onset.deploy.version, onset.deploy.previous) == ("checkout", "2.4.0", "2.3.9")
        assert onset.at is not None
        assert tell.lost_at[-1] - 2 < onset.at < time.time() - 2
        assert len(tell.lost_at) == 4


def test_pool_of_a_healthy_version_serves_all_its_clients(ground: Ground, until: Until) -> None:
    spec = pgbouncer.ACTS["pgbouncer-starvation"]
    assert spec.prepare is not None
    console = spec.prepare(ground)["pgbouncer_dsn"]
    until(lambda: pool(console, "shop").get("cl_active", 0) == 6 * 4, "four clients for each session")
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert pool(console, "shop")["maxwait"] < 1


def test_stopped_in_the_middle_it_leaves_no_session_no_process_and_no_port(ground: Ground, until: Until) -> None:
    held_before = ground.held
    with starving(ground, size=3, rate_per_second=10.0) as (tell, console):
        until(lambda: len(tell.lost_at) >= 1, "the incident")
        port = int(psycopg2.extensions.parse_dsn(console)["port"])
        pooler = next(
            process
            for process in psutil.process_iter(["name"])  # one that ends meanwhile is passed over
            if process.info["name"] == "pgbouncer" and is_on(process, port)
        )
        assert pooler.uids().real != 0, "PgBouncer refuses root"
        assert ground.held == held_before + 3
    assert ground.held == held_before
    until(lambda: not pooler.is_running() or pooler.status() == psutil.STATUS_ZOMBIE, "the end of PgBouncer")
    with pytest.raises(OSError, match="refused"), socket.create_connection((HOST, port)):
        pass
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'web'"
    until(lambda: ground.execute(sessions) == [(0,)], "the end of its sessions")


def is_on(process: psutil.Process, port: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any(connection.laddr.port == port for connection in process.net_connections("tcp4"))
    return False


def test_pool_is_no_larger_than_the_share_allows(until: Until) -> None:
    with on_embedded(share=0.3, max_connections=33) as ground:
        room = ground.budget - ground.held
        with starving(ground, size=30, rate_per_second=5.0) as (tell, console):
            until(lambda: len(tell.lost_at) == room, "that all of them are stuck")
            until(lambda: pool(console, "shop")["cl_waiting"] > 0, "waiting clients")
            assert pool(console, "shop")["sv_active"] == room
            assert ground.held == ground.budget


def test_pgbouncer_of_the_drill_reaches_a_server_that_asks_for_a_password() -> None:
    with EmbeddedServer(POSTGRES_15, max_connections=40) as server:
        hba = server.data_directory / "pg_hba.conf"
        with closing(psycopg2.connect(server.dsn())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("CREATE ROLE app LOGIN CREATEROLE PASSWORD 'it''s s3cret'")
                cursor.execute("GRANT CREATE ON DATABASE postgres TO app")
        hba.write_text("host all app 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        server.restart()
        dsn = psycopg2.extensions.make_dsn(server.dsn(user="app"), password="it's s3cret")
        with on_given(dsn, may_be_unmarked=True) as ground:
            pooler = PgBouncer(ground, pool_size=2)
            with closing(pooler.connect("checkout@1")) as session, session.cursor() as cursor:
                cursor.execute(
                    "SELECT current_user, application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
                )
                assert cursor.fetchall() == [("app", "checkout@1")]
                row = pooler.look()
                assert row is not None
                assert (row.sv_active, row.cl_waiting) == (1, 0)
            pooler.stop()


def test_pgbouncer_that_cannot_start_says_why(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batsignal.drills.actors.pooler.HOST", "192.0.2.1")
    with pytest.raises(UnreachableError, match=r"PgBouncer did not start: .*nowhere to listen on"):
        PgBouncer(ground)


KILLED = """
import threading, time
from batsignal.drills.acts import jobs, pgbouncer
from batsignal.drills.act import Pace, Tell
from batsignal.drills.ground import on_embedded
with on_embedded() as ground:
    for act, size in ((pgbouncer.ACTS["pgbouncer-starvation"], 3), (jobs.ACTS["pg-dump"], 2)):
        pace = act.paced(Pace(size=size), calm_seconds=0)
        threading.Thread(target=act.run, args=(ground, pace, Tell()), daemon=True).start()
    time.sleep(600)
"""


def programs(pid: int) -> dict[psutil.Process, tuple[str, str]]:
    """Return name and status of what a drill runs; servers have children that live for moments."""
    found = {}
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name() in {"pgbouncer", "pg_dump"}:
                found[child] = (child.name(), child.status())
    return found


def test_drill_that_is_killed_leaves_neither_pgbouncer_nor_a_dump_that_was_standing_still(until: Until) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED]) as drill:
        try:
            # PgBouncer, and pg_dump with its two workers, all of which wait for a disk that takes no more.
            stopped = ("pg_dump", psutil.STATUS_STOPPED)
            until(lambda: list(programs(drill.pid).values()).count(stopped) == 3, "the dump at a stand")
            left = list(programs(drill.pid))
            assert "pgbouncer" in {child.name() for child in left}
            directories = {Path(child.cwd()) for child in left}
        finally:
            drill.kill()
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in left), "their end")
    until(lambda: not any(directory.exists() for directory in directories), "the end of their directories")


def test_a_drill_is_not_played_through_a_pooler(ground: Ground) -> None:
    pooler = PgBouncer(ground)
    dsn = f"host={HOST} port={pooler.port} dbname={pooler.database} user={pooler.user} sslmode=disable"
    with pytest.raises(ConfigError, match="--dsn: expected the server itself, but a pooler answers"), on_given(dsn):
        pass
