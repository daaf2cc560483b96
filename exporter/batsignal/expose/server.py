"""The HTTP face of the daemon: routes over the board, and uvicorn as a guest that obeys the daemon.

Owns paths, status codes, headers and the life of the listener. It reads the board and the bytes that the tick
rendered, never the world: no request here costs the database anything, and none waits for a poll.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batsignal.expose import api, listen, page
from batsignal.expose.accept import wants_gzip, wants_html, wants_openmetrics
from batsignal.expose.access import Access, Guard
from batsignal.expose.deploys import DeployViews, Desk
from batsignal.expose.disk import Disk, Past
from batsignal.expose.door import Door, Seat, Seats
from batsignal.expose.exchange import Refusal
from batsignal.expose.html import html_answer
from batsignal.expose.http1 import HttpProtocol
from batsignal.expose.incident_pages import IncidentPages
from batsignal.expose.incidents import IncidentViews
from batsignal.expose.releases import ReleaseDesk, ReleaseViews, Wish
from batsignal.expose.stream import Stream
from batsignal.record.board import Board
from batsignal.releases.order import Release

MetricsSource = Callable[[bool, bool], bytes]
"""Called with (openmetrics, gzip); hands out bytes that are ready."""

KEEP_ALIVE_SECONDS = 30  # longer than the usual scrape interval: one connection serves a scraper for good
HEAD_BYTES_MOST = 16 * 1024
STOP_SECONDS = 1

TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

SECURITY_HEADERS = {
    "content-security-policy": page.CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_RUNBOOK_NAME = re.compile(r"[A-Za-z]+")


class _SecurityHeaders:
    """Puts the same few headers on every answer; whatever the answer set itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._raw]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class _Metrics:
    """`/metrics` as bare ASGI: no Request, no Response, two cached header look-ups and the bytes."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        headers = Headers(scope=scope)
        openmetrics = wants_openmetrics(",".join(headers.getlist("accept")))
        zipped = wants_gzip(",".join(headers.getlist("accept-encoding")))
        body = self._source(openmetrics, zipped)
        answer = [
            (b"content-type", OPENMETRICS_TYPE if openmetrics else TEXT_TYPE),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"vary", b"Accept, Accept-Encoding"),
        ]
        if zipped:
            answer.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class _Views:
    """The handlers that read the board."""

    def __init__(self, board: Callable[[], Board], clock: Callable[[], float], runbooks: Path | None) -> None:
        self._board = board
        self._clock = clock
        self._runbooks = runbooks
        self._drawn: tuple[Board, int, page.Drawn] | None = None

    def runbook_names(self) -> frozenset[str]:
        """Return the names that `/runbooks/NAME` answers."""
        return frozenset(path.stem for path in self._runbooks.glob("*.md")) if self._runbooks else frozenset()

    def draw(self, board: Board, now: float) -> page.Drawn:
        """Return the status page; several readers within the same second and board share one drawing."""
        kept = self._drawn
        if kept is None or kept[0] is not board or kept[1] != int(now):
            kept = self._drawn = (board, int(now), page.draw_status(board, now, runbooks=self.runbook_names()))
        return kept[2]

    async def page(self, request: Request) -> Response:
        return html_answer(request, self.draw(self._board(), self._clock()).document())

    async def status(self, _request: Request) -> Response:
        return Response(api.encode(api.status_view(self._board(), self._clock())), media_type="application/json")

    async def signals(self, _request: Request) -> Response:
        return Response(api.encode(api.signals_view(self._board(), self._clock())), media_type="application/json")

    async def healthy(self, _request: Request) -> Response:
        return PlainTextResponse("BatSignal is healthy.\n")

    async def ready(self, _request: Request) -> Response:
        waiting = [name for name, server in self._board().servers.items() if server is None]
        if not waiting:
            return PlainTextResponse("BatSignal is ready.\n")
        return PlainTextResponse(f"Waiting for the first poll of: {', '.join(waiting)}.\n", status_code=503)

    async def runbook(self, request: Request) -> Response:
        """Answer a shipped runbook, as a page to browsers; the name is letters only: no path can leave the folder."""
        name = request.path_params["name"]
        if self._runbooks is None or not _RUNBOOK_NAME.fullmatch(name):
            raise HTTPException(404, "No such runbook here; they ship under alerts/runbooks.")
        try:
            text = await run_in_threadpool((self._runbooks / f"{name}.md").read_text, "utf-8")
        except OSError as exc:
            raise HTTPException(404, "No such runbook here; they ship under alerts/runbooks.") from exc
        if wants_html(",".join(request.headers.getlist("accept"))):
            drawn = await run_in_threadpool(page.draw_runbook, text)
            answer = html_answer(request, drawn.document())
        else:
            answer = PlainTextResponse(text)
        answer.headers["vary"] = "Accept, Accept-Encoding"
        return answer


def _lifecycle(reload: Callable[[], str | None] | None) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of `/-/reload`, in the words that Prometheus uses."""

    async def handle(request: Request) -> Response:
        if request.method not in ("POST", "PUT"):
            raise HTTPException(405, "Only POST or PUT requests allowed.", headers={"Allow": "POST, PUT"})
        if reload is None:
            raise HTTPException(
                403, "Lifecycle API is not enabled: expected the option --web.enable-lifecycle. SIGHUP always reloads."
            )
        error = await run_in_threadpool(reload)
        if error is not None:
            raise HTTPException(500, f"failed to reload config: {error}")
        return PlainTextResponse("")

    return handle


