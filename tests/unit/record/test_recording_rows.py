"""A row, both ways: what is read quickly is what would be read with care."""

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batsignal.record.recording_fields import Fault
from batsignal.record.recording_rows import RowReader, _read_with_care, row_of
from batsignal.snapshot import Session

T = 1_760_000_000.0
WHOLE_ROW: dict[str, Any] = {
    "pid": 1,
    "backend_start": T,
    "state": "active",
    "datname": "shop",
    "usename": "web",
    "application_name": "web@1",
    "client_addr": "10.0.0.4",
    "xact_start": T + 1,
    "query_start": T + 2,
    "state_change": T + 3,
    "wait_event_type": "Lock",
    "wait_event": "relation",
    "query_id": "-42",
    "query": "SELECT ?",
    "blocked_by": [2, 3],
    "backend_type": "client backend",
    "backend_xid": "7",
    "backend_xmin": "6",
    "leader_pid": 9,
    "code": "controller=users action=show",
}


def test_a_row_has_a_key_for_every_field_of_a_session() -> None:
    assert list(WHOLE_ROW) == [one.name for one in fields(Session)]


@pytest.mark.parametrize("row", [WHOLE_ROW, WHOLE_ROW | {"blocked_by": [], "leader_pid": None}])
def test_every_column_lands_in_the_field_of_its_name(row: dict[str, Any]) -> None:
    assert RowReader().session(row) == Session(**row | {"blocked_by": tuple(row["blocked_by"])})


def test_every_column_lands_in_the_field_of_its_name_on_the_quick_way_too() -> None:
    row = {name: value for name, value in WHOLE_ROW.items() if name not in {"blocked_by", "leader_pid"}}
    assert RowReader().session(row) == Session(**row)


def test_tags_that_somebody_left_in_a_recorded_statement_are_read_as_its_code_path() -> None:
    row = {"pid": 1, "backend_start": T, "state": "idle", "query": "SELECT $1 /*action='show',traceparent='00-1-01'*/"}
    session = RowReader().session(row)
    assert (session.query, session.code) == ("SELECT $1", "action=show")
    assert RowReader().session(row | {"code": "action=edit"}).code == "action=edit"
    untagged = row | {"query": "SELECT /* why */ 1 /* because */"}
    assert RowReader().session(untagged) == Session(pid=1, backend_start=T, state="idle", query=untagged["query"])


def test_a_session_that_was_read_is_a_session_like_any_other() -> None:
    row = {"pid": 1, "backend_start": T, "state": "idle"}
    read, made = RowReader().session(row), Session(**row)
    assert type(read) is Session
    assert (read, hash(read), repr(read), read.key) == (made, hash(made), repr(made), made.key)
    assert replace(read, state="active").state == "active"
    with pytest.raises(FrozenInstanceError):
        read.state = "active"  # type: ignore[misc]


def test_a_type_that_was_right_in_one_row_does_not_make_it_right_in_another_column() -> None:
    reader = RowReader()
    reader.session({"pid": 1, "backend_start": T, "state": "idle", "query": "x"})
    with pytest.raises(Fault, match="query: expected text"):
        reader.session({"pid": 1, "backend_start": T, "state": "idle", "query": 1.0})
    with pytest.raises(Fault, match="backend_start: expected Unix seconds"):
        reader.session({"pid": 1, "backend_start": "idle", "state": "idle", "query": "x"})


NAMES = {"datname": "shop", "usename": "web", "client_addr": "::1", "query_id": "77"}


@pytest.mark.parametrize("name", NAMES)
def test_name_or_address_that_is_empty_is_none(name: str) -> None:
    session = RowReader().session({"pid": 1, "backend_start": T, "state": "idle"} | NAMES | {name: ""})
    assert {one: getattr(session, one) for one in NAMES} == NAMES | {name: None}


@pytest.mark.parametrize("name", ["pid", "backend_start", "state"])
def test_a_row_without_what_every_row_has_is_refused_and_a_null_is_none(name: str) -> None:
    row = {"pid": 1, "backend_start": T, "state": "idle"}
    RowReader().session(row)
    with pytest.raises(Fault, match=f"^{name}: missing; expected "):
        RowReader().session({key: value for key, value in row.items() if key != name})
    if name != "pid":
        assert getattr(RowReader().session(row | {name: None}), name) is None


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(), st.none(), st.booleans(), st.text(max_size=1)), max_size=2),
    st.dictionaries(st.text(max_size=1), st.none(), max_size=1),
)


def outcome(read: Any, row: dict[str, Any]) -> Any:
    try:
        return read(row)
    except Fault as fault:
        return str(fault)


@given(rows=st.lists(st.dictionaries(st.sampled_from([*WHOLE_ROW, "colour"]), values), min_size=1, max_size=4))
def test_the_quick_way_refuses_what_care_would_refuse_and_reads_the_same(rows: list[dict[str, Any]]) -> None:
    reader = RowReader()
    for row in ({"pid": 1} | row for row in rows):
        assert outcome(reader.session, row) == outcome(_read_with_care, row)


sessions = st.builds(
    Session,
    pid=st.integers(1, 2**31 - 1),
    backend_start=st.none() | st.floats(0, 1e10),
    state=st.none() | st.text(),
    query=st.none() | st.text(),
    backend_type=st.sampled_from(["client backend", "walsender"]),
    blocked_by=st.lists(st.integers(0, 2**31 - 1)).map(tuple),
    leader_pid=st.none() | st.integers(1, 2**31 - 1),
)


@given(session=sessions)
def test_what_is_written_is_read_again(session: Session) -> None:
    assert RowReader().session(row_of(session)) == session
