"""A real PgBouncer in front of a server of a test, with whatever settings the test wants."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from batsignal.drills import server_programs
from batsignal.drills.embedded import HOST, EmbeddedServer, reserve_port
from batsignal.drills.guardian import Guardian

ADMINISTRATOR, READER = "pooladmin", "poolstats"
START_SECONDS = 10.0
SETTINGS: Mapping[str, str] = {
    "auth_type": "trust",
    "auth_file": "users",
    "pool_mode": "transaction",
    "default_pool_size": "4",
    "admin_users": ADMINISTRATOR,
    "stats_users": READER,
    "unix_socket_dir": "",
    "server_login_retry": "1",
}


@dataclass
class Pooler:
    """A PgBouncer that can be stopped and started on its port."""

    server: EmbeddedServer
    guardian: Guardian
    directory: Path
    port: int
    _process: Any = None

    def dsn(self, **parameters: Any) -> str:
        """Return a connection string through it, or to its console (`dbname="pgbouncer"`)."""
        given = {"host": HOST, "port": self.port, "user": "watcher", "dbname": "postgres", "sslmode": "disable"}
        return make_dsn(**{**given, **parameters})

    def start(self, *, database: str = "", files: Mapping[str, str] | None = None, **settings: str) -> None:
        """Start it; `database` is added to what its one line says of where the databases are."""
        target = f"* = host={HOST} port={self.server.port} {database}"
        given = {**SETTINGS, "listen_addr": HOST, "listen_port": str(self.port), **settings}
        lines = ["[databases]", target, "[pgbouncer]", *(f"{key} = {value}" for key, value in given.items()), ""]
        users = "".join(f'"{name}" ""\n' for name in ("watcher", ADMINISTRATOR, READER))
        for name, text in {"pgbouncer.ini": "\n".join(lines), "users": users, **(files or {})}.items():
            (self.directory / name).write_text(text, encoding="utf-8")
        program = server_programs.find_program("pgbouncer", None)
        assert program is not None, "pgbouncer is missing: tests/system-packages.sh installs it"
        with (self.directory / "log").open("ab") as log:
            self._process = self.guardian.spawn(
                [str(program), "pgbouncer.ini"],
                cwd=self.directory,
                output=log,
                errors=log,
                user=server_programs.server_user(),
            )
        end = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            words = (self.directory / "log").read_text(errors="replace")
            assert self._process.poll() is None, words
            assert time.monotonic() < end, words
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def command(self, words: str) -> None:
        """Give the console a command, as its administrator."""
        with closing(psycopg2.connect(self.dsn(dbname="pgbouncer", user=ADMINISTRATOR))) as console:
            console.autocommit = True
            with console.cursor() as cursor:
                cursor.execute(words)


@contextmanager
def in_front_of(server: EmbeddedServer, **settings: Any) -> Iterator[Pooler]:
    """Start a PgBouncer in front of a server; it is gone at the end."""
    user = server_programs.server_user()
    with Guardian() as guardian, reserve_port() as reserved:
        parent = next(
            path
            for path in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))  # noqa: S108
            if server_programs.can_enter(path, user)
        )
        directory = guardian.make_directory("pooler", parent=parent)
        if user is not None:
            os.chown(directory, user.uid, user.gid)
        started = Pooler(server, guardian, directory, reserved.getsockname()[1])
        started.start(**settings)
        yield started
