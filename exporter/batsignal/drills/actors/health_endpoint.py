"""The health endpoint of an application under drill: a real HTTP server on loopback that says what the act lets it say.

Owns one socket and one thread a request. It must not ask the database by itself: `check` does, when the act gives one.
"""

import contextlib
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_TIMEOUT_SECONDS = 30.0


class HealthEndpoint:
    """Answers `/healthz`: 200 when `check` returns, 503 with its words when it raises, late when it takes long."""

    def __init__(self, service: str = "web", version: str = "2.3.9") -> None:
        self.service = service
        self.check: Callable[[], object] = lambda: None
        self.body = f'{{"status": "ok", "service": "{service}", "version": "{version}"}}'
        self.first_failure_at: float | None = None
        """When the first request failed, or was given up by its asker."""
        self._server = _Server(self)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="drill-endpoint", daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/healthz"

    def note_failure(self, began_at: float) -> None:
        """Remember the first failure by when its request came."""
        if self.first_failure_at is None:
            self.first_failure_at = began_at

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, endpoint: HealthEndpoint) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = endpoint

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: an asker that gives up is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        endpoint = self.server.endpoint
        began_at = time.time()
        try:
            endpoint.check()
        except Exception as exc:  # noqa: BLE001 - whatever the application's check raises is its failure
            status, body = 503, f'{{"status": "failing", "reason": "{type(exc).__name__}"}}'
        else:
            status, body = 200, endpoint.body
        if status != 200 or self._asker_has_left():  # noqa: PLR2004 - HTTP's OK
            endpoint.note_failure(began_at)
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _asker_has_left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        if not readable:
            return False
        try:
            return not len(self.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return True
