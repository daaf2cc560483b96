"""Recordings by anybody: the least that one may say, what is passed over, and what is an error with its line."""

import gzip
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN
from batsignal.detect.limits import limits_of
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.record import recording_reader
from batsignal.record.recording import RecordingError, read
from batsignal.snapshot import PoolerPool

T = 1_760_000_000.0
HEADER = {"format": "batsignal-recording", "version": 1, "server": "db1", "started_at": T, "interval_seconds": 1.0}
KEY = {"t": T, "key": True, "sessions": []}


def text_of(*lines: Any) -> str:
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


def written_by_others(path: Path, *lines: Any) -> Path:
    path.write_text(text_of(*lines))
    return path


def test_the_least_a_recording_may_say_is_read_and_the_rest_is_unknown(tmp_path: Path) -> None:
    row = {"pid": 1, "backend_start": T, "state": "idle", "backend_type": None, "colour": "blue"}
    path = written_by_others(
        tmp_path / "a.jsonl",
        HEADER | {"flavour": "unknown keys are passed over"},
        {"t": T, "sessions": [row], "key": True, "weather": {"rain": []}},
        {"t": T + 1, "sessions": []},
    )
    _, ticks = read(path)
    first, second = ticks
    assert first.slots is first.counters is first.refused is first.ping_seconds is first.failure is None
    assert first.privileged is first.role is first.host is first.pools is first.server_version_num is None
    assert first.sessions[0].is_client
    assert second.sessions == first.sessions


def test_every_key_may_be_null_where_it_may_be_missing(tmp_path: Path) -> None:
    names = ("gone", "counters", "refused", "ping_seconds", "probes", "deploys", "failure", "view", "pools", "host")
    columns = ("datname", "xact_start", "leader_pid", "blocked_by", "backend_type", "query")
    row = {"pid": 1, "backend_start": None, "state": None} | dict.fromkeys(columns)
    header = HEADER | dict.fromkeys(("slots", "role_limits", "database_limits", "privileged", "application_pattern"))
    path = written_by_others(tmp_path / "a.jsonl", header, KEY | {"sessions": [row]} | dict.fromkeys(names))
    (tick,) = read(path)[1]
    assert (tick.view, tick.pools, tick.sessions[0].blocked_by, tick.sessions[0].is_client) == (
        "session",
        None,
        (),
        True,
    )


def test_an_instant_may_be_a_whole_number(tmp_path: Path) -> None:
    row = {"pid": 1, "backend_start": int(T), "state": "idle", "state_change": int(T) + 1}
    (tick,) = read(written_by_others(tmp_path / "a.jsonl", HEADER, KEY | {"t": int(T), "sessions": [row]}))[1]
    assert (tick.t, tick.sessions[0].backend_start, tick.sessions[0].state_change) == (T, T, T + 1)
    assert isinstance(tick.sessions[0].backend_start, float)


def test_limit_as_postgresql_writes_one_that_is_none_is_none(tmp_path: Path) -> None:
    limits = {"role_limits": {"web": -1}, "database_limits": {"shop": -1, "half_dropped": -2}}
    (tick,) = read(written_by_others(tmp_path / "a.jsonl", HEADER | limits, KEY))[1]
    window = Window(ApplicationPattern(re.compile(APPLICATION_PATTERN)))
    window.add(tick)
    assert limits_of(window) == []


def test_blanks_are_nobodys_name(tmp_path: Path) -> None:
    probe = {"endpoint": " web ", "service": "   ", "up": False, "reason": " "}
    header, ticks = read(written_by_others(tmp_path / "a.jsonl", HEADER | {"server": "  "}, KEY | {"probes": [probe]}))
    (tick,) = ticks
    assert (header.server, tick.probes[0].endpoint, tick.probes[0].service) == ("server", "web", "web")


@pytest.mark.parametrize(("at", "made"), [(None, T), (T - 60, T - 60), (0, T), (T + 90_000, T)])
def test_probe_was_made_at_its_tick_where_it_names_no_time_that_can_be(tmp_path: Path, at: Any, made: float) -> None:
    probe = {"endpoint": "web", "up": False, "at": at}
    (tick,) = read(written_by_others(tmp_path / "a.jsonl", HEADER, KEY | {"probes": [probe]}))[1]
    assert tick.probes[0].at == made


