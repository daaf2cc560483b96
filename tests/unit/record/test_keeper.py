"""The thread that writes: what comes reaches the disk, and a disk that takes nothing holds up nobody."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batsignal.record import keeper as keeper_module
from batsignal.record.archive import recordings_folder
from batsignal.record.database import StoreError
from batsignal.record.flight import FlightRecorder
from batsignal.record.history import History
from batsignal.record.keeper import Keeper
from batsignal.record.kept import Left, Past
from batsignal.record.segments import segments_in
from batsignal.record.store import Store
from batsignal.snapshot import Deploy, Snapshot

T = 1_760_000_000.0
WAIT_SECONDS = 20.0


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_SECONDS
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)
    return answer


class Keepers:
    """Keepers on one path; the pauses between their attempts are short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.alive = Past()
        self.all: list[Keeper] = []
        self.past = Past()

    def start(self, **options: Any) -> Keeper:
        keeper = Keeper(self.path, keep_days=14, alive=lambda: self.alive, **options)
        self.past = keeper.start(WAIT_SECONDS)
        self.all.append(keeper)
        return keeper

    def ids(self) -> list[str]:
        try:
            return [one["id"] for one in History(self.path).incidents()]
        except StoreError:
            return []


@pytest.fixture
def keepers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keepers]:
    monkeypatch.setattr(keeper_module, "PAUSE_FIRST_SECONDS", 0.05)
    monkeypatch.setattr(keeper_module, "PAUSE_MOST_SECONDS", 0.1)
    folder = tmp_path / "kept"
    folder.mkdir()
    both = Keepers(folder / "batsignal.db")
    yield both
    for keeper in both.all:
        keeper.stop(WAIT_SECONDS)


def tell(keeper: Keeper, event: Any) -> None:
    keeper.write(lambda store: store.tell(event, now=T))


def test_what_is_written_is_on_disk_in_a_moment_and_in_its_order(keepers: Keepers, lives: Any) -> None:
    keeper = keepers.start()
    tell(keeper, lives.event("raised"))
    tell(keeper, lives.event("cleared", t=T + 60))
    until(lambda: keepers.ids() == ["a1"] and not History(keepers.path).incidents()[0]["open"], "the end of it")
    assert keeper.health.up
    assert keeper.health.errors == 0


def test_the_next_life_finds_what_the_one_before_left(keepers: Keepers, lives: Any) -> None:
    first = keepers.start()
    assert keepers.past == Past()
    tell(first, lives.event("raised"))
    first.write(lambda store: store.deployed([Deploy(service="web", version="2", at=T)], now=T))
    first.stop(WAIT_SECONDS)
    keepers.start()
    assert keepers.past.servers["db1"].signals == (lives.signal(),)
    assert keepers.past.deploys == (Deploy(service="web", version="2", at=T),)


def test_what_came_before_the_end_is_written(keepers: Keepers, lives: Any) -> None:
    keeper = keepers.start()
    for n in range(300):
        tell(keeper, lives.event("raised", lives.signal(f"{n:x}")))
    keeper.stop(WAIT_SECONDS)
    assert len(History(keepers.path).incidents(limit=500)) == 300


def test_a_folder_that_is_gone_is_said_and_all_is_written_once_it_is_back(keepers: Keepers, lives: Any) -> None:
    keepers.path.parent.rmdir()
    keeper = keepers.start()
    assert keepers.past == Past()
    tell(keeper, lives.event("raised"))
    until(lambda: keeper.health.errors > 1, "some attempts")
    assert (keeper.health.up, keeper.health.reason) == (False, "No such file or directory")
    keepers.path.parent.mkdir()
    until(lambda: keepers.ids() == ["a1"], "what had waited")
    assert until(lambda: keeper.health.up, "all to be well")
    assert keeper.health.reason is None
    assert keeper.health.dropped_writes == 0


