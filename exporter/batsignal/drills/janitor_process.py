"""The janitor's own process: waits for the end of a pipe, then leaves a server as it was before the drill.

Run as a script by `batsignal.drills.janitor`. It exists because a drill that is killed with SIGKILL cannot clean up:
what would stay are statements in progress, roles, databases and a schema. It must touch nothing that was not registered
by its own parent, must get along with a server whose slots are all taken (the drill's own sessions end as their sockets
close), and must end. It knows only the standard library and psycopg2.

The first line on standard input is a JSON object with `dsn` (it may hold a password: so it is no argument), each
further line one registration:

    +PID    a session of the drill began        -PID    and ended
    {"kind": "role" | "database" | "schema", "name": NAME}      about to be created

On standard output: `ready`; after the pipe's end, one line for each thing that stays, then `clean` or `left`.
"""

import contextlib
import errno
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small
from psycopg2.sql import SQL, Identifier

PREFIX = "batsignal_drill_"
NAME_PATTERN = re.compile(rf"^{PREFIX}(?P<token>[0-9a-f]{{8}})(_.*)?$", re.DOTALL)
LOCK_CLASS = 0x62617473
APPLICATION_NAME = "batsignal drill clean-up"

GIVE_UP_SECONDS = 600.0
# Where nothing has listened for so long, the server is gone for good, as one that was made for a test. Should it come
# back after all, the next drill there removes what is abandoned.
GONE_SECONDS = 30.0
NOTHING_LISTENS = (errno.ECONNREFUSED, errno.ENOENT)
TRIES = 5
RETRY_SECONDS = 0.25
# PostgreSQL 14 and newer end a statement of a client that is gone by themselves.
OWN_END_SECONDS = 2.5
SESSIONS_SECONDS = 30.0
SESSION_SETTINGS = "-c lock_timeout=5s -c statement_timeout=30s -c client_min_messages=warning"

Kind = Literal["database", "schema", "role"]


@dataclass(slots=True)
class Estate:
    """What a drill owns on a server. Databases go before schemas and schemas before roles: the order of dependence."""

    sessions: set[int] = field(default_factory=set)
    databases: list[str] = field(default_factory=list)
    schemas: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)

    def add(self, kind: Kind, name: str) -> None:
        {"database": self.databases, "schema": self.schemas, "role": self.roles}[kind].append(name)

    def things(self) -> list[tuple[Kind, str]]:
        return [
            *(("database", name) for name in self.databases),
            *(("schema", name) for name in self.schemas),
            *(("role", name) for name in self.roles),
        ]


