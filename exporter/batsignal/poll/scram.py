"""The client's half of SCRAM-SHA-256 without channel binding, as PostgreSQL speaks it (RFC 5802, RFC 7677).

Owns the three messages and the proof that the server knows the password too. It is pure: bytes in, bytes out; it
must not open anything, and never keeps more of a password than one exchange needs. It exists because libpq does not
say why a connection failed, and the reasons that come after authentication are told only to who can authenticate.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata

MECHANISM = "SCRAM-SHA-256"

# Hashing cannot be interrupted by a deadline: about half a second at this count, PostgreSQL's default is 4096.
ITERATIONS_MAX = 1_000_000

# "n": this client knows no channel binding. "y" (it does, but thinks the server does not) would be taken for an
# attack by a server that offered SCRAM-SHA-256-PLUS over TLS.
_GS2_HEADER = "n,,"

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


class ScramError(ValueError):
    """The server's half of the exchange is wrong; the message says how and holds no secret."""


class ScramClient:
    """One exchange: `first()`, then `final(server_first)`, then `verify(server_final)`."""

    def __init__(self, password: str, *, user: str = "", nonce: str | None = None) -> None:
        # PostgreSQL passes over the name in here: the one in the startup packet counts.
        self._password = prepared_password(password)
        self._nonce = nonce or secrets.token_urlsafe(18)
        self._first_bare = f"n={user},r={self._nonce}"
        self._server_signature: bytes | None = None

    def first(self) -> bytes:
        return (_GS2_HEADER + self._first_bare).encode()

    def final(self, server_first: bytes) -> bytes:
        """Return the message with the proof; raise ScramError when the server's first message is not to be trusted."""
        nonce, salt, iterations = self._parsed_first(server_first)
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        without_proof = f"c={base64.b64encode(_GS2_HEADER.encode()).decode()},r={nonce}"
        auth_message = b",".join((self._first_bare.encode(), server_first, without_proof.encode()))
        client_signature = hmac.digest(stored_key, auth_message, "sha256")
        proof = bytes(key ^ sign for key, sign in zip(client_key, client_signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._server_signature = hmac.digest(server_key, auth_message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Raise ScramError unless the server proved that it knows the password."""
        attributes = _attributes(server_final)
        if "e" in attributes:
            raise ScramError("the server broke off SCRAM")
        signature = _base64(attributes.get("v", ""))
        if self._server_signature is None or not hmac.compare_digest(signature, self._server_signature):
            raise ScramError("the server could not prove that it knows the password")

    def _parsed_first(self, server_first: bytes) -> tuple[str, bytes, int]:
        attributes = _attributes(server_first)
        nonce, iterations = attributes.get("r", ""), attributes.get("i", "")
        if "m" in attributes:
            raise ScramError("the server demands an extension of SCRAM that nobody knows")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server answered SCRAM with a nonce that is not ours")
        # Length before int(): Python refuses thousands of digits with an error of its own.
        if not (iterations.isascii() and iterations.isdigit() and len(iterations) <= len(str(ITERATIONS_MAX))):
            raise ScramError("the server asks for a senseless number of SCRAM iterations")
        if not 0 < int(iterations) <= ITERATIONS_MAX:
            raise ScramError(f"the server asks for {iterations} SCRAM iterations, more than {ITERATIONS_MAX}")
        return nonce, _base64(attributes.get("s", "")), int(iterations)


def prepared_password(password: str) -> bytes:
    r"""Return a password as SASLprep (RFC 4013) shapes it, or its raw bytes where SASLprep forbids it, as libpq does.

    >>> prepared_password("I\u00adX")
    b'IX'
    >>> prepared_password("\u0007")
    b'\x07'
    """
    raw = password.encode("utf-8", "surrogateescape")
    if password.isascii():
        return raw
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if not normal or any(forbidden(char) for char in normal for forbidden in _PROHIBITED) or _mixes_directions(normal):
        return raw
    return normal.encode()


def _mixes_directions(text: str) -> bool:
    """Tell whether a text breaks RFC 3454's rule on right-to-left writing (section 6)."""
    if not any(stringprep.in_table_d1(char) for char in text):
        return False
    ends_right_to_left = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends_right_to_left or any(stringprep.in_table_d2(char) for char in text)


def _attributes(message: bytes) -> dict[str, str]:
    parts = message.decode("utf-8", "replace").split(",")
    return {name: value for name, _, value in (part.partition("=") for part in parts)}


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ScramError("the server answered SCRAM with what is no base64") from exc
