"""One daemon that watches two servers, and what can be asked of the three from outside.

Owns the processes: none outlives the stand. It breaks nothing: that is `faults`' affair.
"""

import http.client
import json
import os
import secrets
import subprocess  # noqa: TC003  the type of a field
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import yaml

from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.drills.guardian import Guardian

START_SECONDS = 30.0
WAIT_SECONDS = 30.0
SETTINGS: Mapping[str, str | int] = {"autovacuum": "off", "superuser_reserved_connections": 3}
MAX_CONNECTIONS = 40


class StandError(Exception):
    """What was waited for did not come."""


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Wait for a condition and return what it gave."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            raise StandError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.02)
    return answer


def on(server: EmbeddedServer) -> "psycopg2.extensions.connection":
    """Open a session of the superuser over the server's socket, which leaves its TCP port to the daemon."""
    connection = psycopg2.connect(
        host=str(server.socket_directory),
        port=server.port,
        user=server.superuser,
        dbname="postgres",
        options=f"-c statement_timeout={WAIT_SECONDS:g}s",
    )
    connection.autocommit = True
    return connection


def ask(server: EmbeddedServer, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements as the superuser in a session of their own; return the rows of the last."""
    with closing(on(server)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@dataclass
class Daemon:
    """A running `batsignal run`."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    log_path: Path
    host: str = HOST

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log with this message."""
        return [line for line in self.lines() if line["event"] == event]

    def lines(self) -> list[dict[str, Any]]:
        """Return the log so far."""
        lines = self.log_path.read_bytes().splitlines(keepends=True)
        return [json.loads(one) for one in lines if one.endswith(b"\n")]

    @property
    def port(self) -> int:
        """Where it listens, as it says itself."""

        def listening() -> list[dict[str, Any]]:
            if self.process.poll() is not None:
                raise StandError(self.log_path.read_text())
            return self.said("listening")

        return int(until(listening, "the daemon to listen", START_SECONDS)[0]["address"].rpartition(":")[2])

    def text(self, path: str) -> str:
        """Return what it answers with status 200."""
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=WAIT_SECONDS)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        if answer.status != 200:
            raise StandError(f"{path}: HTTP {answer.status}: {body}")
        return body

    def json(self, path: str) -> Any:
        return json.loads(self.text(path))

    def server(self, name: str) -> dict[str, Any]:
        (server,) = [one for one in self.json("/api/v1/status")["servers"] if one["name"] == name]
        return dict(server)

    def metric(self, series: str) -> float | None:
        """Return the value of one series, spelt as it stands in the exposition; None when it is absent."""
        return value(self.text("/metrics"), series)


def value(exposition: str, series: str) -> float | None:
    """Return the value of one series in an exposition, None when it is absent."""
    for line in exposition.splitlines():
        name, _, number = line.rpartition(" ")
        if name == series:
            return float(number)
    return None


@dataclass
class Stand:
    """The daemon, server A to be broken and server B to be left alone."""

    a: EmbeddedServer
    b: EmbeddedServer
    daemon: Daemon
    guest: str
    """The daemon's role on A: nobody else on this machine has one of this name, nor the daemon itself on B."""
    scrapes: list[float] = field(default_factory=list)
    """What others than the witness have scraped, in seconds."""

    def is_up(self) -> bool:
        """Whether the daemon's last look at A was answered."""
        return self.daemon.metric('batsignal_up{server="a"}') == 1


def new_guest() -> str:
    return f"guest_{secrets.token_hex(4)}"


@contextmanager
def server(guest: str, *, bindir: Path | None = None, **options: Any) -> Iterator[EmbeddedServer]:
    """Start a server that a daemon may watch as `guest`."""
    given = {"max_connections": MAX_CONNECTIONS, **options, "settings": {**SETTINGS, **options.get("settings", {})}}
    with EmbeddedServer(bindir, **given) as started:
        # The scratch server commits to memory only: a crash would take the role away again.
        ask(started, f"CREATE ROLE {guest} LOGIN IN ROLE pg_monitor", "CHECKPOINT")
        yield started


@contextmanager
def daemon(
    config: Mapping[str, Any],
    *,
    prefix: Sequence[str] = (),
    host: str = HOST,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """Start a daemon, in a folder of its own unless one is given. `prefix` is a command that runs it somewhere else."""
    with ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batsignal-stand-")))
        (folder / "batsignal.yml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        command = [*prefix, sys.executable, "-m", "batsignal", "run", "--config.file", "batsignal.yml"]
        command += ["--web.listen-address", f"{host}:0", "--log.format", "json"]
        log_path = folder / "log"
        ours = {key: text for key, text in os.environ.items() if not key.startswith("PG")}
        ours |= {"PGPASSFILE": "/nonexistent", **(environment or {})}
        guardian = stack.enter_context(Guardian())
        with log_path.open("wb") as log:
            process = guardian.spawn(command, cwd=folder, output=log, errors=log, environment=ours)
        stack.callback(process.wait)
        stack.callback(process.kill)
        started = Daemon(process, folder, log_path, host)
        until(lambda: started.port and _is_ready(started), "the daemon to be ready", START_SECONDS)
        yield started


def watched(name: str, dsn: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "dsn": dsn, **keys}


@contextmanager
def stand(
    *,
    bindir: Path | None = None,
    hosts: tuple[str, str] = (HOST, HOST),
    listen: tuple[str, str] = (HOST, HOST),
    **options: Any,
) -> Iterator[Stand]:
    """Set up the whole. `hosts` is how the daemon reaches A and B, `listen` the addresses they have beside loopback."""
    guest, guest_of_b = new_guest(), new_guest()
    with ExitStack() as stack:
        a, b = (
            stack.enter_context(
                server(
                    role,
                    bindir=bindir,
                    settings={"listen_addresses": ",".join({HOST, address})},
                    authentication=["host all all 198.18.0.0/15 trust"],
                )
            )
            for role, address in zip((guest, guest_of_b), listen, strict=True)
        )
        servers = [
            watched(name, one.dsn(user=role).replace(f"@{HOST}:", f"@{host}:"))
            for name, one, role, host in zip("ab", (a, b), (guest, guest_of_b), hosts, strict=True)
        ]
        running = stack.enter_context(daemon({"servers": servers}, **options))
        yield Stand(a, b, running, guest)


def _is_ready(daemon: Daemon) -> bool:
    try:
        return bool(daemon.text("/-/ready"))
    except (StandError, OSError):
        return False