def is_token_alive(connection: Connection, token: str) -> bool:
    """Tell whether the drill of a token lives: its administrator's session holds an advisory lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s",
            (LOCK_CLASS, int(token, 16)),
        )
        return cursor.fetchone() is not None


def abandoned(connection: Connection) -> Estate:
    """Return what drills that live no more have left behind, as far as this database shows it."""
    estate = Estate()
    alive: dict[str, bool] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 'database', datname FROM pg_database WHERE datname LIKE %(like)s"
            " UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname LIKE %(like)s"
            " UNION ALL SELECT 'role', rolname FROM pg_roles WHERE rolname LIKE %(like)s",
            {"like": PREFIX.replace("_", r"\_") + "%"},
        )
        found = cursor.fetchall()
    for kind, name in found:
        match = NAME_PATTERN.match(name)
        if match is None:
            continue
        token = match["token"]
        if token not in alive:
            alive[token] = is_token_alive(connection, token)
        if not alive[token]:
            estate.add(kind, name)
    return estate


def remove(connection: Connection, kind: Kind, name: str) -> None:
    """Drop one thing and all in it; one that is gone already is fine. Raises psycopg2.Error."""
    identifier = Identifier(name)
    with connection.cursor() as cursor:
        if kind == "schema":
            cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(identifier))
        elif kind == "database":
            force = SQL(" WITH (FORCE)") if connection.server_version >= 130000 else SQL("")  # noqa: PLR2004 - PostgreSQL 13
            cursor.execute(SQL("DROP DATABASE IF EXISTS {}").format(identifier) + force)
        else:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            if cursor.fetchone() is not None:
                cursor.execute(SQL("DROP OWNED BY {} CASCADE").format(identifier))
                cursor.execute(SQL("DROP ROLE IF EXISTS {}").format(identifier))


def remove_all(connection: Connection, things: Iterable[tuple[Kind, str]]) -> list[str]:
    """Drop things in order, some of them repeatedly; return one line for each that stays."""
    left: dict[tuple[Kind, str], str] = dict.fromkeys(things, "")
    for _ in range(TRIES):
        for kind, name in list(left):
            try:
                remove(connection, kind, name)
            except psycopg2.OperationalError:
                if connection.closed:
                    raise
                left[kind, name] = "the server did not do it in time"
            except psycopg2.Error as exc:
                left[kind, name] = (exc.diag.message_primary or str(exc)).strip()
            else:
                del left[kind, name]
        if not left:
            break
        time.sleep(RETRY_SECONDS)
    return [f"{kind} {name}: {why}" for (kind, name), why in left.items()]


def end_sessions(connection: Connection, pids: Sequence[int], roles: Sequence[str]) -> None:
    """Wait for the drill's sessions to end by themselves, then terminate those that do not.

    Those of the drill's own roles all count. The others are of our own user, and began before now: pids are reused.
    """
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        row = cursor.fetchone()
        mine = {"pids": list(pids), "roles": list(roles), "now": row[0] if row else None}
        where = (
            "FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND (usename = ANY(%(roles)s)"
            " OR pid = ANY(%(pids)s) AND usename = current_user AND backend_start < %(now)s)"
        )
        while (waited := time.monotonic() - began) < SESSIONS_SECONDS:
            cursor.execute(f"SELECT count(*) {where}", mine)
            if cursor.fetchone() == (0,):
                return
            if waited >= OWN_END_SECONDS:
                with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(f"SELECT pg_terminate_backend(pid) {where}", mine)
            time.sleep(RETRY_SECONDS)


def connect(dsn: str) -> Connection:
    """Open the janitor's session. Raises psycopg2.OperationalError."""
    connection = psycopg2.connect(
        dsn, application_name=APPLICATION_NAME, connect_timeout=5, options=SESSION_SETTINGS, keepalives_idle=10
    )
    connection.autocommit = True
    return connection


def clean(dsn: str, estate: Estate) -> list[str]:
    """Remove a drill's estate, trying again for as long as the server cannot be had; return what stays."""
    began = heard = time.monotonic()
    why = ""
    while time.monotonic() < min(began + GIVE_UP_SECONDS, heard + GONE_SECONDS):
        try:
            with contextlib.closing(connect(dsn)) as connection:
                end_sessions(connection, sorted(estate.sessions), estate.roles)
                return remove_all(connection, estate.things())
        except psycopg2.OperationalError as exc:
            why = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
            if not nothing_listens(str(exc)):
                heard = time.monotonic()
            time.sleep(RETRY_SECONDS)
    return [f"{kind} {name}: {why}" for kind, name in estate.things()]


def nothing_listens(said: str) -> bool:
    """Tell whether libpq met nobody at all; its words are the system's.

    >>> nothing_listens('connection to server at "127.0.0.1", port 1 failed: Connection refused')
    True
    >>> nothing_listens("FATAL:  the database system is starting up")
    False
    """
    return any(os.strerror(number) in said for number in NOTHING_LISTENS)


def read(lines: Sequence[str]) -> Estate:
    """Fold registrations; a line that the parent's death cut short is passed over by the caller."""
    estate = Estate()
    for line in lines:
        if line.startswith("+"):
            estate.sessions.add(int(line[1:]))
        elif line.startswith("-"):
            estate.sessions.discard(int(line[1:]))
        else:
            entry = json.loads(line)
            estate.add(entry["kind"], entry["name"])
    return estate


def main() -> None:
    """Announce readiness, wait for the pipe's end, clean."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"ready\n")
    received = bytearray()
    while chunk := os.read(0, 65536):
        received += chunk
    lines = received.decode().split("\n")[:-1]
    left = clean(json.loads(lines[0])["dsn"], read(lines[1:])) if lines else []
    with contextlib.suppress(OSError):  # nobody may be there any more to read it
        os.write(1, "".join(f"{line}\n" for line in [*left, "left" if left else "clean"]).encode())


if __name__ == "__main__":
    main()
    sys.exit(0)
