"""Real servers for the tests that need one, of every supported major (`majors`)."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psycopg2
import pytest

from batsignal.drills.embedded import HOST, EmbeddedServer
from majors import EACH, bindir

MAX_CONNECTIONS = 40
SUPERUSER_RESERVED = 3
RESERVED_FROM_16 = 2
PASSWORD = "s3cr&t/pa:ss@w%rd"

# In front of the scratch server's own lines, which trust everybody.
HBA = """\
host all with_password 127.0.0.1/32 scram-sha-256
host all rejected      127.0.0.1/32 reject
"""
ROLES = f"""
CREATE ROLE with_password LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor;
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
CREATE ROLE nobody_special LOGIN;
CREATE ROLE rejected LOGIN;
CREATE ROLE emergency LOGIN REPLICATION IN ROLE pg_monitor;
"""
ROLE_FROM_16 = "CREATE ROLE in_reserve LOGIN IN ROLE pg_monitor, pg_use_reserved_connections"


@pytest.fixture(scope="session", autouse=True)
def environment_of_libpq() -> Iterator[None]:
    """Keep PG* variables and the password file of whoever runs the tests out of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("PG", "DATA_SOURCE"))]:
            patch.delenv(name)
        patch.setenv("PGPASSFILE", "/nonexistent")
        yield


@dataclass(slots=True)
class Sessions:
    """Opens plain sessions, as an application would, and closes them at the end of the test."""

    _stack: ExitStack = field(default_factory=ExitStack)

    def open(self, server: EmbeddedServer, **parameters: Any) -> psycopg2.extensions.connection:
        """Open a session in autocommit; parameters are libpq's, over TCP as the superuser by default."""
        given = {"host": HOST, "port": server.port, "user": server.superuser, "dbname": "postgres", **parameters}
        connection = psycopg2.connect(**given)
        connection.autocommit = True
        self._stack.callback(connection.close)
        return connection

    def run(self, server: EmbeddedServer, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the superuser in a session of their own; return the rows of the last."""
        connection = self.open(server)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    opened = Sessions()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any], str], Any]:
    """Wait for a condition and return what it gave; fails with what was waited for."""

    def wait(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
        end = time.monotonic() + seconds
        while not (answer := condition()):
            assert time.monotonic() < end, f"waited in vain: {what}"
            time.sleep(0.02)
        return answer

    return wait


def start(stack: ExitStack, version: str, **settings: str | int) -> EmbeddedServer:
    """Start a server with a few roles; the session's password is asked for only of `with_password`."""
    given: dict[str, str | int] = {
        "superuser_reserved_connections": SUPERUSER_RESERVED,
        "compute_query_id": "on",
        "track_activity_query_size": 16384,
        "autovacuum": "off",
    }
    has_reserve = int(version) >= 16
    if has_reserve:
        given["reserved_connections"] = RESERVED_FROM_16
    server = stack.enter_context(
        EmbeddedServer(bindir(version), max_connections=MAX_CONNECTIONS, settings=given | settings)
    )
    hba = server.data_directory / "pg_hba.conf"
    hba.write_text(HBA + hba.read_text())
    server.restart()
    opened = Sessions()
    # The scratch server commits to memory only: a crash would take the roles away again.
    opened.run(server, ROLES, *([ROLE_FROM_16] if has_reserve else []), "CHECKPOINT")
    opened.close()
    return server


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], EmbeddedServer]]:
    """The server of a major, started when a test first asks for it."""
    with ExitStack() as stack:
        yield cache(lambda version: start(stack, version))


@pytest.fixture(scope="session")
def postgres15(servers: Callable[[str], EmbeddedServer]) -> EmbeddedServer:
    return servers("15")


@pytest.fixture(scope="session")
def postgres18(servers: Callable[[str], EmbeddedServer]) -> EmbeddedServer:
    return servers("18")


@pytest.fixture(params=EACH, ids="PostgreSQL {}".format)
def postgres(request: pytest.FixtureRequest, servers: Callable[[str], EmbeddedServer]) -> EmbeddedServer:
    """Each server in turn; shared by all tests, so leave it as it was."""
    return servers(request.param)


@pytest.fixture
def fresh_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """Start a server of the test's own, to be broken: `fresh_server("15", setting=value)`."""
    with ExitStack() as stack:

        def start_one(version: str = "15", **settings: str | int) -> EmbeddedServer:
            return start(stack, version, **settings)

        yield start_one
