"""Puts a server's ErrorResponse at connection start into a reason and one line for a person.

Owns the meaning of SQLSTATEs and routine names there, and the cleaning of text that a server sent. It is pure: bytes
in, a value out; it must not talk to anything. It exists because four different kinds of "full" share one SQLSTATE and
the message beside it comes in the server's language: only the routine field tells them apart.
"""

import re
import unicodedata

from batsignal.snapshot import FailureReason, PollFailure

SERVER_MESSAGE_CHARS_MAX = 200

_SQLSTATE = re.compile("[0-9A-Z]{5}")

_NO_SLOT = "no slot is left, not even a superuser's"

# Who raises 53300 at connection start, read off PostgreSQL 15 and 18 and older sources. The postmaster's own limit
# on children (twice max_connections) is raised by ProcessStartupPacket, in later majors by BackendInitialize.
_TOO_MANY_BY_ROUTINE: dict[str, tuple[FailureReason, str]] = {
    "InitProcess": ("slots_full", _NO_SLOT),
    "ProcArrayAdd": ("slots_full", _NO_SLOT),
    "SharedInvalBackendInit": ("slots_full", _NO_SLOT),
    "ProcessStartupPacket": ("slots_full", _NO_SLOT),
    "BackendInitialize": ("slots_full", _NO_SLOT),
    "InitPostgres": ("slots_full", "only reserved slots are left"),
    "InitializeSessionUserId": ("role_limit", "the role's own connection limit is reached"),
    "CheckMyDatabase": ("database_limit", "the database's own connection limit is reached"),
}

# Who raises 42501 there; a walsender is asked for in an emergency.
_LACKING_BY_ROUTINE: dict[str, str] = {
    "CheckMyDatabase": "the role has no CONNECT privilege on the database",
    "InitPostgres": "the role has no REPLICATION privilege",
}

_BY_SQLSTATE: dict[str, tuple[FailureReason, str]] = {
    "28000": ("auth_failed", "the server does not let this role in from here"),
    "28P01": ("auth_failed", "the password is wrong, or the role does not exist"),
    "42501": ("auth_failed", "the role lacks a privilege"),
    "3D000": ("no_database", "the database does not exist"),
    "53300": ("slots_full", "no slot is left"),
    # ALLOW_CONNECTIONS false, or a DROP DATABASE that broke off. The server is well.
    "55000": ("no_database", "the database takes no connections"),
    "57P03": ("not_accepting", "the server runs but takes no sessions now"),
}

# What PgBouncer says, in English always. Its code is 08P01 for all of it, in later releases another for some; it names
# no routine. What is not its own it repeats of the server. First come, first served.
_BY_POOLER: tuple[tuple[str, FailureReason, str], ...] = (
    ("too many clients already", "slots_full", "the pooler finds no slot on the server"),
    ("remaining connection slots are reserved", "slots_full", "the pooler finds none but reserved slots on the server"),
    ("too many connections for role", "role_limit", "the pooler's role has reached its own connection limit"),
    ("too many connections for database", "database_limit", "the database's own connection limit is reached"),
    ("max_client_conn", "unreachable", "the pooler takes no more clients, however the server behind it is"),
    ("_client_connections", "unreachable", "the pooler takes no more clients, however the server behind it is"),
    ("no such database", "no_database", "the pooler knows no such database"),
    ("is disabled", "no_database", "the pooler's administrator has shut the database (ENABLE opens it)"),
    ("does not allow connections", "no_database", "the pooler's administrator has shut the database (ENABLE opens it)"),
    ("no such user", "auth_failed", "the pooler knows no such user"),
    ("authentication failed", "auth_failed", "the pooler does not take the password, or knows no such user"),
    ("login rejected", "auth_failed", "the pooler does not let this user in from here"),
    ("not allowed", "auth_failed", "the pooler does not let this user in"),
    ("bouncer config error", "auth_failed", "the pooler lacks a setting to let this user in (see its log)"),
    ("certificate", "tls_failed", "the pooler does not take the client certificate"),
    ("SSL required", "tls_failed", "the pooler wants TLS"),
    ("server login", "unreachable", "the pooler cannot log in to the server"),
    ("cannot connect to server", "unreachable", "the pooler does not reach the server"),
    ("unsupported startup parameter", "unreachable", "the pooler refuses a parameter (its ignore_startup_parameters)"),
    ("query_wait_timeout", "timeout", "the pooler had no session to lend in time"),
    ("shutting down", "not_accepting", "the pooler is shutting down"),
)


class RefusedError(Exception):
    """We were not let in; carries the value that says why, and never leaves the modules of `startup`."""

    def __init__(
        self, reason: FailureReason, text: str, *, sqlstate: str | None = None, by_pooler: bool = False
    ) -> None:
        super().__init__(text)
        self.failure = PollFailure(reason=reason, text=text, sqlstate=sqlstate, by_pooler=by_pooler)


def error_from_response(body: bytes, *, secret: str | None = None) -> RefusedError:
    """Return what an ErrorResponse's body means; `secret` is cut out of the text, should the server echo it.

    The routine field decides among the kinds of 53300, and its absence tells a pooler; a SQLSTATE not known here is
    `unreachable` and kept in the text. Field letters:
    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    fields = error_fields(body)
    message = server_message(fields.get("M", ""), secret=secret)
    sqlstate = fields.get("C", "")
    if not _SQLSTATE.fullmatch(sqlstate):
        return RefusedError("unreachable", f"the server refused without a code: {message}")
    reason, meaning = _BY_SQLSTATE.get(sqlstate, ("unreachable", "the server refused"))
    by_pooler = None if fields.get("R") else pooler_refusal(message)
    if by_pooler is not None:
        reason, meaning = by_pooler
    elif sqlstate == "53300":
        reason, meaning = _TOO_MANY_BY_ROUTINE.get(fields.get("R", ""), (reason, meaning))
    if sqlstate == "42501":
        meaning = _LACKING_BY_ROUTINE.get(fields.get("R", ""), meaning)
    text = f"{meaning} ({sqlstate}): {message}"
    return RefusedError(reason, text, sqlstate=sqlstate, by_pooler=by_pooler is not None)


def pooler_refusal(message: str) -> tuple[FailureReason, str] | None:
    """Return the reason and the meaning of what a pooler says, None for words that are not known to be one's.

    >>> pooler_refusal("no more connections allowed (max_client_conn)")[0]
    'unreachable'
    """
    return next(((reason, meaning) for words, reason, meaning in _BY_POOLER if words in message), None)


def error_fields(body: bytes) -> dict[str, str]:
    r"""Split an ErrorResponse's body by field letter; what is cut short or no UTF-8 still yields something.

    >>> error_fields(b"C53300\0Rlong\0\0")
    {'C': '53300', 'R': 'long'}
    """
    return {part[:1].decode("latin-1"): part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}


def server_message(text: str, *, secret: str | None = None) -> str:
    r"""Return a text that a server sent as one printable line of at most 200 characters.

    >>> server_message("no\nslot \x1b[31mleft")
    'no slot [31mleft'
    """
    if secret:
        text = text.replace(secret, "***")
    # Category C holds control and format characters: escapes for terminals, marks that turn the writing direction.
    printable = "".join(" " if unicodedata.category(char).startswith("C") else char for char in text)
    return " ".join(printable.split())[:SERVER_MESSAGE_CHARS_MAX]
