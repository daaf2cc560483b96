"""Which process of this host is a server's postmaster, when nobody can be asked.

Owns the proof for a server that lets nobody in: by the socket that the connection string leads to, and by the data
directory that the config names. It must not guess: 127.0.0.1 may be a pooler, a tunnel or another server, so a process
counts only if it is the one that would answer us there. It reads no session. Where a session can be asked, `host` has
a stronger proof.
"""

import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

import psutil

from batsignal.poll.host import POSTMASTER_NAMES, find_postmaster
from batsignal.poll.refusal import Place

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
_PEER_CREDENTIALS = struct.Struct("3i")
_CONNECT_SECONDS = 0.5


class _StrangerError(Exception):
    """Somebody else answers at a place, or it cannot be seen who: no process is to be taken for the server."""


def postmaster_at(places: Iterable[Place], data_directory: str | None) -> psutil.Process | None:
    """Return the postmaster that answers at these places, None unless all that answer are one process of this host.

    `data_directory` is what the config says; its `postmaster.pid` must fit the port.
    """
    found = set()
    for place in places:
        try:
            process = _postmaster_of(place, data_directory)
        except _StrangerError:
            return None
        if process is not None:
            found.add(process)
    return found.pop() if len(found) == 1 else None


def _postmaster_of(place: Place, data_directory: str | None) -> psutil.Process | None:
    """Return the postmaster at one place, None where nobody listens; raise _StrangerError where it is somebody else."""
    host, address, port = place[0], place[1] or place[0], int(place[2])
    if not (_is_directory(host) or is_own_address(address)):
        raise _StrangerError
    if data_directory is not None:
        process = find_postmaster(
            backend_pid=None, postmaster_start=None, data_directory=data_directory, port=port
        ) or _started_in(data_directory)
        if process is not None:
            return process
    pids = _listening_on_directory(host, port) if _is_directory(host) else _listening_on(address, port)
    return _oldest_postmaster(pids)


def _is_directory(host: str) -> bool:
    return host.startswith(("/", "@"))


def is_own_address(address: str) -> bool:
    """Whether a numeric address is one of this host's.

    >>> is_own_address("127.0.0.1"), is_own_address("192.0.2.1"), is_own_address("")
    (True, False, False)
    """
    try:
        wanted = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if wanted.is_loopback:
        return True
    return any(
        one.family in {socket.AF_INET, socket.AF_INET6} and ip_address(one.address.partition("%")[0]) == wanted
        for card in psutil.net_if_addrs().values()
        for one in card
    )


def _listening_on(address: str, port: int) -> set[int | None]:
    """Return who holds the socket at which a connection to this address arrives; None for one we may not see."""
    listening: dict[str, set[int | None]] = {}
    with suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
                listening.setdefault(one.laddr.ip, set()).add(one.pid)
    # The kernel prefers a socket bound to the very address to one that takes all.
    for bound_to in (address, *_WILDCARDS):
        if bound_to in listening:
            return listening[bound_to]
    return set()


def _listening_on_directory(directory: str, port: int) -> set[int | None]:
    """Return the pid of who listens on a socket file: the kernel tells it to whoever connects."""
    path = f"{directory}/.s.PGSQL.{port}"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        with suppress(OSError):
            connection.connect("\0" + path[1:] if path.startswith("@") else path)
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
            return {_PEER_CREDENTIALS.unpack(told)[0]}
    return set()


def _oldest_postmaster(pids: Iterable[int | None]) -> psutil.Process | None:
    """Return the postmaster among those that hold its socket: a child that was just born holds it, too."""
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            is_postmaster = pid is not None and process.name().startswith(POSTMASTER_NAMES)
            began = process.create_time()
        except psutil.Error:
            continue
        if not is_postmaster:
            raise _StrangerError  # a pooler, a tunnel: it answers there, whoever stands behind it
        found.append((began, process))
    return min(found, key=lambda one: one[0])[1] if found else None


def _started_in(data_directory: str) -> psutil.Process | None:
    """Return the postmaster that was started with this directory: `postmaster.pid` may not be ours to read."""
    if os.access(os.path.join(data_directory, "postmaster.pid"), os.R_OK):  # noqa: PTH118 - it may be unreachable
        return None
    wanted, found = os.path.normpath(data_directory), []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if not process.name().startswith(POSTMASTER_NAMES):
                continue
            words = process.cmdline()
            directory = words[words.index("-D") + 1] if "-D" in words[:-1] else ""
            parent = process.parent()
            is_child = parent is not None and parent.name().startswith(POSTMASTER_NAMES)
            if os.path.normpath(directory) == wanted and not is_child:
                found.append(process)
    return found[0] if len(found) == 1 else None
