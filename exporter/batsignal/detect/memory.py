"""What a detector knows of "usual", in a shape that outlives the process: baselines.

A detector that judges against its own past is `Remembering`: it gives its memory as plain JSON values, and takes it
back at the start of the next life of the daemon. Memory that does not fit (another release wrote it, a hand edited it)
is worth nothing and no error: `recall` raises MemoryError_ and the detector stays as new.
"""

from collections.abc import Mapping
from typing import Any, Protocol

Memory = Mapping[str, Any]
"""JSON values only. Bounded, however many names came by; instants in Unix seconds, durations in seconds."""


class Remembering(Protocol):
    """A detector whose baseline outlives a restart of the daemon."""

    def remembered(self) -> Memory:
        """Return what is worth keeping."""

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered; raises ValueError, TypeError or KeyError when it does not fit."""
