"""The daemon, with detectors that recognise nothing: what pages then are the rules that need none.

    python daemon_without_detectors.py run --config.file=FILE ...

A server called `stuck` is looked at for a while and then never again, as a bug in a detector might do. Everything else,
what is looked at and what is served, is the daemon's own.
"""

import sys
import threading
from collections.abc import Iterable

from batsignal.cli import main
from batsignal.detect.verdict import Judge, Verdict
from batsignal.snapshot import Deploy, Snapshot

LOOKS_BEFORE_IT_STICKS = 5
_looks = 0


def recognise_nothing(_: Judge, snapshot: Snapshot, __: Iterable[Deploy]) -> Verdict:
    global _looks  # noqa: PLW0603 - one server is called so
    if snapshot.server == "stuck":
        _looks += 1
        if _looks > LOOKS_BEFORE_IT_STICKS:
            threading.Event().wait()
    return Verdict(findings=())


if __name__ == "__main__":
    Judge.look = recognise_nothing  # type: ignore[method-assign]
    sys.exit(main())
