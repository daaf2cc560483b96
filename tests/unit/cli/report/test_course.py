"""How an incident went, summed over a recording that was written as the flight recorder writes it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batsignal.cli.report.course import course
from batsignal.record.recording import RecordingError, RecordingWriter
from batsignal.snapshot import PollFailure, ProbeResult, Session, Slots, Snapshot

T = 1_760_000_000.0
SUBJECT = {"application": "web", "version": "2.4.0", "user": None}


def look(seconds: float, lost: int, **facts: Any) -> Snapshot:
    sessions = [
        Session(pid=pid, backend_start=T, state="idle", application_name="web@2.4.0", usename="web")
        for pid in range(1, lost + 1)
    ]
    sessions.append(Session(pid=900, backend_start=T, state="active", application_name="billing", usename="web"))
    slots = Slots(max=10, superuser_reserved=2)
    return Snapshot(server="db1", t=T + seconds, sessions=tuple(sessions), slots=slots, own_sessions=1, **facts)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "one.jsonl.gz"
    down = ProbeResult(endpoint="web", service="web", at=T + 4, up=False, seconds=2.0, reason="timeout")
    ticks = [
        look(-2, 0),
        look(-1, 1),
        look(0, 2, refused=0),
        look(1, 4, probes=(replace(down, up=True, seconds=0.1, reason=None),)),
        look(2, 6, ping_seconds=0.02),
        replace(
            look(3, 0, refused=2),
            sessions=(),
            failure=PollFailure(reason="slots_full", text="full"),
            view="none",
        ),
        look(4, 7, probes=(down,)),
        look(5, 3),
        look(9, 0),
    ]
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0, application_pattern=None)
    for tick in ticks:
        writer.write(tick)
    writer.close()
    return path


def test_the_sums_are_of_the_incident_and_what_was_before_is_of_before(recording: Path) -> None:
    found = course(recording, subject=SUBJECT, begins=T, ends=T + 5)
    assert found is not None
    assert (found.used_before, found.held_before) == (3, 1)
    assert (found.used_peak, found.usable, found.used_peak_at) == (9, 8, T + 4)
    assert (found.held_peak, found.held_last) == (7, 3)
    assert found.refused == 2
    assert found.blind_seconds == 1.0
    # Full at 2 s (8 of 8), refused at 3 s, full at 4 s.
    assert found.full_seconds == 3.0
    assert found.slowest_ping_seconds == 0.02
    web = found.endpoints["web"]
    assert (web.probes, web.failures, web.slowest_seconds) == (2, 1, 2.0)
    assert found.others == (("web@2.4.0", 7), ("billing", 1))


def test_who_held_sessions_without_any_name_is_an_unnamed_user_and_workers_are_nobody(tmp_path: Path) -> None:
    sessions = (
        Session(pid=1, backend_start=T, state="idle"),
        Session(pid=2, backend_start=T, state="idle", usename="ann"),
        Session(pid=3, backend_start=T, state="active", backend_type="autovacuum worker"),
    )
    writer = RecordingWriter(tmp_path / "one", server="db1", interval_seconds=1.0, application_pattern=None)
    writer.write(Snapshot(server="db1", t=T, sessions=sessions, slots=Slots(max=10, superuser_reserved=2)))
    writer.close()
    found = course(tmp_path / "one", subject=SUBJECT, begins=T, ends=T + 5)
    assert found is not None
    assert found.others == (("an unnamed user", 1), ("user ann", 1))


def test_a_culprit_without_a_name_is_everybody(recording: Path) -> None:
    found = course(recording, subject={"limit": "server"}, begins=T, ends=T + 5)
    assert found is not None
    assert found.held_peak == 8


def test_recording_that_cannot_be_read_to_its_end_is_no_course_and_not_a_part_of_one(
    recording: Path, tmp_path: Path
) -> None:
    (tmp_path / "torn").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "foreign").write_text('{"format": "other"}\n')
    content = recording.read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) - 30])
    for name in ("torn", "foreign", "none", "half"):
        with pytest.raises(RecordingError, match=name):
            course(tmp_path / name, subject=SUBJECT, begins=T, ends=T + 5)
