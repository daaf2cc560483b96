"""The faults, each a context in which server A is broken, or what lies on the way to it; at its end all is well again.

Everything is done to real processes. A fault must touch nothing but the stand's own server A.
"""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from batsignal.drills.embedded import HOST, EmbeddedServer
from batsignal.drills.guardian import Guardian
from frozen import frozen
from under_fault.stand import Stand, StandError, ask, on, until

KILL_EVERY_SECONDS = 0.2
SCRAPES_AT_ONCE = 40
# Each over a connection that it keeps, as Prometheus does; all of them at the same moment, four times a second.
_SCRAPERS = """
import http.client, sys, threading, time

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
together = threading.Barrier(count, timeout=30)

def scrape():
    connection = http.client.HTTPConnection(host, port, timeout=30)
    while True:
        together.wait()
        began = time.monotonic()
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.read() and answer.status == 200
        sys.stdout.write(f"{time.monotonic() - began}\\n")
        sys.stdout.flush()
        time.sleep(0.25)

for _ in range(count):
    threading.Thread(target=scrape, daemon=True).start()
while not together.broken:
    time.sleep(0.1)
"""
_OWN_PIDS = "SELECT pid FROM pg_stat_get_activity(NULL), pg_roles WHERE oid = usesysid AND rolname = '{role}'"

