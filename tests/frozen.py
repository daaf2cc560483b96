"""A server that is there and does nothing: the kernel takes connections for it, and nobody answers."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


@contextmanager
def frozen(postmaster_pid: int) -> Iterator[None]:
    """Stop the postmaster and all its processes (SIGSTOP) for the block.

    The postmaster is stopped first and goes on last: a child that ends meanwhile stays there as a zombie, and its pid
    becomes nobody else's.
    """
    postmaster = psutil.Process(postmaster_pid)
    postmaster.suspend()
    children = postmaster.children()
    try:
        for process in children:
            process.suspend()
        yield
    finally:
        for process in (*children, postmaster):
            with suppress(psutil.NoSuchProcess):
                process.resume()
