from typing import Any

import pytest

from batsignal.poll.rows import Names, RowReader
from batsignal.snapshot import Session

T = 1_760_000_000.0
COLUMNS = (
    *("pid", "backend_start", "state", "database", "role", "application_name", "client_addr"),
    *("xact_start", "query_start", "state_change", "wait_event_type", "wait_event", "query_id"),
    *("backend_type", "xid", "xmin", "leader_pid", "text", "long_text"),
)
PLAIN = {
    "pid": 100,
    "backend_start": T - 60,
    "state": "idle",
    "database": 5,
    "role": 10,
    "application_name": "web@2.4.0",
    "client_addr": "10.0.0.4",
    "query_start": T - 10,
    "state_change": T - 9,
    "wait_event_type": "Client",
    "wait_event": "ClientRead",
    "query_id": "-17",
    "backend_type": "client backend",
    "text": "SELECT 'secret'",
}


def row(**changes: Any) -> tuple[Any, ...]:
    values = PLAIN | changes
    return tuple(values.get(column) for column in COLUMNS)


@pytest.fixture
def names() -> Names:
    names = Names()
    names.put_roles([(10, "web", -1), (11, "billing", -1)])
    names.put_databases([(5, "shop", -1)])
    return names


@pytest.fixture
def reader(names: Names) -> RowReader:
    return RowReader(names)


def read(reader: RowReader, *rows: tuple[Any, ...], t: float = T, **blocked_by: tuple[int, ...]) -> list[Session]:
    blockers = {int(pid[1:]): pids for pid, pids in blocked_by.items()}
    return list(reader.read(rows, t=t, blocked_by=blockers))


def test_row_becomes_a_session_with_names_and_without_literals(reader: RowReader) -> None:
    (session,) = read(reader, row())
    assert session == Session(
        pid=100,
        backend_start=T - 60,
        state="idle",
        datname="shop",
        usename="web",
        application_name="web@2.4.0",
        client_addr="10.0.0.4",
        query_start=T - 10,
        state_change=T - 9,
        wait_event_type="Client",
        wait_event="ClientRead",
        query_id="-17",
        query="SELECT ?",
    )


def test_code_path_in_a_statements_comment_is_kept_as_long_as_its_text(reader: RowReader) -> None:
    (session,) = read(reader, row(text="SELECT 1 /*controller='users',traceparent='00-17-01'*/"))
    assert (session.query, session.code) == ("SELECT ?", "controller=users")
    (session,) = read(reader, row(text=None, wait_event="WalSync"), t=T + 1)
    assert (session.query, session.code) == ("SELECT ?", "controller=users")
    (session,) = read(reader, row(text="SELECT 2", query_start=T), t=T + 2)
    assert session.code is None


def test_servers_own_processes_are_left_out(reader: RowReader) -> None:
    rows = [
        row(pid=2, backend_type="autovacuum launcher", role=None, database=None),
        row(pid=3, backend_type="logical replication launcher", database=None),
        row(pid=None),
        row(pid=4),
    ]
    assert [session.pid for session in read(reader, *rows)] == [4]


def test_whatever_blocks_a_session_is_kept(reader: RowReader) -> None:
    vacuum = row(pid=7, backend_type="autovacuum worker", role=None)
    sessions = read(reader, vacuum, row(), p100=(7,))
    assert [(session.pid, session.is_client, session.blocked_by) for session in sessions] == [
        (7, False, ()),
        (100, True, (7,)),
    ]


def test_hidden_session_counts_as_a_client_but_a_hidden_launcher_does_not(reader: RowReader) -> None:
    hidden = {"backend_type": None, "state": None, "backend_start": None, "text": "<insufficient privilege>"}
    client, launcher = row(**hidden), row(pid=101, database=None, **hidden)
    (session,) = read(reader, client, launcher)
    assert (session.pid, session.is_client, session.query) == (100, True, None)


def test_session_that_is_hidden_from_now_on_keeps_its_begin_and_shows_nothing_that_is_old(reader: RowReader) -> None:
    hidden = {"backend_type": None, "state": None, "backend_start": None, "client_addr": None, "text": None}
    (before,) = read(reader, row())
    (after,) = read(reader, row(**hidden), t=T + 1)
    assert (after.key, after.client_addr) == (before.key, before.client_addr)
    assert (after.state, after.query) == (None, None)
    (other,) = read(reader, row(**hidden, application_name="another"), t=T + 2)
    assert other.backend_start is None, "a pid that is called otherwise is another session"


def test_that_sessions_are_hidden_shows_at_the_servers_own_workers() -> None:
    worker = row(pid=7, backend_type="checkpointer", role=None, database=None)
    assert not RowReader.are_hidden([row(), worker, row(pid=None, backend_type=None)])
    assert RowReader.are_hidden([row(), row(pid=7, backend_type=None, role=None, database=None)])


def test_session_that_starts_has_no_names_yet(reader: RowReader) -> None:
    (session,) = read(reader, row(state="starting", role=None, database=None, text=None))
    assert (session.usename, session.datname, session.query, session.is_client) == (None, None, None, True)


def test_row_that_did_not_change_is_the_same_object(reader: RowReader) -> None:
    before = read(reader, row())
    after = read(reader, row(text=None), t=T + 1)
    assert after[0] is before[0]


