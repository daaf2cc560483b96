"""How the page says things: times, spans, states and names in words a person reads at three in the morning.

Pure functions and tables; no clock, no board. Also the guard for names from outside: an application may call itself
anything, and what it calls itself must neither steer the terminal nor turn the line around.
"""

import unicodedata
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from batsignal.spelling import duration

MINUTE_SECONDS = 60
HOUR_SECONDS = 3600
LISTED_MOST = 3
LABEL_CHARACTERS_MOST = 26

STATES = {
    "starting": "first look under way",
    "up": "up",
    "slots_full": "no slot left: full but alive",
    "role_limit": "our role's own connection limit is reached: the server is alive",
    "database_limit": "the database's own connection limit is reached: the server is alive",
    "not_accepting": "starting, stopping or in recovery: accepts nobody yet",
    "no_database": "the database we are to watch from does not exist or takes no sessions",
    "auth_failed": "our login was refused: the server is alive",
    "tls_failed": "no TLS connection could be made",
    "refused": "connection refused: nothing listens there",
    "timeout": "no answer in time",
    "unreachable": "host cannot be reached",
}
VIEWS = {
    "session": "own session",
    "reserved": "a reserved slot",
    "walsender": "the replication path",
    "process_titles": "the server's process titles",
    "none": "no view",
}
KINDS = {
    "leak": "connection leak",
    "pool_starvation": "starved pool",
    "query_pileup": "query pile-up",
    "lock_pileup": "lock pile-up",
    "storm": "connection storm",
    "idle_in_transaction": "idle in transaction",
    "saturation": "short of slots",
    "endpoint_down": "health endpoint down",
    "endpoint_slow": "health endpoint slow",
    "database_unreachable": "database unreachable",
}
SUBJECT_KEYS = (
    ("user", "user"),
    ("database", "database"),
    ("client", "client"),
    ("query_id", "statement"),
    ("endpoint", "endpoint"),
    ("pool", "pool"),
    ("limit", "limit"),
    ("blocker", "blocker"),
)


def printable(value: Any) -> Any:
    r"""Return a string with control, direction and unassigned characters spelled out; anything else as it is.

    >>> print(printable("web\x07\u202egnp"))
    web\u{7}\u{202e}gnp
    """
    if value is None:
        return ""
    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        f"\\u{{{ord(char):x}}}" if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" else char
        for char in value
    )


def utc(epoch: float, now: float) -> str:
    """Return the time of day in UTC, with the date when it is not today's.

    >>> utc(1760000600.0, 1760000700.0), utc(1760000600.0, 1760100000.0)
    ('09:03:20 UTC', '2025-10-09 09:03:20 UTC')
    """
    moment, today = (datetime.fromtimestamp(t, UTC) for t in (epoch, now))
    return moment.strftime("%H:%M:%S UTC" if moment.date() == today.date() else "%Y-%m-%d %H:%M:%S UTC")


def iso(epoch: float) -> str:
    """Return an instant as the `datetime` attribute wants it.

    >>> iso(1760000600.9)
    '2025-10-09T09:03:20Z'
    """
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(epoch: float, now: float) -> str:
    """Return how long an instant is past; clocks that differ a little do not make it the future.

    >>> ago(100.0, 107.0), ago(101.0, 100.5)
    ('7 s ago', '0 s ago')
    """
    return f"{duration(now - epoch)} ago"


def clock(seconds: float) -> str:
    """Return a count-down's face; the script of the page counts on in the same form.

    >>> clock(166), clock(3725), clock(0.4)
    ('2:46', '1:02:05', '0:00')
    """
    whole = max(int(seconds), 0)
    hours, rest = divmod(whole, HOUR_SECONDS)
    minutes, left = divmod(rest, MINUTE_SECONDS)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def who(application: str | None, version: str | None) -> str:
    """Return an application and its version as one name.

    >>> who("web", "2.4.0"), who("billing", None), who("", "")
    ('web@2.4.0', 'billing', 'unnamed')
    """
    return f"{application or 'unnamed'}@{version}" if version else application or "unnamed"


def short(label: str) -> str:
    """Return a label that fits beside a mark in a picture.

    >>> short("web 2.4.0"), short("w" * 40)
    ('web 2.4.0', 'wwwwwwwwwwwwwwwwwwwwwww...')
    """
    return label if len(label) <= LABEL_CHARACTERS_MOST else f"{label[: LABEL_CHARACTERS_MOST - 3]}..."


def listed(names: list[str]) -> str:
    """Return names as one phrase, of many the first few.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    more = len(names) - LISTED_MOST
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:LISTED_MOST])} and {more} more"


def server_version(number: int | None) -> str:
    """Return a `server_version_num` as people write it.

    >>> server_version(180001), server_version(None)
    ('PostgreSQL 18.1', 'PostgreSQL')
    """
    return "PostgreSQL" if number is None else f"PostgreSQL {number // 10000}.{number % 10000}"