@pytest.mark.parametrize("host", [{"cpu_percent": 12.5, "memory": {"used": 5}}, {"load1": 0.5, "cpu_count": 4}])
def test_host_in_somebody_elses_words_or_half_of_one_is_unknown(tmp_path: Path, host: dict[str, Any]) -> None:
    (tick,) = read(written_by_others(tmp_path / "a.jsonl", HEADER, KEY | {"host": host}))[1]
    assert tick.host is None


def test_pid_that_is_gone_and_was_never_seen_changes_nothing(tmp_path: Path) -> None:
    row = {"pid": 1, "backend_start": T, "state": "idle"}
    lines = [HEADER, KEY | {"sessions": [row]}, {"t": T + 1, "sessions": [], "gone": [2, 2, 3]}]
    before, after = read(written_by_others(tmp_path / "a.jsonl", *lines))[1]
    assert after.sessions == before.sessions


def test_a_row_of_the_pooler_as_it_prints_it_is_read(tmp_path: Path) -> None:
    row = {"database": "shop", "user": "web", "cl_active": 2, "cl_waiting": 1, "cl_cancel_req": 0, "maxwait": 1}
    (tick,) = read(written_by_others(tmp_path / "a.jsonl", HEADER, KEY | {"pools": [row | {"maxwait_us": 500_000}]}))[1]
    assert tick.pools == (PoolerPool(database="shop", user="web", cl_active=2, cl_waiting=1, maxwait_seconds=1.5),)


def test_a_last_line_without_its_end_is_whole_when_it_says_all(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text_of(HEADER, KEY).rstrip("\n"))
    assert len(list(read(path)[1])) == 1


