import socket
import threading
import time

import psycopg2
import pytest

from batsignal.drills.seats import BudgetSpentError, Seats
from batsignal.drills.sessions import Sessions

DEADLINE_SECONDS = 20.0


def test_the_end_waits_for_a_session_that_is_still_on_its_way() -> None:
    sessions = Sessions(Seats(5, strict=True), began=lambda _pid: None, ended=lambda _pid: None)
    refused: list[psycopg2.OperationalError] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]

        def open_one() -> None:
            with pytest.raises(psycopg2.OperationalError) as caught:
                sessions.open(
                    f"host=127.0.0.1 port={port} user=x sslmode=disable", is_counted_first=True, autocommit=True
                )
            refused.append(caught.value)

        opener = threading.Thread(target=open_one)
        opener.start()
        client, _ = server.accept()
        deadline = time.monotonic() + 2 * DEADLINE_SECONDS
        ender = threading.Thread(target=lambda: sessions.end(deadline, is_server_lost=False))
        ender.start()
        ender.join(0.3)
        assert ender.is_alive(), "it did not wait for the session"
        client.close()
        ender.join(DEADLINE_SECONDS)
        opener.join(DEADLINE_SECONDS)
    assert not ender.is_alive()
    assert refused
    with pytest.raises(BudgetSpentError, match="the drill has ended"):
        sessions.open("host=127.0.0.1 port=1", is_counted_first=True, autocommit=True)
