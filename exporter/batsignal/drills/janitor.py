"""Custody of what a drill makes on a server that is not its own: nothing of it stays, whatever ends the drill.

Owns the parent's side of `janitor_process`: everything is registered before it is created, and the pipe between the two
is closed by the kernel however the drill ends. The same process cleans after a drill that ends well, so that the way
that matters is walked each time; should it be killed itself, a second one does its work. It must not be used for the
embedded server, which goes away with all that is on it.
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

from batsignal.drills import janitor_process
from batsignal.drills.guardian import start_custodian
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
        self._dsn = dsn
        self._lock = threading.Lock()
        self._estate = janitor_process.Estate()
        self._start()

    def _start(self) -> None:
        """Start the process, and tell it all that is registered already."""
        modules = os.pathsep.join(path for path in sys.path if path)
        self._process, self._writer = start_custodian(
            "-P", janitor_process.__file__, environment={"PYTHONPATH": modules}
        )
        if self._read_line(time.monotonic() + READY_SECONDS) != "ready":
            os.close(self._writer)
            self._process.kill()
            raise UnreachableError(f"cannot start a clean-up process with {sys.executable}")
        known = [_thing(kind, name) for kind, name in self._estate.things()]
        known += [f"+{server_pid}" for server_pid in self._estate.sessions]
        for line in [json.dumps({"dsn": self._dsn}), *known]:
            self._write(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    def register(self, kind: janitor_process.Kind, name: str) -> None:
        """Have a thing removed that is about to be created. Raises UnreachableError when nobody would."""
        with self._lock:
            self._estate.add(kind, name)
        self._write(_thing(kind, name))

    def session_began(self, server_pid: int) -> None:
        """Have a session ended that has just been opened."""
        with self._lock:
            self._estate.sessions.add(server_pid)
        self._write(f"+{server_pid}")

    def session_ended(self, server_pid: int) -> None:
        """Forget a session: its pid may be somebody else's soon."""
        with self._lock:
            self._estate.sessions.discard(server_pid)
        with contextlib.suppress(UnreachableError):
            self._write(f"-{server_pid}")

    def close(self, *, patience_seconds: float) -> Cleaned:
        """Let it clean, and wait for the end of that as long as there is patience."""
        cleaned = self._finish(patience_seconds)
        if cleaned is not None:
            return cleaned
        with contextlib.suppress(UnreachableError):  # it was killed, and cannot be asked for more than once
            self._start()
            cleaned = self._finish(patience_seconds)
        left = tuple(f"{kind} {name}" for kind, name in self._estate.things())
        return cleaned or Cleaned(finished=True, pid=self.pid, left=left)

    def _finish(self, patience_seconds: float) -> Cleaned | None:
        """Close the pipe and wait for the word of the process; None when it ends without one."""
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
            return None
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


def _thing(kind: janitor_process.Kind, name: str) -> str:
    return json.dumps({"kind": kind, "name": name})