def with_row(**columns: Any) -> list[Any]:
    return [HEADER, KEY | {"sessions": [{"pid": 1, "backend_start": T, "state": "idle"} | columns]}]


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ([], 1, "empty file"),
        ([""], 1, "one JSON object a line"),
        (["{"], 1, "one JSON object a line"),
        ([[1]], 1, "expected a JSON object, got list"),
        ([{"format": "something else"}], 1, 'expected "format": "batsignal-recording", got \'something else\''),
        ([{"format": ["x"] * 1000}], 1, 'expected "format": "batsignal-recording"'),
        ([KEY, HEADER], 1, 'expected "format": "batsignal-recording", got None'),
        ([HEADER | {"version": 2}], 1, "expected version 1, got 2"),
        ([HEADER | {"version": True}], 1, "expected version 1, got True"),
        (
            [HEADER | {"slots": {"max": "many"}}],
            1,
            "slots.max: expected a whole number from 1 to 2147483647, got 'many'",
        ),
        ([HEADER | {"slots": {"max": -5}}], 1, "slots.max: expected a whole number from 1 to 2147483647, got -5"),
        ([HEADER | {"slots": {"reserved": 3}}], 1, "slots.max: missing; expected a whole number, 1 and more"),
        ([HEADER | {"slots": {"max": 10**30}}], 1, "slots.max: expected a whole number from 1 to 2147483647, got 1000"),
        (
            [HEADER | {"slots": {"max": 3, "superuser_reserved": 2, "reserved": 1}}],
            1,
            "slots.max: expected more than superuser_reserved and reserved together, got 3 and 3",
        ),
        ([HEADER, KEY | {"slots": {"max": 0}}], 2, "slots.max: expected a whole number from 1 to 2147483647, got 0"),
        ([HEADER, KEY | {"refused": -1}], 2, "refused: expected a whole number from 0 to 2147483647, got -1"),
        (
            [HEADER, KEY | {"ping_seconds": -1}],
            2,
            "ping_seconds: expected a number of seconds from 0 to 1000000000, got -1",
        ),
        (
            [HEADER, KEY | {"refused": 2**31}],
            2,
            "refused: expected a whole number from 0 to 2147483647, got 2147483648",
        ),
        ([HEADER, KEY | {"ping_seconds": 1e300}], 2, "ping_seconds: expected a number of seconds from 0 to 1000000000"),
        ([HEADER, '{"t": 1, "key": true, "sessions": [], "ping_seconds": 1e999}'], 2, "to 1000000000, got inf"),
        ([HEADER, KEY | {"counters": {"sessions": -1}}], 2, "counters.sessions: expected a whole number from 0 to"),
        ([HEADER | {"privileged": 1}], 1, "privileged: expected true or false, got 1"),
        ([HEADER | {"started_at": T * 1000}], 1, "started_at: expected Unix seconds"),
        ([HEADER | {"interval_seconds": 0}], 1, "interval_seconds: expected a number of seconds above 0, got 0.0"),
        ([HEADER | {"application_pattern": "("}], 1, "application_pattern: expected a regular expression"),
        ([HEADER | {"application_pattern": "x"}], 1, "application_pattern: expected a group named 'service'"),
        ([HEADER, '{"t": 1e999, "key": true, "sessions": []}'], 2, "t: expected Unix seconds, got inf"),
        ([HEADER, '{"t": NaN, "key": true, "sessions": []}'], 2, "NaN is not JSON"),
        ([HEADER, KEY | {"t": 10**400}], 2, "t: expected Unix seconds, got 1000"),
        ([HEADER, KEY | {"t": 1e300}], 2, "t: expected Unix seconds, got 1e+300"),
        ([HEADER, KEY | {"t": T * 1e6}], 2, "t: expected Unix seconds, got 1760000000000000 (microseconds?)"),
        ([HEADER, KEY | {"t": int(T) * 10**9}], 2, "t: expected Unix seconds, got 1760000000000000000 (nanoseconds?)"),
        ([HEADER, KEY | {"t": -7e10}], 2, "t: expected Unix seconds, got -70000000000 (before any calendar)"),
        ([HEADER, KEY | {"t": T * 1000}], 2, "t: expected Unix seconds, got 1760000000000 (milliseconds?)"),
        ([HEADER, KEY | {"t": str(T)}], 2, "t: expected Unix seconds, got '1760000000.0'"),
        ([HEADER, {"key": True, "sessions": []}], 2, "t: missing"),
        ([HEADER, KEY, KEY | {"t": T - 1}], 3, "time runs backwards"),
        ([HEADER, KEY, {"t": T - 1, "sessions": 5}], 3, "time runs backwards"),
        ([HEADER, KEY, HEADER, KEY], 3, "a second header: expected one recording a file"),
        ([HEADER, KEY, '{"t": 17600', KEY], 3, "expected one JSON object a line"),
        ([HEADER, KEY, KEY | {"t": T + 2}, KEY | {"t": T + 1}], 4, "time runs backwards"),
        ([HEADER, {"t": T, "sessions": []}], 2, "expected the first look to list every session"),
        ([HEADER, {"t": T, "key": True}], 2, "sessions: expected a list, got none"),
        ([HEADER, KEY | {"sessions": {}}], 2, "sessions: expected a list of objects"),
        ([HEADER, KEY | {"sessions": [1]}], 2, "sessions: expected a list of objects"),
        ([HEADER, KEY | {"key": "yes"}], 2, "key: expected true or false"),
        ([HEADER, KEY, {"t": T, "sessions": [], "gone": 5}], 3, "gone: expected a list of pids"),
        ([HEADER, KEY, {"t": T, "sessions": [], "gone": [True]}], 3, "gone: expected a list of pids"),
        (
            [HEADER, KEY | {"sessions": [{"state": "idle"}]}],
            2,
            "sessions[0].pid: missing; expected the number of a process",
        ),
        (with_row(pid="1"), 2, "pid: expected the number of a process, got '1'"),
        (with_row(pid=True), 2, "pid: expected the number of a process, got True"),
        (with_row(pid=-1), 2, ":2: sessions[0].pid: expected the number of a process, got -1"),
        (with_row(pid=2**31), 2, "pid: expected the number of a process, got 2147483648"),
        (
            [
                HEADER,
                KEY | {"sessions": [{"pid": n, "backend_start": T, "state": [n] if n == 5 else None} for n in (1, 5)]},
            ],
            2,
            ":2: sessions[1].state: expected text, got [5]",
        ),
        (with_row(state=3), 2, "state: expected text, got 3"),
        (with_row(query=["x" * 10**6]), 2, "query: expected text, got ['xxx"),
        (with_row(query=False), 2, "query: expected text, got False"),
        (
            with_row(backend_start=T * 1000),
            2,
            "backend_start: expected Unix seconds, got 1760000000000 (milliseconds?)",
        ),
        (with_row(state_change=-T * 1e9), 2, "state_change: expected"),
        (with_row(xact_start=True), 2, "xact_start: expected Unix seconds, got True"),
        (with_row(query_start="now"), 2, "query_start: expected Unix seconds, got 'now'"),
        (with_row(blocked_by=3), 2, "blocked_by: expected a list of pids"),
        (with_row(blocked_by=["3"]), 2, "blocked_by: expected a list of pids"),
        (with_row(blocked_by=[-1]), 2, "blocked_by: expected a list of pids"),
        (with_row(leader_pid=1.5), 2, "leader_pid: expected the number of a process, got 1.5"),
        ([HEADER, KEY, {"t": T, "sessions": [], "gone": [-1]}], 3, "gone: expected a list of pids"),
        ([HEADER, {"t": T, "sessions": [], "failure": {"reason": 5}}], 2, ":2: failure.reason: expected text, got 5"),
        ([HEADER, "", KEY], 2, "expected one JSON object a line, got an empty line"),
        ([HEADER, KEY, '{"t": 1,}'], 3, "a line: Illegal trailing comma before end of object at column 8")
        if sys.version_info >= (3, 13)
        else ([HEADER, KEY, '{"t": 1,}'], 3, "enclosed in double quotes at column 9"),
        (
            [HEADER, KEY | {"sessions": [{"pid": 7, "backend_start": T, "state": "idle"}] * 2}],
            2,
            "sessions: expected each session once, got the one of pid 7 2 times",
        ),
        ([HEADER, KEY | {"failure": "yes"}], 2, "failure: expected an object, got 'yes'"),
        ([HEADER, KEY | {"view": "x"}], 2, "view: expected one of session"),
        ([HEADER, KEY | {"view": []}], 2, "view: expected"),
        ([HEADER, KEY | {"probes": [{}]}], 2, "probes[0].endpoint: missing; expected text"),
        ([HEADER, KEY | {"probes": [{"endpoint": "a", "up": 1}]}], 2, "probes[0].up: expected true or false, got 1"),
        ([HEADER, KEY | {"probes": [{"endpoint": " \t", "up": True}]}], 2, "probes[0].endpoint: expected text, got ''"),
        ([HEADER, KEY | {"probes": [{"endpoint": "a"}]}], 2, "probes[0].up: missing; expected true or false"),
        ([HEADER, KEY | {"probes": [{"endpoint": "", "up": True}]}], 2, "probes[0].endpoint: expected text, got ''"),
        (
            [HEADER, KEY | {"probes": [{"endpoint": "a", "up": True}, {"endpoint": "b", "up": True, "seconds": -0.1}]}],
            2,
            "probes[1].seconds: expected a number of seconds from 0 to 1000000000, got -0.1",
        ),
        (
            [HEADER, KEY | {"probes": [{"endpoint": "a", "up": True, "phases": {"dns": -1}}]}],
            2,
            "probes[0].phases.dns: expected a number of seconds",
        ),
        (
            [HEADER, KEY | {"probes": [{"endpoint": "a", "up": True, "status": 2000}]}],
            2,
            "probes[0].status: expected a whole number from 0 to 999, got 2000",
        ),
        ([HEADER, KEY | {"deploys": [{}]}], 2, "deploys[0].service: missing; expected text"),
        (
            [HEADER, KEY | {"deploys": [{"service": "a", "version": "1"}]}],
            2,
            "deploys[0].at: missing; expected Unix seconds",
        ),
        (
            [HEADER, KEY | {"deploys": [{"service": "a", "version": "1", "at": T * 1000}]}],
            2,
            "deploys[0].at: expected Unix seconds",
        ),
        ([HEADER, KEY | {"pools": [{"database": "a"}]}], 2, "pools[0].user: missing; expected text"),
        (
            [HEADER, KEY | {"pools": [{"database": "a", "user": "b", "maxwait": -1}]}],
            2,
            "pools[0].maxwait: expected a number of seconds",
        ),
        (
            [HEADER, KEY | {"pools": [{"database": "a", "user": "b", "cl_waiting": -1}]}],
            2,
            "pools[0].cl_waiting: expected a whole number from 0",
        ),
        (
            [HEADER, KEY | {"pools": [{"database": "a", "user": "b", "sv_active": 10**18}]}],
            2,
            "pools[0].sv_active: expected a whole number from 0 to 2147483647",
        ),
        ([HEADER, KEY | {"host": {"load1": -1}}], 2, "host.load1: expected a number from 0 to 2147483647, got -1"),
        ([HEADER, KEY | {"host": {"cpu_ratio": -0.1}}], 2, "host.cpu_ratio: expected a ratio from 0 to 1, got -0.1"),
        (
            [HEADER, KEY | {"host": {"memory_used_ratio": 45}}],
            2,
            "host.memory_used_ratio: expected a ratio from 0 to 1",
        ),
        ([HEADER, KEY | {"host": {"cpu_count": -4}}], 2, "host.cpu_count: expected a whole number from 0"),
        (
            [HEADER, KEY | {"role_limits": {"a": "many"}}],
            2,
            "role_limits.a: expected a whole number from -2 to 2147483647, got 'many'",
        ),
        ([HEADER | {"database_limits": {"b": -3}}], 1, "database_limits.b: expected a whole number from -2 to"),
        ([HEADER, "[" * 100_000], 2, "one JSON object a line"),
        ([HEADER, '{"t": ' + "1" * 5000 + "}"], 2, "one JSON object a line"),
    ],
)
def test_a_broken_recording_is_an_error_with_its_line(tmp_path: Path, lines: list[Any], line: int, words: str) -> None:
    path = written_by_others(tmp_path / "broken.jsonl", *lines)
    with pytest.raises(RecordingError) as caught:
        list(read(path)[1])
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250
    assert caught.value.exit_code == 2


