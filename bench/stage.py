"""The stage all measurements share: a PostgreSQL server, sessions on it, the daemon and postgres_exporter beside it.

Owns how each is started, found ready, and ended. It must not measure: what is compared, and by which bar, is each
command's own affair. Everything listens on loopback, and nothing outlives the command (a `Guardian` ends what it
started, the crowd ends with the pipe it reads).
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any, Self

import psycopg2
import yaml

from batsignal.drills.embedded import HOST, EmbeddedServer, reserve_port
from batsignal.drills.guardian import Guardian
from batsignal.errors import UnreachableError

DEBIAN_BINDIR = Path("/usr/lib/postgresql/15/bin")
EXPORTER = "prometheus-postgres-exporter"
MONITORS = ("batsignal", "exporter", "exporter_slow")
APPLICATIONS = ("shop", "billing", "mailer")
READY_SECONDS = 30.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# What Prometheus 2.42 sends with each scrape.
PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


Process = subprocess.Popen[bytes]


class Metrics:
    """One HTTP server's `/metrics`, asked as a scraper asks it, over one kept connection or a fresh one each time."""

    def __init__(self, port: int, *, keep_alive: bool = True, zipped: bool = True) -> None:
        self._port = port
        self._keep_alive = keep_alive
        self._headers = {"Accept": PROMETHEUS_ACCEPT, "Accept-Encoding": "gzip" if zipped else "identity"}
        self._connection: HTTPConnection | None = None

    def scrape(self) -> bytes:
        """Return the body of one scrape, still packed if it came so."""
        if self._connection is None:
            self._connection = HTTPConnection(HOST, self._port, timeout=READY_SECONDS)
        self._connection.request("GET", "/metrics", headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise UnreachableError(f"a scrape of port {self._port} was answered with HTTP {answer.status}")
        if not self._keep_alive:
            self.close()
        return body

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True, slots=True)
class Program:
    """A running program under measurement."""

    pid: int
    port: int

    @property
    def cpu_seconds(self) -> float:
        """Processor time spent so far, by user and kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    @property
    def rss_megabytes(self) -> float:
        return self._status("VmRSS")

    @property
    def rss_megabytes_most(self) -> float:
        """The largest it has ever been."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        for row in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if row.startswith(f"{name}:"):
                return int(row.split()[1]) * 1024 / 1e6
        raise UnreachableError(f"process {self.pid} has ended")


class Crowd:
    """Ordinary sessions, held by a process of their own so that their work is nobody's processor time here."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, command: str) -> str:
        """Send the crowd's process one line and return its answer; see `crowd.py` for what it understands."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the crowd is started with pipes")
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer.startswith("ok"):
            raise UnreachableError(f"the crowd could not {command!r}: {answer or 'it has ended'}")
        return str(answer.removeprefix("ok").strip())


