"""The door of the endpoint: every connection takes a seat, of which there are few, and TLS is set up behind it.

Owns who may sit (the one where nothing has begun or ended for longest gives its seat to a newcomer, so that no crowd of
slow or silent connections keeps a scraper out), how long a connection may take to begin, and whether its first byte
is TLS. It reads no HTTP. asyncio's own listener for TLS would not do: a connection in its handshake cannot be ended
or counted there, and the context could never change.
"""

import asyncio
import socket
import ssl
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from dataclasses import dataclass, field

from batsignal.expose.access import Access

SEATS = 128
FIRST_BYTE_SECONDS = 10.0
HANDSHAKE_SECONDS = 5
SHUTDOWN_SECONDS = 2
READ_SECONDS = 20.0
# What a reader that does not read may keep of ours in the kernel's hands (it doubles the number).
SEND_BUFFER_BYTES = 256 * 1024

_TLS_HANDSHAKE = 0x16
_PLAIN_TEXT = b"HTTPS is spoken here: expected https://, got http://.\n"
_PLAIN_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_PLAIN_TEXT), _PLAIN_TEXT)
)


@dataclass(slots=True, eq=False)
class Seat:
    """One connection's place. `busy` while a request of it is answered, `since` (monotonic) that began or ended."""

    transport: asyncio.Transport
    since: float
    busy: bool = False
    _stalled: asyncio.TimerHandle | None = None

    def stall(self) -> None:
        """Say that what waits to be sent has grown beyond its bound: the reader has `READ_SECONDS` to take it."""
        if self._stalled is None:
            self._stalled = asyncio.get_running_loop().call_later(READ_SECONDS, self.transport.abort)

    def flow(self) -> None:
        """Say that it has been taken."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


@dataclass(slots=True)
class Seats:
    """All the places. A newcomer always gets one."""

    most: int = SEATS
    monotonic: Callable[[], float] = time.monotonic
    _taken: set[Seat] = field(default_factory=set)

    def take(self, transport: asyncio.Transport) -> Seat:
        """Seat a newcomer; when all seats are taken, the one where nothing has begun or ended for longest has to go.

        Also when it is being answered: a scrape takes milliseconds, and what takes minutes (a page that listens, an
        answer that nobody reads) must not push those out that come to ask something.
        """
        if len(self._taken) >= self.most:
            last = min(self._taken, key=lambda seat: seat.since)
            self._taken.discard(last)
            last.transport.abort()
        seat = Seat(transport, self.monotonic())
        self._taken.add(seat)
        return seat

    def turn(self, seat: Seat, *, busy: bool) -> None:
        """Say that a request of it begins or is over."""
        seat.busy, seat.since = busy, self.monotonic()

    def leave(self, seat: Seat) -> None:
        seat.flow()
        self._taken.discard(seat)

    def clear(self, *, busy: bool) -> None:
        """End every connection that waits for nothing of ours; with `busy` those that do, too."""
        for seat in [seat for seat in self._taken if busy or not seat.busy]:
            seat.transport.abort()

    def __len__(self) -> int:
        return len(self._taken)


class Door(asyncio.Protocol):
    """The first protocol of a connection: waits for its first byte, then steps aside for TLS or HTTP."""

    def __init__(self, *, seats: Seats, access: Access, serve: Callable[[Seat, Access], asyncio.Protocol]) -> None:
        self._seats = seats
        self._access = access
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._seat: Seat
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket it is
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._transport = transport
        self._seat = self._seats.take(transport)
        self._timer = self._loop.call_later(FIRST_BYTE_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._stop_timer()
        self._seats.leave(self._seat)

    def data_received(self, data: bytes) -> None:
        self._stop_timer()
        context = self._access.context
        if context is None:
            protocol = self._serve(self._seat, self._access)
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            protocol.data_received(data)
        elif data[0] == _TLS_HANDSHAKE:
            self._encrypt(context, data)
        else:
            self._transport.write(_PLAIN_ANSWER)
            self._transport.close()
            self._timer = self._loop.call_later(SHUTDOWN_SECONDS, self._transport.abort)

    def _encrypt(self, context: ssl.SSLContext, data: bytes) -> None:
        shaken = self._loop.create_future()
        shaken.add_done_callback(lambda done: done.cancelled() or done.exception())  # that it fails is no news
        encrypted = _Encrypted(
            self._loop,
            self._serve(self._seat, self._access),
            context,
            shaken,
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )
        encrypted.seat, encrypted.seats = self._seat, self._seats
        self._transport.set_protocol(encrypted)
        encrypted.connection_made(self._transport)
        while data and not self._transport.is_closing():
            room = encrypted.get_buffer(len(data))
            piece, data = data[: len(room)], data[len(room) :]
            room[: len(piece)] = piece
            encrypted.buffer_updated(len(piece))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Encrypted(SSLProtocol):
    """asyncio's TLS over a connection that has begun; its handshake has a deadline, and its end is told."""

    max_size = 32 * 1024  # what is read at once, of which each connection keeps a buffer
    seat: Seat
    seats: Seats

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.seats.leave(self.seat)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.seat.stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.seat.flow()
