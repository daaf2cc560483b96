import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from batsignal.poll.refusal import Refusal, explain
from batsignal.poll.resolve import Resolver


@contextmanager
def full_server() -> Iterator[int]:
    """Answer every start-up packet as a server without a slot does."""
    fields = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0RInitProcess\0\0"
    answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def refused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("dead_first", [True, False])
def test_of_several_servers_the_full_one_is_the_reason(dead_first: bool) -> None:
    with full_server() as port:
        ports = [refused_port(), port] if dead_first else [port, refused_port()]
        parameters = {
            "host": "127.0.0.1,127.0.0.1",
            "hostaddr": "127.0.0.1,127.0.0.1",
            "port": ",".join(str(one) for one in ports),
            "user": "batsignal",
            "sslmode": "disable",
        }
        failure = explain(Refusal(error=OSError("refused"), parameters=parameters, password=None), Resolver())
    assert (failure.reason, failure.sqlstate) == ("slots_full", "53300")
