import os
import threading
from pathlib import Path

import pytest

from batsignal import small_file


def test_file_is_read_whole(tmp_path: Path) -> None:
    content = os.urandom(small_file.BYTES_MOST)
    (tmp_path / "file").write_bytes(content)
    assert small_file.read(tmp_path / "file") == content


def test_file_that_is_larger_than_any_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(small_file.BYTES_MOST + 1))
    with pytest.raises(OSError, match="it has more than 1 MB"):
        small_file.read(tmp_path / "file")


def test_device_without_an_end_is_refused() -> None:
    with pytest.raises(OSError, match="it has more than 1 MB"):
        small_file.read(Path("/dev/zero"))


def test_what_a_pipe_says_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"servers: ")
    threading.Timer(0.1, lambda: (os.write(writer, b"[]"), os.close(writer))).start()
    try:
        assert small_file.read(Path(f"/dev/fd/{reader}")) == b"servers: []"
    finally:
        os.close(reader)


def test_pipe_that_nobody_writes_into_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_file, "SECONDS_MOST", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"it does not end within 0\.2 s"):
        small_file.read(tmp_path / "pipe")


def test_directory_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        small_file.read(tmp_path)
