"""From a daemon to the pager: the shipped files of alerts/ in a real Prometheus and a real Alertmanager.

Owns the servers and the webhook that stands for the pager; nothing in the shipped files is changed but addresses.
"""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from batsignal.drills.embedded import reserve_port

ALERTS = Path(__file__).parents[1] / "alerts"
# How long an answer may take on a machine that does other things; nothing is measured by it.
ANSWER_SECONDS = 20.0

_reserved: list[socket.socket] = []


def free_port() -> int:
    """Return a port that nobody listens on, and that only a server to which it is named gets while the tests run.

    One that were given back at once could be another test's before the server of this one, which takes a second to
    start, comes to take it.
    """
    _reserved.append(reserve_port())
    port: int = _reserved[-1].getsockname()[1]
    return port


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - addresses of our own
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def knows_alertmanager(prometheus_port: int) -> bool:
    """Whether an alert that fires now is sent: one that fires earlier is dropped, and sent again a minute later."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{prometheus_port}/api/v1/alertmanagers", timeout=2) as response:
            return bool(json.load(response)["data"]["activeAlertmanagers"])
    except (OSError, urllib.error.URLError):
        return False


@dataclass
class Pager:
    """A webhook receiver that remembers what it got, and when."""

    port: int
    alertmanager_port: int
    prometheus_port: int
    calls: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    def pages(self, receiver: str) -> list[tuple[float, dict[str, Any]]]:
        """Return when each firing alert arrived there, oldest first; one that is sent again stands twice."""
        return [
            (at, alert)
            for at, path, body in list(self.calls)
            if path == f"/{receiver}"
            for alert in body["alerts"]
            if alert["status"] == "firing"
        ]

    def incidents(self, receiver: str) -> set[str]:
        """Return the groups that arrived there: each is one incident to whoever takes the pages."""
        return {
            body["groupKey"]
            for _, path, body in list(self.calls)
            if path == f"/{receiver}" and body["status"] == "firing"
        }

    def active(self) -> list[dict[str, Any]]:
        """Return the labels and texts of the alerts that Alertmanager has and does not hold back."""
        url = f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts?inhibited=false&silenced=false"
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as response:
            alerts: list[dict[str, Any]] = json.load(response)
        return alerts


@contextmanager
def pager(alertmanager_port: int, prometheus_port: int) -> Iterator[Pager]:
    """Receive what Alertmanager sends."""
    record = Pager(free_port(), alertmanager_port, prometheus_port)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            record.calls.append((time.time(), self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", record.port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()


def served(url: str) -> set[str]:
    """Return the names of the daemon's samples."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=ANSWER_SECONDS) as response:  # noqa: S310 - an address of our own
        lines = response.read().decode().splitlines()
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in lines if not line.startswith("#")}


@contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def put_addresses(folder: Path, *, daemons: Sequence[int], alertmanager: int, webhook: int) -> None:
    """Copy the shipped files and change nothing in them but addresses."""
    for file in ALERTS.glob("*.yml"):
        shutil.copy(file, folder)
    shutil.copytree(ALERTS / "templates", folder / "templates")
    for name, old, new in (
        ("prometheus.yml", "'127.0.0.1:9988'", ", ".join(f"'127.0.0.1:{port}'" for port in daemons)),
        ("prometheus.yml", "127.0.0.1:9093", f"127.0.0.1:{alertmanager}"),
        ("alertmanager.yml", "http://127.0.0.1:9095", f"http://127.0.0.1:{webhook}"),
    ):
        text = (folder / name).read_text()
        assert old in text, f"{name} names {old}"
        (folder / name).write_text(text.replace(old, new))


@contextmanager
def alerting(folder: Path, *daemon_ports: int) -> Iterator[Pager]:
    """Run Prometheus, Alertmanager and a pager around daemons on those ports, which may come later."""
    prometheus, alertmanager = free_port(), free_port()
    with ExitStack() as running:
        record = running.enter_context(pager(alertmanager, prometheus))
        put_addresses(folder, daemons=daemon_ports, alertmanager=alertmanager, webhook=record.port)
        for name, command in {
            "alertmanager": [
                "prometheus-alertmanager",
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            ],
            "prometheus": [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{prometheus}",
            ],
        }.items():
            running.enter_context(process(command, folder / f"{name}.log"))
        wait_for(lambda: answers(f"http://127.0.0.1:{alertmanager}/-/ready"), 20, "Alertmanager is ready")
        wait_for(lambda: knows_alertmanager(prometheus), 30, "Prometheus has found Alertmanager")
        yield record
