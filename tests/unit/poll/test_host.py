"""The host poller without a PostgreSQL: its reading of /proc, and its refusal to take anything for the server."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from batsignal.poll.host import PAGE_BYTES, HostPoller, count_tcp_states, find_postmaster

TABLE = b"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 1598 1 0000000000000000 100 0
   1: 0100007F:1538 0100007F:D0E2 01 00000000:00000000 02:000AFC35 00000000   101        0 2001 2 0000000000000000 20 4
   2: 0100007F:1538 0100007F:D0E4 01 00000000:00000000 02:000AFC35 00000000   101        0 2002 2 0000000000000000 20 4
   3: 0100007F:1538 0100007F:D0E6 08 00000001:00000000 00:00000000 00000000   101        0 2003 1 0000000000000000 20 4
   4: 0100007F:1538 0100007F:D0E8 06 00000000:00000000 03:000016A1 00000000     0        0 0 3 0000000000000000
   5: 0100007F:D0E2 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 2004 1 0000000000000000 20 4
   6: 0100007F:1539 0100007F:D0EA 01 00000000:00000000 00:00000000 00000000   101        0 2005 1 0000000000000000 20 4
"""
TABLE6 = b"""  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:1538 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
 100: 00000000000000000000000001000000:1538 00000000000000000000000001000000:D0EC 01 00000000:00000000 00:00000000
"""


def test_tcp_sessions_are_counted_by_state_on_the_local_port_only_and_over_both_families() -> None:
    counts = count_tcp_states(TABLE + TABLE6, port=5432)
    assert {state: count for state, count in counts.items() if count} == {
        "ESTABLISHED": 3,
        "CLOSE_WAIT": 1,
        "TIME_WAIT": 1,
    }


def test_a_listening_socket_is_no_session() -> None:
    assert "LISTEN" not in count_tcp_states(TABLE, port=5432)


def test_a_port_without_sessions_has_a_zero_for_every_state() -> None:
    assert set(count_tcp_states(TABLE, port=9999).values()) == {0}


def test_a_state_that_is_not_known_is_passed_over() -> None:
    line = b"   0: 0100007F:1538 0100007F:D0E2 FF 00000000:00000000 00:00000000 00000000   101\n"
    assert sum(count_tcp_states(line, port=5432).values()) == 0


@contextmanager
def process_named_postgres() -> Iterator[tuple[psutil.Process, int]]:
    """Yield a process that is called postgres, though it is a shell, and the pid of its child."""
    directory = Path(tempfile.mkdtemp())
    shell = directory / "postgres"
    shutil.copy("/bin/sh", shell)
    process = subprocess.Popen(
        [shell, "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        child_pid = int(process.stdout.readline())
        yield psutil.Process(process.pid), child_pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        shutil.rmtree(directory)


def test_the_parent_of_our_backend_is_the_postmaster_when_its_start_fits() -> None:
    with process_named_postgres() as (postmaster, child_pid):
        found = find_postmaster(
            backend_pid=child_pid, postmaster_start=postmaster.create_time() + 4, data_directory=None
        )
        assert found == postmaster


def test_a_postmaster_that_began_at_another_time_is_another_server() -> None:
    with process_named_postgres() as (postmaster, child_pid):
        start = postmaster.create_time() - 6
        assert find_postmaster(backend_pid=child_pid, postmaster_start=start, data_directory=None) is None


def test_a_parent_of_another_name_is_no_postmaster() -> None:
    start = psutil.Process().create_time()
    child = subprocess.Popen(["sleep", "600"])
    try:
        assert find_postmaster(backend_pid=child.pid, postmaster_start=start, data_directory=None) is None
    finally:
        child.kill()
        child.wait()


def test_a_backend_pid_that_is_not_of_this_host_finds_nothing() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert find_postmaster(backend_pid=gone.pid, postmaster_start=time.time(), data_directory=None) is None


def test_a_backend_without_the_server_s_start_time_proves_nothing() -> None:
    with process_named_postgres() as (_, child_pid):
        assert find_postmaster(backend_pid=child_pid, postmaster_start=None, data_directory=None) is None


def write_postmaster_file(directory: Path, process: psutil.Process, *, port: int = 5432) -> str:
    text = f"{process.pid}\n{directory}\n{int(process.create_time())}\n{port}\n/tmp\nlocalhost\n"
    (directory / "postmaster.pid").write_text(text)
    return str(directory)


def test_the_data_directory_names_the_postmaster_when_no_session_can_be_asked(tmp_path: Path) -> None:
    with process_named_postgres() as (postmaster, _):
        directory = write_postmaster_file(tmp_path, postmaster)
        found = find_postmaster(backend_pid=None, postmaster_start=None, data_directory=directory, port=5432)
        assert found == postmaster


def test_a_data_directory_of_another_port_is_another_server(tmp_path: Path) -> None:
    with process_named_postgres() as (postmaster, _):
        directory = write_postmaster_file(tmp_path, postmaster, port=5433)
        assert find_postmaster(backend_pid=None, postmaster_start=None, data_directory=directory, port=5432) is None


def test_a_stale_file_whose_pid_was_given_to_something_else_finds_nothing(tmp_path: Path) -> None:
    directory = write_postmaster_file(tmp_path, psutil.Process())
    assert find_postmaster(backend_pid=None, postmaster_start=None, data_directory=directory) is None


@pytest.mark.parametrize("text", ["", "12\n", "12\n/data\nsoon\n5432\n", "\xff\n\n\n\n"])
def test_a_postmaster_file_that_makes_no_sense_finds_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "postmaster.pid").write_text(text, encoding="latin-1")
    assert find_postmaster(backend_pid=None, postmaster_start=None, data_directory=str(tmp_path)) is None


def test_a_data_directory_that_does_not_exist_finds_nothing(tmp_path: Path) -> None:
    directory = str(tmp_path / "nowhere")
    assert find_postmaster(backend_pid=None, postmaster_start=1.0, data_directory=directory) is None


def write_process(proc: Path, pid: int, *, parent: int, resident: int = 0, shared: int = 0) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "stat").write_text(
        f"{pid} (a (strange) name) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0\n"
    )
    (proc / str(pid) / "statm").write_text(f"9000 {resident} {shared} 10 0 50 0\n")