LONG = text_of(HEADER, *(KEY | {"t": T + n, "refused": n * n * 7919 % 10007} for n in range(2000))).encode()
ZIPPED = gzip.compress(LONG, mtime=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r":1: expected a recording's header, got an empty file"),
        (LONG[:-8], r":2001: the recording is cut off in this line, the 2000 before it are whole"),
        (LONG[:30], r":1: the recording is cut off in this line"),
        (ZIPPED[: len(ZIPPED) // 2], r":\d{3,}: the file is cut off or not gzip throughout"),
        (ZIPPED[:-4], r":2002: the file is cut off or not gzip throughout"),
        (ZIPPED[:5], r":1: the file is cut off or not gzip throughout"),
        (ZIPPED[:5000] + b"\x00" * 200 + ZIPPED[5200:], r":\d+: "),
        (ZIPPED + b"garbage", r":2002: the file is cut off or not gzip throughout"),
        (ZIPPED + ZIPPED, r":2002: a second header"),
        (gzip.compress(os.urandom(5000), mtime=0), r":1: expected one JSON object a line"),
        (b"\x1f\x8b" + os.urandom(5000), r":1: the file is cut off or not gzip throughout"),
        (LONG.replace(b'"t"', b'"\x00"', 1), r":2: expected one JSON object a line"),
        (b"\x00" * 1000, r":1: the recording is cut off in this line"),
        (LONG.replace(b"db1", b"db\xff", 1), r":1: expected one JSON object a line: 'utf-8' codec can't decode"),
        (LONG.decode().encode("utf-16"), r":1: expected one JSON object a line"),
        (b"\xef\xbb\xbf" + LONG, r":1: expected UTF-8 without a byte order mark"),
    ],
)
def test_a_file_that_is_not_whole_is_an_error_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=words):
        list(read(path)[1])


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_reader, "LINE_BYTES_MOST", 1000)
    path = written_by_others(tmp_path / "long", HEADER, KEY | {"filler": "x" * 5000})
    with pytest.raises(RecordingError, match=r":2: expected a line of at most 1000 bytes"):
        list(read(path)[1])


