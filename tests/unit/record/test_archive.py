"""Where the recordings lie that the daemon keeps by itself, and which of them stay."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batsignal.record.archive import prune_recordings, ring_folder

T = 1_760_000_000.0

Aged = Callable[[str, float], Path]


@pytest.fixture
def aged(tmp_path: Path) -> Aged:
    def make(name: str, days: float) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (T - days * 86_400, T - days * 86_400))
        return path

    return make


def test_old_recordings_go_and_the_oldest_beyond_the_bound(tmp_path: Path, aged: Aged) -> None:
    old, older, new = aged("b.jsonl.gz", 2), aged("a.jsonl.gz", 13), aged("c.jsonl.gz", 1)
    gone, ring = aged("d.jsonl.gz", 15), aged("ring-db1-0/000000-1.part", 1)
    assert prune_recordings(tmp_path, keep_days=14, bytes_most=3000, now=T) == 3000
    assert [path.exists() for path in (gone, older, old, new, ring)] == [False, False, True, True, True]


def test_the_ring_of_a_server_that_is_watched_no_more_goes_in_the_end(tmp_path: Path, aged: Aged) -> None:
    segment = aged("ring-db1-0/000000-1.part", 15)
    os.utime(segment.parent, (T - 15 * 86_400, T - 15 * 86_400))
    assert prune_recordings(tmp_path, keep_days=14, bytes_most=3000, now=T) == 0
    assert not segment.exists()


def test_rings_of_servers_with_any_name_stay_in_their_folder(tmp_path: Path) -> None:
    names = ["db1", "..", "/etc/passwd", "☃" * 63, "db/1", "db_1", "DB1"]
    folders = {ring_folder(tmp_path, name) for name in names}
    assert len(folders) == len(names)
    for folder in folders:
        folder.mkdir()
        assert folder.parent == tmp_path
