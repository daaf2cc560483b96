"""What keeps the process from growing, each tried in a process of its own."""

import subprocess
import sys

COUNT_FULL_COLLECTIONS = """
import gc
from batsignal import footprint

footprint.share_memory()
there_to_stay = [[] for _ in range(600_000)]
gc.collect()
full = []
gc.callbacks.append(lambda phase, info: full.append(info) if (phase, info["generation"]) == ("start", 2) else None)
before = [[] for _ in range(100_000)]
print(len(full))
footprint.settle()
full.clear()
after = [[] for _ in range(100_000)]
print(len(full))
"""


def test_collector_goes_through_what_is_new_soon_once_what_stays_is_settled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FULL_COLLECTIONS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    before, after = map(int, done.stdout.split())
    assert before == 0
    assert after >= 1


GIVE_BACK = """
import psutil
from batsignal import footprint

footprint.share_memory()
pieces = [bytearray(60_000) for _ in range(1_000)]
last = bytearray(60_000)  # keeps the end of the pool in use, which glibc gives back by itself
del pieces
footprint.give_back()
print(psutil.Process().memory_info().rss)
footprint.give_back()
"""


def test_what_was_taken_between_things_that_stay_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVE_BACK], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert int(done.stdout) < 60_000_000, "60 MB were taken and are no longer used"
