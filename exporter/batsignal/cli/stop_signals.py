"""How a command that has started things is told to end: SIGINT, SIGTERM and SIGHUP, in every phase of it.

Owns the handlers while a `with` block lasts. It must not let a signal interrupt a clean-up.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stopped(BaseException):
    """The user, or the system, wants it to end. Like KeyboardInterrupt, nothing on the way may catch it."""


class StopSignals:
    """Turns the first signal into `Stopped`, or, once softened, every signal into an event; disarmed, into nothing."""

    def __init__(self) -> None:
        self._armed = True
        self._event: threading.Event | None = None

    def soften(self, event: threading.Event) -> None:
        """Set `event` from now on instead of raising."""
        self._event = event

    def disarm(self) -> None:
        """Let no signal interrupt what comes now."""
        self._armed = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._armed:
            return
        if self._event is not None:
            self._event.set()
            return
        self._armed = False
        raise Stopped


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Yield the handlers, installed; what was there before comes back afterwards."""
    stop = StopSignals()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # One that is ignored was meant to be: `nohup`, or a shell's background job.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
