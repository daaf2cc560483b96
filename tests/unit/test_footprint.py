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