def test_a_file_that_is_deleted_is_begun_anew_with_what_is_lit(keepers: Keepers, lives: Any) -> None:
    keeper = keepers.start()
    tell(keeper, lives.event("raised"))
    until(keepers.ids, "the first")
    for path in keepers.path.parent.iterdir():
        path.unlink()
    keepers.alive = Past(servers={"db1": Left(signals=(lives.signal(),))})
    tell(keeper, lives.event("raised", lives.signal("b2", detected=T + 1)))
    until(lambda: keepers.ids() == ["b2", "a1"], "both")


def test_a_store_that_is_deleted_with_its_folder_is_said_and_begun_anew_for_nobody_else_to_read(
    keepers: Keepers, lives: Any
) -> None:
    keeper = keepers.start()
    recorder = FlightRecorder(recordings_folder(keepers.path), server="db1", interval_seconds=1.0)
    keeper.record("db1", recorder, Left())
    keeper.look("db1", Snapshot(server="db1", t=T), (), ())
    tell(keeper, lives.event("raised"))
    until(lambda: keepers.ids() and list(recordings_folder(keepers.path).rglob("*.part")), "both")
    shutil.rmtree(keepers.path.parent)
    tell(keeper, lives.event("raised", lives.signal("b2", detected=T + 1)))
    keeper.look("db1", Snapshot(server="db1", t=T + 1), (), ())
    until(lambda: keepers.ids() == ["b2"] and list(recordings_folder(keepers.path).rglob("*.part")), "both anew")
    until(lambda: keeper.health.up and keeper.health.recorder_reason is None, "all to be well")
    assert (keeper.health.deleted, keeper.health.recorder_deleted) == (1, 1)
    everything = [keepers.path.parent, *keepers.path.parent.rglob("*")]
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in everything} == {
        path.name: "0o0" for path in everything
    }


def test_a_file_that_breaks_while_it_is_used_is_put_aside(keepers: Keepers, lives: Any) -> None:
    keeper = keepers.start()
    keepers.alive = Past(servers={"db1": Left(signals=(lives.signal(),))})

    def fail(_store: Store) -> None:
        exc = sqlite3.DatabaseError("database disk image is malformed")
        exc.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        if keeper.health.put_aside == 0:
            raise exc

    keeper.write(fail)
    until(lambda: keepers.ids() == ["a1"], "a new file")
    assert keeper.health.put_aside == 1
    assert "it cannot be read" in (keeper.health.put_aside_last or "")
    assert len(list(keepers.path.parent.glob("batsignal.db.aside-*"))) >= 1


def test_a_file_that_another_daemon_has_is_taken_over_when_that_one_ends(keepers: Keepers, lives: Any) -> None:
    first = keepers.start()
    tell(first, lives.event("raised"))
    second = Keeper(keepers.path, keep_days=14, alive=lambda: keepers.alive)
    assert second.start(0.3) == Past()
    keepers.all.append(second)
    tell(second, lives.event("raised", lives.signal("b2", detected=T + 1)))
    until(lambda: second.health.reason, "the second to notice")
    assert "another daemon (pid " in (second.health.reason or "")
    assert keepers.ids() == ["a1"]
    first.stop(WAIT_SECONDS)
    until(lambda: keepers.ids() == ["b2", "a1"], "the second to take over")
    assert [one["open"] for one in History(keepers.path).incidents()] == [True, False]


def test_a_second_daemon_that_comes_while_the_first_ends_has_its_past(keepers: Keepers, lives: Any) -> None:
    first = keepers.start()
    tell(first, lives.event("raised"))
    threading.Timer(0.5, first.stop, (WAIT_SECONDS,)).start()
    keepers.start()
    assert keepers.past.servers["db1"].signals == (lives.signal(),)


