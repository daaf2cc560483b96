"""The stage of the demo's leak: a scratch server, the shop, its customers and the daemon, in one `with` block.

Owns who is started with what, and the one directory they share. It must not print and must not judge. Each step is a
method, so that whoever plays the scene can tell what happens next.
"""

import contextlib
import http.client
import json
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg2
import yaml

from batsignal.drills.actors.shoppers import Shoppers
from batsignal.drills.embedded import EmbeddedServer
from batsignal.drills.guardian import Guardian
from batsignal.drills.watcher import DAEMON_COMMAND, Watcher
from batsignal.errors import UnreachableError

SERVICE = "web"
DATABASE = "shop"
READY_SECONDS = 20.0
STOP_SECONDS = 5.0
STATS_TIMEOUT_SECONDS = 1.0
PROBE_INTERVAL_SECONDS = 2
PROBE_TIMEOUT_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The deploy that causes the incident. `kind` is the signal that must light, and the row of the catalogue."""

    kind: str
    version_before: str
    version_after: str
    story: str


RELEASE = Release(
    kind="leak",
    version_before="2.3.9",
    version_after="2.4.0",
    story="its new audit trail opens sessions of its own and never gives one back",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """What the shop itself knows of its leak."""

    sessions: int
    first_at: float | None


class Scene:
    """Starts each actor when told to; all of them end with the block, whatever ends it."""

    def __init__(self, *, host: str, port: int, daemon_command: Sequence[str] = DAEMON_COMMAND) -> None:
        self._host = host
        self._port = port
        self._daemon_command = daemon_command
        self._stack = contextlib.ExitStack()
        self.release_token = secrets.token_hex(16)
        self._server: EmbeddedServer | None = None
        self._shop: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._guardian = stack.enter_context(Guardian())
            self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
            self.directory = self._guardian.make_directory("demo")
            self.watcher = Watcher(self._guardian, self.directory, host=self._host, port=self._port)
            self.shoppers = Shoppers(self.shop_port)
            stack.callback(self.shoppers.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def server(self) -> EmbeddedServer:
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return self._server

    @property
    def shop_port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def start_server(self) -> None:
        """Start PostgreSQL with a database and a role for the shop, and a role for the daemon."""
        server = EmbeddedServer(guardian=self._guardian)
        # Not on the stack: the guardian ends it together with its clients, without waiting for each in turn.
        self._server = server.__enter__()
        with contextlib.closing(psycopg2.connect(server.dsn())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("CREATE ROLE batsignal LOGIN IN ROLE pg_monitor, pg_signal_backend")
                cursor.execute(f"CREATE ROLE {SERVICE} LOGIN")
                cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {SERVICE}")
                # The server trusts this host, and a superuser may run programs: nobody else on the host shall be one.
                cursor.execute(f"ALTER ROLE {server.superuser} NOLOGIN")

    def start_daemon(self) -> None:
        """Write the daemon's config, start it, and wait for its first look."""
        token_path = self.directory / "release_token"
        token_path.touch(0o600)
        token_path.write_text(self.release_token, encoding="ascii")
        config = {
            "servers": [{"name": "db1", "dsn": self.server.dsn(user="batsignal")}],
            "endpoints": [
                {
                    "name": SERVICE,
                    "service": SERVICE,
                    "url": f"http://127.0.0.1:{self.shop_port}/healthz",
                    "interval_seconds": PROBE_INTERVAL_SECONDS,
                    "timeout_seconds": PROBE_TIMEOUT_SECONDS,
                }
            ],
            "web": {"release_token_file": token_path.name},
            "store": {"path": str(self.directory / "batsignal.db")},
        }
        config_path = self.directory / "batsignal.yml"
        config_path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        self.watcher.start(config_path, self._daemon_command)
        self.watcher.wait_until_ready()

    def deploy(self, version: str, *, leak_per_second: float = 0.0) -> None:
        """Start a version of the shop on the shared socket, then stop the one before: no customer is turned away."""
        before, self._shop = self._shop, self._start_shop(version, leak_per_second)
        if before is None:
            self.shoppers.start()
            return
        before.send_signal(signal.SIGTERM)
        try:
            before.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            before.kill()
            before.wait()

    def leak(self) -> Leak | None:
        """Return what the shop knows of its leak, or None when it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.shop_port, timeout=STATS_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/stats")
            stats = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return Leak(sessions=stats["leaked"], first_at=stats["first_leak_at"])

    def require_life(self) -> None:
        """Raise UnreachableError when the daemon, the shop or the server has ended by itself."""
        self.watcher.require_life()
        if self._shop is not None and self._shop.poll() is not None:
            raise UnreachableError(f"the shop ended with exit code {self._shop.returncode}: {self._last_words()}")
        if not self.server.running:
            raise UnreachableError("the scratch PostgreSQL ended")

    def _start_shop(self, version: str, leak_per_second: float) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        dsn = self.server.dsn(user=SERVICE, dbname=DATABASE)
        command = [sys.executable, "-m", "batsignal.drills.actors.shop", "--dsn", dsn, "--version", version]
        command += ["--listen-fd", str(descriptor), "--leak-per-second", str(leak_per_second)]
        with self._shop_log.open("ab") as log:
            shop = self._guardian.spawn(
                command, cwd=self.directory, output=subprocess.PIPE, errors=log, pass_fds=(descriptor,)
            )
        if not _says_ready(shop):
            raise UnreachableError(f"the shop did not start: {self._last_words()}")
        return shop

    @property
    def _shop_log(self) -> Path:
        return self.directory / "shop.log"

    def _last_words(self) -> str:
        lines = self._shop_log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def _says_ready(shop: subprocess.Popen[bytes]) -> bool:
    """Wait for the one line that the shop writes once it takes requests."""
    deadline = time.monotonic() + READY_SECONDS
    with shop.stdout as output, selectors.DefaultSelector() as selector:  # type: ignore[union-attr]  # it is a pipe
        selector.register(output, selectors.EVENT_READ)
        return bool(selector.select(deadline - time.monotonic())) and output.readline().startswith(b"ready")
