import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batsignal.record.recording import RecordingError, RecordingWriter, read
from batsignal.snapshot import Counters, Deploy, PollFailure, ProbeResult, Session, Slots, Snapshot

T = 1_760_000_000.0
HEADER = {"format": "batsignal-recording", "version": 1, "server": "db1", "started_at": T, "interval_seconds": 1.0}


def session(pid: int, **facts: Any) -> Session:
    return Session(**{"pid": pid, "backend_start": T - 60.123456, "state": "idle", "state_change": T - 5} | facts)


def look(second: float, *sessions: Session, **facts: Any) -> Snapshot:
    given = {"slots": Slots(max=100, superuser_reserved=3, reserved=2), "own_sessions": 1, "refused": 0}
    return Snapshot(server="db1", t=T + second, sessions=sessions, **(given | facts))


def round_trip(path: Path, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0)
    for snapshot in snapshots:
        writer.write(snapshot)
    writer.close()
    _, ticks = read(path)
    return list(ticks)


@pytest.mark.parametrize("name", ["plain.jsonl", "zipped.jsonl.gz"])
def test_what_was_written_is_read_again(tmp_path: Path, name: str) -> None:
    busy = session(
        2,
        state="active",
        datname="shop",
        usename="wéb",
        application_name="web@2.4.0",
        client_addr="10.0.0.4",
        xact_start=T - 1.5,
        query_start=T - 1.25,
        wait_event_type="Lock",
        wait_event="relation",
        query_id="-42",
        query='SELECT "ünï" FROM t WHERE a = ?',
        blocked_by=(1, 0),
        backend_xid="7",
        backend_xmin="6",
        leader_pid=1,
    )
    worker = session(3, backend_type="autovacuum worker", state=None, state_change=None, backend_start=None)
    written = [
        look(0, session(1), role_limits={"web": 20}, database_limits={"shop": 30}),
        look(1, session(1), busy, worker, role_limits={"web": 20}, database_limits={"shop": 30}),
        look(
            2,
            busy,
            role_limits={"web": 20},
            database_limits={"shop": 30},
            counters=Counters(sessions=12, xact_commit=99),
            ping_seconds=0.0004,
            probes=(ProbeResult(endpoint="web", service="shop", at=T + 1.5, up=False, seconds=2.0, reason="no"),),
            deploys=(Deploy(service="web", version="2.4.0", at=T + 1),),
            refused=3,
        ),
    ]
    assert round_trip(tmp_path / name, written) == written


def test_a_session_that_did_not_change_is_the_same_object_over_a_key_line(tmp_path: Path) -> None:
    one = session(1)
    ticks = round_trip(tmp_path / "a.jsonl", [look(second, one, session(2)) for second in range(130)])
    assert all(later.sessions[0] is ticks[0].sessions[0] for later in ticks)
    keys = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()[1:]]
    assert [index for index, tick in enumerate(keys) if tick["key"]] == [0, 60, 120]


def test_a_failed_look_is_no_empty_server(tmp_path: Path) -> None:
    failure = PollFailure(reason="timeout", text="no answer", sqlstate=None)
    ticks = round_trip(
        tmp_path / "a.jsonl",
        [look(0, session(1)), look(1, failure=failure, view="none", own_sessions=0), look(2, session(1), session(2))],
    )
    assert ticks[1].failure == failure
    assert [one.pid for one in ticks[2].sessions] == [1, 2]


def test_limits_that_become_known_after_the_start_are_kept(tmp_path: Path) -> None:
    failure = PollFailure(reason="refused", text="nobody there")
    down = replace(look(0, failure=failure, view="none"), slots=None)
    ticks = round_trip(tmp_path / "a.jsonl", [down, look(1, session(1)), look(2, session(1))])
    assert ticks[0].slots is None
    assert ticks[2].slots == Slots(max=100, superuser_reserved=3, reserved=2)


def test_a_tick_before_the_last_one_is_left_out(tmp_path: Path) -> None:
    ticks = round_trip(tmp_path / "a.jsonl", [look(10, session(1)), look(5, session(1)), look(11, session(1))])
    assert [tick.t - T for tick in ticks] == [10, 11]


