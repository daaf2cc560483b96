"""What another session sees of a server under drill: it knows nothing of the drill, and counts by SQL what is there."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2

from batsignal.drills.ground import Ground

ACTORS = "backend_type = 'client backend' AND application_name NOT IN ('outside', 'batsignal', 'batsignal drill')"


@dataclass(frozen=True, slots=True)
class Outside:
    """The session."""

    connection: psycopg2.extensions.connection

    def ask(self, question: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(question, parameters or None)
            return cursor.fetchall()

    def one(self, question: str, *parameters: Any) -> Any:
        return self.ask(question, *parameters)[0][0]

    def sessions(self, where: str = "true") -> int:
        """Count the sessions of the drill's actors."""
        return int(self.one(f"SELECT count(*) FROM pg_stat_activity WHERE {ACTORS} AND ({where})"))

    def established(self) -> int:
        """Return how many sessions the service's database ever saw, as the server itself counts them."""
        return int(self.one("SELECT sessions FROM pg_stat_database WHERE datname = current_database()"))


@contextmanager
def outside(ground: Ground) -> Iterator[Outside]:
    """Yield such a session on the embedded server of a drill."""
    assert ground.embedded is not None
    with closing(
        psycopg2.connect(
            host=str(ground.embedded.socket_directory),
            port=ground.embedded.port,
            user=ground.embedded.superuser,
            dbname=ground.service_database,
            application_name="outside",
        )
    ) as connection:
        connection.autocommit = True
        yield Outside(connection)
