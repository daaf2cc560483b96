"""What the process takes of the machine's memory, and that it does not take more with every day.

Owns what is asked of the C library and of Python's collector for that. It exists because a soak showed what
neither does by itself: nothing was lost, and yet the process grew by megabytes.
"""

import contextlib
import ctypes
import gc

# glibc's mallopt() (malloc.h), and how many pools of memory all threads together may have.
_M_ARENA_MAX, _POOLS = -8, 2
# From which size on a piece of memory is the system's own, and back with it at once. glibc would raise it to the
# largest piece it has seen: buffers of gzip and whole pages would then lie in the pools, small things between them.
_M_MMAP_THRESHOLD, _OWN_BYTES = -3, 128 * 1024


def share_memory() -> None:
    """Let the threads share their pools of memory; to be called before there are any.

    glibc gives each thread a pool of its own, and what one is done with no other uses. Python's own lock lets one
    thread at a time ask for memory anyway, so nobody waits for it.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, _POOLS)
        library.mallopt(_M_MMAP_THRESHOLD, _OWN_BYTES)


def give_back() -> None:
    """Give back to the system what the C library holds and nobody uses; takes a millisecond or two.

    By itself it gives back the end of a pool only: what an incident took for its recording and its pages stays.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def settle() -> None:
    """Take what is there by now (modules, code, templates) out of what Python's collector goes through.

    It goes through all that has lived for long only once a quarter as much has come anew; until then, what hangs
    together in circles stays, and then there is a pause. Afterwards it is soon, and over in a moment.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
