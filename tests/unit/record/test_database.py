"""The file and its life: claimed by one daemon, put aside when it is not ours, gone under our feet."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batsignal.record.database import VERSION, Database, StoreError, StoreTakenError, examined, reading

NOW = 1_760_000_000.0
STAMP = "20251009T085320Z"


class Opened:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.aside: list[tuple[str, str]] = []
        self.database = Database(
            path, put_aside=lambda reason, to: self.aside.append((reason, to.name)), clock=lambda: NOW
        )


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    one = Opened(tmp_path / "batsignal.db")
    yield one
    one.database.close()


def incidents(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM incident").fetchone()[0])


def insert(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO incident VALUES ('a', 'db1', 'leak', '[]', '{}', 'critical', 1, NULL, NULL, NULL, '{}', 1)"
    )


def test_a_new_file_has_our_shape_and_is_nobody_elses_to_read(opened: Opened) -> None:
    connection = opened.database.open()
    assert incidents(connection) == 0
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert opened.path.stat().st_mode & 0o077 == 0
    assert not opened.aside


def test_what_was_written_is_there_the_next_time(opened: Opened) -> None:
    insert(opened.database.open())
    opened.database.close()
    assert incidents(opened.database.open()) == 1
    assert not opened.aside


def test_an_empty_file_is_taken(opened: Opened) -> None:
    opened.path.touch()
    assert incidents(opened.database.open()) == 0
    assert not opened.aside


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customer (name TEXT)")


def no_database(path: Path) -> None:
    path.write_bytes(b"what somebody wrote here\n" * 100)


def torn(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


def without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE incident")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (newer, f"a newer release wrote it (version {VERSION + 1}, this one knows {VERSION})"),
        (foreign, "it belongs to another program"),
        (no_database, "it cannot be read: file is not a database"),
        (torn, "it cannot be read: database disk image is malformed"),
        (without_a_table, "it cannot be read: no such table: incident"),
    ],
)
def test_a_file_that_cannot_be_used_is_put_aside_whole_and_a_new_one_begun(
    opened: Opened, spoil: object, reason: str
) -> None:
    insert(opened.database.open())
    opened.database.close()
    spoil(opened.path)  # type: ignore[operator]
    before = opened.path.read_bytes()
    assert incidents(opened.database.open()) == 0
    aside = f"batsignal.db.aside-{STAMP}"
    assert opened.aside == [(reason, aside)]
    assert opened.path.with_name(aside).read_bytes() == before


def test_two_files_put_aside_in_the_same_second_have_two_names(opened: Opened) -> None:
    for _ in range(2):
        opened.path.write_bytes(b"x" * 2000)
        opened.database.open()
        opened.database.close()
    assert [name for _, name in opened.aside] == [f"batsignal.db.aside-{STAMP}", f"batsignal.db.aside-{STAMP}-2"]


def test_a_second_daemon_is_told_who_has_the_file(opened: Opened) -> None:
    insert(opened.database.open())
    script = (
        "import sys; from pathlib import Path; from batsignal.record.database import *\n"
        "try: Database(Path(sys.argv[1]), put_aside=print).open()\n"
        "except StoreTakenError as exc: print(exc)"
    )
    said = subprocess.run([sys.executable, "-c", script, opened.path], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("another daemon (pid ")
    assert "unknown" not in said.stdout
    assert incidents(opened.database.open()) == 1


def test_the_file_can_be_had_once_the_first_daemon_lets_go(opened: Opened) -> None:
    other = Opened(opened.path)
    opened.database.open()
    with pytest.raises(StoreTakenError):
        other.database.open()
    opened.database.close()
    other.database.open()
    other.database.close()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pipe" if kind == "pipe" else Path(os.devnull)
    if kind == "pipe":
        os.mkfifo(path, 0o644)
    before = path.stat()
    with pytest.raises(StoreError, match="a device or a pipe, expected a file"):
        Opened(path).database.open()
    assert examined(path) == ("a device or a pipe, expected a file (null keeps nothing)", None)
    assert path.stat().st_mode == before.st_mode
    assert not path.with_name(f"{path.name}.lock").exists()


@pytest.mark.parametrize("where", ["nowhere/batsignal.db", "folder"])
def test_a_path_that_cannot_be_one_is_an_error_of_one_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError) as caught:
        Opened(tmp_path / where).database.open()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_was_deleted_or_replaced_is_noticed(opened: Opened) -> None:
    opened.database.open()
    assert opened.database.is_there
    opened.path.unlink()
    assert not opened.database.is_there
    opened.path.touch()
    assert not opened.database.is_there
    opened.database.open()
    assert opened.database.is_there


def test_a_reader_can_read_while_the_daemon_writes_and_can_write_nothing(opened: Opened) -> None:
    insert(opened.database.open())
    connection = reading(opened.path)
    assert incidents(connection) == 1
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        insert(connection)
    connection.close()


def test_a_reader_begins_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing is kept yet"):
        reading(tmp_path / "batsignal.db")
    assert not list(tmp_path.iterdir())


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_path_is_examined_without_a_trace(tmp_path: Path) -> None:
    assert examined(tmp_path / "batsignal.db") == (None, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "fault"),
    [("nowhere/batsignal.db", "No such file or directory"), ("", "a folder, expected a file")],
)
def test_a_path_where_nothing_can_be_kept_is_a_fault(tmp_path: Path, where: str, fault: str) -> None:
    assert examined(tmp_path / where) == (fault, None)


def test_a_file_that_would_be_put_aside_is_told_and_left(opened: Opened) -> None:
    opened.path.write_bytes(b"no database, but some text\n" * 99)
    before = everything(opened.path.parent)
    fault, note = examined(opened.path)
    assert fault is None
    assert note == "it cannot be read: file is not a database; it would be put aside, and a new one begun"
    assert everything(opened.path.parent) == before


def test_a_file_that_a_daemon_has_is_told(opened: Opened) -> None:
    opened.database.open()
    fault, note = examined(opened.path)
    assert fault is None
    assert note == "a daemon keeps its history there now; a second one would wait for it to end"
    opened.database.close()
    assert examined(opened.path) == (None, None)