def written_by_others(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_the_least_a_recording_may_say_is_read_and_the_rest_is_unknown(tmp_path: Path) -> None:
    row = {"pid": 1, "backend_start": T, "state": "idle", "backend_type": None, "colour": "blue"}
    path = written_by_others(
        tmp_path / "a.jsonl",
        HEADER | {"flavour": "unknown keys are passed over"},
        {"t": T, "sessions": [row], "key": True},
        {"t": T + 1, "sessions": []},
    )
    _, ticks = read(path)
    first, second = ticks
    assert first.slots is first.counters is first.refused is first.ping_seconds is first.failure is None
    assert first.sessions[0].is_client
    assert second.sessions == first.sessions


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ([], 1, "empty file"),
        (["{"], 1, "one JSON object a line"),
        ([[1]], 1, "expected a JSON object"),
        ([{"format": "something else"}], 1, 'expected "format": "batsignal-recording"'),
        ([HEADER | {"version": 2}], 1, "expected version 1, got 2"),
        ([HEADER | {"version": True}], 1, "expected version 1, got True"),
        ([HEADER, '{"t": 1e999, "key": true, "sessions": []}'], 2, "t: expected a number, got 'inf'"),
        ([HEADER, {"t": 10**400, "key": True, "sessions": []}], 2, "t: expected a number"),
        ([HEADER, {"t": T * 1000, "key": True, "sessions": []}], 2, "t: expected Unix seconds, got 1760000000000"),
        (
            [HEADER, {"t": T, "key": True, "sessions": []}, {"t": T, "sessions": [], "gone": 5}],
            3,
            "gone: expected a list",
        ),
        ([HEADER | {"slots": {"max": "many"}}], 1, "max: expected a whole number, got 'many'"),
        ([HEADER, {"sessions": []}], 2, "expected the first look to list every session"),
        ([HEADER, {"sessions": [], "key": True}], 2, "t: missing"),
        ([HEADER, {"t": T, "key": True}], 2, "sessions: expected a list"),
        ([HEADER, {"t": T, "key": True, "sessions": [{"state": "idle"}]}], 2, "pid: missing"),
        ([HEADER, {"t": T, "key": True, "sessions": [{"pid": 1, "state": 3}]}], 2, "state: expected text, got 3"),
        ([HEADER, {"t": T, "key": True, "sessions": [{"pid": 1, "blocked_by": 3}]}], 2, "blocked_by: expected a list"),
        ([HEADER, {"t": T, "key": True, "sessions": []}, {"t": T - 1, "sessions": []}], 3, "time runs backwards"),
        ([HEADER, {"t": T, "key": True, "sessions": []}, '{"t": 17600'], 3, "one JSON object a line"),
        ([HEADER, '{"t": NaN, "key": true, "sessions": []}'], 2, "NaN is not JSON"),
        ([HEADER, {"t": T, "sessions": [], "failure": {"reason": "bored"}}], 2, "failure.reason: expected one of"),
        ([HEADER, {"t": T, "key": True, "sessions": [], "view": "x"}], 2, "view: expected one of session"),
        ([HEADER, {"t": T, "key": True, "sessions": [], "probes": [{}]}], 2, "probes: expected objects with endpoint"),
        ([HEADER, {"t": T, "key": True, "sessions": [], "deploys": [{}]}], 2, "deploys: expected objects with service"),
    ],
)
def test_a_broken_recording_is_an_error_with_its_line(tmp_path: Path, lines: list[Any], line: int, words: str) -> None:
    path = written_by_others(tmp_path / "broken.jsonl", *lines)
    with pytest.raises(RecordingError) as caught:
        list(read(path)[1])
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_gzipped_recording_that_is_cut_off_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    lines = [HEADER, *({"t": T + n, "key": True, "sessions": []} for n in range(2000))]
    whole = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=r"cut\.gz:\d+: the file is cut off"):
        list(read(path)[1])


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        read(tmp_path / "nothing")
