"""Custody of what a drill makes on a server that is not its own: nothing of it stays, whatever ends the drill.

Owns the parent's side of `janitor_process`: everything is registered before it is created, and the pipe between the two
is closed by the kernel however the drill ends. The same process cleans after a drill that ends well, so that the way
that matters is walked each time. It must not be used for the embedded server, which goes away with all that is on it.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from batsignal.drills import guardian_process, janitor_process
from batsignal.errors import UnreachableError

READY_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """How a clean-up went. `finished` is false when it still goes on, in the process `pid`."""

    finished: bool
    pid: int
    left: Sequence[str] = ()


class Janitor:
    """Registers sessions, roles, databases and schemas of one drill; `close` has all of them removed."""

    def __init__(self, dsn: str) -> None:
        self._lock = threading.Lock()
        reader, self._writer = os.pipe()
        # Neither a guardian's mark (it would be ended before it has cleaned) nor our current directory.
        environment = {key: value for key, value in os.environ.items() if key != guardian_process.MARKER}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own file, run by our own interpreter
                [sys.executable, "-P", janitor_process.__file__],
                stdin=reader,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=environment,
            )
        finally:
            os.close(reader)
        if self._read_line(time.monotonic() + READY_SECONDS) != "ready":
            os.close(self._writer)
            self._process.kill()
            raise UnreachableError(f"cannot start a clean-up process with {sys.executable}")
        self._write(json.dumps({"dsn": dsn}))

    @property
    def pid(self) -> int:
        return self._process.pid

    def register(self, kind: janitor_process.Kind, name: str) -> None:
        """Have a thing removed that is about to be created. Raises UnreachableError when nobody would."""
        self._write(json.dumps({"kind": kind, "name": name}))

    def session_began(self, server_pid: int) -> None:
        """Have a session ended that has just been opened."""
        self._write(f"+{server_pid}")

    def session_ended(self, server_pid: int) -> None:
        """Forget a session: its pid may be somebody else's soon."""
        with contextlib.suppress(UnreachableError):
            self._write(f"-{server_pid}")

    def close(self, *, patience_seconds: float) -> Cleaned:
        """Let it clean, and wait for the end of that as long as there is patience."""
        with self._lock:
            if self._writer >= 0:
                os.close(self._writer)
                self._writer = -1
        deadline = time.monotonic() + patience_seconds
        left: list[str] = []
        while (line := self._read_line(deadline)) not in {None, "", "clean", "left"}:
            left.append(str(line))
        if line is None:
            return Cleaned(finished=False, pid=self.pid)
        if line == "":
            left.append("the clean-up process ended before it had done its work")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(READY_SECONDS)
        return Cleaned(finished=True, pid=self.pid, left=tuple(left))

    def _write(self, line: str) -> None:
        with self._lock:
            if self._writer < 0:
                return  # after the end: what is being cleaned needs no registration
            try:
                os.write(self._writer, line.encode() + b"\n")
            except OSError as exc:
                raise UnreachableError("the clean-up process has ended: the drill may not go on without it") from exc

    def _read_line(self, deadline: float) -> str | None:
        """Return the next line, empty at the end of the stream; None when it does not come in time."""
        output = self._process.stdout
        if output is None:
            raise RuntimeError("the janitor has no output")
        line = bytearray()
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([output], [], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                return None
            byte = os.read(output.fileno(), 1)
            if not byte:
                return ""
            line += byte
        return line.decode(errors="replace").rstrip("\n")