def test_a_file_that_somebody_locks_is_tried_again(keepers: Keepers, lives: Any) -> None:
    keeper = keepers.start()
    with sqlite3.connect(keepers.path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        tell(keeper, lives.event("raised"))
        until(lambda: keeper.health.reason == "database is locked", "an attempt")
        other.execute("ROLLBACK")
    until(keepers.ids, "the next attempt")


def test_what_cannot_be_written_by_its_own_fault_holds_up_nothing_else(keepers: Keepers, lives: Any) -> None:
    keeper = keepers.start()

    def bad(store: Store) -> None:
        store._connection.execute("INSERT INTO deploy VALUES (?, ?, ?, ?, ?)", (object(), 1, 1, 1, 1))

    keeper.write(bad)
    keeper.write(lambda store: store.tell(None, now=T))  # type: ignore[arg-type]
    tell(keeper, lives.event("raised"))
    until(keepers.ids, "what came after it")
    assert keeper.health.up
    assert keeper.health.dropped_writes >= 1


def test_a_disk_that_is_away_for_long_costs_a_bounded_number_of_writes(
    keepers: Keepers, lives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "WRITES_WAITING_MOST", 10)
    keepers.path.parent.rmdir()
    keeper = keepers.start()
    for n in range(50):
        tell(keeper, lives.event("raised", lives.signal(f"{n:02x}", detected=T + n)))
        time.sleep(0.002)
    until(lambda: keeper.health.dropped_writes == 40, "the oldest to be dropped")
    keepers.path.parent.mkdir()
    until(lambda: len(keepers.ids()) == 10, "the others")


class Recording:
    """A recorder whose disk can be held up."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.taken: list[tuple[Snapshot | None, int]] = []
        self.deleted = 0

    def resume(self, _left: Any) -> None:
        """Nothing is left."""

    def take(self, snapshot: Snapshot | None, _deploys: Any, events: Any) -> None:
        assert self.free.wait(WAIT_SECONDS)
        self.taken.append((snapshot, len(events)))

    def close(self) -> None:
        """Nothing is open."""


def test_a_disk_that_hangs_holds_up_no_tick_and_is_said(
    keepers: Keepers, lives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "LOOKS_WAITING_MOST", 5)
    now = 0.0
    keeper = keepers.start(monotonic=lambda: now)
    slow = Recording()
    keeper.record("db1", slow, Left())  # type: ignore[arg-type]
    began = time.monotonic()
    for n in range(50):
        keeper.look("db1", Snapshot(server="db1", t=T + n), (), (lives.event("raised"),) if n == 40 else ())
    assert time.monotonic() - began < WAIT_SECONDS / 2
    assert keeper.health.dropped_looks == 45
    now = keeper_module.HANGS_SECONDS + 1
    assert (keeper.health.up, keeper.health.reason) == (False, "the disk hangs")
    slow.free.set()
    until(lambda: len(slow.taken) == 6, "the looks that waited")
    assert [snapshot is not None for snapshot, _ in slow.taken] == [True] * 5 + [False]
    assert slow.taken[-1][1] == 1
    until(lambda: keeper.health.reason is None, "all to be well")


def test_looks_are_recorded_even_while_the_store_cannot_be_written(keepers: Keepers) -> None:
    keepers.path.mkdir()
    keeper = keepers.start()
    folder = recordings_folder(keepers.path)
    recorder = FlightRecorder(folder, server="db1", interval_seconds=1.0)
    keeper.record("db1", recorder, Left())
    keeper.look("db1", Snapshot(server="db1", t=T), (), ())
    (ring,) = until(lambda: list(folder.glob("ring-*")), "a ring")
    until(lambda: segments_in(ring), "a segment")
    assert not keeper.health.up
    assert keeper.health.recorder_reason is None


def test_a_recorder_whose_disk_takes_nothing_is_said_until_it_does(keepers: Keepers) -> None:
    keeper = keepers.start()
    folder = recordings_folder(keepers.path)
    folder.write_text("in the way")
    keeper.record("db1", FlightRecorder(folder, server="db1", interval_seconds=1.0), Left())
    keeper.look("db1", Snapshot(server="db1", t=T), (), ())
    until(lambda: keeper.health.recorder_reason, "the fault")
    assert keeper.health.recorder_errors >= 1
    folder.unlink()
    keeper.look("db1", Snapshot(server="db1", t=T + 1), (), ())
    until(lambda: keeper.health.recorder_reason is None, "a look that is kept")


def test_what_it_takes_is_known(keepers: Keepers) -> None:
    keeper = keepers.start()
    until(lambda: keeper.health.store_bytes > 4096, "the size")
