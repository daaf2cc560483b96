import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batsignal.cli import main
from batsignal.cli.replay import events_of, replay
from batsignal.errors import UnreachableError
from batsignal.record import recording_reader
from batsignal.record.recording import RecordingError, RecordingWriter
from batsignal.snapshot import Deploy, Session, Slots, Snapshot

T = 1_760_000_000.0


def lost(second: int, started: float = T, **facts: Any) -> Session:
    """Return a session that was used once, right after it was opened."""
    start = started + second - 0.5
    return Session(
        **{"pid": 1000 + second, "backend_start": start, "state": "idle", "state_change": start + 0.1, "usename": "web"}
        | facts
    )


def leak(path: Path, seconds: int = 120, start: float = T) -> Path:
    """Record a service that opens a session every two seconds, uses each once and gives none back."""
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0)
    sessions: list[Session] = []
    for second in range(seconds):
        if second >= 10 and second % 2 == 0:
            sessions.append(lost(second, start, application_name="web@2.4.0"))
        slots = Slots(max=100, superuser_reserved=3)
        writer.write(Snapshot(server="db1", t=start + second, sessions=tuple(sessions), slots=slots, own_sessions=1))
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


def test_that_nothing_lit_is_said_with_what_was_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(str(leak(tmp_path / "calm.jsonl", seconds=9)), spelling="json") == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "nothing lit in 9 looks, 2025-10-09 08:53:20 UTC to 2025-10-09 08:53:28 UTC\n"


def test_the_day_stands_before_its_first_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def day_of(lines: list[str]) -> list[str]:
        return [line for line in lines if re.fullmatch(r"\d{4}-\d\d-\d\d", line)]

    replay(str(leak(tmp_path / "leak.jsonl")), spelling="text")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2025-10-09"
    assert day_of(lines) == lines[:1]
    midnight = (T // 86_400 + 1) * 86_400
    replay(str(leak(tmp_path / "midnight.jsonl", seconds=200, start=midnight - 80)), spelling="text")
    assert day_of(capsys.readouterr().out.splitlines()) == ["2025-10-09", "2025-10-10"]


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


def deployed_with_pattern(path: Path, pattern: str | None) -> Path:
    """Record two services whose names are split at a slash, one of which leaks after a deploy known from elsewhere."""
    deploy = Deploy(service="web", version="2.4.0", at=T + 8, previous="2.3.9")
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0, application_pattern=pattern)
    sessions: list[Session] = []
    for second in range(120):
        if second >= 10 and second % 2 == 0:
            sessions.append(lost(second, application_name="web/2.4.0"))
        slots = Slots(max=100, superuser_reserved=3)
        writer.write(
            Snapshot(server="db1", t=T + second, sessions=tuple(sessions), slots=slots, own_sessions=1),
            known_deploys=(deploy,) if second >= 9 else (),
        )
    writer.close()
    return path


def test_names_are_split_as_the_live_run_split_them(tmp_path: Path) -> None:
    told = deployed_with_pattern(tmp_path / "told.jsonl", r"^(?P<service>[^/]+)/(?P<version>.+)$")
    subject = next(events_of(told)).signal.finding.subject
    assert (subject.application, subject.version) == ("web", "2.4.0")
    untold = deployed_with_pattern(tmp_path / "untold.jsonl", None)
    assert next(events_of(untold)).signal.finding.subject.application == "web/2.4.0"


def test_a_deploy_that_no_session_of_this_server_showed_is_named_all_the_same(tmp_path: Path) -> None:
    told = deployed_with_pattern(tmp_path / "told.jsonl", r"^(?P<service>[^/]+)/(?P<version>.+)$")
    found = next(events_of(told)).signal.finding
    assert found.deploy is not None
    assert (found.deploy.version, found.deploy.at, found.deploy.previous) == ("2.4.0", T + 8, "2.3.9")
    assert "Roll back web to 2.3.9" in found.action


