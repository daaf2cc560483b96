"""What was written is read again: everything in a look that a judge or a reader of a recording may want."""

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from batsignal.record.recording import RecordingWriter, read
from batsignal.snapshot import (
    Counters,
    Deploy,
    HostLoad,
    PollFailure,
    PoolerPool,
    ProbeResult,
    Session,
    Slots,
    Snapshot,
)

T = 1_760_000_000.0


def session(pid: int, **facts: Any) -> Session:
    return Session(**{"pid": pid, "backend_start": T - 60.123456, "state": "idle", "state_change": T - 5} | facts)


def look(second: float, *sessions: Session, **facts: Any) -> Snapshot:
    given = {
        "slots": Slots(max=100, superuser_reserved=3, reserved=2),
        "own_sessions": 1,
        "authenticating": 2,
        "refused": 0,
    }
    return Snapshot(server="db1", t=T + second, sessions=sessions, **(given | facts))


def record(path: Path, snapshots: Sequence[Snapshot], **options: Any) -> Path:
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0, **options)
    for snapshot in snapshots:
        writer.write(snapshot)
    writer.close()
    return path


def round_trip(path: Path, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    return list(read(record(path, snapshots))[1])


def lines_of(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


BUSY = session(
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
    query='SELECT "ünï\\x00" FROM t WHERE a = ?',
    blocked_by=(1, 0),
    backend_xid="7",
    backend_xmin="6",
    leader_pid=1,
)
PROBE = ProbeResult(
    endpoint="web",
    service="shop",
    at=T + 1.5,
    up=False,
    seconds=2.000_123_456_7,
    status=503,
    reason="no",
    phases={"resolve": 0.001, "connect": 0.25},
    tls_expiry=T + 1e6,
)
HOST = HostLoad(
    cpu_ratio=0.123_456_789,
    memory_used_ratio=0.5,
    load1=1.25,
    cpu_count=4,
    server_processes=12,
    server_rss_bytes=123_456_789,
    tcp={"ESTABLISHED": 9, "LISTEN": 2},
)
POOL = PoolerPool(
    database="shop",
    user="web",
    cl_active=20,
    cl_waiting=3,
    sv_active=5,
    sv_idle=0,
    sv_used=1,
    sv_tested=0,
    sv_login=0,
    maxwait_seconds=2.250_001,
    pool_mode="transaction",
)
LIMITS = {"role_limits": {"web": 20}, "database_limits": {"shop": 30}}


@pytest.mark.parametrize("name", ["plain.jsonl", "zipped.jsonl.gz"])
def test_what_was_written_is_read_again(tmp_path: Path, name: str) -> None:
    worker = session(3, backend_type="autovacuum worker", state=None, state_change=None, backend_start=None)
    mine = {"privileged": True, "role": "batsignal", "server_version_num": 150018} | LIMITS
    written = [
        look(0, session(1), **mine),
        look(1, session(1), BUSY, worker, **mine, pools=(POOL, PoolerPool(database="a", user="b")), host=HOST),
        look(
            2,
            BUSY,
            **mine,
            counters=Counters(sessions=12, xact_commit=99),
            ping_seconds=0.000_412_345_678_9,
            probes=(PROBE, replace(PROBE, up=True, reason=None, phases={}, tls_expiry=None)),
            deploys=(Deploy(service="web", version="2.4.0", at=T + 1, previous="2.3.9"),),
            refused=3,
            pools=(),
            view="reserved",
        ),
    ]
    assert round_trip(tmp_path / name, written) == written


def test_nothing_in_a_look_is_forgotten_by_the_recording() -> None:
    # A field that is new in a look must be written, read and put into the test above, or stand here with its reason.
    about_the_watch_itself = {"poll_seconds"}
    kept = {
        *("server", "t", "sessions", "own_sessions", "slots", "role_limits", "database_limits", "counters", "refused"),
        *(
            "ping_seconds",
            "probes",
            "deploys",
            "failure",
            "refusal",
            "authenticating",
            "view",
            "privileged",
            "role",
            "host",
            "server_version_num",
        ),
        *("pools", "refusal", "authenticating"),
    }
    assert {one.name for one in fields(Snapshot)} == kept | about_the_watch_itself


def test_a_session_that_did_not_change_is_the_same_object_over_a_key_line(tmp_path: Path) -> None:
    one = session(1)
    ticks = round_trip(tmp_path / "a.jsonl", [look(second, one, session(2)) for second in range(130)])
    assert all(later.sessions[0] is ticks[0].sessions[0] for later in ticks)
    keys = lines_of(tmp_path / "a.jsonl")[1:]
    assert [index for index, tick in enumerate(keys) if tick["key"]] == [0, 60, 120]


def test_sessions_are_read_in_the_order_of_their_pids_whatever_order_they_came_in(tmp_path: Path) -> None:
    ticks = round_trip(
        tmp_path / "a.jsonl",
        [
            look(0, session(5), session(3)),
            look(1, session(5), session(4), session(3)),
            look(2, session(5), session(1, state="active"), session(4, state="active"), session(3)),
        ],
    )
    assert [[one.pid for one in tick.sessions] for tick in ticks] == [[3, 5], [3, 4, 5], [1, 3, 4, 5]]


def test_a_pid_that_was_given_to_another_session_within_a_second_is_the_other_session(tmp_path: Path) -> None:
    ticks = round_trip(tmp_path / "a.jsonl", [look(0, session(1)), look(1, session(1, backend_start=T + 0.5))])
    assert [tick.sessions[0].backend_start for tick in ticks] == [T - 60.123456, T + 0.5]


def test_a_failed_look_is_no_empty_server(tmp_path: Path) -> None:
    failure = PollFailure(reason="timeout", text="no answer", sqlstate=None)
    ticks = round_trip(
        tmp_path / "a.jsonl",
        [look(0, session(1)), look(1, failure=failure, view="none", own_sessions=0), look(2, session(1), session(2))],
    )
    assert ticks[1].failure == failure
    assert [one.pid for one in ticks[2].sessions] == [1, 2]


def test_sessions_that_were_seen_another_way_are_sessions_and_why_it_was_taken_is_kept(tmp_path: Path) -> None:
    refusal = PollFailure(reason="slots_full", text="no slot is left", sqlstate="53300", by_pooler=True)
    titled = session(2, state=None, state_change=None)
    given = [look(0, session(1)), look(1, session(1), titled, refusal=refusal, view="process_titles", own_sessions=0)]
    ticks = round_trip(tmp_path / "a.jsonl", given)
    assert [(tick.refusal, tick.view, tick.failure) for tick in ticks] == [
        (None, "session", None),
        (refusal, "process_titles", None),
    ]
    assert ticks[1].sessions == given[1].sessions
    assert not ticks[1].is_detailed


def test_facts_that_become_known_after_the_start_are_kept(tmp_path: Path) -> None:
    failure = PollFailure(reason="refused", text="nobody there")
    down = replace(look(0, failure=failure, view="none"), slots=None)
    known = {"privileged": False, "role": "nobody"}
    ticks = round_trip(tmp_path / "a.jsonl", [down, look(1, **known), look(2, **known), look(3, **known, **LIMITS)])
    assert (ticks[0].slots, ticks[0].privileged) == (None, None)
    assert ticks[2].slots == Slots(max=100, superuser_reserved=3, reserved=2)
    assert (ticks[2].privileged, ticks[2].role, ticks[2].role_limits) == (False, "nobody", {})
    assert ticks[3].role_limits == {"web": 20}


def test_a_privilege_that_is_granted_while_it_records_counts_from_that_tick(tmp_path: Path) -> None:
    ticks = round_trip(tmp_path / "a.jsonl", [look(n, privileged=n > 1, role="batsignal") for n in range(4)])
    assert [tick.privileged for tick in ticks] == [False, False, True, True]


def test_a_limit_that_is_lifted_is_gone(tmp_path: Path) -> None:
    ticks = round_trip(tmp_path / "a.jsonl", [look(0, **LIMITS), look(1), look(2)])
    assert [tick.role_limits for tick in ticks] == [{"web": 20}, {}, {}]


def test_a_tick_before_the_last_one_is_left_out_but_what_was_new_in_it_is_kept(tmp_path: Path) -> None:
    deploy = Deploy(service="web", version="2", at=T)
    back = look(5, session(1), session(2), probes=(PROBE,), deploys=(deploy,), refused=2)
    ticks = round_trip(tmp_path / "a.jsonl", [look(10, session(1)), back, look(11, session(1), probes=(PROBE,))])
    assert [tick.t - T for tick in ticks] == [10, 11]
    assert (ticks[1].probes, ticks[1].deploys, ticks[1].refused) == ((PROBE, PROBE), (deploy,), 2)


def test_deploys_known_from_elsewhere_are_written_once_in_the_tick_that_knows_them(tmp_path: Path) -> None:
    old, marked, found = (Deploy(service="web", version=version, at=T) for version in ("1", "2", "3"))
    writer = RecordingWriter(tmp_path / "a.jsonl", server="db1", interval_seconds=1.0)
    writer.write(look(0), known_deploys=(old,))
    writer.write(look(1), known_deploys=(old,))
    writer.write(look(2, deploys=(found,)), known_deploys=(old, marked, found))
    writer.write(look(3), known_deploys=(marked, found))
    writer.close()
    assert [tick.deploys for tick in read(tmp_path / "a.jsonl")[1]] == [(old,), (), (found, marked), ()]


def test_the_header_says_how_names_were_split(tmp_path: Path) -> None:
    pattern = r"^(?P<service>\w+)/(?P<version>.+)$"
    header, _ = read(record(tmp_path / "a.jsonl", [look(0)], application_pattern=pattern))
    assert (header.server, header.started_at, header.interval_seconds) == ("db1", T, 1.0)
    assert header.application_pattern == pattern
    assert read(record(tmp_path / "b.jsonl", [look(0)]))[0].application_pattern is None


def test_lines_hold_what_the_format_promises(tmp_path: Path) -> None:
    header, first, second = lines_of(
        record(
            tmp_path / "a.jsonl",
            [
                look(0, session(1), session(2)),
                look(1, BUSY, host=HOST, pools=(POOL,), counters=Counters(sessions=1, xact_commit=2)),
            ],
        )
    )
    assert (header["format"], header["version"]) == ("batsignal-recording", 1)
    assert header["slots"] == {"max": 100, "superuser_reserved": 3, "reserved": 2}
    assert (first["key"], [row["pid"] for row in first["sessions"]]) == (True, [1, 2])
    assert (second["key"], second["gone"], second["failure"], second["view"]) == (False, [1], None, "session")
    (row,) = second["sessions"]
    assert row == {
        "pid": 2,
        "backend_start": T - 60.123456,
        "state": "active",
        "state_change": T - 5,
        "datname": "shop",
        "usename": "wéb",
        "application_name": "web@2.4.0",
        "client_addr": "10.0.0.4",
        "xact_start": T - 1.5,
        "query_start": T - 1.25,
        "wait_event_type": "Lock",
        "wait_event": "relation",
        "query_id": "-42",
        "query": 'SELECT "ünï\\x00" FROM t WHERE a = ?',
        "blocked_by": [1, 0],
        "backend_xid": "7",
        "backend_xmin": "6",
        "leader_pid": 1,
    }
    assert second["pools"][0]["maxwait"] == 2
    assert second["pools"][0]["maxwait_us"] == 250_001
    assert second["host"]["tcp"] == {"ESTABLISHED": 9, "LISTEN": 2}


def test_a_gzipped_recording_that_is_still_being_written_can_be_unpacked_up_to_the_last_flush(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "a.gz", server="db1", interval_seconds=1.0)
    for second in range(25):
        writer.write(look(second, session(1)))
    unpacked = zlib.decompressobj(31).decompress((tmp_path / "a.gz").read_bytes())
    writer.close()
    assert unpacked.count(b"\n") == 21
    assert len(lines_of(tmp_path / "a.gz")) == 26


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "a.gz", server="db1", interval_seconds=1.0)
    writer.write(look(0, session(1)))
    writer.close()
    writer.close()
    assert len(list(read(tmp_path / "a.gz")[1])) == 1


def test_a_probe_is_at_home_unless_the_recording_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    probes = (PROBE, replace(PROBE, is_home=False))
    (tick,) = round_trip(path, [look(1, probes=probes)])
    assert tick.probes == probes
    assert ["home" in probe for probe in lines_of(path)[1]["probes"]] == [False, True]
