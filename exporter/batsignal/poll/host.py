"""The machine under the server: processor, memory, the server's processes and the TCP sessions on its port.

Owns the proof that the server runs on this host and what is read of it there. It must not guess: 127.0.0.1 may be a
pooler, a tunnel or a container, so nothing is said unless a process of this host is shown to be that very postmaster.
It never raises for a process that vanished or may not be read.

psutil gives what it gives cheaply. The rest is read from /proc without it: psutil finds children by reading every
process of the host, and sockets through every open file of every process. Tried with 100 sessions: 3.7 and 8.1 ms of
processor a look, this way 0.4 and 2.5 ms; of the latter the kernel takes 2.3 to walk its TCP table (IPv4 and IPv6),
which grows with the machine's memory. So look every few seconds, not every tick.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

from batsignal.poll.children import PROC, Children, read_line
from batsignal.snapshot import START_TOLERANCE_SECONDS, HostLoad

POSTMASTER_NAMES = ("postgres", "postmaster")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# As fine as anybody reads it; further digits would only fill recordings.
RATIO_DIGITS = 4
LOAD_DIGITS = 2

# include/net/tcp_states.h of Linux, in its order from 1; psutil's names. 0A is LISTEN, which is no session, and
# 0C (a request not yet acknowledged) is shown as 03.
TCP_STATES: Mapping[bytes, str] = MappingProxyType(
    {
        b"01": psutil.CONN_ESTABLISHED,
        b"02": psutil.CONN_SYN_SENT,
        b"03": psutil.CONN_SYN_RECV,
        b"04": psutil.CONN_FIN_WAIT1,
        b"05": psutil.CONN_FIN_WAIT2,
        b"06": psutil.CONN_TIME_WAIT,
        b"07": psutil.CONN_CLOSE,
        b"08": psutil.CONN_CLOSE_WAIT,
        b"09": psutil.CONN_LAST_ACK,
        b"0B": psutil.CONN_CLOSING,
    }
)


def count_tcp_states(tables: bytes, *, port: int) -> dict[str, int]:
    """Count the sessions on a local port by state, from the text of /proc/net/tcp and tcp6.

    Every state is there, with 0 when no session is in it: a table that was read knows that there are none.

    >>> table = b'''  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
    ...    0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101
    ...    1: 0100007F:1538 0100007F:D0E2 01 00000000:00000000 00:00000000 00000000   101
    ...    2: 0100007F:D0E2 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0
    ... '''
    >>> {state: count for state, count in count_tcp_states(table, port=5432).items() if count}
    {'ESTABLISHED': 1}
    """
    pattern = rb"^ *\d+: [0-9A-F]+:%04X [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) " % port
    counts = dict.fromkeys(TCP_STATES.values(), 0)
    for state in re.findall(pattern, tables, re.MULTILINE):
        if state in TCP_STATES:
            counts[TCP_STATES[state]] += 1
    return counts


def find_postmaster(
    *,
    backend_pid: int | None,
    postmaster_start: float | None,
    data_directory: str | None,
    port: int | None = None,
) -> psutil.Process | None:
    """Return the process that is the server's postmaster, None when it is not shown to run here.

    `backend_pid` is `pg_backend_pid()` of our own session and `postmaster_start` the Unix seconds of
    `pg_postmaster_start_time()`. The backend's parent counts when it is named like one and began at that moment. Else
    `postmaster.pid` in `data_directory` names it; without a `postmaster_start` (nothing could be asked) the file's own
    start time and port have to fit.
    """
    with suppress(psutil.Error):
        if backend_pid is not None and postmaster_start is not None:
            parent = psutil.Process(backend_pid).parent()
            if parent is not None and _is_postmaster(parent, postmaster_start):
                return parent
    written = _read_postmaster_file(data_directory)
    if written is None or (postmaster_start is None and port not in (None, written.port)):
        return None
    with suppress(psutil.Error):
        process = psutil.Process(written.pid)
        if _is_postmaster(process, written.start if postmaster_start is None else postmaster_start):
            return process
    return None


def _is_postmaster(process: psutil.Process, start: float) -> bool:
    return process.name().startswith(POSTMASTER_NAMES) and abs(process.create_time() - start) <= START_TOLERANCE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class _PostmasterFile:
    pid: int
    start: float
    port: int


def _read_postmaster_file(data_directory: str | None) -> _PostmasterFile | None:
    """Read pid, start time and port from lines 1, 3 and 4 (PostgreSQL's include/utils/pidfile.h)."""
    if data_directory is None:
        return None
    try:
        lines = (Path(data_directory) / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        return _PostmasterFile(pid=int(lines[0]), start=float(lines[2]), port=int(lines[3]))
    except (OSError, ValueError, IndexError):  # not ours to read, or being written at this moment
        return None


class HostPoller:
    """Looks at this host and at one server's part in it; not for use by two threads at once.

    `port` is the one that the server itself listens on, also when it is reached through a pooler on another.
    """

    def __init__(self, *, port: int, data_directory: str | None, proc: Path = PROC) -> None:
        self._port = port
        self._data_directory = data_directory
        self._proc = proc
        self._postmaster: psutil.Process | None = None
        self._postmaster_start: float | None = None
        self._children = Children(0, proc)
        # The mean since boot stands in until the first look that finds time gone by.
        self._cpu_ratio = 0.0
        self._cpu_seconds = (0.0, 0.0)
        with suppress(psutil.Error, OSError):
            self._look_at_cpu()

    def look(self, *, backend_pid: int | None = None, postmaster_start: float | None = None) -> HostLoad | None:
        """Return the host's load since the look before, None when the server is not shown to run on this host.

        The arguments are those of `find_postmaster`; None for both while there is no session keeps what was found.
        What cannot be read is None, and `tcp` empty. `server_rss_bytes` counts shared memory once: the private part of
        every process, plus the largest shared part of one (at least what was touched of the shared buffers; huge pages
        are in nobody's resident memory). PSS would be exact, and takes milliseconds per process.
        """
        postmaster = self._find(backend_pid, postmaster_start)
        if postmaster is None:
            return None
        try:
            memory = psutil.virtual_memory()
            load1 = psutil.getloadavg()[0]
            self._look_at_cpu()
        except (psutil.Error, OSError):
            return None
        processes, rss_bytes = self._server_processes(postmaster)
        return HostLoad(
            cpu_ratio=round(self._cpu_ratio, RATIO_DIGITS),
            memory_used_ratio=round(1.0 - memory.available / memory.total, RATIO_DIGITS),
            load1=round(load1, LOAD_DIGITS),
            cpu_count=psutil.cpu_count() or 1,
            server_processes=processes,
            server_rss_bytes=rss_bytes,
            tcp=MappingProxyType(self._tcp(postmaster)),
        )

    def _find(self, backend_pid: int | None, postmaster_start: float | None) -> psutil.Process | None:
        restarted = postmaster_start is not None and postmaster_start != self._postmaster_start
        if self._postmaster is not None and not restarted and self._postmaster.is_running():
            return self._postmaster
        self._postmaster = find_postmaster(
            backend_pid=backend_pid,
            postmaster_start=postmaster_start,
            data_directory=self._data_directory,
            port=self._port,
        )
        self._postmaster_start = postmaster_start
        if self._postmaster is not None:
            self._children = Children(self._postmaster.pid, self._proc)
        return self._postmaster

    def _look_at_cpu(self) -> None:
        # Not psutil.cpu_percent: its memory of the look before belongs to a thread, and a pool's threads take turns.
        times = psutil.cpu_times()
        # Guests' time is in user and nice already.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        busy = total - times.idle - getattr(times, "iowait", 0.0)
        passed, worked = total - self._cpu_seconds[0], busy - self._cpu_seconds[1]
        if passed > 0:  # time is counted in hundredths of a second
            self._cpu_ratio = min(max(worked / passed, 0.0), 1.0)
            self._cpu_seconds = (total, busy)

    def _server_processes(self, postmaster: psutil.Process) -> tuple[int | None, int | None]:
        try:
            pids = [postmaster.pid, *(child.pid for child in self._children.alive())]
        except OSError:
            return None, None
        private_pages, shared_pages_max, count = 0, 0, 0
        for resident, shared in self._pages(pids):
            count += 1
            private_pages += resident - shared
            shared_pages_max = max(shared_pages_max, shared)
        return (count, (private_pages + shared_pages_max) * PAGE_BYTES) if count else (None, None)

    def _pages(self, pids: list[int]) -> Iterator[tuple[int, int]]:
        for pid in pids:
            with suppress(OSError):  # ended since the directory was read
                _, resident, shared, _ = read_line(f"{self._proc}/{pid}/statm").split(None, 3)
                yield int(resident), int(shared)

    def _tcp(self, postmaster: psutil.Process) -> dict[str, int]:
        """Read the tables of the network namespace that the postmaster lives in; empty where there are none."""
        tables = b""
        for table in ("tcp", "tcp6"):
            with suppress(OSError):  # no IPv6, or no /proc
                tables += (self._proc / str(postmaster.pid) / "net" / table).read_bytes()
        return count_tcp_states(tables, port=self._port) if tables else {}