def test_the_same_recording_gives_the_same_bytes_in_two_processes_that_hash_differently(tmp_path: Path) -> None:
    path = leak(tmp_path / "leak.jsonl.gz")
    outputs = [
        subprocess.run(
            [sys.executable, "-m", "batsignal", "replay", str(path), "--format", spelling],
            check=True,
            capture_output=True,
            timeout=60,
            env={"PATH": os.defpath, "PYTHONHASHSEED": seed},
        ).stdout
        for spelling in ("json", "text")
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] != b""
    assert outputs[2] == outputs[3] != b""


BAD_FILES: dict[str, Callable[[bytes], bytes]] = {
    "cut off in a line": lambda whole: whole[:-5],
    "cut off, gzipped": lambda whole: gzip.compress(whole)[:-100],
    "mixed up": lambda whole: b"\n".join(sorted(whole.split(b"\n"), key=lambda line: line[::-1])),
    "two in one file": lambda whole: whole + whole,
    "two in one file, gzipped": lambda whole: gzip.compress(whole) + gzip.compress(whole),
    "foreign JSON": lambda _: b'{"servers": [1, 2, 3]}\n',
    "foreign text": lambda _: b"servers:\n- name: db1\n",
    "newer version": lambda whole: whole.replace(b'"version":1', b'"version":2', 1),
    "milliseconds": lambda whole: whole.replace(b'"t":1760000', b'"t":1760000000', 5),
    "time backwards": lambda whole: whole.replace(b'"t":1760000050', b'"t":1760000040', 1),
    "gzip of garbage": lambda _: gzip.compress(bytes(range(256)) * 100),
    "garbage that says gzip": lambda _: b"\x1f\x8b" + bytes(range(256)) * 100,
    "empty": lambda _: b"",
    "NUL bytes": lambda whole: whole + b"\x00" * 4096,
    "a huge line": lambda whole: whole + b'{"t":1760009999,"sessions":["' + b"x" * 40_000_000 + b'"]}\n',
    "not UTF-8": lambda whole: whole.replace(b"web@", b"w\xffb@", 1),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_recording_ends_with_2_names_its_line_and_prints_nothing_as_if_it_were_whole(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad"
    path.write_bytes(BAD_FILES[what](leak(tmp_path / "leak.jsonl").read_bytes()))
    assert command("replay", str(path), monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"batsignal: {re.escape(str(path))}:\d+: [^\n]+\n", printed.err)


def test_a_folder_is_no_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("replay", str(tmp_path), monkeypatch=monkeypatch) == 2
    assert capsys.readouterr() == ("", f"batsignal: {tmp_path}: cannot be read: Is a directory\n")


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["batsignal", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_standard_output_that_is_closed_is_told_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UnreachableError, match="standard output does not take the events: it is closed"):
        replay("not there", spelling="text")


def test_a_pipe_into_which_nobody_writes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(recording_reader, "WRITER_SECONDS_MOST", 0.1)
    with pytest.raises(RecordingError, match=f"^{pipe}: cannot be read: nobody has written into this pipe within"):
        replay(str(pipe), spelling="text")


def test_a_pipe_with_a_writer_is_read_to_its_end(tmp_path: Path) -> None:
    file, pipe = leak(tmp_path / "leak.jsonl"), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()), daemon=True)
    writer.start()
    assert list(events_of(pipe)) == list(events_of(file)) != []
    writer.join(10)


def test_an_instant_before_any_calendar_is_refused_with_its_line(tmp_path: Path) -> None:
    header, first, *_ = leak(tmp_path / "leak.jsonl").read_text().splitlines()
    early = tmp_path / "early.jsonl"
    early.write_text(f"{header}\n{json.dumps(json.loads(first) | {'t': -62_135_596_801})}\n")
    with pytest.raises(RecordingError, match=r"early.jsonl:2: t: expected Unix seconds, got -62135596801"):
        replay(str(early), spelling="text")
