"""The administrator of a server under drill: two sessions, and the lock that says that the drill lives.

Owns what is asked of the server on the drill's own behalf. One session is the heart: it holds the advisory lock, counts
slots and notices that the server is gone; the other runs statements. It must not lend either to an actor.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small
from psycopg2.sql import Composable

from batsignal.drills import janitor_process
from batsignal.errors import UnreachableError
from batsignal.snapshot import Slots

APPLICATION_NAME = "batsignal drill"
SESSIONS = 2
CONNECT_SECONDS = 5
RESERVED_SINCE = 160000
HANG_SECONDS = 5.0
CLOSE_SECONDS = 1.0
# A server whose machine died says nothing: the drill must notice, and say so.
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a drill must know of its server and of its own rights there."""

    slots: Slots
    version_num: int
    user: str
    database: str
    is_superuser: bool
    may_create_role: bool
    may_create_database: bool


class Administrator:
    """Opens its sessions with `dsn`; each is told to `on_open` by the pid of its server process.

    `may_come_back`: the drill itself may restart the server. Of one that it does not, a heart that stopped means that
    every session of the drill is gone as well, however soon the server answers again.
    """

    def __init__(self, dsn: str, token: str, *, may_come_back: bool) -> None:
        self.on_open: Callable[[int], None] = lambda _pid: None
        self._dsn = dsn
        self._may_come_back = may_come_back
        self._token = int(token, 16)
        self._heart_lock = threading.Lock()
        self._lock = threading.Lock()
        self._executor: Connection | None = None
        self._is_hung = False
        self.heart = self._open()
        self._take_lock()
        self.facts = self._learn()

    @property
    def is_lost(self) -> bool:
        """Whether the last question found no server, or one that does not answer."""
        return self.heart.closed != 0 or self._is_hung

    @property
    def may_use_reserved(self) -> bool:
        """Whether the role may take slots that are reserved for it and its like (PostgreSQL 16 and newer)."""
        if self.facts.version_num < RESERVED_SINCE:
            return False
        [(may,)] = self.ask("SELECT pg_has_role(current_user, 'pg_use_reserved_connections', 'member')")
        return bool(may)

    def used(self) -> int:
        """Return how many slots are taken now, by whomever. Raises UnreachableError when the server is gone."""
        [(count,)] = self.ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        return int(count)

    def execute(
        self, sql: str | Composable, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement after the other, in autocommit; return the rows. Raises psycopg2.Error."""
        with self._lock:
            if self._executor is None or self._executor.closed:
                self._executor = self._open()
            with self._executor.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a quick query on the heart; one that stopped is started again. Raises UnreachableError."""
        if not self._heart_lock.acquire(timeout=HANG_SECONDS):
            self._is_hung = True
            raise UnreachableError(f"the server under drill has not answered for {HANG_SECONDS:.0f} s")
        try:
            for is_last in (False, True) if self._may_come_back else (True,):
                try:
                    if self.heart.closed:
                        self.heart = self._open()
                        self._take_lock()
                    with self.heart.cursor() as cursor:
                        cursor.execute(sql)
                        return cursor.fetchall()
                except psycopg2.Error as exc:  # a crash of the server is a bare DatabaseError
                    self.heart.close()
                    if is_last:
                        raise UnreachableError(f"the server under drill went away: {first_line(exc)}") from exc
        finally:
            self._heart_lock.release()
        raise RuntimeError("not reached")

    def close(self) -> None:
        """End both sessions, save one that is stuck in a statement: it ends with this process."""
        for lock, connection in ((self._lock, self._executor), (self._heart_lock, self.heart)):
            if connection is not None and lock.acquire(timeout=CLOSE_SECONDS):
                with contextlib.suppress(psycopg2.Error):
                    connection.close()
                lock.release()

    def _learn(self) -> ServerFacts:
        rows = dict(
            self.ask(
                "SELECT name, setting FROM pg_settings WHERE name IN ('max_connections',"
                " 'superuser_reserved_connections', 'reserved_connections', 'server_version_num')"
            )
        )
        [(user, database, is_superuser, may_create_role, may_create_database)] = self.ask(
            "SELECT rolname, current_database(), rolsuper, rolcreaterole OR rolsuper, rolcreatedb OR rolsuper"
            " FROM pg_roles WHERE rolname = current_user"
        )
        return ServerFacts(
            slots=Slots(
                max=int(rows["max_connections"]),
                superuser_reserved=int(rows["superuser_reserved_connections"]),
                reserved=int(rows.get("reserved_connections", 0)),
            ),
            version_num=int(rows["server_version_num"]),
            user=user,
            database=database,
            is_superuser=is_superuser,
            may_create_role=may_create_role,
            may_create_database=may_create_database,
        )

    def _take_lock(self) -> None:
        with self.heart.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", (janitor_process.LOCK_CLASS, self._token))

    def _open(self) -> Connection:
        connection: Connection = psycopg2.connect(
            self._dsn, application_name=APPLICATION_NAME, connect_timeout=CONNECT_SECONDS, **_KEEPALIVES
        )
        connection.autocommit = True
        self.on_open(connection.info.backend_pid)
        return connection


def first_line(exc: BaseException) -> str:
    """Return what an error says, on one line."""
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
