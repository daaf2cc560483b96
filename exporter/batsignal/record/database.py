"""The SQLite file that history is kept in: claimed, opened, checked, and put aside when it is not one of ours.

Owns the file and its life: one daemon at a time (a lock file beside it), the version of its shape, what becomes of a
file that a newer release, another program or a broken disk has left there. It must never delete such a file, and never
wait long: whatever is wrong is a `StoreError`. What stands in the tables is `store`'s affair.

Written in WAL mode without a sync at each commit: a killed process loses nothing that was committed, a machine that
loses its power the last seconds, and neither leaves a torn file.
"""

import contextlib
import fcntl
import itertools
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

APPLICATION_ID = 0x42615421  # "BaT!"
VERSION = 1
# A reader holds a lock for milliseconds; who holds it longer (a person in a shell, a backup) is tried again later.
BUSY_SECONDS = 1.0
CACHE_KIBIBYTES = 512
WAL_BYTES_MOST = 4 * 1024 * 1024
PROBE_BYTES = 64 * 1024

SCHEMA = """
CREATE TABLE incident (
    id TEXT PRIMARY KEY, server TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, raised_as TEXT NOT NULL,
    worst TEXT NOT NULL, detected REAL NOT NULL, ended REAL, reason TEXT, by TEXT, signal TEXT NOT NULL,
    told_at REAL NOT NULL);
CREATE INDEX incident_detected ON incident (detected);
CREATE TABLE event (
    incident TEXT NOT NULL, number INTEGER NOT NULL, t REAL NOT NULL, event TEXT NOT NULL, reason TEXT, by TEXT,
    signal TEXT NOT NULL, PRIMARY KEY (incident, number));
CREATE TABLE deploy (
    service TEXT NOT NULL, version TEXT NOT NULL, at REAL NOT NULL, previous TEXT, told_at REAL NOT NULL,
    PRIMARY KEY (service, version, at)) WITHOUT ROWID;
CREATE TABLE watch (
    server TEXT PRIMARY KEY, t REAL, told_at REAL, usual TEXT, usual_at REAL) WITHOUT ROWID;
"""

_UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BESIDE = ("", "-wal", "-shm")


class StoreError(Exception):
    """The file cannot be used now; the message is one line, without a path of its own."""


class StoreTakenError(StoreError):
    """Another daemon keeps its history there."""


class Database:
    """One daemon's hold on the file. Used by one thread."""

    def __init__(
        self, path: Path, *, put_aside: Callable[[str, Path], None], clock: Callable[[], float] = time.time
    ) -> None:
        """`put_aside` is told the reason and the new name of a file that could not be used."""
        self._path = path
        self._put_aside = put_aside
        self._clock = clock
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._was_there = False

    def open(self) -> sqlite3.Connection:
        """Return a connection to a file of our shape, begun anew where there was none; raises StoreError."""
        self.close()
        try:
            if self._was_there:  # its folder too may have been deleted under us
                self._path.absolute().parent.mkdir(mode=0o700, exist_ok=True)
            _expect_a_file(self._path)
            self._claim()
            reason = _fault(self._path)
            if reason is not None:
                self._move_aside(reason)
            self._connection = connection = _connected(self._path)
            _shape(connection)
            self._identity = _identity(self._path)
            self._was_there = True
        except (sqlite3.Error, OSError) as exc:
            self.close()
            raise StoreError(explained(exc)) from exc
        except StoreError:
            self.close()
            raise
        return connection

    def set_aside(self, reason: str) -> None:
        """Put a file aside that turned out to be broken while it was in use; raises StoreError."""
        self._disconnect()
        try:
            self._move_aside(reason)
        except OSError as exc:
            raise StoreError(explained(exc)) from exc

    @property
    def is_there(self) -> bool:
        """Whether the file that is open is still the one at the path: somebody may have deleted it."""
        return self._identity is not None and self._identity == _identity(self._path)

    def close(self) -> None:
        """Let go of the file, for another daemon to use."""
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection, self._identity = None, None

    def _claim(self) -> None:
        path = _beside(self._path, ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreTakenError(f"another daemon (pid {holder or 'unknown'}) keeps its history there") from None
        self._lock = descriptor
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # on a full disk: the lock holds without the number
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def _move_aside(self, reason: str) -> None:
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        for number in itertools.count(1):
            aside = _beside(self._path, f".aside-{when}" + (f"-{number}" if number > 1 else ""))
            if not aside.exists():
                break
        for suffix in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                _beside(self._path, suffix).rename(_beside(aside, suffix))
        self._put_aside(reason, aside)


def examined(path: Path) -> tuple[str | None, str | None]:
    """Return why a daemon could not keep its history at a path, and what else to know; changes nothing there."""
    try:
        _expect_a_file(path)
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            file.write(b"\0" * PROBE_BYTES)
            file.flush()
        if path.exists() and not os.access(path, os.W_OK):
            return "cannot be written", None
        if _is_taken(_beside(path, ".lock")):
            return None, "a daemon keeps its history there now; a second one would wait for it to end"
        fault = _fault(path)
    except (sqlite3.Error, OSError, StoreError) as exc:
        return explained(exc), None
    return None, None if fault is None else f"{fault}; it would be put aside, and a new one begun"


def _expect_a_file(path: Path) -> None:
    """Raise StoreError where something else stands at a path; nothing may.

    What we made our own of a device would be shut to everybody else: `/dev/null`, say, where somebody wants no history.
    """
    if path.is_dir():
        raise StoreError("a folder, expected a file")
    if path.exists() and not path.is_file():
        raise StoreError("a device or a pipe, expected a file (null keeps nothing)")


def _is_taken(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_broken(exc: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is unreadable, which no second attempt will mend."""
    return (getattr(exc, "sqlite_errorcode", 0) & 0xFF) in _UNREADABLE


def explained(exc: Exception) -> str:
    """Return an error as one line without a path."""
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)


def reading(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads, beside the daemon's own; raises StoreError when there is nothing to read."""
    try:
        if not path.exists():
            raise StoreError("nothing is kept yet")
        connection = _connected(path, mode="ro")
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            connection.close()
            raise StoreError("the file is not one that this version reads")
    except (sqlite3.Error, OSError) as exc:
        raise StoreError(explained(exc)) from exc
    return connection


def _connected(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # transactions are ours to begin
        check_same_thread=False,  # a web request's thread may close what another opened
    )
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
    return connection


def _fault(path: Path) -> str | None:
    """Return why the file that is there cannot be used, None when it can, or when there is none."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with contextlib.closing(_connected(path, mode="rw")) as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if tables and application != APPLICATION_ID:
                return "it belongs to another program"
            if version > VERSION:
                return f"a newer release wrote it (version {version}, this one knows {VERSION})"
            connection.execute("SELECT max(detected) FROM incident").fetchall() if version else None
    except sqlite3.DatabaseError as exc:
        if is_broken(exc) or "no such" in str(exc):
            return f"it cannot be read: {exc}"
        raise
    return None


def _shape(connection: sqlite3.Connection) -> None:
    """Give an empty file its tables."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        Path(connection.execute("PRAGMA database_list").fetchone()[2]).chmod(0o600)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {VERSION}; COMMIT;"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MOST}")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
