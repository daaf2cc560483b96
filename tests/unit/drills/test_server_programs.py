import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

import batsignal
from batsignal.drills import server_programs
from batsignal.drills.guardian import SystemUser
from batsignal.errors import UnreachableError

STRANGER = SystemUser(name="stranger", uid=54321, gid=54321)


def test_a_missing_wheel_says_what_to_install() -> None:
    program = "from batsignal.drills import server_programs as programs; programs.wheel_bindir()"
    folder = str(Path(batsignal.__file__).parent.parent)
    # -S: no site-packages, as on a machine where the wheel was never installed.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UnreachableError" in done.stderr
    assert "pip install 'batsignal[demo]'" in done.stderr


def test_a_server_runs_as_another_user_exactly_when_we_are_root() -> None:
    user = server_programs.server_user()
    if os.geteuid() == 0:
        assert user is not None
        assert user.uid == pwd.getpwnam(user.name).pw_uid != 0
    else:
        assert user is None


def test_a_folder_closed_to_others_cannot_be_entered_by_a_stranger(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert not server_programs.can_enter(closed, STRANGER)
    assert server_programs.can_enter(closed, None)


def test_a_closed_folder_further_up_closes_all_below(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    closed.chmod(0o700)
    assert not server_programs.can_enter(closed / "open", STRANGER)


def test_the_root_folder_can_be_entered_by_anybody() -> None:
    assert server_programs.can_enter(Path("/"), STRANGER)


def test_programs_that_are_not_there_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="no PostgreSQL programs in"):
        server_programs.usable_bindir(tmp_path, None, tmp_path / "copy")


def test_programs_that_run_are_used_where_they_lie(tmp_path: Path) -> None:
    bindir = server_programs.wheel_bindir()
    assert server_programs.usable_bindir(bindir, None, tmp_path / "copy") == bindir
    assert not (tmp_path / "copy").exists()
