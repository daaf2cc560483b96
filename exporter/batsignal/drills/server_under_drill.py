"""The server under drill, and the drill's only way to it.

Owns what the drill holds on it (sessions, roles, databases, a schema) and that nothing of it stays: the embedded server
goes away with all that is on it; on a given one a janitor cleans, whatever ends the drill. It must not know what an act
does.

The share: `budget` is `share` times the usable slots, rounded down, and everything that the drill starts is counted in
it at every moment: actors, background, programs, its own two administrative sessions, the daemon. With a share of 1 and
actors that are ordinary roles the server itself holds that bound, and refuses for real; otherwise a seat is taken from
the budget before a session is asked for, and BudgetSpentError takes the server's place.
"""

import contextlib
import math
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import make_dsn
from psycopg2.sql import Composable

from batsignal.drills import administrator, janitor_process, server_programs
from batsignal.drills.administrator import Administrator
from batsignal.drills.belongings import Belongings
from batsignal.drills.embedded import EmbeddedServer, StopMode
from batsignal.drills.guardian import Guardian
from batsignal.drills.hosts import Hosts
from batsignal.drills.janitor import Cleaned, Janitor
from batsignal.drills.logins import Logins
from batsignal.drills.seats import DrillSession, Seats
from batsignal.drills.sessions import Sessions
from batsignal.errors import ConfigError, UnreachableError

if TYPE_CHECKING:
    from batsignal.drills.actors.health_endpoint import HealthEndpoint
    from batsignal.drills.watcher import Watcher

EMBEDDED_USER = "web"
CLEAN_SECONDS = 60.0
LOST_SERVER_SECONDS = 3.0
END_SECONDS = 5.0


