"""The guardian's own process: waits for the end of a pipe, then ends what was registered and removes its directories.

Run as a script by `batsignal.drills.guardian`, which alone knows its protocol. It exists because a parent that is
killed with SIGKILL cannot clean up. It must stay light (a bare interpreter, four modules), must outlive every signal a
terminal sends, must never touch a process or a directory that was not registered by its own parent, and must end.

Each line on standard input is one registration:

    process PID START_TICKS SIGNAL,SIGNAL,...     a session leader, and the signals to send it, gentlest first
    directory PATH                                a directory whose name carries the token
"""

import os
import signal
import sys
import time

MARKER = "BATSIGNAL_GUARDIAN"
GRACE_SECONDS = 4.0
PATIENCE_SECONDS = 0.02
# A stray may have started another while it was being ended; one that cannot be killed must not hold us for ever.
SWEEPS = 3


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it does not live (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double what this process weighs
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


class Ward:
    """One process to end. A pid alone is no identity: the kernel reuses it."""

    def __init__(self, pid: int, started: int | None, signals: tuple[int, ...]) -> None:
        self.pid = pid
        self.started = started
        self.signals = signals

    @property
    def alive(self) -> bool:
        return self.started is not None and start_ticks(self.pid) == self.started

    def send(self, stage: int) -> None:
        number = self.signals[stage] if stage < len(self.signals) else signal.SIGKILL
        if not _quietly(os.killpg, self.pid, number):
            _quietly(os.kill, self.pid, number)


def _quietly(call, *arguments, **options) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003 - typing is not imported here
    try:
        call(*arguments, **options)
    except OSError:
        return False
    return True


def marked(token: str) -> list[Ward]:
    """Find processes that carry the token in their environment: started, but not registered before the parent died."""
    wanted = f"{MARKER}={token}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - as above
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123 - as above
                mine = wanted in file.read().split(b"\0")
        except OSError:
            continue
        if mine:
            found.append(Ward(int(name), start_ticks(int(name)), (signal.SIGINT,)))
    return found


def end(wards: list[Ward]) -> None:
    """Send each its signals, one stage after the other, to those that still live; the last stage is SIGKILL."""
    for stage in range(max([len(ward.signals) for ward in wards], default=0) + 1):
        for ward in wards:
            if ward.alive:
                ward.send(stage)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(ward.alive for ward in wards):
            if time.monotonic() > deadline:
                break
            time.sleep(PATIENCE_SECONDS)
        else:
            return


def forget_memory(directory: str, pids: set[int]) -> None:
    """Remove the System V segment of a server that was killed: PostgreSQL then leaves its file and segment behind."""
    try:
        with open(f"{directory}/data/postmaster.pid", encoding="utf-8") as file:  # noqa: PTH123 - as above
            segment = file.read().splitlines()[6].split()[1]
        with open("/proc/sysvipc/shm", encoding="ascii") as file:  # noqa: PTH123 - as above
            rows = [line.split() for line in file]
    except (OSError, IndexError):
        return
    if any(row[1] == segment and row[4].isdigit() and int(row[4]) in pids for row in rows):
        import ctypes  # noqa: PLC0415 - heavy, and needed only after a SIGKILL of a server

        ipc_rmid = 0
        ctypes.CDLL(None).shmctl(int(segment), ipc_rmid, None)


def remove(directory: str) -> None:
    """Remove a directory and all in it, through directory descriptors so that a planted link leads nowhere."""
    deadline = time.monotonic() + GRACE_SECONDS
    while os.path.isdir(directory) and not os.path.islink(directory):  # noqa: PTH112, PTH114 - as above
        for _, folders, files, descriptor in os.fwalk(directory, topdown=False):
            for name in files:
                _quietly(os.unlink, name, dir_fd=descriptor)
            for name in folders:
                if not _quietly(os.rmdir, name, dir_fd=descriptor):
                    _quietly(os.unlink, name, dir_fd=descriptor)
        if _quietly(os.rmdir, directory) or time.monotonic() > deadline:
            return
        time.sleep(PATIENCE_SECONDS)


def clean(token: str, lines: list[str]) -> None:
    """Carry out every registration. A line cut short by the parent's death is passed over."""
    wards, directories = [], []
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "process":
            pid, started, signals = rest.split()
            wards.append(Ward(int(pid), int(started), tuple(int(number) for number in signals.split(","))))
        elif kind == "directory" and token in os.path.basename(rest):  # noqa: PTH119 - as above
            directories.append(rest)
    end(wards)
    for _ in range(SWEEPS):
        end(marked(token))
    for directory in directories:
        forget_memory(directory, {ward.pid for ward in wards})
        remove(directory)


def main(token: str) -> None:
    """Announce readiness, wait for the pipe's end, clean."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"ready\n")
    os.close(1)
    received = b""
    while chunk := os.read(0, 65536):
        received += chunk
    clean(token, received.decode().split("\n")[:-1])


if __name__ == "__main__":
    main(sys.argv[1])
