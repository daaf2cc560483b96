"""`/api/v1/stream`: the board as server-sent events, one `status` event a tick, for the page and whoever listens.

Owns when an event is due and how many may listen. One task looks at the board and renders an event once for all
listeners; one that reads slowly misses events and gets the newest next, so that a listener holds neither memory nor
anybody up. While no server ticks the page is told all the same (ages go on), everybody else gets a comment. It must not
run while nobody listens. Server-sent events rather than a web socket: they are plain HTTP, pass proxies, and the
browser connects again by itself.
"""

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from batsignal.expose import api
from batsignal.expose.accept import wants_gzip
from batsignal.record.board import Board

LOOK_SECONDS = 0.1
# Of a large fleet some server ticks at each look: no more than this share of a core goes into telling so.
COST_SHARE = 0.1
# While no server ticks (one that hangs, a long interval) this says that the daemon lives. The page calls itself old
# after twice of it.
SILENCE_SECONDS = 5.0
# A quarter of the seats of the listener: a wall of forgotten tabs must not keep a scraper out.
LISTENERS_MOST = 32
SEND_SECONDS = 10.0
RETRY_MILLISECONDS = 1000

_GZIP_WINDOW_BITS = 31
_ALIVE = b": no tick, and alive\n\n"

Tick = tuple[tuple[str, float, bool] | None, ...]


def ticked(board: Board) -> Tick:
    """Return what differs after each tick of any server, and of nothing else."""
    return tuple(
        None if server is None else (name, server.ticked_at, server.stale) for name, server in board.servers.items()
    )


class _Listener:
    """One open stream; `offer` replaces an event that it has not taken yet."""

    def __init__(self, *, with_page: bool) -> None:
        self.with_page = with_page
        self._newest: bytes | None = None
        self._is_due = asyncio.Event()

    def offer(self, event: bytes) -> None:
        self._newest = event
        self._is_due.set()

    async def next(self) -> bytes:
        """Wait for the next event and return it."""
        await self._is_due.wait()
        self._is_due.clear()
        event, self._newest = self._newest, None
        return event or b""


class Stream:
    """The handler, as bare ASGI. `page` draws the status page of a board at a time, for those who ask for it."""

    def __init__(
        self, board: Callable[[], Board], clock: Callable[[], float], page: Callable[[Board, float], Mapping[str, str]]
    ) -> None:
        self._board = board
        self._clock = clock
        self._page = page
        self._listeners: set[_Listener] = set()
        self._watch: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        if len(self._listeners) >= LISTENERS_MOST:
            raise HTTPException(503, f"{LISTENERS_MOST} streams are open, no more are served at once; try again later.")
        with_page = QueryParams(scope["query_string"]).get("page") == "1"
        zipped = with_page and wants_gzip(",".join(Headers(scope=scope).getlist("accept-encoding")))
        answer = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"vary", b"Accept-Encoding"),
            (b"x-accel-buffering", b"no"),
        ]
        if zipped:
            answer.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await self._serve(_Listener(with_page=with_page), _Packer() if zipped else None, receive, send)

    async def _serve(self, listener: _Listener, packer: "_Packer | None", receive: Receive, send: Send) -> None:
        self._join(listener)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            while (event := await _unless(gone, listener.next())) is not None:
                piece = event if packer is None else packer.pack(event)
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            pass  # it does not read: what it has not got by now is of no use to it
        finally:
            self._listeners.discard(listener)
            gone.cancel()

    def _join(self, listener: _Listener) -> None:
        listener.offer(f"retry: {RETRY_MILLISECONDS}\n".encode("ascii") + self._event(with_page=listener.with_page))
        self._listeners.add(listener)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        """Offer an event to all after each tick, until nobody listens."""
        told, clock = ticked(self._board()), asyncio.get_running_loop().time
        told_at, pause_seconds = clock(), LOOK_SECONDS
        while self._listeners:
            await asyncio.sleep(pause_seconds)
            now = ticked(self._board())
            has_ticked = now != told
            if not has_ticked and clock() - told_at < SILENCE_SECONDS:
                continue
            told, told_at = now, clock()
            for with_page in {listener.with_page for listener in self._listeners}:
                event = self._event(with_page=with_page) if has_ticked or with_page else _ALIVE
                for listener in self._listeners:
                    if listener.with_page is with_page:
                        listener.offer(event)
            pause_seconds = max(LOOK_SECONDS, (clock() - told_at) / COST_SHARE)

    def _event(self, *, with_page: bool) -> bytes:
        board, now = self._board(), self._clock()
        view = api.status_view(board, now) | {"signals": api.signals_view(board, now)["signals"]}
        if with_page:
            view["page"] = dict(self._page(board, now))
        return b"event: status\ndata: " + api.encode(view) + b"\n"


class _Packer:
    """Gzip over the whole stream: an event is nearly the one before it, and so nearly nothing."""

    def __init__(self) -> None:
        self._zip = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW_BITS)

    def pack(self, event: bytes) -> bytes:
        """Return the bytes after which the reader has the whole event."""
        return self._zip.compress(event) + self._zip.flush(zlib.Z_SYNC_FLUSH)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless(gone: "asyncio.Future[None]", coming: Coroutine[Any, Any, bytes]) -> bytes | None:
    """Return what comes, or None once the reader has gone."""
    event = asyncio.ensure_future(coming)
    either: tuple[asyncio.Future[Any], ...] = (gone, event)
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return event.result() if event.done() and not gone.done() else None
    finally:
        event.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await event