@pytest.mark.parametrize(("name", "words"), [("", "Is a directory"), ("nothing", "No such file")])
def test_what_is_no_file_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(RecordingError, match=f"cannot be read: {words}"):
        read(tmp_path / name)


def test_reason_that_is_not_known_here_is_a_look_that_failed_with_its_words(tmp_path: Path) -> None:
    failures = [{"reason": "bored", "text": "out to lunch"}, {"sqlstate": "58000"}, {"reason": "timeout"}]
    lines = [{"t": T + n, "sessions": [], "failure": failure} for n, failure in enumerate(failures)]
    ticks = list(read(written_by_others(tmp_path / "a.jsonl", HEADER, *lines))[1])
    said = [(tick.failure.reason, tick.failure.text) for tick in ticks if tick.failure]
    unsaid = "the look failed, the recording does not say why"
    assert said == [("unreachable", "bored: out to lunch"), ("unreachable", unsaid), ("timeout", "timeout")]


def test_pid_that_was_reused_within_a_look_is_its_younger_session(tmp_path: Path) -> None:
    rows = [{"pid": 7, "backend_start": start, "state": "idle"} for start in (T + 5, T)]
    (tick,) = read(written_by_others(tmp_path / "a.jsonl", HEADER, KEY | {"sessions": rows}))[1]
    assert [session.backend_start for session in tick.sessions] == [T + 5]


