"""Reads what an operator has written down: a config, a secret, a certificate, and no more of it than such a thing has.

Owns the bounds of such a reading, in bytes and in time. It exists because files are read while the watch goes on: a
pipe into which nobody writes would hold a reload up for ever, and some hundred MB put in the file's place by mistake
would be parsed for minutes. It must not know what is read.
"""

import errno
import os
import time
from pathlib import Path

from batsignal import pipes

BYTES_MOST = 1 << 20
# A file answers at once; a pipe, as a shell makes it of `<(command)`, once its writer has written.
SECONDS_MOST = 5.0
_CHUNK_BYTES = 1 << 16


def read(path: Path) -> bytes:
    """Return a file's content.

    Raises OSError, whose `strerror` is one sentence also for what is too large and for a pipe that does not end, and
    ValueError for a path with a zero byte in it.
    """
    descriptor = pipes.opened(path)
    try:
        return _read(descriptor, time.monotonic() + SECONDS_MOST)
    finally:
        os.close(descriptor)


def _read(descriptor: int, deadline: float) -> bytes:
    content = bytearray()
    while len(content) <= BYTES_MOST:
        remaining_seconds = deadline - time.monotonic()
        if remaining_seconds <= 0 or not pipes.has_something(descriptor, remaining_seconds):
            raise OSError(errno.ETIMEDOUT, f"it does not end within {SECONDS_MOST:g} s")
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            return bytes(content)
        content += chunk
    raise OSError(errno.EFBIG, f"it has more than {BYTES_MOST >> 20} MB")
