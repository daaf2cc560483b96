import os
import socket
from pathlib import Path

import pytest

from batsignal.config import load
from batsignal.daemon import Daemon
from batsignal.errors import UnreachableError
from batsignal.recordings import open_recordings


def test_a_taken_port_leaves_a_recording_that_is_there_as_it_was(tmp_path: Path) -> None:
    config = load(None, {"DATA_SOURCE_NAME": "postgresql://batsignal@127.0.0.1:1/postgres"})
    recording = tmp_path / "first.jsonl"
    recording.write_text("what the first daemon has seen\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=f"cannot listen on {address}"):
            Daemon(config, read_config=lambda: config, listen_address=address, record=str(recording))
    assert recording.read_text() == "what the first daemon has seen\n"


def test_a_recording_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    config = load(None, {"DATA_SOURCE_NAME": "postgresql://batsignal@127.0.0.1:1/postgres"})
    for name in ("day.jsonl", "day.jsonl.gz"):
        open_recordings(config, str(tmp_path / name))["127.0.0.1:1"].close()
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_recording_that_is_there_already_is_put_aside(tmp_path: Path) -> None:
    config = load(None, {"DATA_SOURCE_NAME": "postgresql://batsignal@127.0.0.1:1/postgres"})
    recording = tmp_path / "day.jsonl.gz"
    for words in ("what the first daemon has seen\n", "what the second has seen\n"):
        recording.write_text(words)
        os.utime(recording, (1_760_000_000.0, 1_760_000_000.0))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        Daemon(config, read_config=lambda: config, listen_address=address, record=str(recording))
    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if path != recording}
    assert kept == {
        "day-20251009T085320Z.jsonl.gz": "what the first daemon has seen\n",
        "day-20251009T085320Z-2.jsonl.gz": "what the second has seen\n",
    }
