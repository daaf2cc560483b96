"""Custody of child processes and scratch directories: nothing stays behind, whatever ends this process.

Owns the parent's side of `guardian_process`: it starts that process first, then starts children and makes directories
only through it, so that each is registered before it can be lost. The pipe between the two is the whole mechanism: the
kernel closes it however the parent ends, SIGKILL included. It must not be used across a `fork` without `exec`, for the
copy would hold the pipe open.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from batsignal.drills import guardian_process
from batsignal.errors import UnreachableError

CLEAN_SECONDS = 40.0
REAP_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemUser:
    """An account of the operating system that a child runs as."""

    name: str
    uid: int
    gid: int

    def as_options(self) -> dict[str, Any]:
        """Return what `subprocess.Popen` takes; no supplementary group goes along."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def start_custodian(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a Python process that cleans up after us, and return it and the pipe's end that tells it of our end.

    It must not carry the mark of a guardian that we are under, or it would be ended before it has cleaned, nor keep our
    current directory. `environment` is added to ours.
    """
    ours = {key: value for key, value in os.environ.items() if key != guardian_process.MARKER}
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own file, run by our own interpreter
            [sys.executable, *arguments],
            stdin=reader,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={**ours, **(environment or {})},
        )
    finally:
        os.close(reader)
    return process, writer


class Guardian:
    """Starts children and makes directories that end with this process, or at `close`."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(8)
        self._children: list[subprocess.Popen[bytes]] = []
        self._process, self._writer = start_custodian("-I", "-S", guardian_process.__file__, self._token)
        with self._process.stdout as ready:  # type: ignore[union-attr]  # it is a pipe
            if ready.readline() != b"ready\n":
                raise UnreachableError(f"cannot start a clean-up process with {sys.executable}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def make_directory(self, name: str, *, parent: Path | None = None) -> Path:
        """Return a new private directory, removed at the end. Registered before it exists, so that none is lost."""
        path = (parent or Path(tempfile.gettempdir())).resolve() / f"batsignal-{name}-{self._token}"
        if "\n" in str(path):
            raise UnreachableError(f"a temporary directory with a line break in its name cannot be used: {str(path)!r}")
        self._register(f"directory {path}")
        path.mkdir(mode=0o700)
        return path

    def spawn(
        self,
        command: Sequence[str],
        *,
        signals: Iterable[signal.Signals] = (signal.SIGTERM,),
        environment: Mapping[str, str] | None = None,
        cwd: Path,
        output: IO[bytes] | int = subprocess.DEVNULL,
        errors: IO[bytes] | int = subprocess.DEVNULL,
        user: SystemUser | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a child in a session of its own, so that a terminal's Ctrl-C does not reach it, and register it.

        `signals` end it, gentlest first; SIGKILL follows. The environment is ours without libpq's variables, unless
        another is given. Raises OSError when the program cannot be run.
        """
        if environment is None:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        process = subprocess.Popen(  # noqa: S603 - the caller names a program of its own
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            cwd=cwd,
            env={**environment, guardian_process.MARKER: self._token},
            pass_fds=pass_fds,
            **(user.as_options() if user else {}),
        )
        self._children.append(process)
        started = guardian_process.start_ticks(process.pid)
        if started is not None:
            numbers = ",".join(str(int(number)) for number in signals)
            self._register(f"process {process.pid} {started} {numbers}")
        return process

    def close(self) -> None:
        """End every child, remove every directory, and wait until that is done."""
        if self._writer < 0:
            return
        os.close(self._writer)
        self._writer = -1
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLEAN_SECONDS)
            for child in self._children:
                child.wait(REAP_SECONDS)

    def _register(self, line: str) -> None:
        os.write(self._writer, line.encode() + b"\n")
