import json
from pathlib import Path

import pytest

from batsignal.cli.replay import replay
from batsignal.record.recording import RecordingError, RecordingWriter
from batsignal.snapshot import Session, Slots, Snapshot

T = 1_760_000_000.0


def leak(path: Path, seconds: int = 120) -> Path:
    """Record a service that opens a session every two seconds, uses each once and gives none back."""
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0)
    sessions: list[Session] = []
    for second in range(seconds):
        if second >= 10 and second % 2 == 0:
            start = T + second - 0.5
            sessions.append(
                Session(
                    pid=1000 + second,
                    backend_start=start,
                    state="idle",
                    state_change=start + 0.1,
                    application_name="web@2.4.0",
                    usename="web",
                )
            )
        slots = Slots(max=100, superuser_reserved=3)
        writer.write(Snapshot(server="db1", t=T + second, sessions=tuple(sessions), slots=slots, own_sessions=1))
    writer.close()
    return path


def test_a_leak_in_a_recording_is_called_with_its_culprit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(str(leak(tmp_path / "leak.jsonl")), spelling="json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first = events[0]
    assert (first["event"], first["signal"]["kind"]) == ("raised", "leak")
    assert first["signal"]["subject"]["application"] == "web"
    assert first["t"] <= T + 10 + 45
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)


def test_the_same_recording_gives_the_same_events_to_the_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = leak(tmp_path / "leak.jsonl.gz")
    outputs = []
    for _ in range(2):
        replay(str(path), spelling="json")
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != ""


def test_half_a_recording_prints_nothing_as_if_it_were_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = leak(tmp_path / "leak.jsonl")
    with path.open("a") as file:
        file.write('{"t": 17')
    with pytest.raises(RecordingError, match=r"leak\.jsonl:122:"):
        replay(str(path), spelling="text")
    assert capsys.readouterr().out == ""
