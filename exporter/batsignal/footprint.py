"""What the process takes of the machine's memory, and that it does not take more with every day.

Owns two settings of the C library and of Python's collector, each made once. It exists because a soak showed what
neither does by itself: nothing was lost, and yet the process grew by megabytes.
"""

import contextlib
import ctypes
import gc

# glibc's mallopt() (malloc.h), and how many pools of memory all threads together may have.
_M_ARENA_MAX, _POOLS = -8, 2


def share_memory() -> None:
    """Let the threads share their pools of memory; to be called before there are any.

    glibc gives each thread a pool of its own, and what one is done with no other uses. Python's own lock lets one
    thread at a time ask for memory anyway, so nobody waits for it.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _POOLS)


def settle() -> None:
    """Take what is there by now (modules, code, templates) out of what Python's collector goes through.

    It goes through all that has lived for long only once a quarter as much has come anew; until then, what hangs
    together in circles stays, and then there is a pause. Afterwards it is soon, and over in a moment.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