def test_memory_counts_what_is_shared_once_and_processes_of_others_not_at_all(tmp_path: Path) -> None:
    with process_named_postgres() as (postmaster, child_pid):
        pid, start = postmaster.pid, postmaster.create_time()
        write_process(tmp_path, pid, parent=1, resident=500, shared=400)
        write_process(tmp_path, 3_000_001, parent=pid, resident=1200, shared=1000)
        write_process(tmp_path, 3_000_002, parent=pid, resident=1100, shared=900)
        write_process(tmp_path, 3_000_003, parent=3_000_001, resident=7000)
        poller = HostPoller(port=5432, data_directory=None, proc=tmp_path)
        load = poller.look(backend_pid=child_pid, postmaster_start=start)
        assert load is not None
        assert load.server_processes == 3
        assert load.server_rss_bytes == (100 + 200 + 200 + 1000) * PAGE_BYTES


def test_processes_that_come_and_go_between_looks_are_counted_anew(tmp_path: Path) -> None:
    with process_named_postgres() as (postmaster, child_pid):
        pid, start = postmaster.pid, postmaster.create_time()
        write_process(tmp_path, pid, parent=1)
        write_process(tmp_path, 3_000_001, parent=pid)
        poller = HostPoller(port=5432, data_directory=None, proc=tmp_path)
        poller.look(backend_pid=child_pid, postmaster_start=start)
        shutil.rmtree(tmp_path / "3000001")
        write_process(tmp_path, 3_000_002, parent=pid)
        write_process(tmp_path, 3_000_003, parent=pid)
        load = poller.look()
        assert load is not None
        assert load.server_processes == 3


def test_without_proc_the_numbers_of_the_server_are_unknown_and_those_of_the_host_stay(tmp_path: Path) -> None:
    with process_named_postgres() as (postmaster, child_pid):
        poller = HostPoller(port=5432, data_directory=None, proc=tmp_path / "nowhere")
        load = poller.look(backend_pid=child_pid, postmaster_start=postmaster.create_time())
        assert load is not None
        assert (load.server_processes, load.server_rss_bytes, dict(load.tcp)) == (None, None, {})
        assert 0 < load.memory_used_ratio < 1
        assert 0 <= load.cpu_ratio <= 1
        assert load.cpu_count >= 1


def test_a_server_elsewhere_gives_no_load() -> None:
    assert HostPoller(port=5432, data_directory=None).look(backend_pid=None, postmaster_start=1.0) is None


def test_a_postmaster_that_died_gives_no_load() -> None:
    with process_named_postgres() as (postmaster, child_pid):
        poller = HostPoller(port=5432, data_directory=None)
        assert poller.look(backend_pid=child_pid, postmaster_start=postmaster.create_time()) is not None
    assert poller.look() is None


def test_another_start_time_means_another_server_and_the_proof_is_asked_for_again() -> None:
    with process_named_postgres() as (postmaster, child_pid):
        poller = HostPoller(port=5432, data_directory=None)
        start = postmaster.create_time()
        assert poller.look(backend_pid=child_pid, postmaster_start=start) is not None
        assert poller.look(backend_pid=child_pid, postmaster_start=start + 60) is None
