"""Where a drill may play: opens a server of its own, or a given one that is marked as scratch, and closes it again.

Owns the two openings and the refusal of a server without the mark. What a drill then holds there is `Ground`'s own
affair (`server_under_drill`), which acts import from here. It must not take a server that nobody has marked.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from batsignal.drills import administrator
from batsignal.drills.administrator import first_line
from batsignal.drills.embedded import EmbeddedServer
from batsignal.drills.guardian import Guardian
from batsignal.drills.seats import BudgetSpentError, DrillSession
from batsignal.drills.server_under_drill import EMBEDDED_USER, Ground
from batsignal.errors import ConfigError, UnreachableError

__all__ = ["BudgetSpentError", "DrillSession", "Ground", "on_embedded", "on_given"]

MARKER_TABLE = "batsignal_scratch"
EMBEDDED_DATABASE = "shop"
# Loopback is open to everybody on this machine, and a superuser may run programs: that one comes by the socket, which
# lies in a private directory.
EMBEDDED_AUTHENTICATION = (
    "host all postgres 127.0.0.0/8 reject",
    "host all all 127.0.0.0/8 trust",
    "host replication batsignal 127.0.0.0/8 trust",
)


@contextlib.contextmanager
def on_embedded(
    *,
    share: float = 1.0,
    max_connections: int = 100,
    bindir: Path | None = None,
    settings: dict[str, str | int] | None = None,
    guardian: Guardian | None = None,
) -> Iterator[Ground]:
    """Yield a ground on a server of its own, which is gone afterwards, whatever ends this process."""
    with contextlib.ExitStack() as stack:
        keeper = guardian or stack.enter_context(Guardian())
        server = EmbeddedServer(
            bindir,
            max_connections=max_connections,
            settings=settings,
            guardian=keeper,
            authentication=EMBEDDED_AUTHENTICATION,
        )
        stack.enter_context(server) if guardian is not None else server.__enter__()
        place: dict[str, Any] = {
            "host": str(server.socket_directory),
            "port": server.port,
            "user": server.superuser,
        }
        with contextlib.closing(psycopg2.connect(make_dsn(**place, dbname="postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("CREATE ROLE batsignal LOGIN IN ROLE pg_monitor")
                cursor.execute(f"CREATE ROLE {EMBEDDED_USER} LOGIN")
                cursor.execute(f"CREATE DATABASE {EMBEDDED_DATABASE} OWNER {EMBEDDED_USER}")
        dsn = make_dsn(**place, dbname=EMBEDDED_DATABASE, sslmode="disable")
        ground = Ground(dsn, share=share, guardian=keeper, embedded=server)
        try:
            ground.settle()
            yield ground
        finally:
            ground.close()


@contextlib.contextmanager
def on_given(
    dsn: str, *, share: float = 0.5, may_be_unmarked: bool = False, guardian: Guardian | None = None
) -> Iterator[Ground]:
    """Yield a ground on a server that exists, and leave it as it was; `ground.close` says how that went.

    Raises ConfigError when it is not marked as scratch or a pooler stands before it, UnreachableError when it cannot be
    had.
    """
    try:
        parse_dsn(dsn)
    except psycopg2.Error:
        # libpq's own message quotes the string, and with it the password.
        raise ConfigError("--dsn: expected a libpq connection string (postgresql://... or key=value pairs)") from None
    with contextlib.ExitStack() as stack:
        keeper = guardian or stack.enter_context(Guardian())
        try:
            _require_fitness(dsn, may_be_unmarked=may_be_unmarked)
            ground = Ground(dsn, share=share, guardian=keeper)
        except psycopg2.OperationalError as exc:
            raise UnreachableError(f"--dsn: the server cannot be reached: {first_line(exc)}") from exc
        try:
            try:
                ground.settle()
            except BudgetSpentError as exc:
                raise ConfigError(
                    f"--slots-share: {share:g} of {ground.slots.usable} usable slots are too few for a drill"
                ) from exc
            except psycopg2.Error as exc:
                raise ConfigError(
                    f"--dsn: {ground.administrator} cannot prepare the drill in database {ground.service_database}:"
                    f" {first_line(exc)}"
                ) from exc
            yield ground
        finally:
            ground.close()


def _require_fitness(dsn: str, *, may_be_unmarked: bool) -> None:
    """Raise ConfigError unless the database holds the table that says that it may be broken, and no pooler hides it."""
    connecting = psycopg2.connect(dsn, connect_timeout=administrator.CONNECT_SECONDS)
    with contextlib.closing(connecting) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL, current_database(), pg_backend_pid()", (MARKER_TABLE,))
        row = cursor.fetchone()
        # A pooler makes up the pid that it tells a client.
        if row is not None and row[2] != connection.info.backend_pid:
            raise ConfigError(
                "--dsn: expected the server itself, but a pooler answers there: a drill's sessions would be the"
                " pooler's, and what they hold would stay behind"
            )
    if row is not None and not row[0] and not may_be_unmarked:
        raise ConfigError(
            f"--dsn: database {row[1]} is not marked as scratch, and a drill takes slots and breaks things; if it may,"
            f" run CREATE TABLE {MARKER_TABLE} () in it, or give --i-know-what-i-do"
        )
