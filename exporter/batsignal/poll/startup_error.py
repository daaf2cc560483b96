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


class RefusedError(Exception):
    """We were not let in; carries the value that says why, and never leaves the modules of `startup`."""

    def __init__(self, reason: FailureReason, text: str, *, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.failure = PollFailure(reason=reason, text=text, sqlstate=sqlstate)


def error_from_response(body: bytes, *, secret: str | None = None) -> RefusedError:
    """Return what an ErrorResponse's body means; `secret` is cut out of the text, should the server echo it.

    The routine field decides among the kinds of 53300; a SQLSTATE not known here is `unreachable` and kept in the
    text. Field letters: https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    fields = error_fields(body)
    message = server_message(fields.get("M", ""), secret=secret)
    sqlstate = fields.get("C", "")
    if not _SQLSTATE.fullmatch(sqlstate):
        return RefusedError("unreachable", f"the server refused without a code: {message}")
    reason, meaning = _BY_SQLSTATE.get(sqlstate, ("unreachable", "the server refused"))
    if sqlstate == "53300":
        reason, meaning = _TOO_MANY_BY_ROUTINE.get(fields.get("R", ""), (reason, meaning))
    if sqlstate == "42501":
        meaning = _LACKING_BY_ROUTINE.get(fields.get("R", ""), meaning)
    return RefusedError(reason, f"{meaning} ({sqlstate}): {message}", sqlstate=sqlstate)


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
