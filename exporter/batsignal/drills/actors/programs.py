"""PostgreSQL's own client programs as actors: pg_dump, pg_receivewal.

Owns one such program as a child in the guardian's custody: how it is told where the server is (a password goes through
the environment, where other users of the machine do not see it), how it is slowed down, and how it ends. Its sessions'
seats are its user's to charge.
"""

import contextlib
import os
import signal
import subprocess
from typing import Self

from psycopg2.extensions import make_dsn, parse_dsn

from batsignal.drills.ground import Ground
from batsignal.errors import UnreachableError

STOP_SECONDS = 3.0


class Program:
    """A program that runs while the block does. `user` is whom it logs in as, the service's unless given.

    It names itself to the server by its own name.
    """

    def __init__(self, ground: Ground, name: str, *options: str, user: str | None = None) -> None:
        self._ground = ground
        self._name = name
        self._errors_path = ground.directory / f"{name}.log"
        self._is_paused = False
        parts = parse_dsn(ground.dsn(name, user=user))
        password = parts.pop("password", None)
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        if password is not None:
            self._environment["PGPASSWORD"] = password
        self._command = [str(ground.program(name)), *options, f"--dbname={make_dsn(**parts)}"]

    def __enter__(self) -> Self:
        with self._errors_path.open("wb") as errors:
            self._process = self._ground.spawn(
                self._command, environment=self._environment, output=subprocess.DEVNULL, errors=errors
            )
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.is_running:
                return
            self._send(number)
            self.go_on()  # a process that is stopped gets no signal but SIGKILL
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def pause(self) -> None:
        """Stop the program and its workers where they are, as a disk that takes no more would."""
        if not self._is_paused:
            self._send(signal.SIGSTOP)
            self._is_paused = True

    def go_on(self) -> None:
        """Let the program run after a pause."""
        if self._is_paused:
            self._send(signal.SIGCONT)
            self._is_paused = False

    def require_success(self) -> None:
        """Raise UnreachableError with its last words unless it has ended well."""
        if self._process.poll() != 0:
            lines = self._errors_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            words = lines[-1] if lines else "it said nothing"
            raise UnreachableError(f"{self._name} ended with exit code {self._process.returncode}: {words}")

    def _send(self, number: signal.Signals) -> None:
        # It leads a session and group of its own; its workers are in it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
