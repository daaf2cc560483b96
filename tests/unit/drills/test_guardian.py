"""The guardian ends real processes and removes real directories: fakes would only prove that fakes can be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batsignal.drills import guardian_process
from batsignal.drills.guardian import Guardian

DEADLINE_SECONDS = 20.0

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]
PARENT = """
import os, subprocess, sys, time
from pathlib import Path
from batsignal.drills import guardian_process
from batsignal.drills.guardian import Guardian
guardian = Guardian()
directory = guardian.make_directory("test", parent=Path(sys.argv[1]))
(directory / "inner").mkdir()
(directory / "inner" / "file").touch()
sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
child = guardian.spawn(sleeper, cwd=directory)
lost = subprocess.Popen(sleeper, env={guardian_process.MARKER: guardian._token}, start_new_session=True)
print(guardian.pid, child.pid, lost.pid, flush=True)
time.sleep(600)
"""


def lives(pid: int) -> bool:
    return guardian_process.start_ticks(pid) is not None


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_close_ends_the_child_removes_the_directory_and_ends_the_guardian(tmp_path: Path) -> None:
    with Guardian() as guardian:
        directory = guardian.make_directory("test", parent=tmp_path)
        (directory / "file").touch()
        child = guardian.spawn(SLEEPER, cwd=directory)
        assert child.poll() is None
    assert child.returncode == -signal.SIGTERM
    assert not directory.exists()
    assert not lives(guardian.pid)


def test_a_child_that_ignores_the_gentle_signal_is_killed(tmp_path: Path) -> None:
    with Guardian() as guardian:
        child = guardian.spawn(STUBBORN, cwd=tmp_path, output=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout as output:
            assert output.readline() == b"deaf\n"
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_parent_killed_by_any_signal_leaves_nothing_not_even_what_it_had_no_time_to_register(
    tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        guardian, child, unregistered = (int(word) for word in parent.stdout.readline().split())
        assert lives(guardian)
        assert lives(child)
        assert lives(unregistered)
        parent.send_signal(number)
    assert wait_for(lambda: not any(map(lives, (guardian, child, unregistered))))
    assert list(tmp_path.iterdir()) == []


def test_the_guardian_outlives_what_a_terminal_sends() -> None:
    with Guardian() as guardian:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
            os.kill(guardian.pid, number)
        assert lives(guardian.pid)
        assert os.getsid(guardian.pid) != os.getsid(0)


def test_a_process_that_got_a_reused_pid_is_left_alone() -> None:
    with subprocess.Popen(SLEEPER, start_new_session=True) as stranger:
        started = guardian_process.start_ticks(stranger.pid)
        assert started is not None
        guardian_process.clean("no-such-token", [f"process {stranger.pid} {started - 1} 15"])
        assert stranger.poll() is None
        stranger.kill()


def test_a_directory_without_the_token_in_its_name_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    guardian_process.clean("0123456789abcdef", [f"directory {precious}"])
    assert precious.exists()


def test_a_link_planted_in_a_scratch_directory_leads_nowhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    with Guardian() as guardian:
        directory = guardian.make_directory("test", parent=tmp_path)
        (directory / "link").symlink_to(precious)
    assert not directory.exists()
    assert (precious / "file").exists()


def test_a_child_does_not_get_the_variables_of_libpq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    command = [sys.executable, "-S", "-c", "import os; print('PGSSLMODE' in os.environ)"]
    with Guardian() as guardian:
        child = guardian.spawn(command, cwd=tmp_path, output=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout as output:
            assert output.read() == b"False\n"


def test_the_guardian_is_light() -> None:
    with Guardian() as guardian:
        status = Path(f"/proc/{guardian.pid}/status").read_text(encoding="ascii")
        rss_kilobytes = int(status.partition("VmRSS:")[2].split()[0])
    assert rss_kilobytes < 16_000