Begin = Callable[[Stand], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table in docs/faults.md."""

    title: str
    begin: Begin
    lasts_seconds: float
    shown_as: frozenset[str]
    """The states that A may be shown in at the end of it."""


@contextmanager
def many_scrapes(stand: Stand) -> Iterator[None]:
    """Forty scrapes at once, over and over, from a process of their own: a thread beside us would slow who measures."""
    arguments = [stand.daemon.host, str(stand.daemon.port), str(SCRAPES_AT_ONCE)]
    with Guardian() as guardian, tempfile.TemporaryFile("w+") as took:
        command = [sys.executable, "-c", _SCRAPERS, *arguments]
        scrapers = guardian.spawn(command, cwd=stand.daemon.folder, output=took.fileno())
        yield
        if scrapers.poll() is not None:
            raise StandError("a scrape was not answered")
        guardian.close()
        took.seek(0)
        stand.scrapes.extend(float(line) for line in took if line.endswith("\n"))


@contextmanager
def hung(stand: Stand) -> Iterator[None]:
    """The postmaster and all its processes are stopped (SIGSTOP): the kernel still takes connections for them."""
    with frozen(stand.a.pid):
        yield


@contextmanager
def session_killed(stand: Stand) -> Iterator[list[int]]:
    """Our session is ended five times a second; yields the pids that were."""
    ended, killed = threading.Event(), list[int]()
    query = _OWN_PIDS.format(role=stand.guest)

    def kill() -> None:
        with closing(on(stand.a)) as connection, connection.cursor() as cursor:
            while not ended.wait(KILL_EVERY_SECONDS):
                cursor.execute(f"SELECT pid, pg_terminate_backend(pid) FROM ({query}) AS ours")
                killed.extend(pid for pid, _ in cursor)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        ended.set()
        killer.join()


@contextmanager
def restarted_fast(stand: Stand) -> Iterator[None]:
    """The server is restarted as an administrator does (SIGINT)."""
    stand.a.restart("fast")
    yield


@contextmanager
def restarted_immediately(stand: Stand) -> Iterator[None]:
    """The server is restarted without a farewell (SIGQUIT), and recovers."""
    stand.a.restart("immediate")
    yield


@contextmanager
def stopped(stand: Stand) -> Iterator[None]:
    """The server is down for as long as this lasts."""
    stand.a.stop("fast")
    try:
        yield
    finally:
        stand.a.start()


@contextmanager
def backend_crashed(stand: Stand) -> Iterator[None]:
    """A neighbour's backend is killed (SIGKILL, as the kernel does when memory is short): all sessions end with it."""
    with closing(on(stand.a)) as neighbour:
        os.kill(neighbour.info.backend_pid, signal.SIGKILL)
        until(lambda: _takes_connections(stand.a), "the server to have recovered")
        yield


@contextmanager
def postmaster_killed(stand: Stand) -> Iterator[None]:
    """The postmaster itself is killed, and started again after a moment."""
    stand.a.signal(signal.SIGKILL)
    try:
        yield
    finally:
        until(lambda: not stand.a.running, "the postmaster to be gone")
        stand.a.start()


@contextmanager
def catalogs_locked(stand: Stand) -> Iterator[None]:
    """Somebody holds ACCESS EXCLUSIVE on every catalog that tells of roles, databases and settings."""
    with closing(on(stand.a)) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("LOCK TABLE pg_authid, pg_database, pg_db_role_setting, pg_auth_members, pg_class, pg_proc")
        yield
        connection.rollback()


@contextmanager
def killed_while_catalogs_locked(stand: Stand) -> Iterator[None]:
    """Whoever connects now waits inside the server, for no timeout of ours counts before a session has begun."""
    with closing(on(stand.a)) as connection, connection.cursor() as cursor:
        cursor.execute(_OWN_PIDS.format(role=stand.guest))
        own = [pid for (pid,) in cursor]
    with catalogs_locked(stand):
        for pid in own:
            os.kill(pid, signal.SIGTERM)  # what pg_terminate_backend() does; that one would wait for the lock
        yield


@contextmanager
def statements_time_out(stand: Stand) -> Iterator[None]:
    """Every look takes longer than `statement_timeout`: the clock that each asks for first sleeps.

    PostgreSQL knows its own functions by number, so another one has to have the name, and a new session to look it up.
    """
    clock, real = "pg_catalog.clock_timestamp()", "pg_catalog.real_clock_timestamp()"
    ask(
        stand.a,
        f"ALTER FUNCTION {clock} RENAME TO real_clock_timestamp",
        f"CREATE FUNCTION {clock} RETURNS timestamptz LANGUAGE plpgsql AS $$"
        f" BEGIN PERFORM pg_catalog.pg_sleep(60); RETURN {real}; END $$",
        f"SELECT pg_terminate_backend(pid) FROM ({_OWN_PIDS.format(role=stand.guest)}) AS ours",
    )
    try:
        yield
    finally:
        ask(stand.a, f"DROP FUNCTION {clock}", f"ALTER FUNCTION {real} RENAME TO clock_timestamp")


@contextmanager
def accepts_and_says_nothing(stand: Stand) -> Iterator[list[socket.socket]]:
    """In the server's place something takes connections and never says a word; yields those it has taken."""
    taken: list[socket.socket] = []
    stand.a.stop("fast")
    try:
        with socket.create_server((HOST, stand.a.port), backlog=100) as silent:
            silent.settimeout(0.1)
            ended = threading.Event()

            def take() -> None:
                while not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        taken.append(silent.accept()[0])

            taker = threading.Thread(target=take)
            taker.start()
            try:
                yield taken
            finally:
                ended.set()
                taker.join()
                for connection in taken:
                    connection.close()
    finally:
        stand.a.start()


def _rows() -> Iterator[Fault]:
    def row(
        title: str, begin: Callable[[Stand], AbstractContextManager[object]], lasts: float, *shown_as: str
    ) -> Fault:
        return Fault(title=title, begin=begin, lasts_seconds=lasts, shown_as=frozenset(shown_as))

    yield row("40 scrapes at once", many_scrapes, 3, "up")
    # Longer than the kept session alone is waited for.
    yield row("a server that hangs", hung, 9, "timeout")
    yield row("our session killed every 200 ms", session_killed, 5, "up", "not_accepting", "unreachable")
    yield row("a restart, fast", restarted_fast, 0, "up", "refused", "not_accepting", "unreachable")
    yield row("a restart, immediate", restarted_immediately, 0, "up", "refused", "not_accepting", "unreachable")
    yield row("a server that is down", stopped, 4, "refused")
    yield row("a backend that is killed", backend_crashed, 0, "up", "refused", "not_accepting", "unreachable")
    yield row("a postmaster that is killed", postmaster_killed, 3, "refused")
    yield row("catalogs locked", catalogs_locked, 4, "up")
    yield row("our session killed while catalogs are locked", killed_while_catalogs_locked, 6, "timeout")
    yield row("statement timeouts only", statements_time_out, 5, "timeout")
    yield row("a server that accepts and says nothing", accepts_and_says_nothing, 5, "timeout")


def _takes_connections(server: EmbeddedServer) -> bool:
    with contextlib.suppress(Exception):
        return ask(server, "SELECT 1") == [(1,)]
    return False


FAULTS = tuple(_rows())