EVIL = "a\n\x1b[31m\u202e\x7f\ud800é"
TAME = "a ?[31m???é"


@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_text_of_a_recording_can_lead_a_log_or_a_terminal_astray(tmp_path: Path, ascii_only: bool) -> None:
    evil, tame = (EVIL, TAME) if ascii_only else (EVIL.replace("\ud800", ""), TAME.replace("???", "??"))
    columns = ("datname", "usename", "application_name", "query", "client_addr")
    tick = {
        "t": T,
        "key": True,
        "sessions": [{"pid": 1, "backend_start": T, "state": "idle"} | dict.fromkeys(columns, evil)],
        "probes": [{"endpoint": evil, "service": evil, "up": False, "reason": evil}],
        "deploys": [{"service": evil, "version": evil, "at": T, "previous": evil}],
        "pools": [{"database": evil, "user": evil}],
        "role_limits": {evil: 5},
        "role": evil,
    }
    lines = [HEADER | {"server": evil}, tick, {"t": T + 1, "sessions": [], "failure": {"reason": evil, "text": evil}}]
    path = tmp_path / "a.jsonl"
    text = "".join(json.dumps(line, ensure_ascii=ascii_only) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    header, ticks = read(path)
    first, second = ticks
    assert header.server == tame
    assert {getattr(first.sessions[0], column) for column in columns} == {tame}
    assert (first.probes[0].endpoint, first.probes[0].service, first.probes[0].reason) == (tame, tame, tame)
    assert (first.deploys[0].service, first.deploys[0].version, first.deploys[0].previous) == (tame, tame, tame)
    assert (first.pools or ())[0].user == tame
    assert dict(first.role_limits) == {tame: 5}
    assert second.failure is not None
    assert second.failure.text == f"{tame}: {tame}"
    assert all(part.isprintable() for part in repr([first, second]).splitlines())


def test_name_that_goes_on_and_on_is_cut(tmp_path: Path) -> None:
    long = "x" * 10**6
    tick = KEY | {
        "probes": [{"endpoint": long, "up": False, "reason": long}],
        "deploys": [{"service": long, "version": long, "at": T}],
        "pools": [{"database": long, "user": long}],
    }
    header, ticks = read(written_by_others(tmp_path / "a.jsonl", HEADER | {"server": long}, tick))
    (first,) = ticks
    told = (header.server, first.probes[0].endpoint, first.probes[0].reason, first.deploys[0].version)
    assert {len(name or "") for name in (*told, (first.pools or ())[0].user)} == {200}
