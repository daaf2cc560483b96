import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Self

import pytest

from batsignal.poll.startup import StartupTarget, diagnose
from batsignal.snapshot import FAILURE_REASONS, PollFailure

SECONDS = 5.0
"""Long enough never to be met by accident."""

SHORT_SECONDS = 0.5
"""For servers that never answer."""

SSL_REQUEST = struct.pack("!II", 8, 80877103)
Conversation = Callable[[socket.socket], None]


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


AUTHENTICATED = message(b"R", struct.pack("!I", 0))
READY = message(b"Z", b"I")
TOO_MANY = message(b"E", b"C53300\0Msorry\0RInitProcess\0\0")


class FakeServer:
    """Answers connection after connection, each by the next conversation; the last one serves all that follow."""

    def __init__(self, *conversations: Conversation) -> None:
        self._conversations = conversations
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.accepted: list[socket.socket] = []
        self.left_open_at_accept: list[int] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        self._listener.close()
        for connection in self.accepted:
            connection.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is shut down at the end
            while True:
                connection, _ = self._listener.accept()
                self.left_open_at_accept.append(sum(not hung_up(earlier) for earlier in self.accepted))
                self.accepted.append(connection)
                connection.settimeout(SECONDS)
                with contextlib.suppress(OSError):  # the client may hang up first
                    self._conversations[min(len(self.accepted), len(self._conversations)) - 1](connection)


