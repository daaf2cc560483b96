"""What sessions call themselves, and how names and texts from outside are shown.

Owns how an `application_name` is read as service and version, and what is done to a text that may hold anything so that
it stays on its line, in its label, on its page. It knows no session and no signal.
"""

import re
import string
from dataclasses import dataclass
from functools import lru_cache

# PostgreSQL's own limit is 63 bytes; what is longer came by another way.
NAME_LONGEST = 63

# Names that a driver or a shell gives by itself: they say what was linked, not who it is.
UNNAMED = frozenset(
    name.casefold()
    for name in (
        "",
        "psql",
        "PostgreSQL JDBC Driver",
        "pgjdbc",
        "pgjdbc-ng",
        "r2dbc-postgresql",
        "vertx-pg-client",
        "psycopg",
        "psycopg2",
        "psycopg3",
        "asyncpg",
        "aiopg",
        "pg8000",
        "Npgsql",
        "node-postgres",
        "pg",
        "postgres.js",
        "pgx",
        "pq",
        "lib/pq",
        "libpq",
        "libpqxx",
        "tokio-postgres",
        "postgrex",
        "psqlodbc",
        "[unknown]",
        "unknown",
    )
)

# What PgBouncer appends with `application_name_add_host`: from where and which port a client came to it. It is another
# one for each session, and says no more of who that is.
ADDED_BY_POOLER = re.compile(
    r" - (?:unix(?:\([^()]*\))?|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\]|[0-9a-f]*(?::[0-9a-f.]*){2,}):\d{1,5}$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Who a session says it is: service and version, each None when it does not say."""

    service: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class ApplicationPattern:
    """Splits `application_name` into service and version.

    >>> pattern = ApplicationPattern(re.compile(r"^(?P<service>[^@]+)@(?P<version>.+)$"))
    >>> pattern.split("web@2.4.0")
    Application(service='web', version='2.4.0')
    >>> pattern.split("billing")
    Application(service='billing', version=None)
    >>> pattern.split("web@2.4.0 - 10.0.0.3:4711")
    Application(service='web', version='2.4.0')
    >>> pattern.split("psql")
    Application(service=None, version=None)
    """

    regex: re.Pattern[str]

    def split(self, application_name: str | None) -> Application:
        """Return the service and the version in a name; a name without a match is the service as a whole.

        The address that PgBouncer may append is no part of the name.
        """
        return _split(self.regex, application_name)

    def can_name(self, service: str) -> bool:
        """Return whether some session could be of that service: alone, or with a version beside it.

        Which separator a pattern takes cannot be read from it, so each is tried, on either side of the name.

        >>> pattern = ApplicationPattern(re.compile(r"^(?P<service>[^@]+)@(?P<version>.+)$"))
        >>> pattern.can_name("web"), pattern.can_name("web@x")
        (True, False)
        """
        if self.split(service).service == service:
            return True
        named = (
            name
            for separator in f"{string.punctuation} "
            for name in (f"{service}{separator}1", f"{service}{separator}1.0.0", f"1{separator}{service}")
        )
        return any(_split.__wrapped__(self.regex, name).service == service for name in named)


# Names repeat from session to session and from tick to tick; bounded, because hostile ones do not.
@lru_cache(maxsize=20_000)
def _split(regex: re.Pattern[str], application_name: str | None) -> Application:
    name = ADDED_BY_POOLER.sub("", printable(application_name or ""))
    if name.casefold() in UNNAMED:
        return Application(service=None, version=None)
    match = regex.search(name)
    if match is None:
        return Application(service=name, version=None)
    groups = match.groupdict()
    # A pattern may match nothing at all of a name, or only blanks.
    service, version = ((groups.get(group) or "").strip() for group in ("service", "version"))
    return Application(service=service or name, version=version or None)


def printable(name: str) -> str:
    """Return a name as it can be shown on one line, a label or a page.

    The server cuts names at 63 bytes, maybe within a character; other servers, poolers and recordings let through what
    they like. What cannot be printed (line breaks, control and direction marks, halves of characters) is `?`, as
    PostgreSQL itself does it.
    """
    cut = name.rstrip("\ufffd").strip()[:NAME_LONGEST]
    return cut if cut.isprintable() else "".join(char if char.isprintable() else "?" for char in cut)


def legible(text: str) -> str:
    r"""Return a text from outside as one line without control and direction marks: for where it comes in.

    Names of roles and databases, statements, and what stands in a recording may hold anything. A log, a terminal or a
    page that shows it must not be led astray. Unlike `printable` it cuts nothing off.

    >>> legible("web\n\x1b[31m\u202egnp")
    'web ?[31m?gnp'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)
