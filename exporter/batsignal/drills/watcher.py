"""The daemon under drill: started as a user starts it, and seen only through its public HTTP API.

Owns that child process and the reading of `/api/v1/status` and `/api/v1/signals` into frozen values. It must not import
the daemon or look at the database: what the timeline shows is what any user could see.
"""

import http.client
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batsignal.drills.guardian import Guardian
from batsignal.errors import UnreachableError

if TYPE_CHECKING:
    import subprocess

READY_SECONDS = 30.0
REQUEST_TIMEOUT_SECONDS = 2.0
POLL_SECONDS = 0.1
TAIL_LINES = 15
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, never bound to

DAEMON_COMMAND = (sys.executable, "-m", "batsignal")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSeen:
    """A lit signal, as the API tells it."""

    id: str
    kind: str
    severity: str
    summary: str
    action: str
    evidence: tuple[str, ...]
    detected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the daemon says at one moment. Slots are None while it cannot see them."""

    state: str
    slots_used: int | None
    slots_usable: int | None
    sessions: Mapping[str, int]
    """Sessions of the shop by version."""
    signals: tuple[SignalSeen, ...]


class Watcher:
    """The daemon as a child process, listening on `host` (empty for all interfaces) and `port`."""

    def __init__(self, guardian: Guardian, directory: Path, *, host: str, port: int) -> None:
        self.address = f"{_bracketed(host)}:{port}"
        self._host = "127.0.0.1" if host in EVERYWHERE else host
        self._port = port
        self._guardian = guardian
        self._directory = directory
        self._log_path = directory / "batsignal.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{_bracketed(self._host)}:{self._port}/"

    def start(self, config_path: Path, command: Sequence[str] = DAEMON_COMMAND) -> None:
        """Start the daemon; `command` is all up to `run`."""
        arguments = ["run", "--config.file", str(config_path), "--web.listen-address", self.address]
        with self._log_path.open("ab") as log:
            self._process = self._guardian.spawn(
                [*command, *arguments, "--log.level", "warning"], cwd=self._directory, output=log, errors=log
            )

    def wait_until_ready(self) -> None:
        """Wait for the first poll to end. Raises UnreachableError when the daemon ends or does not get there."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self.require_life()
            if self._get("/-/ready") is not None:
                return
            if time.monotonic() > deadline:
                raise UnreachableError(f"the daemon at {self.address} is not ready after {READY_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def require_life(self) -> None:
        """Raise UnreachableError when the daemon has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise UnreachableError(f"the daemon at {self.address} ended with exit code {self._process.returncode}")

    def log_tail(self) -> list[str]:
        """Return the last lines of the daemon's log."""
        if not self._log_path.exists():
            return []
        return self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]

    def look(self, service: str) -> Sighting | None:
        """Return what the daemon says now of its one server, or None when it does not answer."""
        status, signals = self._get("/api/v1/status"), self._get("/api/v1/signals")
        if status is None or signals is None:
            return None
        return read_sighting(json.loads(status), json.loads(signals), service)

    def _get(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=REQUEST_TIMEOUT_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if answer.status == http.HTTPStatus.OK else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def read_sighting(status: Mapping[str, Any], signals: Mapping[str, Any], service: str) -> Sighting:
    """Read the two answers of the API; only the first server counts, and only `service` among its applications."""
    server = status["servers"][0]
    slots = server.get("slots") or {}
    sessions: dict[str, int] = {}
    for row in server.get("applications") or ():
        if row["application"] == service:
            version = row["version"] or "?"
            sessions[version] = sessions.get(version, 0) + row["sessions"]
    return Sighting(
        state=server["state"],
        slots_used=slots.get("used"),
        slots_usable=slots.get("usable"),
        sessions=sessions,
        signals=tuple(_read_signal(row) for row in signals["signals"]),
    )


def _read_signal(row: Mapping[str, Any]) -> SignalSeen:
    return SignalSeen(
        id=row["id"],
        kind=row["kind"],
        severity=row["severity"],
        summary=row["summary"],
        action=row["action"],
        evidence=tuple(row["evidence"]),
        detected=row["detected"],
    )
