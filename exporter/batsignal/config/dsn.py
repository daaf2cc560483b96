"""What a connection string must be, found out before anybody connects with it.

Owns the checks that libpq makes only while it connects, or not at all: a password whose `@`, `/` or `:` was not
percent-encoded is read as a host, a port or a database, and would then be said aloud by whoever cannot find it. No
part of the string is ever in what this says.
"""

from collections.abc import Mapping

import psycopg2
from psycopg2.extensions import parse_dsn

_PORT_MOST = 65535
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_WORDS = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "gssencmode": ("disable", "prefer", "require"),
    "channel_binding": ("disable", "prefer", "require"),
}
_WHOLE_NUMBERS = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
)


def fault(text: str) -> str | None:
    """Return what is wrong with a connection string, "" where that cannot be said without a part of it; else None.

    >>> fault("host=db1 port=notaport"), fault("postgresql://u:p@db1:5432,db2:5433/shop")
    ('its port is no number from 1 to 65535', None)
    """
    try:
        parts = {key: str(value) for key, value in parse_dsn(text).items()}
    except (psycopg2.Error, UnicodeError):
        return ""  # libpq's own message quotes the connection string, and with it the password
    if "\0" in text:  # libpq would read up to there and connect to somewhere else
        return ""
    return _fault_of_password(text, parts) or _fault_of_ports(parts) or _fault_of_words(parts)


def _fault_of_password(text: str, parts: Mapping[str, str]) -> str | None:
    hosts = parts.get("host", "").split(",")
    if any("@" in host[1:] for host in hosts):
        return "an @ in a user's name or password must be written as %40"
    if not text.startswith(("postgresql://", "postgres://")):
        return None
    place, _, settings = text.partition("://")[2].partition("?")
    if place.partition("/")[0].count("@") > 1:  # libpq ends the login at the first, and takes the rest for hosts
        return "an @ in a user's name or password must be written as %40"
    if "@" in place.partition("/")[2]:
        return "a / in a user's name or password must be written as %2F, an @ in a database's name as %40"
    if "@" in settings and "@" not in place:
        return "a ? in a user's name or password must be written as %3F, an @ behind the ? as %40"
    return None


def are_ports(text: str) -> bool:
    """Whether a text is what libpq takes for ports: numbers between commas, an empty one for the default."""
    numbers = [port.strip() for port in text.split(",") if port.strip()]
    return all(number.isascii() and number.isdigit() and 0 < int(number[:9]) <= _PORT_MOST for number in numbers)


def _fault_of_ports(parts: Mapping[str, str]) -> str | None:
    if not are_ports(parts.get("port", "")):
        return f"its port is no number from 1 to {_PORT_MOST}"
    ports = parts.get("port", "").split(",")
    places = (parts.get("hostaddr") or parts.get("host") or "").split(",")
    if len(ports) not in {1, len(places)}:
        return "expected one port for all hosts, or one for each"
    return None


def _fault_of_words(parts: Mapping[str, str]) -> str | None:
    for key, words in _WORDS.items():
        if parts.get(key) and parts[key] not in words:
            return f"its {key} is none of {', '.join(words)}"
    for key in _WHOLE_NUMBERS:
        number = parts.get(key, "").strip()
        if number and not number.removeprefix("-").isdecimal():
            return f"its {key} is no whole number"
    return None