async def _http_error(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    text = exc.detail if isinstance(exc, HTTPException) else "Internal error; the log says more."
    if isinstance(exc, HTTPException) and text == "Not Found":
        text = "Nothing is served here. The status page is at /, the metrics are at /metrics."
    if isinstance(exc, HTTPException) and text == "Method Not Allowed":
        allowed = sorted(((exc.headers or {}).get("Allow") or "").split(", "))
        text = f"{request.method[:20]} is not taken here, expected one of: {', '.join(allowed)}."
    answer = PlainTextResponse(f"{text}\n", status_code=status, headers=getattr(exc, "headers", None))
    if status == 500:  # noqa: PLR2004  # sent outside of the middleware that adds these
        MutableHeaders(raw=answer.raw_headers).update(SECURITY_HEADERS)
    return answer


def _no_release(_wish: Wish) -> Release:
    raise Refusal(403, "no session can be ended here")


def build_app(
    *,
    board: Callable[[], Board],
    metrics: MetricsSource,
    reload: Callable[[], str | None] | None,
    clock: Callable[[], float],
    runbooks: Path | None = None,
    past: Past | None = None,
    desk: Desk | None = None,
    release_desk: ReleaseDesk | None = None,
) -> Starlette:
    """Return the ASGI application. `reload` returns None or why it failed; None instead of it disables the path.

    `past` is what is kept of incidents, `desk` where deploys are told, `release_desk` where releases are asked for;
    without one nobody may.
    """
    views = _Views(board, clock, runbooks)
    disk = Disk(past)
    incidents = IncidentViews(disk, board, clock)
    incident_pages = IncidentPages(disk, board, clock, views.runbook_names)
    deploys = DeployViews(board, clock, desk or Desk(mark=lambda deploy: (deploy, True), token=lambda: None))
    releases = ReleaseViews(release_desk or ReleaseDesk(release=_no_release, token=lambda: None))
    app = Starlette(
        routes=[
            Route("/metrics", _Metrics(metrics)),
            Route("/", views.page),
            Route("/incidents", incident_pages.list),
            Route("/incidents/{incident}", incident_pages.one),
            Route("/-/healthy", views.healthy),
            Route("/-/ready", views.ready),
            Route("/-/reload", _lifecycle(reload), methods=["GET", "POST", "PUT"]),
            Route("/api/v1/status", views.status),
            Route("/api/v1/signals", views.signals),
            Route("/api/v1/stream", Stream(board, clock, lambda shown, now: views.draw(shown, now).as_json())),
            Route("/api/v1/incidents", incidents.list),
            Route("/api/v1/incidents/{incident}", incidents.one),
            Route("/api/v1/incidents/{incident}/recording", incidents.recording),
            Route("/api/v1/deploys", deploys.handle, methods=["GET", "POST"]),
            Route("/api/v1/deploys/verify", deploys.verify),
            Route("/api/v1/release", releases.handle, methods=["POST"]),
            Route("/runbooks/{name}", views.runbook),
        ],
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={HTTPException: _http_error, Exception: _http_error},
    )
    # A redirect would be built from the Host header, which a stranger chooses.
    app.router.redirect_slashes = False
    return app


class _ObedientServer(uvicorn.Server):
    """uvicorn behind our own door, without its signal handling: the daemon owns the signals, and exits 0 on SIGTERM."""

    def __init__(self, config: uvicorn.Config, access: Callable[[], Access]) -> None:
        super().__init__(config)
        self._access = access
        self._seats = Seats()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(self._door, sock=sock) for sock in sockets or ()]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._seats.clear(busy=False)
        # Before uvicorn cancels what still answers, and logs an error: an open event stream never ends by itself.
        asyncio.get_running_loop().call_later(STOP_SECONDS / 2, lambda: self._seats.clear(busy=True))
        await super().shutdown(sockets)

    def _door(self) -> Door:
        return Door(seats=self._seats, access=self._access(), serve=self._protocol)

    def _protocol(self, seat: Seat, access: Access) -> HttpProtocol:
        return HttpProtocol(
            self.config,
            self.server_state,
            self.lifespan.state,
            seats=self._seats,
            seat=seat,
            names=access.allowed_names,
        )


class WebServer:
    """Serves an application on a socket that is already bound, until told to stop."""

    bind = staticmethod(listen.bind)

    def __init__(self, app: ASGIApp, sock: socket.socket, access: Callable[[], Access] = Access) -> None:
        """`access` is asked at each connection how it is to be encrypted, and at each request who may pass."""
        self._sock = sock
        self._server = _ObedientServer(
            uvicorn.Config(
                Guard(app, access),
                loop="asyncio",
                http=HttpProtocol,
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
                h11_max_incomplete_event_size=HEAD_BYTES_MOST,
            ),
            access,
        )

    @property
    def address(self) -> str:
        """Return HOST:PORT that the socket really has, to print and to open."""
        host, port = self._sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def serve(self) -> None:
        """Serve until `stop`; the socket is closed when this returns."""
        await self._server.serve(sockets=[self._sock])

    def stop(self) -> None:
        """Ask the server to end, from any thread or a signal handler; open answers get a second."""
        self._server.should_exit = True
