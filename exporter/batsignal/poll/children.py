"""The processes below one postmaster, as /proc lists them.

Owns which processes those are and when each began. It must not know what they do: that is `titles` and `processes`. It
exists beside psutil because psutil finds children by reading every process of the host at each look.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
# Behind the name, counted from the state (man 5 proc): the parent, and when it began, in ticks since boot.
_PARENT_FIELD, _START_FIELD = 1, 19


@dataclass(frozen=True, slots=True)
class Child:
    """One process. `started` is in Unix seconds, as exact as the kernel's ticks (most often 10 ms)."""

    pid: int
    started: float


class Children:
    """The processes below one postmaster, remembered from look to look.

    A process number and the inode of its /proc directory belong to one process only, so a process seen before costs
    a line of the directory and no read; the parent of a PostgreSQL process never changes while the postmaster lives.
    """

    def __init__(self, parent_pid: int, proc: Path = PROC, *, clock: Callable[[], float] = time.time) -> None:
        self._parent_pid = parent_pid
        self._proc = proc
        self._clock = clock
        self._known: dict[tuple[str, int], Child | None] = {}

    def alive(self) -> list[Child]:
        """Return the children alive now, the same object for the same process; raises OSError without a /proc."""
        with os.scandir(self._proc) as entries:
            seen = [(entry.name, entry.inode()) for entry in entries if entry.name.isdecimal()]
        known = self._known
        self._known = {process: known[process] if process in known else self._child_of(process[0]) for process in seen}
        return [child for child in self._known.values() if child is not None]

    def count(self) -> int | None:
        """Return how many children there are, at a tenth of what `alive` costs; None where the kernel does not tell."""
        try:
            listed = (self._proc / str(self._parent_pid) / "task" / str(self._parent_pid) / "children").read_bytes()
        except OSError:
            return None
        return len(listed.split())

    def _child_of(self, pid: str) -> Child | None:
        try:
            status = read_line(f"{self._proc}/{pid}/stat")
        except OSError:
            return None
        # "pid (name) state ppid": a name may hold spaces and brackets, so count from its last bracket.
        fields = status[status.rindex(b")") + 1 :].split()
        if int(fields[_PARENT_FIELD]) != self._parent_pid:
            return None
        age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_FIELD]) / CLOCK_TICKS
        return Child(int(pid), self._clock() - age_seconds)


def read_line(path: str) -> bytes:
    """Return the first bytes of a file of /proc; raises OSError."""
    # os.open and one os.read (these files are one line): a third of what a file object costs, a hundred times a look.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
