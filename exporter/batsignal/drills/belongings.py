"""What a drill makes on a server: a schema with tables, roles, databases, each registered before it exists.

Owns their names and the rights on them. On a given server a name carries the drill's prefix and token, so that a later
drill knows what a dead one left; on the embedded one names are plain. It must not remove anything: the janitor does.
"""

import secrets
from collections.abc import Callable

from psycopg2.sql import SQL, Identifier

from batsignal.drills import janitor_process
from batsignal.drills.administrator import Administrator
from batsignal.drills.logins import Logins

NAME_BYTES = 63


class Belongings:
    """Makes things as the administrator; `register` is told of each first. `owner` owns what the service works with."""

    def __init__(
        self,
        admin: Administrator,
        logins: Logins,
        *,
        prefix: str,
        schema: str,
        register: Callable[[janitor_process.Kind, str], None],
    ) -> None:
        self.schema = schema
        self.owner = admin.facts.user
        self._admin = admin
        self._logins = logins
        self._prefix = prefix
        self._register = register

    def make_schema(self) -> None:
        """Create the drill's own schema."""
        self._register("schema", self.schema)
        self._admin.execute(SQL("CREATE SCHEMA {}").format(Identifier(self.schema)))

    def role(self, name: str, *, connection_limit: int, options: str) -> str:
        """Create a role that can log in with a password of its own and use the schema; return its full name."""
        full_name = self._name(name)
        password = secrets.token_urlsafe(24)
        self._register("role", full_name)
        self._admin.execute(
            SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD %s ").format(
                Identifier(full_name), SQL(str(int(connection_limit)))
            )
            + SQL(options),
            (password,),
        )
        self._logins.set_password(full_name, password)
        if not self._admin.facts.is_superuser:  # or we could neither give it anything nor remove what it owns
            self._admin.execute(SQL("GRANT {} TO CURRENT_USER").format(Identifier(full_name)))
        self.let_in(full_name)
        return full_name

    def let_in(self, role: str) -> None:
        """Let a role into the database, use the schema and make tables in it."""
        database = self._admin.facts.database
        [(may_connect,)] = self._admin.execute("SELECT has_database_privilege(%s, %s, 'CONNECT')", (role, database))
        if not may_connect:  # a grant would stay behind as a trace, even once it is revoked
            self._admin.execute(
                SQL("GRANT CONNECT ON DATABASE {} TO {}").format(Identifier(database), Identifier(role))
            )
        self._admin.execute(SQL("GRANT ALL ON SCHEMA {} TO {}").format(Identifier(self.schema), Identifier(role)))

    def database(self, name: str, *, connection_limit: int) -> str:
        """Create an empty database and return its full name."""
        full_name = self._name(name)
        self._register("database", full_name)
        self._admin.execute(
            SQL("CREATE DATABASE {} TEMPLATE template0 CONNECTION LIMIT {}").format(
                Identifier(full_name), SQL(str(int(connection_limit)))
            )
        )
        return full_name

    def table(self, name: str, rows: int) -> str:
        """Create a table (id integer primary key, body text) and return its name with the schema, quoted."""
        table = Identifier(self.schema, name)
        self._admin.execute(SQL("CREATE TABLE {} (id integer PRIMARY KEY, body text NOT NULL)").format(table))
        if rows:
            fill = SQL("INSERT INTO {} SELECT n, md5(n::text) FROM generate_series(1, %s) AS n").format(table)
            self._admin.execute(fill, (int(rows),))
            self._admin.execute(SQL("ANALYZE {}").format(table))
        if self.owner != self._admin.facts.user:
            self._admin.execute(SQL("ALTER TABLE {} OWNER TO {}").format(table, Identifier(self.owner)))
        self._admin.execute(SQL("GRANT ALL ON {} TO PUBLIC").format(table))
        return f'"{self.schema}"."{name}"'

    def _name(self, name: str) -> str:
        return f"{self._prefix}{name}".encode()[:NAME_BYTES].decode(errors="ignore")
