"""Sessions that are lent last in, first out, and closed once nobody has used them for long.

Owns what poolers in front of a server and function runtimes have in common: no minimum, the session used last is used
next, each is closed by its own idle timeout. Unlike a client's pool it may give each session an address of its own and
change the name of the application with every use.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.seats import Behaviour, Seat

if TYPE_CHECKING:
    from simulator.variation import Variation

SWEEP_SECONDS = 7.0
_SAME: Any = object()


class Stack:
    """A pool without a minimum; a request that finds all taken waits for nobody and is not made."""

    def __init__(
        self,
        variation: "Variation",
        application: str | None,
        *,
        most: int,
        idle_seconds: float,
        place: dict[str, Any],
        lifetime_seconds: float | None = None,
        clients: Sequence[str] = (),
    ) -> None:
        self.most = most
        self.seats: list[Seat] = []
        self._variation = variation
        self._world = variation.world
        self._application = application
        self._idle_seconds = idle_seconds
        self._lifetime_seconds = lifetime_seconds
        self._place = place
        self._clients = clients
        self._opened = 0
        self._world.run(self._sweep(), 0.0)

    def request(self, seconds: float, application: str | None = _SAME) -> None:
        """Use a session for so long, under that name."""
        now = self._world.now
        self.seats = [seat for seat in self.seats if not seat.closed]
        free = [seat for seat in self.seats if seat.busy_until <= now]
        if free:
            seat: Seat | None = max(free, key=lambda one: one.busy_until)
        elif len(self.seats) < self.most:
            seat = self._open()
        else:
            seat = None
        if seat is not None:
            if application is not _SAME:
                seat.application = application
            seat.use(now + 0.002, seconds)

    def _open(self) -> Seat | None:
        place = self._place
        if self._clients:
            place = place | {"client": self._clients[self._opened % len(self._clients)]}
        seat = self._variation.knock(self._application, **place)
        if seat is not None:
            self._opened += 1
            self.seats.append(seat)
        return seat

    def _sweep(self) -> Behaviour:
        while True:
            yield SWEEP_SECONDS
            now = self._world.now
            for seat in self.seats:
                old = self._lifetime_seconds is not None and now - seat.start > self._lifetime_seconds
                if seat.busy_until <= now and (now - seat.busy_until > self._idle_seconds or old):
                    self._world.close(seat)
            self.seats = [seat for seat in self.seats if not seat.closed]
