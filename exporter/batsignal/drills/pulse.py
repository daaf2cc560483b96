"""The pulse of the server under drill: how many slots are taken, and whether it answers at all.

Owns the thread that counts, so that a server that hangs hangs nobody else. It must not judge: that a server is gone is
no fault where the act has sent it away.
"""

import time

from batsignal.drills.ground import Ground
from batsignal.errors import UnreachableError

PULSE_SECONDS = 0.25
# A server that does not answer the simplest question for so long is gone, whatever it is doing.
HANG_SECONDS = 15.0


class Pulse:
    """Counts the slots over and over; says when the server went away, or when it stopped answering."""

    def __init__(self, ground: Ground) -> None:
        self.used: int | None = ground.used()
        """Slots taken, None while the server does not answer."""
        self.full_at: float | None = None
        """When none was left for the first time."""
        self._ground = ground
        self._lost: UnreachableError | None = None
        self._beat_at = time.monotonic()
        ground.start_thread(self._run, "drill pulse")

    def require_life(self) -> None:
        """Raise UnreachableError when the server is gone and the act has no hand in it."""
        if self._ground.is_away:
            self._beat_at = time.monotonic()
        elif self._lost is not None:
            raise self._lost
        elif time.monotonic() - self._beat_at > HANG_SECONDS:
            raise UnreachableError(f"the server under drill has not answered for {HANG_SECONDS:.0f} s")

    def _run(self) -> None:
        while not self._ground.stopped.wait(PULSE_SECONDS):
            try:
                used = self._ground.used()
            except UnreachableError as exc:
                self.used = None
                if not self._ground.is_away and not self._ground.stopped.is_set():
                    self._lost = exc
                    return
                continue
            self._beat_at = time.monotonic()
            if used >= self._ground.slots.usable and self.full_at is None:
                self.full_at = time.time()
            self.used = used
