"""A scratch PostgreSQL on loopback, from given binaries: for the demo, for drills, and for tests.

Owns one data directory and one postmaster, and both end with this process whatever ends it (see `guardian`). It must
not be mistaken for a server to keep: it trusts every connection from this host and never syncs to disk. As root it runs
the server as another user; it changes no permission outside its own directory.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, urlencode

from batsignal.drills import server_programs
from batsignal.drills.guardian import Guardian, SystemUser
from batsignal.errors import UnreachableError

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.01
# sun_path holds 108 bytes with its closing zero; the name of the lock file beside the socket is 5 longer.
SOCKET_PATH_BYTES = 107 - len("/.s.PGSQL.65535.lock")

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

_SETTINGS: Mapping[str, str | int] = {
    "listen_addresses": HOST,
    "superuser_reserved_connections": 3,
    "shared_buffers": "16MB",
    # Files in the data directory instead of /dev/shm, where a killed server would leave them behind.
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}


def reserve_port() -> socket.socket:
    """Return a socket bound to a free TCP port of loopback.

    While it lives, the kernel gives the port to nobody who asks for any port, not even to a client; a server that sets
    SO_REUSEADDR, as PostgreSQL does, can still listen on it.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind((HOST, 0))
    return reservation


class EmbeddedServer:
    """A PostgreSQL server that lives inside a `with` block. The port stays the same over a restart.

    `bindir` defaults to the embedded wheel's. `settings` go into postgresql.conf after the defaults, `authentication`
    into pg_hba.conf before them. Without a guardian it brings its own.
    """

    def __init__(
        self,
        bindir: Path | None = None,
        *,
        max_connections: int = 100,
        settings: Mapping[str, str | int] | None = None,
        superuser: str = "postgres",
        guardian: Guardian | None = None,
        authentication: Sequence[str] = (),
    ) -> None:
        self.bindir = bindir or server_programs.wheel_bindir()
        self.superuser = superuser
        self._reservation: socket.socket | None = None
        self._settings = {**_SETTINGS, "max_connections": max_connections, **(settings or {})}
        self._authentication = tuple(authentication)
        self._lent_guardian = guardian
        self._guardian = guardian
        self._user: SystemUser | None = None
        self._programs = self.bindir
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """The directory that holds all of this server: data, socket, log."""
        if self._directory is None:
            raise RuntimeError("the server is not open")
        return self._directory

    @property
    def data_directory(self) -> Path:
        return self.directory / "data"

    @property
    def socket_directory(self) -> Path:
        return self.directory

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    @property
    def port(self) -> int:
        if self._reservation is None:
            raise RuntimeError("the server is not open")
        port: int = self._reservation.getsockname()[1]
        return port

    @property
    def pid(self) -> int:
        """The postmaster's pid."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def dsn(self, *, user: str | None = None, dbname: str = "postgres", application_name: str | None = None) -> str:
        """Return a connection URL. It turns TLS and GSS off, so that the caller's PGSSLMODE does not break it."""
        options = {"sslmode": "disable", "gssencmode": "disable"}
        if application_name is not None:
            options["application_name"] = application_name
        login = quote(user or self.superuser, safe="")
        query = urlencode(options, quote_via=quote)
        return f"postgresql://{login}@{HOST}:{self.port}/{quote(dbname, safe='')}?{query}"

    def start(self) -> None:
        """Start the server and wait until it takes connections. Raises UnreachableError with its last words."""
        deadline = time.monotonic() + START_SECONDS
        while not self.running:
            words = self._launch(deadline)
            if words is None:
                return
            # The sessions of a killed postmaster need a moment to notice it.
            if "pre-existing shared memory block" not in words or time.monotonic() > deadline:
                raise UnreachableError(f"the scratch PostgreSQL did not start: {_last_line(words)}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and keep its data. One that does not stop in time is killed."""
        if self._process is None:
            return
        for number in (_STOP_SIGNALS[mode], signal.SIGQUIT, signal.SIGKILL):
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
                return

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop the server and start it again on the same port."""
        self.stop(mode)
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send the postmaster a signal: SIGKILL for a crash, SIGSTOP for a hang, SIGHUP for a reload."""
        if self._process is not None:
            self._process.send_signal(number)

    def close(self) -> None:
        """Stop the server and remove all of it."""
        if self._lent_guardian is None:
            if self._guardian is not None:
                self._guardian.close()
        else:
            self.stop()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
        if self._reservation is not None:
            self._reservation.close()
        self._guardian, self._process, self._directory, self._reservation = self._lent_guardian, None, None, None

    def _prepare(self) -> None:
        self._guardian = self._guardian or Guardian()
        self._reservation = reserve_port()
        self._user = server_programs.server_user()
        self._directory = _make_directory(self._guardian, self._user)
        self._programs = server_programs.usable_bindir(self.bindir, self._user, self._directory / "programs")
        command = [str(self._programs / "initdb"), "-D", str(self.data_directory), "-U", self.superuser]
        command += ["-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync", "--no-instructions"]
        if self._run(command).wait(START_SECONDS) != 0:
            raise UnreachableError(f"initdb failed: {_last_line(self._log_from(0))}")
        settings = {**self._settings, "unix_socket_directories": str(self.socket_directory)}
        lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
        with (self.data_directory / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(lines)
        if self._authentication:
            path = self.data_directory / "pg_hba.conf"
            path.write_text("\n".join([*self._authentication, path.read_text(encoding="utf-8")]), encoding="utf-8")

    def _launch(self, deadline: float) -> str | None:
        """Start the postmaster; return None once it is ready, or what it logged when it ended instead."""
        log_start = self.log_path.stat().st_size
        command = [str(self._programs / "postgres"), "-D", str(self.data_directory), "-p", str(self.port)]
        self._process = self._run(command)
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                time.sleep(POLL_SECONDS)
                return self._log_from(log_start)
            if _is_ready(self.data_directory / "postmaster.pid", self._process.pid):
                return None
            time.sleep(POLL_SECONDS)
        return self._log_from(log_start) or "no answer in time"

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        if self._guardian is None:
            raise RuntimeError("the server is not open")
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        with self.log_path.open("ab") as log:
            return self._guardian.spawn(
                command,
                signals=(signal.SIGINT, signal.SIGQUIT),
                environment=environment,
                cwd=self.directory,
                output=log,
                errors=log,
                user=self._user,
            )

    def _log_from(self, offset: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")


def _make_directory(guardian: Guardian, user: SystemUser | None) -> Path:
    """Make the server's directory where the server's user can reach it and a socket's path still fits."""
    for parent in dict.fromkeys(Path(name) for name in (tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - only a private directory is made in them
        if not can_hold(parent, user):
            continue
        directory = guardian.make_directory("postgres", parent=parent)
        if user is not None:
            os.chown(directory, user.uid, user.gid)
        return directory
    raise UnreachableError(f"no temporary directory that {user.name if user else 'we'} can use for a scratch server")


def can_hold(parent: Path, user: SystemUser | None) -> bool:
    """Tell whether a server's directory fits under `parent`."""
    name = f"/batsignal-postgres-{'0' * 16}"
    fits = len(os.fsencode(parent.resolve())) + len(name) <= SOCKET_PATH_BYTES
    return fits and os.access(parent, os.W_OK) and server_programs.can_enter(parent, user)


def _is_ready(pid_file: Path, pid: int) -> bool:
    # The eighth line is the postmaster's own word on its state; no connection is needed to learn it.
    try:
        lines = pid_file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"  # noqa: PLR2004 - see above


def _quoted(value: str | int) -> str:
    """Spell a value for postgresql.conf.

    >>> _quoted("it's")
    "'it''s'"
    """
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def _last_line(words: str) -> str:
    lines = [line for line in words.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
