"""How the actors of a drill get in: as whom, into which database, from which host.

Owns connection strings and the passwords of the drill's own roles. It must not open a session.
"""

from collections.abc import Mapping
from typing import Any

from psycopg2.extensions import make_dsn, parse_dsn

from batsignal.drills.administrator import CONNECT_SECONDS, ServerFacts
from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.drills.hosts import Hosts

# A statement of a drill that was killed shall end too.
CHECK_INTERVAL = "-c client_connection_check_interval=1000"
CHECK_INTERVAL_SINCE = 140000


class Logins:
    """Spells connection strings for a server; `hosts` only where it is the embedded one."""

    def __init__(
        self, administrator_dsn: str, facts: ServerFacts, *, embedded: EmbeddedServer | None, hosts: Hosts | None
    ) -> None:
        self.default_user = facts.user
        self._facts = facts
        self._given = parse_dsn(administrator_dsn)
        self._embedded = embedded
        self._hosts = hosts
        self._passwords: dict[str, str] = {}

    def set_password(self, user: str, password: str) -> None:
        """Remember the password of a role."""
        self._passwords[user] = password

    def dsn(self, application: str | None, user: str | None, database: str | None, host: int, **libpq: Any) -> str:
        """Return a connection string; `libpq` are further parameters of its."""
        user = user or self.default_user
        wanted: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, **libpq, "user": user}
        wanted["dbname"] = database or self._facts.database
        options = [str(wanted.pop("options", ""))]
        if self._facts.version_num >= CHECK_INTERVAL_SINCE:
            options.append(CHECK_INTERVAL)
        if any(options):
            wanted["options"] = " ".join(option for option in options if option)
        if application is not None:
            wanted["application_name"] = application
        if user in self._passwords:
            wanted["password"] = self._passwords[user]
        return make_dsn(None, **{**self._place(user, host), **wanted})

    def _place(self, user: str, host: int) -> Mapping[str, Any]:
        if self._embedded is None or self._hosts is None:
            # The administrator's own application_name, password and certificate are nobody else's.
            kept = {name: value for name, value in self._given.items() if name not in {"application_name", "options"}}
            if user == self._facts.user:
                return kept
            return {
                name: value for name, value in kept.items() if name not in {"password", "passfile", "sslcert", "sslkey"}
            }
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        if user == self._facts.user:
            return {"host": str(self._embedded.socket_directory), "port": self._embedded.port, **plain}
        return {"host": HOST, "port": self._hosts.port(host), **plain}
