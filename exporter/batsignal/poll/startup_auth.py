"""Answers the authentication requests of one connection start: trust, password, md5, SCRAM-SHA-256.

Owns which request gets which answer and what is said when there is none. It is pure: a request's bytes in, the bytes
to send out; it must not read or write a connection. It exists because of 53300's four kinds three are told only
after authentication.
"""

import hashlib
import struct

from batsignal.poll.scram import MECHANISM, ScramClient, ScramError
from batsignal.poll.startup_error import RefusedError, server_message

_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_MD5_SALT_BYTES = 4

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_METHODS_NOT_SPOKEN = {2: "Kerberos V5", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}


class Authenticator:
    """One connection's authentication; `done` once the server said that it is content."""

    def __init__(self, *, user: str, password: str | None) -> None:
        self._user = user
        self._password = password
        self._scram: ScramClient | None = None
        self._server_proved = False
        self.done = False
        self.password_shown = False
        """Whether the server was given the password itself, and could repeat it."""

    def answer(self, request: bytes) -> bytes | None:
        """Return the message that answers an AuthenticationXxx body, None when none is due.

        Raises RefusedError (`auth_failed`) where there is no answer, and (`unreachable`) on a request nobody makes.
        """
        if len(request) < struct.calcsize("!I"):
            raise RefusedError(
                "unreachable", "answered, but not as PostgreSQL does: an authentication request cut short"
            )
        (code,) = struct.unpack_from("!I", request)
        data = request[4:]
        try:
            return self._answer(code, data)
        except ScramError as exc:
            raise RefusedError("auth_failed", str(exc)) from exc

    def _answer(self, code: int, data: bytes) -> bytes | None:
        if code == _OK:
            self._finish()
            return None
        if code == _CLEARTEXT:
            self.password_shown = True
            return _password_message(_bytes(self._needed_password()) + b"\0")
        if code == _MD5 and len(data) >= _MD5_SALT_BYTES:
            digest = md5_password(user=self._user, password=self._needed_password(), salt=data[:_MD5_SALT_BYTES])
            return _password_message(digest + b"\0")
        if code == _SASL:
            return self._begin_scram(data)
        if code == _SASL_CONTINUE and self._scram is not None:
            return _password_message(self._scram.final(data))
        if code == _SASL_FINAL and self._scram is not None:
            self._scram.verify(data)
            self._server_proved = True
            return None
        if code in _METHODS_NOT_SPOKEN:
            raise _method_not_spoken(_METHODS_NOT_SPOKEN[code])
        raise RefusedError("unreachable", f"answered, but not as PostgreSQL does: authentication request {code}")

    def _finish(self) -> None:
        # A stranger in the server's place could wave us through instead of failing its own half of SCRAM.
        if self._scram is not None and not self._server_proved:
            raise RefusedError("auth_failed", "the server did not prove that it knows the password")
        self.done = True

    def _begin_scram(self, data: bytes) -> bytes:
        offered = [name.decode("latin-1") for name in data.split(b"\0") if name]
        if MECHANISM not in offered:
            raise _method_not_spoken(server_message(", ".join(offered)) or "SASL without a mechanism")
        self._scram = ScramClient(self._needed_password())
        first = self._scram.first()
        return _password_message(MECHANISM.encode() + b"\0" + struct.pack("!I", len(first)) + first)

    def _needed_password(self) -> str:
        # Empty counts as none: libpq says so too, and PostgreSQL lets nobody have an empty password.
        if not self._password:
            raise RefusedError("auth_failed", "the server asks for a password and none is configured")
        return self._password


def md5_password(*, user: str, password: str, salt: bytes) -> bytes:
    """Return PostgreSQL's md5 answer: `md5(md5(password + user) + salt)` in hexadecimal, behind the word md5.

    >>> md5_password(user="web", password="secret", salt=b"1234")
    b'md5653072f971c666aa7de53f3c32e31b30'
    """
    inner = hashlib.md5(_bytes(password) + _bytes(user), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


def _password_message(payload: bytes) -> bytes:
    return b"p" + struct.pack("!I", len(payload) + 4) + payload


def _bytes(text: str) -> bytes:
    # What came from the environment may hold bytes that are no UTF-8; they go out as they came in.
    return text.encode("utf-8", "surrogateescape")


def _method_not_spoken(method: str) -> RefusedError:
    return RefusedError("auth_failed", f"the server asks for {method}, which this check cannot answer")
