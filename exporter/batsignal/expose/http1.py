"""HTTP/1.1 as uvicorn speaks it, with an end to everything that a client may draw out.

Owns the deadlines of a connection: a request's head must come within seconds of its first byte, an answer must be
taken, a connection that is to be closed is closed. And it looks at the client's certificate before the first request.
uvicorn alone bounds the pause between two requests and no more.
"""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from batsignal.expose.door import Seat, Seats
from batsignal.expose.tls import names_of

REQUEST_SECONDS = 10.0
# Above this much that waits to be sent the answer pauses until the reader has taken three quarters of it.
WAITING_BYTES_MOST = 64 * 1024
LINGER_SECONDS = 5.0
UNASKED_BYTES_MOST = 1024 * 1024


class HttpProtocol(H11Protocol):
    """One connection, on its seat. `names`: one of these must stand in the client's certificate; None: no matter."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        seats: Seats,
        seat: Seat,
        names: frozenset[str] | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._seats = seats
        self._seat = seat
        self._names = names
        self._unasked_bytes = 0
        self._request_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WAITING_BYTES_MOST)
        if self._names is not None and not self._names & names_of(transport.get_extra_info("peercert")):
            self._abort()
            return
        self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._request_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._seats.leave(self._seat)

    def data_received(self, data: bytes) -> None:
        if self._seat.transport.is_closing():
            return
        if not self._is_answering:
            if self._request_timer is None:
                self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._abort)
            # What comes after an answer and belongs to no request yet: most likely a body that nobody asked for.
            self._unasked_bytes += len(data)
            if self._unasked_bytes > UNASKED_BYTES_MOST:
                self._abort()
                return
        super().data_received(data)

    def handle_events(self) -> None:
        """Also what was sent ahead of the last answer comes by here."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            if self._request_timer is not None:
                self._request_timer.cancel()
                self._request_timer = None
            self._unasked_bytes = 0
            self._seats.turn(self._seat, busy=self._is_answering)
        if self.transport.is_closing():
            self._linger()

    def on_response_complete(self) -> None:
        self._seats.turn(self._seat, busy=False)
        super().on_response_complete()
        if self.transport.is_closing():
            self._linger()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._linger()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._seat.stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._seat.flow()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _linger(self) -> None:
        """Close for good soon: a polite close waits until all is sent, for ever if nobody reads."""
        if self._linger_timer is None:
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._abort)

    def _abort(self) -> None:
        self._seat.transport.abort()