def hung_up(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def read_exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (part := connection.recv(size - len(received))):
        received += part
    return received


def read_startup(connection: socket.socket) -> bytes:
    length = struct.unpack("!I", read_exactly(connection, 4))[0]
    return read_exactly(connection, length - 4)


def says(answer: bytes) -> Conversation:
    def conversation(connection: socket.socket) -> None:
        read_startup(connection)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    return conversation


def silent(connection: socket.socket) -> None:
    connection.recv(1)


def hangs_up(connection: socket.socket) -> None:
    connection.close()


def target(
    port: int,
    *,
    host: str = "127.0.0.1",
    addresses: tuple[str, ...] = ("127.0.0.1",),
    sslmode: str = "disable",
    sslnegotiation: str = "postgres",
) -> StartupTarget:
    return StartupTarget(
        host=host,
        addresses=addresses,
        port=port,
        user="web",
        database="shop",
        password="hunter2",
        sslmode=sslmode,
        sslnegotiation=sslnegotiation,
    )


def failure_from(*conversations: Conversation, sslmode: str = "disable", seconds: float = SECONDS) -> PollFailure:
    with FakeServer(*conversations) as server:
        failure = diagnose(target(server.port, sslmode=sslmode), deadline_seconds=seconds)
    assert failure is not None
    return failure


@contextmanager
def full_queue(address: tuple[str, int] | str) -> Iterator[socket.socket]:
    """Yield a listener that accepts nobody and has no place left where one could wait."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind(address)
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        yield listener


def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def test_target_never_shows_its_password() -> None:
    assert "hunter2" not in repr(target(5432)) + str(target(5432))


def test_server_that_lets_us_in_is_no_failure_and_is_left_politely() -> None:
    heard: list[bytes] = []

    def conversation(connection: socket.socket) -> None:
        heard.append(read_startup(connection))
        notices = message(b"v", struct.pack("!II", 3 << 16, 0)) + message(b"N", b"SNOTICE\0\0")
        settings = message(b"S", b"server_version\0" + b"18.0\0") + message(b"K", b"12345678")
        connection.sendall(notices + AUTHENTICATED + settings + READY)
        heard.append(read_exactly(connection, 6))

    with FakeServer(conversation) as server:
        assert diagnose(target(server.port), deadline_seconds=SECONDS) is None
    packet, farewell = heard
    assert packet.startswith(struct.pack("!I", 3 << 16) + b"user\0web\0database\0shop\0application_name\0batsignal\0")
    assert farewell == b"X\0\0\0\x04"


def test_refusal_before_authentication_is_told_by_its_routine() -> None:
    failure = failure_from(says(TOO_MANY))
    assert (failure.reason, failure.sqlstate) == ("slots_full", "53300")


def test_refusal_after_authentication_is_told_by_its_routine() -> None:
    failure = failure_from(says(AUTHENTICATED + message(b"E", b"C53300\0Mx\0RCheckMyDatabase\0\0")))
    assert failure.reason == "database_limit"


def test_refusal_of_a_server_that_speaks_first_and_hangs_up_is_read() -> None:
    def conversation(connection: socket.socket) -> None:
        connection.sendall(TOO_MANY)
        connection.shutdown(socket.SHUT_WR)

    assert failure_from(conversation).reason == "slots_full"


def test_server_that_never_answers_is_a_timeout_that_says_where_it_stuck() -> None:
    assert failure_from(silent, seconds=SHORT_SECONDS) == PollFailure(
        reason="timeout", text="no answer within 0.5 s while waiting for the server's first word"
    )


def test_server_that_never_answers_about_tls_is_a_timeout() -> None:
    failure = failure_from(silent, sslmode="prefer", seconds=SHORT_SECONDS)
    assert (failure.reason, failure.text) == ("timeout", "no answer within 0.5 s while asking for TLS")


def test_server_that_stops_in_the_middle_of_tls_is_a_timeout() -> None:
    def conversation(connection: socket.socket) -> None:
        read_exactly(connection, len(SSL_REQUEST))
        connection.sendall(b"S")
        read_exactly(connection, 1 << 20)

    failure = failure_from(conversation, sslmode="require", seconds=SHORT_SECONDS)
    assert (failure.reason, failure.text) == ("timeout", "no answer within 0.5 s while setting up TLS")


def test_server_that_sends_a_byte_now_and_then_does_not_stretch_the_deadline() -> None:
    def conversation(connection: socket.socket) -> None:
        read_startup(connection)
        connection.settimeout(0.05)
        for byte in message(b"S", b"x" * 1000):
            connection.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    return

    assert failure_from(conversation, seconds=SHORT_SECONDS).reason == "timeout"


def test_endless_stream_of_notices_ends_with_the_deadline() -> None:
    def conversation(connection: socket.socket) -> None:
        read_startup(connection)
        while True:
            connection.sendall(message(b"N", b"SNOTICE\0\0"))

    assert failure_from(conversation, seconds=SHORT_SECONDS).reason == "timeout"


def test_no_time_at_all_is_a_timeout() -> None:
    failure = diagnose(target(closed_port()), deadline_seconds=0)
    assert failure is not None
    assert failure.reason == "timeout"


def test_server_that_hangs_up_at_once_is_unreachable() -> None:
    assert failure_from(hangs_up).reason == "unreachable"


def test_server_that_hangs_up_in_the_middle_of_a_message_is_unreachable() -> None:
    failure = failure_from(says(TOO_MANY[:20]))
    assert failure == PollFailure(
        reason="unreachable", text="the server hung up while waiting for the server's first word"
    )


@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require"])
def test_web_server_is_unreachable_and_shown(sslmode: str) -> None:
    def conversation(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)

    failure = failure_from(conversation, sslmode=sslmode)
    assert failure.reason == "unreachable"
    assert failure.text.startswith("answered, but not as PostgreSQL does: 'HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"R\x7f\xff\xff\xff", id="a message of 2 GB"),
        pytest.param(b"N\xff\xff\xff\xff", id="a message of negative length"),
        pytest.param(b"S" + struct.pack("!I", 64 * 1024 + 1), id="a message of 64 KiB and one byte"),
        pytest.param(b"R\0\0\0\x03", id="a message shorter than its own length"),
        pytest.param(b"R\0\0\0\x06\0\0", id="an authentication request cut short"),
        pytest.param(b"D\0\0\0\x04", id="a row before the session began"),
        pytest.param(READY, id="ready before authentication"),
    ],
)
def test_what_postgresql_never_sends_is_unreachable(answer: bytes) -> None:
    failure = failure_from(says(answer))
    assert failure.reason == "unreachable"
    assert failure.text.startswith("answered, but not as PostgreSQL does")


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
def test_postmaster_that_cannot_fork_says_so_without_a_frame(sslmode: str) -> None:
    failure = failure_from(says(b"Ecould not fork new process for connection: no memory\n\0"), sslmode=sslmode)
    assert failure.reason == "unreachable"
    assert failure.text == "the server refused: could not fork new process for connection: no memory"


def test_refusal_in_answer_to_the_request_for_tls_is_understood() -> None:
    assert failure_from(says(TOO_MANY), sslmode="require").reason == "slots_full"


def test_random_bytes_yield_a_failure_and_never_an_exception() -> None:
    dice = random.Random(7)  # noqa: S311  not for secrets: the same bytes in every run

    def conversation(connection: socket.socket) -> None:
        start = dice.choice([b"", b"R\0\0\0", b"E\0\0\0", b"S", b"R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0R\0\0\0"])
        says(start + dice.randbytes(dice.randrange(60)))(connection)

    with FakeServer(conversation) as server:
        for _ in range(150):
            failure = diagnose(target(server.port), deadline_seconds=SECONDS)
            assert failure is not None
            assert failure.reason in FAILURE_REASONS
            assert failure.text.isprintable()


def test_password_that_the_server_echoes_is_not_in_the_text() -> None:
    asks_in_clear = message(b"R", struct.pack("!I", 3))
    failure = failure_from(says(asks_in_clear + message(b"E", b"C28P01\0Mno, not hunter2\0\0")))
    assert failure.reason == "auth_failed"
    assert failure.text.endswith("no, not ***")


def test_closed_port_is_refused() -> None:
    port = closed_port()
    assert diagnose(target(port), deadline_seconds=SECONDS) == PollFailure(
        reason="refused", text=f"nothing listens on 127.0.0.1 port {port}"
    )


def test_missing_socket_is_refused(tmp_path: Path) -> None:
    failure = diagnose(target(5432, host=str(tmp_path), addresses=()), deadline_seconds=SECONDS)
    assert failure == PollFailure(reason="refused", text=f"there is no socket {tmp_path}/.s.PGSQL.5432")


def test_socket_that_nobody_listens_on_any_more_is_refused(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as left_behind:
        left_behind.bind(str(tmp_path / ".s.PGSQL.5432"))
    failure = diagnose(target(5432, host=str(tmp_path), addresses=()), deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "refused"


def test_socket_path_that_is_too_long_is_unreachable(tmp_path: Path) -> None:
    failure = diagnose(target(5432, host=str(tmp_path / ("x" * 200)), addresses=()), deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "unreachable"


def test_socket_with_a_full_queue_is_a_timeout(tmp_path: Path) -> None:
    with full_queue(str(tmp_path / ".s.PGSQL.5432")):
        failure = diagnose(target(5432, host=str(tmp_path), addresses=()), deadline_seconds=SHORT_SECONDS)
    assert failure is not None
    assert failure.reason == "timeout"


def test_abstract_socket_is_spoken_to() -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        listener.bind("")  # Linux picks a free abstract name, which we extend to one of PostgreSQL's form
        name = listener.getsockname().decode()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        listener.bind(f"{name}/.s.PGSQL.5432")
        listener.listen()
        host = "@" + name[1:]
        failure = diagnose(target(5432, host=host, addresses=()), deadline_seconds=SHORT_SECONDS)
        assert failure is not None
        assert failure.reason == "timeout"
        connection, _ = listener.accept()
        connection.close()


def test_host_without_an_address_is_unreachable() -> None:
    failure = diagnose(target(5432, host="db.example", addresses=()), deadline_seconds=SECONDS)
    assert failure == PollFailure(reason="unreachable", text="no address is known for db.example")


def test_name_among_the_addresses_is_not_looked_up() -> None:
    failure = diagnose(target(5432, addresses=("localhost",)), deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "unreachable"


def test_next_address_is_tried_when_one_refuses() -> None:
    with FakeServer(says(TOO_MANY)) as server:
        failure = diagnose(target(server.port, addresses=("127.0.0.7", "127.0.0.1")), deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "slots_full"


def test_silent_address_leaves_time_for_the_next() -> None:
    with FakeServer(says(TOO_MANY)) as server, full_queue(("127.0.0.8", server.port)):
        failure = diagnose(target(server.port, addresses=("127.0.0.8", "127.0.0.1")), deadline_seconds=1.0)
    assert failure is not None
    assert failure.reason == "slots_full"


def test_refusing_address_says_more_than_a_silent_one_and_both_are_named() -> None:
    with full_queue(("127.0.0.8", 0)) as listener:
        port = listener.getsockname()[1]
        failure = diagnose(target(port, addresses=("127.0.0.8", "127.0.0.9")), deadline_seconds=SHORT_SECONDS)
    assert failure is not None
    assert failure.reason == "refused"
    assert "127.0.0.8" in failure.text
    assert "127.0.0.9" in failure.text


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_server_without_tls_fails_a_mode_that_demands_it(sslmode: str) -> None:
    failure = failure_from(says(b"N"), sslmode=sslmode)
    assert failure == PollFailure(reason="tls_failed", text=f"sslmode={sslmode}, and the server offers no TLS")


def test_server_without_tls_is_spoken_to_in_plain_when_tls_is_only_preferred() -> None:
    def conversation(connection: socket.socket) -> None:
        says_no = read_exactly(connection, len(SSL_REQUEST))
        assert says_no == SSL_REQUEST
        connection.sendall(b"N")
        says(TOO_MANY)(connection)

    with FakeServer(conversation) as server:
        failure = diagnose(target(server.port, sslmode="prefer"), deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "slots_full"
    assert len(server.accepted) == 1


def breaks_tls(connection: socket.socket) -> None:
    read_exactly(connection, len(SSL_REQUEST))
    connection.sendall(b"S" + b"no TLS at all" * 9)


def test_broken_tls_falls_back_to_plain_when_only_preferred_with_one_connection_open() -> None:
    with FakeServer(breaks_tls, says(TOO_MANY)) as server:
        failure = diagnose(target(server.port, sslmode="prefer"), deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "slots_full"
    assert server.left_open_at_accept == [0, 0]


def test_broken_tls_stays_the_reason_when_plain_is_not_admitted_either() -> None:
    not_in_hba = message(b"E", b"C28000\0Mno encryption\0RClientAuthentication\0\0")
    assert failure_from(breaks_tls, says(not_in_hba), sslmode="prefer").reason == "tls_failed"


def test_broken_tls_is_final_when_demanded() -> None:
    with FakeServer(breaks_tls) as server:
        failure = diagnose(target(server.port, sslmode="require"), deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "tls_failed"
    assert len(server.accepted) == 1


def test_server_that_hangs_up_in_the_handshake_failed_at_tls() -> None:
    def conversation(connection: socket.socket) -> None:
        read_exactly(connection, len(SSL_REQUEST))
        connection.sendall(b"S")
        connection.recv(4096)
        connection.shutdown(socket.SHUT_RDWR)

    assert failure_from(conversation, sslmode="require").reason == "tls_failed"


def test_direct_tls_begins_with_the_handshake() -> None:
    first_bytes: list[bytes] = []

    def conversation(connection: socket.socket) -> None:
        first_bytes.append(read_exactly(connection, 1))
        connection.sendall(b"E no TLS here, says an older major")

    with FakeServer(conversation) as server:
        wanted = target(server.port, sslmode="require", sslnegotiation="direct")
        failure = diagnose(wanted, deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "tls_failed"
    assert first_bytes == [b"\x16"]


def test_every_connection_is_closed_afterwards() -> None:
    with FakeServer(silent) as server:
        diagnose(target(server.port), deadline_seconds=SHORT_SECONDS)
        diagnose(target(server.port), deadline_seconds=SHORT_SECONDS)
    assert server.left_open_at_accept == [0, 0]