@pytest.mark.parametrize(
    "change",
    [
        {"state": "active"},
        {"wait_event": "WalSync"},
        {"application_name": "web@2.4.1"},
        {"xact_start": T},
        {"query_id": "18"},
        {"role": 11},
    ],
)
def test_row_that_changed_is_a_new_object_with_the_text_it_had(reader: RowReader, change: dict[str, Any]) -> None:
    (before,) = read(reader, row())
    (after,) = read(reader, row(text=None, **change), t=T + 1)
    assert after is not before
    assert after.query == "SELECT ?"


def test_blocker_that_came_or_went_is_a_change(reader: RowReader) -> None:
    (before,) = read(reader, row())
    (blocked,) = read(reader, row(), t=T + 1, p100=(7,))
    assert blocked.blocked_by == (7,)
    (freed,) = read(reader, row(), t=T + 2)
    assert (freed.blocked_by, freed) == ((), before)


def test_pid_used_again_does_not_inherit_the_text(reader: RowReader) -> None:
    read(reader, row())
    (after,) = read(reader, row(backend_start=T, text=None), t=T + 1)
    assert after.query is None


def test_new_text_takes_the_place_of_the_old(reader: RowReader) -> None:
    read(reader, row())
    (after,) = read(reader, row(query_start=T, text="UPDATE t SET a = 1"), t=T + 1)
    assert after.query == "UPDATE t SET a = ?"


def test_long_text_comes_as_bytes_that_may_be_cut_in_a_character(reader: RowReader) -> None:
    (session,) = read(reader, row(text=None, long_text=memoryview("SELECT ä, ö".encode()[:-1])))
    assert session.query == "SELECT ä, \N{REPLACEMENT CHARACTER}"


def test_all_texts_are_wanted_at_first_and_then_only_young_ones(reader: RowReader) -> None:
    assert reader.texts_since == 0
    read(reader, row())
    assert T - 10 < reader.texts_since < T
    reader.forget()
    assert reader.texts_since == 0


def test_clock_that_stepped_back_makes_the_next_look_ask_for_all_texts_and_loses_none(reader: RowReader) -> None:
    read(reader, row())
    (after,) = read(reader, row(text=None, state="active"), t=T - 3600)
    assert after.query == "SELECT ?"
    assert reader.texts_since == 0


def test_rows_that_wait_for_a_lock_are_those_to_ask_about() -> None:
    rows = [row(), row(pid=7, wait_event_type="Lock"), row(pid=8, wait_event_type="LWLock")]
    assert RowReader.waiting(rows) == [7]


def test_of_those_that_wait_the_heads_of_the_queues_come_first() -> None:
    ages = {7: 5.0, 8: 60.0, 9: None}
    rows = [
        row(pid=pid, wait_event_type="Lock", query_start=None if age is None else T - age) for pid, age in ages.items()
    ]
    assert RowReader.waiting(rows) == [9, 8, 7]


def test_names_that_are_lacking_are_told_with_all_roles_in_use(names: Names) -> None:
    rows = [row(), row(pid=7, role=12), row(pid=8, database=6), row(pid=9, role=None, database=None), row(role=0)]
    lacking, roles = names.lacking(rows)
    assert lacking == {("role", 12), ("database", 6)}
    assert sorted(roles) == [10, 12]


def test_answer_that_did_not_come_keeps_the_names(names: Names) -> None:
    names.put_roles(None)
    names.put_databases(None)
    assert (names.roles[10], names.databases) == ("web", {5: "shop"})


def test_limits_are_those_above_zero(names: Names) -> None:
    names.put_roles([(10, "web", 20), (11, "billing", -1), (12, "never", 0)])
    names.put_databases([(5, "shop", 50), (6, "broken", -2)])
    assert (names.role_limits, names.database_limits) == ({"web": 20}, {"shop": 50})


def test_roles_that_are_not_asked_for_again_keep_their_name(names: Names) -> None:
    names.put_roles([(12, "newcomer", -1)])
    assert names.roles == {10: "web", 11: "billing", 12: "newcomer"}


def test_database_that_was_dropped_is_forgotten(names: Names) -> None:
    names.put_databases([(6, "other", -1)])
    assert names.databases == {6: "other"}


def fresh(text: str) -> str:
    """Return an equal text that is another object, as the driver does for each value of each row."""
    return "".join(list(text))


def test_texts_that_are_equal_are_one_object_over_sessions_and_looks(reader: RowReader) -> None:
    facts = {"application_name": "web@2.4.0", "client_addr": "10.0.0.4", "wait_event": "ClientRead"}
    rows = [row(pid=pid, **{name: fresh(text) for name, text in facts.items()}) for pid in (100, 101)]
    first, second = read(reader, *rows)
    (later,) = read(reader, row(pid=102, state_change=T, **{name: fresh(text) for name, text in facts.items()}))
    for name in facts:
        assert getattr(first, name) is getattr(second, name) is getattr(later, name)


def test_statements_that_differ_by_their_literals_are_one_object(reader: RowReader) -> None:
    first, second = read(reader, row(pid=100, text="SELECT 'one'"), row(pid=101, text="SELECT 'two'"))
    assert first.query is not None
    assert first.query is second.query
