"""One connection with one deadline: dialling, TLS, and whole PostgreSQL messages off the socket.

Owns the socket and the time that is left; every wait takes what remains of one monotonic deadline, so a server that
sends a byte a second cannot hold us. It must not resolve names (`getaddrinfo` knows no timeout) nor know what a
message means. It exists because libpq shows neither the bytes nor the codes of a start that failed.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Self

from batsignal.poll.startup_error import RefusedError, server_message
from batsignal.snapshot import FailureReason, PollFailure

MESSAGE_BYTES_MAX = 64 * 1024
_STRANGER_BYTES_MAX = 60
_HEADER = struct.Struct("!cI")

# What a server may say before its first ReadyForQuery.
_MESSAGES_AT_START = frozenset(b"RESNKZv")

# When every address fails, the one that says most about the server is reported.
_TELLING: tuple[FailureReason, ...] = ("refused", "timeout", "unreachable")


class Deadline:
    """The time that one diagnosis may take, and what it is being spent on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.doing = "connecting"
        self._end = monotonic() + seconds

    def left_seconds(self) -> float:
        """Return what is left, always above 0; raise TimeoutError when nothing is."""
        left = self._end - monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Wire:
    """An open connection; leaving its `with` closes it."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._socket = connection
        self.deadline = deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def start_tls(self, context: ssl.SSLContext, *, server_name: str) -> None:
        """Encrypt from here on; raises ssl.SSLError, OSError or TimeoutError when that fails."""
        self._socket.settimeout(self.deadline.left_seconds())
        self._socket = context.wrap_socket(self._socket, server_hostname=server_name, do_handshake_on_connect=False)
        self._socket.settimeout(self.deadline.left_seconds())
        self._socket.do_handshake()

    def chosen_protocol(self) -> str | None:
        """Return what ALPN agreed on, None when nothing."""
        return self._socket.selected_alpn_protocol() if isinstance(self._socket, ssl.SSLSocket) else None

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self.deadline.left_seconds())
        # A server that refuses may hang up before it has read all; its reason is then still there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes; raise RefusedError (`unreachable`) when the server hangs up before."""
        received = bytearray()
        while len(received) < size:
            self._socket.settimeout(self.deadline.left_seconds())
            part = self._socket.recv(size - len(received))
            if not part:
                raise RefusedError("unreachable", f"the server hung up while {self.deadline.doing}")
            received += part
        return bytes(received)

    def read_message(self, begun: bytes = b"") -> tuple[bytes, bytes]:
        """Return the next message as its letter and body; raise RefusedError on what PostgreSQL never sends.

        `begun` is what of the message was read already.
        """
        header = begun + self.read(_HEADER.size - len(begun))
        kind, length = _HEADER.unpack(header)
        if kind == b"E" and length > MESSAGE_BYTES_MAX:
            raise self._unframed_error(header[1:])
        if kind[0] not in _MESSAGES_AT_START or not struct.calcsize("!I") <= length <= MESSAGE_BYTES_MAX:
            raise self.stranger(header)
        return kind, self.read(length - struct.calcsize("!I"))

    def stranger(self, start: bytes) -> RefusedError:
        """Return the failure for an answer that is not PostgreSQL's, showing how it starts."""
        shown = server_message((start + self._arrived()).decode("utf-8", "replace"))
        return RefusedError("unreachable", f"answered, but not as PostgreSQL does: {shown!r}")

    def _unframed_error(self, start: bytes) -> RefusedError:
        """Return the failure for an E without a length: how a postmaster that cannot fork says so."""
        text = (start + self._arrived()).split(b"\0")[0]
        return RefusedError("unreachable", f"the server refused: {server_message(text.decode('utf-8', 'replace'))}")

    def _arrived(self) -> bytes:
        self._socket.settimeout(0)
        try:
            return self._socket.recv(_STRANGER_BYTES_MAX)
        except OSError:
            # Only for the text: what has not come by now is not worth a wait.
            return b""


def dial(*, host: str, addresses: Sequence[str], port: int, deadline: Deadline) -> Wire:
    """Connect to a socket directory or to the first of the numeric addresses that takes us, one at a time.

    Each address gets an equal share of what is left, so that a silent one does not use up the time of the next.
    Raises RefusedError: `refused`, `timeout` or `unreachable`.
    """
    if host.startswith(("/", "@")):
        return Wire(_dial_directory(host, port, deadline.left_seconds()), deadline)
    if not addresses:
        raise RefusedError("unreachable", f"no address is known for {server_message(host)}")
    failures: list[PollFailure] = []
    for position, address in enumerate(addresses):
        share_seconds = deadline.left_seconds() / (len(addresses) - position)
        try:
            return Wire(_dial_address(address, port, share_seconds), deadline)
        except OSError as exc:
            failures.append(_failure_of(exc, f"{address} port {port}", share_seconds))
    most_telling = min(failures, key=lambda failure: _TELLING.index(failure.reason))
    raise RefusedError(most_telling.reason, "; ".join(failure.text for failure in failures))


def _dial_address(address: str, port: int, timeout_seconds: float) -> socket.socket:
    # AI_NUMERICHOST: a name that slipped in fails here, it is never looked up.
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, kind, protocol, _, endpoint = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)[0]
    connection = socket.socket(family, kind, protocol)
    try:
        # As libpq does: Nagle's algorithm and delayed acknowledgements together cost 40 ms a start.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(timeout_seconds)
        connection.connect(endpoint)
    except BaseException:
        connection.close()
        raise
    return connection


def _dial_directory(directory: str, port: int, timeout_seconds: float) -> socket.socket:
    path = f"{directory}/.s.PGSQL.{port}"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux answers EAGAIN at once to a non-blocking connect when the queue is full, which in a storm it is;
        # a blocking one waits, and SO_SNDTIMEO bounds that wait.
        microseconds = max(int(timeout_seconds * 1_000_000), 1)
        timeval = struct.pack("@ll", *divmod(microseconds, 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        connection.setblocking(True)
        connection.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError as exc:
        connection.close()
        failure = _failure_of(exc, server_message(path), timeout_seconds)
        raise RefusedError(failure.reason, failure.text) from exc
    return connection


def _failure_of(error: OSError, place: str, timeout_seconds: float) -> PollFailure:
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return PollFailure(reason="timeout", text=f"{place} did not answer within {timeout_seconds:.1f} s")
    if isinstance(error, ConnectionRefusedError):
        return PollFailure(reason="refused", text=f"nothing listens on {place}")
    if isinstance(error, FileNotFoundError):
        return PollFailure(reason="refused", text=f"there is no socket {place}")
    return PollFailure(reason="unreachable", text=f"cannot reach {place}: {error.strerror or error}")