class Stage(AbstractContextManager["Stage"]):
    """One server and what runs on it; everything is gone when the block ends."""

    def __init__(
        self, *, major: int = 15, max_connections: int = 100, settings: Mapping[str, str | int] | None = None
    ) -> None:
        self._stack = ExitStack()
        self._guardian = Guardian()
        self._server = EmbeddedServer(
            _bindir(major), max_connections=max_connections, settings=settings, guardian=self._guardian
        )

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self._guardian)
            self._stack.enter_context(self._server)
            self.folder = self._guardian.make_directory("bench")
            self._make_roles()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def dsn(self, user: str = "postgres", application: str | None = None) -> str:
        return self._server.dsn(user=user, application_name=application)

    def superuser(self) -> Any:
        """Return an open session of a superuser, in autocommit."""
        session = psycopg2.connect(self.dsn(application="bench"))
        session.autocommit = True
        self._stack.callback(session.close)
        return session

    def crowd(self) -> Crowd:
        """Start a process that can hold sessions; it holds none yet."""
        command = [sys.executable, str(Path(__file__).with_name("crowd.py"))]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.enter_context(process)
        # Its end of input ends it; without it `Popen.__exit__` would wait for ever.
        self._stack.callback(process.stdin.close if process.stdin else _nothing)
        return Crowd(process)

    def fill(self, sessions: int, *, busy: bool) -> Crowd:
        """Bring the server to `sessions` of several applications; busy ones run a small statement each second."""
        crowd = self.crowd()
        for index, application in enumerate(APPLICATIONS):
            count = sessions // len(APPLICATIONS) + (index < sessions % len(APPLICATIONS))
            crowd.ask(f"open {count} {self.dsn(application, f'{application}@1.{index}.0')}")
        if busy:
            crowd.ask("work")
        return crowd

    def daemon(self, *, endpoints: Sequence[Mapping[str, Any]] = (), server: str = "db1") -> Program:
        """Start `python -m batsignal run` and wait until its first look has ended."""
        port = self.free_port()
        config = self.folder / "batsignal.yml"
        content = {
            "servers": [{"name": server, "dsn": self.dsn("batsignal")}],
            "endpoints": [dict(endpoint) for endpoint in endpoints],
            "web": {"listen_address": f"{HOST}:{port}"},
        }
        config.write_text(yaml.safe_dump(content), encoding="utf-8")
        process = self.start([sys.executable, "-m", "batsignal", "run", "--config.file", str(config)])
        self.await_answer(process, port, "/-/ready")
        return Program(process.pid, port)

    def exporter(self, role: str = "exporter") -> Program:
        """Start Debian's postgres_exporter as it comes, and wait until it serves."""
        if which(EXPORTER) is None:
            raise UnreachableError(f"{EXPORTER} is not installed; install it with: apt-get install {EXPORTER}")
        port = self.free_port()
        # Its driver sends parameters that it does not know on to the server, which refuses them: gssencmode is one.
        source = f"postgresql://{role}@{HOST}:{self._server.port}/postgres?sslmode=disable"
        environment = {**os.environ, "DATA_SOURCE_NAME": source}
        process = self.start([EXPORTER, f"--web.listen-address={HOST}:{port}"], environment=environment)
        self.await_answer(process, port, "/")
        client = Metrics(port, keep_alive=False, zipped=False)
        self._until(lambda: b"\npg_up 1\n" in client.scrape(), process, "postgres_exporter to reach the server")
        return Program(process.pid, port)

    def start(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program that ends with the stage; what it says goes to `log` in the stage's folder."""
        with self._log.open("ab") as log:
            return self._guardian.spawn(command, environment=environment, cwd=self.folder, output=log, errors=log)

    def await_answer(self, process: Process, port: int, path: str) -> None:
        """Wait until a program answers a path with 200. Raises UnreachableError with its last words."""
        self._until(lambda: _answers(port, path), process, f"an answer of {path}")

    def free_port(self) -> int:
        """Return a port that the kernel gives to nobody else while the stage lives."""
        return int(self._stack.enter_context(reserve_port()).getsockname()[1])

    def _until(self, condition: Callable[[], bool], process: Process, what: str) -> None:
        if wait_until(lambda: process.poll() is not None or condition(), READY_SECONDS) and process.poll() is None:
            return
        words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UnreachableError(f"waited in vain for {what}; last words: {words[-1] if words else 'none'}")

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _make_roles(self) -> None:
        cursor = self.superuser().cursor()
        for role in (*MONITORS, *APPLICATIONS, "web"):
            cursor.execute(f"CREATE ROLE {role} LOGIN")
        cursor.execute(f"GRANT pg_monitor TO {', '.join(MONITORS)}")


@contextmanager
def healthy_endpoint() -> Iterator[str]:
    """Serve a health endpoint that is always well; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"ok\n")

        def log_message(self, *_: object) -> None:
            """Say nothing: the table is the output."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}/healthz"
        server.shutdown()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _bindir(major: int) -> Path | None:
    if major != 15:
        return None
    if not DEBIAN_BINDIR.is_dir():
        raise UnreachableError("PostgreSQL 15 is not installed; install it with: apt-get install postgresql-15")
    return DEBIAN_BINDIR


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    with suppress(OSError):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def _nothing() -> None:
    """Stand in where there is no pipe to close."""
