"""A real PgBouncer in front of the server under drill.

Owns its configuration and its process, in the guardian's custody and as a user who is not root, for PgBouncer refuses
root; and the reading of its console. It must not decide who its clients are.
"""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small
from psycopg2.extensions import make_dsn, parse_dsn

from batsignal.drills import server_programs
from batsignal.drills.embedded import HOST, reserve_port
from batsignal.drills.ground import Ground
from batsignal.drills.guardian import SystemUser
from batsignal.errors import UnreachableError

PROGRAM = "pgbouncer"
CONSOLE = "pgbouncer"
POOL_SIZE = 6
START_SECONDS = 10.0
STOP_SECONDS = 3.0
POLL_SECONDS = 0.05
CONNECT_TIMEOUT_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """What `SHOW POOLS` says of the drill's pool: clients that wait, the first of them for how long, sessions lent."""

    cl_waiting: int
    sv_active: int
    maxwait_seconds: float


class PgBouncer:
    """A PgBouncer in transaction mode, in front of the ground's server. It ends with the drill."""

    def __init__(self, ground: Ground, *, pool_size: int = POOL_SIZE) -> None:
        self.database = ground.service_database
        self.user = ground.service_user
        self._ground = ground
        self._system_user = server_programs.server_user()
        self._program = ground.program(PROGRAM)
        self._directory = _make_directory(ground, self._system_user)
        # Held until the end: nobody else gets the port between two of its lives.
        self._reservation = reserve_port()
        self.port: int = self._reservation.getsockname()[1]
        self._start(pool_size)

    @property
    def pool(self) -> str:
        """The pool's name: PgBouncer keeps one for each database and user."""
        return f"{self.database}/{self.user}"

    @property
    def console_dsn(self) -> str:
        """A connection string for the administrative console."""
        return make_dsn(host=HOST, port=self.port, dbname=CONSOLE, user=self.user, sslmode="disable")

    def connect(self, application: str) -> Connection:
        """Open a client's session. It takes no slot of the server; its transactions take one of the pool's sessions."""
        return psycopg2.connect(
            host=HOST,
            port=self.port,
            dbname=self.database,
            user=self.user,
            application_name=application,
            sslmode="disable",
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
        )

    def restart(self, pool_size: int) -> None:
        """Start again on the same port, with a pool of another size; clients lose their sessions."""
        self._end()
        self._start(pool_size)

    def look(self) -> PoolRow | None:
        """Return the pool's row of `SHOW POOLS`, or None while there is none."""
        for row in self._ask("SHOW POOLS"):
            if (row["database"], row["user"]) == (self.database, self.user):
                return PoolRow(
                    cl_waiting=int(row["cl_waiting"]),
                    sv_active=int(row["sv_active"]),
                    maxwait_seconds=int(row["maxwait"]) + int(row["maxwait_us"]) / 1e6,
                )
        return None

    def stop(self) -> None:
        """End PgBouncer, and with it every session of its clients and on the server."""
        self._end()
        self._reservation.close()

    @property
    def _log_path(self) -> Path:
        return self._directory / "pgbouncer.log"

    def _start(self, pool_size: int) -> None:
        path = self._directory / "pgbouncer.ini"
        path.touch(mode=0o600)
        path.write_text(_config(self._ground, self.port, pool_size), encoding="utf-8")
        if self._system_user is not None:
            os.chown(path, self._system_user.uid, self._system_user.gid)
        with self._log_path.open("wb") as log:
            self._process = self._ground.spawn(
                [self._program, path], cwd=self._directory, output=log, errors=log, user=self._system_user
            )
        self._await_console()

    def _end(self) -> None:
        for end in (self._process.terminate, self._process.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
                return

    def _ask(self, command: str) -> Sequence[Mapping[str, Any]]:
        # The console knows the simple protocol and no transactions.
        with contextlib.closing(psycopg2.connect(self.console_dsn)) as console:
            console.autocommit = True
            with console.cursor() as cursor:
                cursor.execute(command)
                names = [column.name for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []

    def _await_console(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None:
                lines = self._log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise UnreachableError(f"PgBouncer did not start: {lines[-1] if lines else 'it said nothing'}")
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=POLL_SECONDS):
                return
            if time.monotonic() > deadline:
                self.stop()
                raise UnreachableError(f"PgBouncer does not answer after {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)


def _make_directory(ground: Ground, user: SystemUser | None) -> Path:
    """Make a private directory that the pooler's user can enter."""
    for parent in dict.fromkeys(Path(name) for name in (tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - only a private directory is made in them
        if parent.is_dir() and server_programs.can_enter(parent, user):
            directory = ground.guardian.make_directory("pgbouncer", parent=parent)
            if user is not None:
                os.chown(directory, user.uid, user.gid)
            return directory
    raise UnreachableError(f"no temporary directory that {user.name if user else 'we'} can use for PgBouncer")


def _config(ground: Ground, port: int, pool_size: int) -> str:
    server = parse_dsn(ground.dsn(None))
    names = {name: server[name] for name in ("host", "port", "user", "password") if name in server}
    target = " ".join(f"{name}={_quoted(value)}" for name, value in names.items())
    database = _quoted(server["dbname"])
    return "\n".join(
        (
            "[databases]",
            f"{server['dbname']} = dbname={database} {target}",
            "[pgbouncer]",
            f"listen_addr = {HOST}",
            f"listen_port = {port}",
            "unix_socket_dir =",
            # Whoever reaches loopback is let in, as by the scratch server itself.
            "auth_type = any",
            f"admin_users = {server['user']}",
            "pool_mode = transaction",
            f"default_pool_size = {pool_size}",
            "max_client_conn = 500",
            "",
        )
    )


def _quoted(value: str) -> str:
    """Spell a value for PgBouncer's connection strings.

    >>> _quoted("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"
