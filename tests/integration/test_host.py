"""The host poller against a real PostgreSQL on this machine."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from batsignal.poll.host import HostPoller, find_postmaster

DEADLINE_SECONDS = 30.0


def binaries() -> Path:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


@dataclass
class Server:
    """A scratch server of one test, run as an ordinary user even when the tests run as root."""

    directory: Path
    port: int
    user: str | None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(binaries() / "postgres", "-D", self.directory / "data", "-p", str(self.port)),
                *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}"),
                *("-c", "fsync=off"),
            ],
            user=self.user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._answers, "the server answers")

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def connect(self) -> Any:
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="watcher", dbname="postgres")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(DEADLINE_SECONDS)
            self.process = None


@pytest.fixture
def server() -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp())
    user = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(directory, user)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    subprocess.run(
        [binaries() / "initdb", "-D", directory / "data", "-U", "watcher", "-A", "trust", "--no-sync"],
        user=user,
        cwd=directory,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    made = Server(directory=directory, port=port, user=user)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory)


def identify(connection: Any) -> tuple[int, float]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), extract(epoch FROM pg_postmaster_start_time())::float8")
        row: tuple[int, float] = cursor.fetchone()
        return row


def test_our_own_backend_leads_to_the_postmaster(server: Server) -> None:
    with closing(server.connect()) as connection:
        pid, start = identify(connection)
        found = find_postmaster(backend_pid=pid, postmaster_start=start, data_directory=None)
    assert server.process is not None
    assert found == psutil.Process(server.process.pid)


def test_the_data_directory_leads_to_the_postmaster_with_and_without_a_session(server: Server) -> None:
    assert server.process is not None
    data, expected = str(server.directory / "data"), psutil.Process(server.process.pid)
    with closing(server.connect()) as connection:
        _, start = identify(connection)
    assert find_postmaster(backend_pid=None, postmaster_start=start, data_directory=data) == expected
    assert find_postmaster(backend_pid=None, postmaster_start=None, data_directory=data, port=server.port) == expected


def test_sessions_show_as_processes_memory_and_tcp_sessions(server: Server) -> None:
    with ExitStack() as held:
        pid, start = identify(held.enter_context(closing(server.connect())))
        poller = HostPoller(port=server.port, data_directory=None)
        before = poller.look(backend_pid=pid, postmaster_start=start)
        for _ in range(20):
            held.enter_context(closing(server.connect()))
        after = poller.look(backend_pid=pid, postmaster_start=start)
        assert before is not None
        assert after is not None
        assert after.tcp["ESTABLISHED"] == 21
        assert before.server_processes is not None
        assert after.server_processes is not None
        # Helpers of the server (an autovacuum worker) may come and go meanwhile.
        assert after.server_processes - before.server_processes in range(18, 23)
        assert before.server_rss_bytes is not None
        assert after.server_rss_bytes is not None
        grown_bytes = (after.server_rss_bytes - before.server_rss_bytes) / 20
        assert 100_000 < grown_bytes < 10_000_000
        assert after.memory_used_ratio < 1


def test_a_load_on_the_processor_shows_between_two_looks(server: Server) -> None:
    with closing(server.connect()) as connection:
        pid, start = identify(connection)
        poller = HostPoller(port=server.port, data_directory=None)
        poller.look(backend_pid=pid, postmaster_start=start)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM generate_series(1, 3000000) AS n WHERE sqrt(n) > 1e9")
        load = poller.look(backend_pid=pid, postmaster_start=start)
    assert load is not None
    assert load.cpu_ratio > 0.2 / load.cpu_count


def test_a_restart_is_another_postmaster(server: Server) -> None:
    poller = HostPoller(port=server.port, data_directory=None)
    with closing(server.connect()) as connection:
        pid, start = identify(connection)
        assert poller.look(backend_pid=pid, postmaster_start=start) is not None
    server.stop()
    assert poller.look() is None
    server.start()
    with closing(server.connect()) as connection:
        pid, start = identify(connection)
        assert poller.look(backend_pid=pid, postmaster_start=start) is not None
