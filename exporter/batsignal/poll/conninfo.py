"""Connection strings: what libpq is given so that connecting can neither hang nor misbehave, and what is safe to show.

libpq resolves host names itself, inside a call that has no deadline; so names become addresses here first
(`hostaddr`), and `host` stays for certificates and password files.
"""

import os
import re
from urllib.parse import quote

from psycopg2.extensions import parse_dsn

from batsignal.poll.resolve import ResolveError, Resolver

APPLICATION_NAME = "batsignal"

_GUARDS = {
    # A Kerberos library may wait on its own servers; who needs it asks for it.
    "gssencmode": "disable",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_ALWAYS = {"application_name": APPLICATION_NAME, "client_encoding": "UTF8"}


def connect_parameters(
    dsn: str, resolver: Resolver, wait_seconds: float, turn: int = 0, *, replication: bool = False
) -> dict[str, str]:
    """Return libpq parameters for `dsn` with every host name resolved.

    With `replication` the session takes one of the server's walsenders, which are apart from the slots of clients, and
    still answers queries. `turn` rotates the addresses, so that a first address that eats packets does not hide a
    second that answers.
    Raises ResolveError, and psycopg2.ProgrammingError for a string that libpq cannot read.
    """
    given = {key: str(value) for key, value in parse_dsn(dsn).items()} if dsn else {}
    parameters = _GUARDS | given | _ALWAYS
    if replication:
        parameters["replication"] = "database"
    host = given.get("host") or os.environ.get("PGHOST")
    has_address = given.get("hostaddr") or os.environ.get("PGHOSTADDR")
    if not host or has_address or "service" in given or "PGSERVICE" in os.environ:
        return parameters
    hosts = host.split(",")
    ports = (given.get("port") or os.environ.get("PGPORT") or "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts) or all(_is_socket(name) for name in hosts):
        return parameters  # libpq has its own words for the first, and no names to resolve in the second
    places = _places(list(zip(hosts, ports, strict=True)), resolver, wait_seconds)
    turn %= len(places)
    places = places[turn:] + places[:turn]
    return parameters | {
        "host": ",".join(name for name, _, _ in places),
        "hostaddr": ",".join(address for _, address, _ in places),
        "port": ",".join(port for _, _, port in places),
    }


def _places(hosts: list[tuple[str, str]], resolver: Resolver, wait_seconds: float) -> list[tuple[str, str, str]]:
    """Return (name, address, port) of every address; a name without one is passed over, as libpq does, for others."""
    places: list[tuple[str, str, str]] = []
    missing: ResolveError | None = None
    for name, port in hosts:
        if _is_socket(name):
            places.append((name, "", port))
            continue
        try:
            addresses = resolver.addresses(name, wait_seconds / len(hosts))
        except ResolveError as exc:
            missing = exc
        else:
            places += [(name, address, port) for address in addresses]
    if not places and missing is not None:
        raise missing
    return places


def _is_socket(host: str) -> bool:
    return not host or host.startswith(("/", "@"))


def redacted(text: str, *secrets: str | None) -> str:
    """Return `text` with every spelling of the secrets replaced by `******`.

    One that is a mere word is replaced where it stands as a word: else a password such as "a" would make any text
    unreadable, and by its holes be found out.

    >>> redacted("cannot log in with p@ss or p%40ss", "p@ss")
    'cannot log in with ****** or ******'
    >>> redacted("password is wrong: pass", "pass")
    'password is wrong: ******'
    """
    for secret in secrets:
        if secret:
            for spelling in {secret, quote(secret, safe=""), quote(secret)}:
                word = rf"\b{spelling}\b" if secret.isalnum() and secret.isascii() else re.escape(spelling)
                text = re.sub(word, "******", text)
    return text