class Ground:
    """One scratch server that a drill may play on. Made by `on_embedded` and `on_given`."""

    def __init__(self, dsn: str, *, share: float, guardian: Guardian, embedded: EmbeddedServer | None = None) -> None:
        self.embedded = embedded
        self.guardian = guardian
        self.share = share
        self.stopped = threading.Event()
        self.endpoint: HealthEndpoint | None = None
        self.daemon: Watcher | None = None
        self.token = f"{secrets.randbits(31):08x}"
        self.leftovers: tuple[str, ...] = ()
        self.given_dsn = dsn
        self._admin = Administrator(dsn, self.token, may_come_back=embedded is not None)
        facts = self._admin.facts
        self.slots = facts.slots
        self.server_version_num = facts.version_num
        self.administrator = facts.user
        self.service_database = facts.database
        self.seats = Seats(math.floor(share * self.slots.usable), strict=share < 1)
        self._sessions = Sessions(self.seats, began=self._session_began, ended=self._session_ended)
        self._hosts = Hosts(embedded.port) if embedded is not None else None
        self._logins = Logins(dsn, facts, embedded=embedded, hosts=self._hosts)
        prefix = f"{janitor_process.PREFIX}{self.token}"
        self.schema = prefix if embedded is None else "drill"
        self._belongings = Belongings(
            self._admin,
            self._logins,
            prefix=f"{prefix}_" if embedded is None else "",
            schema=self.schema,
            register=self._register,
        )
        self._janitor: Janitor | None = None
        self._lock = threading.Lock()
        self._directory: Path | None = None
        self._away = 0
        self._is_closed = False
        self._cleaned: Cleaned | None = None

    # -- what is known ---------------------------------------------------------------------------------------------

    @property
    def budget(self) -> int:
        """Sessions that the drill may hold at once."""
        return self.seats.budget

    @property
    def held(self) -> int:
        """Sessions that the drill holds, with those that are being opened (when counted strictly) or closed."""
        return self.seats.held

    @property
    def room(self) -> int:
        """Sessions that the drill may still open within its share."""
        return max(self.budget - self.held, 0)

    @property
    def refusals(self) -> int:
        """How often the server itself refused a session."""
        return self._sessions.refused

    @property
    def last_refusal(self) -> str:
        """What the server said last when it refused."""
        return self._sessions.last_refusal

    @property
    def service_user(self) -> str:
        """The role that applications log in as: an ordinary one wherever that can be had."""
        return self._belongings.owner

    @property
    def may_create_role(self) -> bool:
        return self._admin.facts.may_create_role

    @property
    def may_create_database(self) -> bool:
        return self._admin.facts.may_create_database

    def used(self) -> int:
        """Return how many slots are taken on the server now, by whomever. Raises UnreachableError when it is gone."""
        return self._admin.used()

    # -- sessions --------------------------------------------------------------------------------------------------

    def connect(
        self,
        application: str | None,
        *,
        user: str | None = None,
        database: str | None = None,
        host: int = 1,
        autocommit: bool = True,
        **libpq: Any,
    ) -> DrillSession:
        """Open a session as an application would; None is an application that does not name itself.

        `host` N comes from 127.0.0.N on the embedded server; on a given one all hosts are this machine. Raises
        psycopg2.OperationalError as the server said it, and BudgetSpentError (one of those) when the share is taken.
        """
        dsn = self.dsn(application, user=user, database=database, host=host, **libpq)
        # The reserved slots are open to the administrator: there the server holds no bound.
        is_counted_first = self.seats.strict or (user or self.service_user) == self.administrator
        session = self._sessions.open(dsn, is_counted_first=is_counted_first, autocommit=autocommit)
        if host != 1:
            session.cancel_by = self._cancel
        return session

    def dsn(
        self,
        application: str | None,
        *,
        user: str | None = None,
        database: str | None = None,
        host: int = 1,
        **libpq: Any,
    ) -> str:
        """Return a libpq connection string for a program or another driver. Take its seats with `charge`."""
        return self._logins.dsn(application, user or self.service_user, database, host, **libpq)

    def charge(self, count: int) -> Callable[[], None]:
        """Take seats for a program's sessions; call what comes back when the program has ended."""
        self.seats.take(count)
        once = threading.Lock()

        def give_back() -> None:
            if once.acquire(blocking=False):
                self.seats.give_back(count)

        return give_back

    def execute(
        self, sql: str | Composable, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, in the service database; return its rows.

        Raises psycopg2.Error. One at a time: what may wait for long belongs in a session of its own.
        """
        return self._admin.execute(sql, parameters)

    # -- things ----------------------------------------------------------------------------------------------------

    def role(self, name: str, *, connection_limit: int = -1, options: str = "") -> str:
        """Create a role that can log in, and return its full name; `options` go behind `CREATE ROLE name LOGIN`."""
        return self._belongings.role(name, connection_limit=connection_limit, options=options)

    def database(self, name: str, *, connection_limit: int = -1) -> str:
        """Create an empty database and return its full name."""
        return self._belongings.database(name, connection_limit=connection_limit)

    def table(self, name: str, rows: int = 0) -> str:
        """Create a table (id integer primary key, body text) of the service's, and return its name with the schema."""
        return self._belongings.table(name, rows)

    def program(self, name: str) -> Path:
        """Return the path of a program. Raises UnreachableError that names the missing one."""
        found = server_programs.find_program(name, self.embedded.bindir if self.embedded else None)
        if found is None:
            raise UnreachableError(f"the program {name} is not installed; this drill cannot do without it")
        return found

    def spawn(self, command: Sequence[str | Path], **facts: Any) -> subprocess.Popen[bytes]:
        """Start a program that ends with the drill; `facts` are those of `Guardian.spawn`."""
        return self.guardian.spawn([str(word) for word in command], **{"cwd": self.directory, **facts})

    @property
    def directory(self) -> Path:
        """A private directory for the drill's files, removed at the end."""
        with self._lock:
            if self._directory is None:
                self._directory = self.guardian.make_directory("drill")
            return self._directory

    def start_thread(self, run: Callable[[], None], name: str) -> threading.Thread:
        """Start an actor; it waits on `stopped` instead of sleeping, and ends with the process at the latest."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    # -- a server that goes away on purpose ------------------------------------------------------------------------

    @property
    def is_away(self) -> bool:
        """Whether the act itself has stopped the server, or is restarting it."""
        return self._away > 0

    @contextlib.contextmanager
    def away(self) -> Iterator[EmbeddedServer]:
        """Stop and start the server within this block: outside of it, a server that is gone ends the drill."""
        if self.embedded is None:
            raise ConfigError("--dsn: this drill stops its server, which it does only with the embedded one")
        self._away += 1
        try:
            yield self.embedded
        finally:
            if not self.embedded.running and not self.stopped.is_set():
                self.embedded.start()
            self._away -= 1

    def restart(self, mode: StopMode = "fast", *, down_seconds: float = 0.0) -> None:
        """Restart the embedded server; it stays down for so long, or until the drill ends."""
        with self.away() as server:
            server.stop(mode)
            self.stopped.wait(down_seconds)
            server.start()

    def require_life(self) -> None:
        """Raise UnreachableError when the server is gone and the act has no hand in it."""
        if not self.is_away:
            try:
                self.used()
            except UnreachableError:
                if not self.is_away:
                    raise

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> Cleaned | None:
        """End every session and remove what was made; None when there was nothing but the embedded server."""
        self.stopped.set()
        if not self._is_closed:
            self._is_closed = True
            self._cleaned = self._close()
        return self._cleaned

    def _close(self) -> Cleaned | None:
        with contextlib.suppress(UnreachableError):
            self._admin.used()
        is_server_lost = self._admin.is_lost
        self._sessions.end(time.monotonic() + END_SECONDS, is_server_lost=is_server_lost)
        if self._hosts is not None:
            self._hosts.close()
        self._admin.close()
        if self._janitor is None:
            return None
        return self._janitor.close(patience_seconds=LOST_SERVER_SECONDS if is_server_lost else CLEAN_SECONDS)

    # -- within ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Take possession: the lock that says we live, what dead drills left, the janitor, the schema, the user."""
        self.seats.take(administrator.SESSIONS)
        if self.embedded is None:
            abandoned = janitor_process.abandoned(self._admin.heart).things()
            stay = janitor_process.remove_all(self._admin.heart, abandoned)
            gone = [f"{kind} {name}" for kind, name in abandoned]
            self.leftovers = tuple(name for name in gone if not any(line.startswith(f"{name}:") for line in stay))
            self._janitor = Janitor(make_dsn(self.given_dsn, application_name=janitor_process.APPLICATION_NAME))
            self._admin.on_open = self._janitor.session_began
            self._janitor.session_began(self._admin.heart.info.backend_pid)
        self._belongings.make_schema()
        if self.embedded is not None:
            self._belongings.owner = EMBEDDED_USER
            self._belongings.let_in(EMBEDDED_USER)
        elif self._admin.facts.is_superuser:
            # A superuser could take the reserved slots, and lock out who comes to help.
            self._use_own_role()
        elif self._admin.may_use_reserved:
            self.seats.strict = True

    def _use_own_role(self) -> None:
        role = self.role("web")
        give_back = self.charge(1)
        try:
            psycopg2.connect(self.dsn(administrator.APPLICATION_NAME, user=role)).close()
        except psycopg2.OperationalError:
            # pg_hba.conf lets in known roles only: then it must be the one given, which the server does not hold back.
            self.seats.strict = True
        else:
            self._belongings.owner = role
        finally:
            give_back()

    def _register(self, kind: janitor_process.Kind, name: str) -> None:
        if self._janitor is not None:
            self._janitor.register(kind, name)

    def _cancel(self, server_pid: int) -> None:
        self.execute("SELECT pg_cancel_backend(%s)", (server_pid,))

    def _session_began(self, server_pid: int) -> None:
        if self._janitor is not None:
            self._janitor.session_began(server_pid)

    def _session_ended(self, server_pid: int) -> None:
        if self._janitor is not None and server_pid:
            self._janitor.session_ended(server_pid)
