"""The one thread that writes history: what ticks hand over, into the store and the flight recorders.

A tick never waits for a disk: it puts what it has into a queue and goes on. Here it is written, in order, a transaction
for all that has come. What the disk does not take (it is full, read-only, gone, locked, held by another daemon) is
counted, tried again with growing pauses, and dropped beyond a bound. Owns the thread, the queue and the counts. It
raises nothing and tells nobody: `health` says what is the matter.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from batsignal.detect.signal import Event
from batsignal.record.archive import prune_recordings, recordings_folder
from batsignal.record.board import StoreHealth
from batsignal.record.database import Database, StoreError, StoreTakenError, explained, is_broken
from batsignal.record.flight import FlightRecorder
from batsignal.record.kept import Left, Past
from batsignal.record.store import Store
from batsignal.snapshot import Deploy, Snapshot

Write = Callable[[Store], None]
"""Something to be written, in a transaction that may be tried again."""

# Looks wait for a slow disk this long and no longer: each holds the sessions that changed in it.
LOOKS_WAITING_MOST = 120
WRITES_WAITING_MOST = 5000
WRITES_AT_ONCE = 500
TAKEN_FIRST_PAUSE_SECONDS, TAKEN_PAUSE_SECONDS = 0.25, 2.0
PAUSE_FIRST_SECONDS, PAUSE_MOST_SECONDS = 1.0, 10.0
# The disk hangs when the thread has not come back from it for this long.
HANGS_SECONDS = 10.0
PRUNE_SECONDS = 600.0
SIZE_SECONDS = 60.0
RECORDINGS_BYTES_MOST = 1024**3

# What says that a value is at fault and not the disk: trying again would hold up all that comes after it.
_NOT_THE_DISK = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

log = logging.getLogger(__name__)


class Keeper:
    """Writes what it is given. Public methods may be called by any thread; only `start` and `stop` wait."""

    def __init__(
        self,
        path: Path,
        *,
        keep_days: float,
        alive: Callable[[], Past] = Past,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`alive` returns what must be in a file that is opened while the daemon runs: what is lit, and the deploys."""
        self.keep_days = keep_days
        self._folder = recordings_folder(path)
        self._path = path
        self._alive = alive
        self._clock = clock
        self._monotonic = monotonic
        self._database = Database(path, put_aside=self._put_aside, clock=clock)
        self._connection: sqlite3.Connection | None = None
        self._recorders: dict[str, FlightRecorder] = {}
        self._jobs: deque[Callable[[], object]] = deque()
        self._looks_waiting = 0
        self._writes: deque[Write] = deque()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopping = False
        self._past: Past | None = None
        self._past_known = threading.Event()
        self._health = StoreHealth()
        self._pause_seconds = PAUSE_FIRST_SECONDS
        self._retry_at = self._prune_at = self._size_at = float("-inf")
        self._beat = monotonic()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self, timeout_seconds: float) -> Past:
        """Begin to write; return what an earlier life left, or nothing when the disk has not told it in time."""
        self._thread.start()
        self._past_known.wait(timeout_seconds)
        with self._lock:
            self._past_known.set()  # what comes later is late
            return self._past or Past()

    def stop(self, timeout_seconds: float) -> None:
        """Write what has come, and end; a disk that hangs is not waited for."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    @property
    def health(self) -> StoreHealth:
        """How it stands with the disk."""
        if self._jobs and self._monotonic() - self._beat > HANGS_SECONDS:
            return replace(self._health, up=False, reason="the disk hangs", recorder_reason="the disk hangs")
        return self._health

    def write(self, write: Write) -> None:
        """Have something written to the store."""
        self._do(lambda: self._writes.append(write))

    def record(self, server: str, recorder: FlightRecorder, left: Left) -> None:
        """Have a server's looks recorded from now on, its incidents of an earlier life going on."""

        def begin() -> None:
            self._close_recorder(server)
            self._recorders[server] = recorder
            recorder.resume([*((signal, None) for signal in left.signals), *left.ended])

        self._do(lambda: self._on_disk(begin))

    def forget(self, server: str) -> None:
        """Record a server no more."""
        self._do(lambda: self._on_disk(lambda: self._close_recorder(server)))

    def look(self, server: str, snapshot: Snapshot, known_deploys: Sequence[Deploy], events: tuple[Event, ...]) -> None:
        """Have a look recorded. One too many for a slow disk is dropped; the events in it are not."""
        with self._lock:
            is_too_many = self._looks_waiting >= LOOKS_WAITING_MOST
            self._looks_waiting += not is_too_many
        if is_too_many:
            self._count(dropped_looks=1)
        kept = None if is_too_many else snapshot
        if kept is not None or events:
            self._do(lambda: self._take(server, kept, known_deploys, events))

    def _do(self, job: Callable[[], object]) -> None:
        if len(self._jobs) < WRITES_WAITING_MOST:
            self._jobs.append(job)
        else:
            self._count(dropped_writes=1)
        self._wake.set()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.clear()
            self._beat = self._monotonic()
            self._turn()
            if self._stopping and not self._jobs:
                break
            self._wake.wait(max(min(self._retry_at - self._monotonic(), 5.0), 0.05) if self._writes else 5.0)
        self._retry_at = float("-inf")
        self._turn()
        for server in list(self._recorders):
            self._on_disk(lambda name=server: self._close_recorder(name))  # type: ignore[misc]
        self._database.close()

    def _turn(self) -> None:
        try:
            while self._jobs:
                self._jobs.popleft()()
            while len(self._writes) > WRITES_WAITING_MOST:
                self._writes.popleft()
                self._count(dropped_writes=1)
            if self._monotonic() >= self._retry_at:
                self._commit()
            self._measure()
        except Exception:  # a bug: the watch goes on, and so does the next turn
            log.exception("history not kept")
            self._count(errors=1)

    def _commit(self) -> None:
        try:
            connection = self._opened()
            store = Store(connection)
            while self._writes:
                batch = [self._writes[index] for index in range(min(len(self._writes), WRITES_AT_ONCE))]
                with _transaction(connection):
                    for write in batch:
                        self._apply(write, store)
                for _ in batch:
                    self._writes.popleft()
            self._prune(connection, store)
        except (StoreError, sqlite3.Error, OSError) as exc:
            self._failed(exc)
        else:
            self._pause_seconds = PAUSE_FIRST_SECONDS
            self._note(up=True, reason=None)

    def _apply(self, write: Write, store: Store) -> None:
        try:
            write(store)
        except Exception as exc:
            if isinstance(exc, (sqlite3.Error, OSError)) and not isinstance(exc, _NOT_THE_DISK):
                raise
            log.exception("something could not be kept")
            self._count(errors=1, dropped_writes=1)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._database.is_there:
            return self._connection
        if self._connection is not None:
            self._count(deleted=1)
        self._connection = None
        connection = self._database.open()
        store = Store(connection)
        past = store.past()
        with self._lock:
            is_late = self._past_known.is_set()
            if not is_late:
                self._past = past
        if is_late:
            with _transaction(connection):
                store.restore(self._alive(), now=self._clock())
        self._past_known.set()
        self._connection = connection
        return connection

    def _failed(self, exc: Exception) -> None:
        self._count(errors=1)
        self._note(up=False, reason=explained(exc))
        now = self._monotonic()
        self._retry_at = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, PAUSE_MOST_SECONDS)
        if isinstance(exc, StoreTakenError):
            self._retry_at = now + TAKEN_PAUSE_SECONDS  # it may be about to end, and asking costs little
            if not self._past_known.is_set():
                self._retry_at = now + TAKEN_FIRST_PAUSE_SECONDS
                self._writes.append(_nothing)  # so that it is tried again
                return
        self._past_known.set()
        if isinstance(exc, sqlite3.Error) and is_broken(exc):
            self._connection = None
            with contextlib.suppress(StoreError):
                self._database.set_aside(f"it cannot be read: {exc}")
                self._retry_at = now

    def _prune(self, connection: sqlite3.Connection, store: Store) -> None:
        if self._monotonic() < self._prune_at:
            return
        now = self._clock()
        with _transaction(connection):
            store.prune(keep_days=self.keep_days, now=now)
        store.give_back()
        self._on_disk(
            lambda: prune_recordings(self._folder, keep_days=self.keep_days, bytes_most=RECORDINGS_BYTES_MOST, now=now)
        )
        self._prune_at = self._monotonic() + PRUNE_SECONDS

    # -- the flight recorders --------------------------------------------------------------------------------------

    def _take(
        self, server: str, snapshot: Snapshot | None, known_deploys: Sequence[Deploy], events: tuple[Event, ...]
    ) -> None:
        recorder = self._recorders.get(server)
        if recorder is not None:
            deleted = recorder.deleted
            if self._on_disk(lambda: recorder.take(snapshot, known_deploys, events)):
                self._note(recorder_reason=None)
            self._count(recorder_deleted=recorder.deleted - deleted)
        if snapshot is not None:
            with self._lock:
                self._looks_waiting -= 1

    def _close_recorder(self, server: str) -> None:
        recorder = self._recorders.pop(server, None)
        if recorder is not None:
            recorder.close()

    def _on_disk(self, job: Callable[[], object]) -> bool:
        """Do something with recordings; return whether the disk took it."""
        try:
            job()
        except OSError as exc:
            self._count(recorder_errors=1)
            self._note(recorder_reason=explained(exc))
            return False
        return True

    # -- counts ----------------------------------------------------------------------------------------------------

    def _put_aside(self, reason: str, aside: Path) -> None:
        self._count(put_aside=1)
        self._note(put_aside_last=f"{reason}; it is now {aside.name}")

    def _count(self, **more: int) -> None:
        with self._lock:
            self._note(**{name: getattr(self._health, name) + number for name, number in more.items()})

    def _note(self, **facts: Any) -> None:
        """Put down what is new; the same object stays where nothing is."""
        with self._lock:
            health = replace(self._health, **facts)
            if health != self._health:
                self._health = health

    def _measure(self) -> None:
        """Look from time to time how much room all of it takes."""
        if self._monotonic() < self._size_at:
            return
        self._size_at = self._monotonic() + SIZE_SECONDS
        with contextlib.suppress(OSError):
            self._note(
                store_bytes=sum(_size(self._path.with_name(self._path.name + end)) for end in ("", "-wal")),
                recordings_bytes=sum(_size(path) for path in self._folder.rglob("*") if not path.is_dir()),
            )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _nothing(_store: Store) -> None:
    """Write nothing, and so find out whether something could be written."""
