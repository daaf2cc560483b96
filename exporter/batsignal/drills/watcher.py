"""The daemon under drill: started as a user starts it, and seen only through its public HTTP API.

Owns that child process. It must not import the daemon or look at the database: what the timeline shows is what any user
could see.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from batsignal.drills.daemon_api import DaemonApi, Sighting, SignalSeen, read_sighting
from batsignal.drills.guardian import Guardian
from batsignal.errors import UnreachableError

__all__ = ["DAEMON_COMMAND", "Sighting", "SignalSeen", "Watcher", "read_sighting"]

READY_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1
TAIL_LINES = 15
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, never bound to

DAEMON_COMMAND = (sys.executable, "-m", "batsignal")


class Watcher:
    """The daemon as a child process, listening on `host` (empty for all interfaces) and `port`."""

    def __init__(self, guardian: Guardian, directory: Path, *, host: str, port: int) -> None:
        self.address = f"{_bracketed(host)}:{port}"
        self._host = "127.0.0.1" if host in EVERYWHERE else host
        self._port = port
        self.api = DaemonApi(self._host, port)
        self._guardian = guardian
        self._directory = directory
        self._log_path = directory / "batsignal.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._start_again: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{_bracketed(self._host)}:{self._port}/"

    def start(
        self,
        config_path: Path,
        command: Sequence[str] = DAEMON_COMMAND,
        *,
        record: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the daemon; `command` is all up to `run`, `record` where it keeps a recording."""
        arguments = ["run", "--config.file", str(config_path), "--web.listen-address", self.address]
        if record is not None:
            arguments += ["--record", str(record)]
        with self._log_path.open("ab") as log:
            self._process = self._guardian.spawn(
                [*command, *arguments, "--log.level", "warning"],
                cwd=self._directory,
                output=log,
                errors=log,
                environment=environment,
            )
        self._start_again = lambda: self.start(config_path, command, record=record, environment=environment)

    def stop(self) -> None:
        """End the daemon the way an operator does, and wait until it has written what it records."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """End the daemon and start it again in the same way; it may not be ready yet on return."""
        process, self._process = self._process, None  # it is missing on purpose
        if process is None or self._start_again is None:
            return
        process.terminate()
        process.wait(STOP_SECONDS)
        self._start_again()

    def wait_until_ready(self) -> None:
        """Wait for the first poll to end. Raises UnreachableError when the daemon ends or does not get there."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self.require_life()
            if self.api.get("/-/ready") is not None:
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
        return self.log()[-TAIL_LINES:]

    def log(self) -> list[str]:
        """Return the daemon's log: warnings and errors."""
        if not self._log_path.exists():
            return []
        return self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()

    def look(self, service: str) -> Sighting | None:
        """Return what the daemon says now of its one server, or None when it does not answer."""
        status, signals = self.api.get("/api/v1/status"), self.api.get("/api/v1/signals")
        if status is None or signals is None:
            return None
        return read_sighting(json.loads(status), json.loads(signals), service)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
