"""A recording, cut down to who held the slots."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batsignal.record.past_slots import read_slots
from batsignal.record.recording import RecordingWriter
from batsignal.snapshot import Deploy, PollFailure, Session, Slots, Snapshot

PATTERN = r"^(?P<service>[^@]+)@(?P<version>.+)$"


def looks(*names: list[str] | None, deploy_at: int | None = None) -> Iterator[Snapshot]:
    """Yield a look a second; None instead of names is one that failed."""
    for n, held in enumerate(names):
        t = 1_000.0 + n
        deploys = (Deploy(service="web", version="2", at=t),) if n == deploy_at else ()
        if held is None:
            failure = PollFailure(reason="timeout", text="no answer")
            yield Snapshot(server="db1", t=t, failure=failure, view="none")
            continue
        sessions = tuple(
            Session(pid=pid, backend_start=1.0, state="idle", application_name=name)
            for pid, name in enumerate(held, start=1)
        )
        yield Snapshot(
            server="db1",
            t=t,
            sessions=sessions,
            own_sessions=1,
            slots=Slots(max=100, superuser_reserved=3),
            deploys=deploys,
        )


@pytest.fixture
def recorded(tmp_path: Path) -> Any:
    def write(snapshots: Iterator[Snapshot], *, application_pattern: str | None = PATTERN) -> bytes:
        path = tmp_path / "recording.jsonl.gz"
        writer = RecordingWriter(path, server="db1", interval_seconds=2.0, application_pattern=application_pattern)
        for snapshot in snapshots:
            writer.write(snapshot)
        writer.close()
        return path.read_bytes()

    return write


def in_pieces(content: bytes, size: int = 50) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def test_each_tick_tells_who_held_how_many(recorded: Any) -> None:
    content = recorded(looks(["web@1", "web@1", ""], None, ["web@2", "cron"], deploy_at=2))
    found = read_slots(in_pieces(content))
    assert found.is_whole
    assert found.interval_seconds == 2.0
    assert [(sample.t, sample.used, sample.by_application) for sample in found.samples] == [
        (1000.0, 4, (("web@1", 2), ("", 1))),
        (1001.0, None, ()),
        (1002.0, 3, (("cron", 1), ("web@2", 1))),
    ]
    assert {sample.usable for sample in found.samples if sample.used} == {97}
    assert [(one.service, one.version) for one in found.deploys] == [("web", "2")]


def test_without_a_pattern_a_name_is_taken_as_a_whole(recorded: Any) -> None:
    found = read_slots(in_pieces(recorded(looks(["web@1"]), application_pattern=None)))
    assert found.samples[0].by_application == (("web@1", 1),)


def test_a_recording_that_is_cut_off_is_told_as_far_as_it_goes(recorded: Any) -> None:
    content = recorded(looks(*[["web@1"]] * 200))
    plain = gzip.decompress(content)
    half = gzip.compress(plain[: len(plain) // 2])
    found = read_slots(in_pieces(half))
    assert not found.is_whole
    assert 50 < len(found.samples) < 150
    assert not read_slots(in_pieces(content[:-12])).is_whole


def test_a_long_recording_is_read_only_as_long_as_there_is_time(recorded: Any) -> None:
    found = read_slots(in_pieces(recorded(looks(*[["web@1"]] * 50))), work_seconds=0.0)
    assert (len(found.samples), found.is_whole) == (1, False)


@pytest.mark.parametrize("content", [b"", b"not a recording", json.dumps({"format": "other"}).encode()])
def test_what_is_no_recording_tells_nothing(content: bytes) -> None:
    found = read_slots(iter([content]))
    assert (found.samples, found.is_whole) == ((), False)


def test_a_disk_that_fails_in_the_middle_is_not_taken_for_the_end(recorded: Any) -> None:
    content = recorded(looks(*[["web@1"]] * 500))

    def broken() -> Iterator[bytes]:
        yield content[:64]
        raise OSError("input/output error")

    with pytest.raises(OSError, match="input/output"):
        read_slots(broken())
