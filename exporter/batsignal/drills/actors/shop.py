"""A small web shop, run as a process: the application whose deploy goes wrong.

Owns an HTTP server with `/buy`, `/healthz` and `/stats`, a pool, and (from the version that has it) an audit trail that
opens sessions of its own and never gives one back. The leak is real: nothing here pretends. It must know nothing of
who watches it.

    python -m batsignal.drills.actors.shop --dsn DSN --version 2.4.0 --port 8000 --leak-per-second 0.5

Once it takes requests it writes one line, `ready PORT`, to standard output.
"""

import argparse
import json
import random
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.actors.pool import Pool, PoolExhaustedError

BUY_CHECKOUT_SECONDS = 2.0
HEALTH_CHECKOUT_SECONDS = 1.0
AUDIT_RETRY_SECONDS = 0.05
PAYMENT_SECONDS = 0.12
REQUEST_TIMEOUT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 3
SESSION_SECONDS = 16.0
ITEMS = 50
SCHEMA_LOCK = 20240119

_SCHEMA = f"""
    SELECT pg_advisory_xact_lock({SCHEMA_LOCK});
    CREATE TABLE IF NOT EXISTS stock (item integer PRIMARY KEY, sold integer NOT NULL);
    CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, item integer NOT NULL, at timestamptz NOT NULL);
    INSERT INTO stock SELECT item, 0 FROM generate_series(1, {ITEMS}) AS item ON CONFLICT DO NOTHING
"""


class AuditTrail:
    """The new code path: each connection it opens is kept in a list and never used again.

    It keeps the pace by the clock: one session every `1 / per_second` seconds, and one that was refused is tried again
    at once, as an application does that must not lose a record.
    """

    def __init__(self, dsn: str, application_name: str, per_second: float) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._per_second = per_second
        self._kept: list[Connection] = []
        self.first_at: float | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def run(self, stopped: threading.Event) -> None:
        """Leak until stopped."""
        started = time.monotonic()
        while True:
            due_at = started + len(self._kept) / self._per_second
            if stopped.wait(max(due_at - time.monotonic(), 0.0)):
                return
            try:
                self._record()
            except psycopg2.OperationalError:
                stopped.wait(AUDIT_RETRY_SECONDS)

    def _record(self) -> None:
        connection = _connect(self._dsn, self._application_name)
        self._kept.append(connection)
        self.first_at = self.first_at or time.time()
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM orders")


class Shop:
    """What the shop does, apart from HTTP."""

    def __init__(
        self, dsn: str, version: str, *, leak_per_second: float, session_seconds: float, audit_dsn: str | None = None
    ) -> None:
        self.version = version
        application_name = f"web@{version}"
        self.pool = Pool(lambda: _connect(dsn, application_name), lifetime_seconds=session_seconds)
        leaks = leak_per_second > 0
        self.audit = AuditTrail(audit_dsn or dsn, application_name, leak_per_second) if leaks else None

    def buy(self) -> dict[str, Any]:
        """Sell one item, in one transaction that takes as long as a payment does."""
        item = random.randint(1, ITEMS)  # noqa: S311 - no secret
        with self.pool.lend(timeout_seconds=BUY_CHECKOUT_SECONDS) as connection, connection.cursor() as cursor:
            cursor.execute(
                "WITH sale AS (UPDATE stock SET sold = sold + 1 WHERE item = %(item)s)"
                " INSERT INTO orders (item, at) SELECT %(item)s, now() FROM pg_sleep(%(payment_seconds)s)",
                {"item": item, "payment_seconds": PAYMENT_SECONDS},
            )
        return {"item": item}

    def health(self) -> dict[str, Any]:
        """Ask the database for a sign of life, through the pool."""
        with self.pool.lend(timeout_seconds=HEALTH_CHECKOUT_SECONDS) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return {"status": "ok", "version": self.version}

    def stats(self) -> dict[str, Any]:
        """Say what only the shop itself can know: how many sessions it has lost, and since when."""
        return {
            "version": self.version,
            "pool": self.pool.total,
            "refused": self.pool.refused,
            "leaked": len(self.audit) if self.audit else 0,
            "first_leak_at": self.audit.first_at if self.audit else None,
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # its end waits for the requests at hand
    request_queue_size = 128

    def __init__(self, shop: Shop, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.shop = shop
        self.routes = {"/buy": shop.buy, "/healthz": shop.health, "/stats": shop.stats}


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        action = self.server.routes.get(self.path)
        if action is None:
            self._answer(404, {"status": "not found"})
            return
        try:
            self._answer(200, action())
        except (PoolExhaustedError, psycopg2.Error) as exc:
            self._answer(503, {"status": "unavailable", "reason": str(exc).strip()})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay silent: a line for each request says nothing here."""

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the customer has left


def _connect(dsn: str, application_name: str) -> Connection:
    return psycopg2.connect(dsn, application_name=application_name, connect_timeout=CONNECT_TIMEOUT_SECONDS)


def _create_schema(shop: Shop) -> None:
    with shop.pool.lend(timeout_seconds=BUY_CHECKOUT_SECONDS) as connection, connection.cursor() as cursor:
        # One string is one implicit transaction: the lock holds until its end.
        cursor.execute(_SCHEMA)


def _serve(shop: Shop, listener: socket.socket) -> None:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    shop.pool.fill()
    _create_schema(shop)
    server = _Server(shop, listener)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    sys.stdout.write(f"ready {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    if shop.audit is None:
        stopped.wait()
    else:
        shop.audit.run(stopped)
    server.shutdown()
    server.server_close()
    shop.pool.close()


def main(arguments: list[str] | None = None) -> None:
    """Run the shop until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m batsignal.drills.actors.shop")
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--version", required=True)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--port", type=int, default=0, help="0 takes a free one")
    place.add_argument("--listen-fd", type=int, help="a listening socket, handed over by the version before")
    parser.add_argument("--host", default="127.0.0.1", help="where --port is taken")
    parser.add_argument("--leak-per-second", type=float, default=0.0)
    parser.add_argument("--audit-dsn", help="where the leaking sessions go (default: --dsn); past a pooler, say")
    parser.add_argument(
        "--session-seconds", type=float, default=SESSION_SECONDS, help="how long a pooled session lives"
    )
    options = parser.parse_args(arguments)
    if options.listen_fd is not None:
        listener = socket.socket(fileno=options.listen_fd)
    else:
        listener = socket.create_server((options.host, options.port), backlog=128)
    shop = Shop(
        options.dsn,
        options.version,
        leak_per_second=options.leak_per_second,
        session_seconds=options.session_seconds,
        audit_dsn=options.audit_dsn,
    )
    _serve(shop, listener)


if __name__ == "__main__":
    main()
