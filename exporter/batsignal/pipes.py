"""Opens what may be a pipe, and waits for its writer: for a while, never for ever.

Owns that opening and that wait. A config, a certificate and a recording are each given by a path, and whoever gives it
may give a pipe: opened as a file is, one without a writer holds its reader up until there is one. It must not read, nor
know what is read.
"""

import os
import select
from pathlib import Path


def opened(path: Path) -> int:
    """Return a descriptor to read a file or a pipe by, at once, and one that never waits; raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def has_something(descriptor: int, seconds: float) -> bool:
    """Return whether there is something to read within so many seconds, or an end. Of a file there is at once."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(max(seconds, 0.0) * 1000))
