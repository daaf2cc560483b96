import threading
from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.signal import Finding, Signal, Subject
from batsignal.record.board import Board, BoardCell, ServerBoard
from batsignal.record.tally import ServerTally
from batsignal.snapshot import PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0


def server(name: str = "db1", *, used: int = 0, failure: Any = None, **facts: Any) -> ServerBoard:
    snapshot = Snapshot(
        server=name,
        t=T,
        sessions=() if failure else tuple(Session(pid=n, backend_start=T, state="idle") for n in range(used)),
        slots=Slots(max=13, superuser_reserved=3),
        failure=PollFailure(reason=failure, text="no") if failure else None,
    )
    given = {"snapshot": snapshot, "answered": None if failure else snapshot}
    return ServerBoard(name=name, interval_seconds=1.0, ticked_at=T, tally=ServerTally(), **(given | facts))


def signal(severity: Any, since: float) -> Signal:
    subject = Subject(application="web")
    found = Finding(kind="leak", key=("web",), severity=severity, subject=subject, since=since)
    return Signal(id=f"{severity}-{since}", server="db1", detected=T, raised_as=subject, finding=found)


@pytest.fixture
def cell() -> BoardCell:
    return BoardCell(Board(version="1", started_at=T, servers={"db1": None, "db2": None}))


# -- one server --------------------------------------------------------------------------------------------------------


def test_server_that_answered_is_up() -> None:
    board = server(used=3)
    assert (board.up, board.view, board.state) == (True, "session", "up")


def test_server_whose_look_failed_is_what_the_failure_says() -> None:
    board = server(failure="role_limit")
    assert (board.up, board.view, board.state) == (False, "none", "role_limit")


def test_server_whose_answer_is_too_old_counts_as_timed_out() -> None:
    board = replace(server(used=3), stale=True)
    assert (board.up, board.view, board.state) == (False, "none", "timeout")


@pytest.mark.parametrize(("view", "up"), [("walsender", True), ("process_titles", False)])
def test_server_that_is_seen_another_way_is_seen_and_in_the_state_that_our_attempt_met(view: Any, up: bool) -> None:
    board = server(used=3)
    refusal = PollFailure(reason="slots_full", text="no slot is left")
    board = replace(board, snapshot=replace(board.snapshot, view=view, refusal=refusal))
    assert (board.seen, board.up, board.view, board.state) == (True, up, view, "slots_full")
    assert board.slots_full, "it was refused, whatever the count says"
    assert not replace(board, stale=True).seen


@pytest.mark.parametrize(("used", "full"), [(9, False), (10, True), (11, True)])
def test_slots_are_full_when_no_usable_one_is_left(used: int, full: bool) -> None:
    assert server(used=used).slots_full is full


@pytest.mark.parametrize(("reason", "full"), [("slots_full", True), ("role_limit", False), ("timeout", False)])
def test_refusal_tells_whether_the_slots_are_full(reason: str, full: bool) -> None:
    assert server(failure=reason).slots_full is full


def test_server_whose_slots_are_unknown_is_not_full() -> None:
    board = server(used=50)
    assert replace(board, snapshot=replace(board.snapshot, slots=None)).slots_full is False


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_board_is_ready_once_every_server_has_been_looked_at(cell: BoardCell) -> None:
    assert not cell.board.ready
    cell.put_server(server("db1"))
    assert not cell.board.ready
    assert cell.put_server(server("db2", failure="timeout")).ready


def test_critical_signals_come_first_and_then_the_oldest(cell: BoardCell) -> None:
    cell.put_server(server("db1", signals=(signal("warning", T - 9), signal("critical", T - 1))))
    cell.put_server(server("db2", signals=(signal("critical", T - 5),)))
    assert [(one.finding.severity, one.finding.since - T) for one in cell.board.signals] == [
        ("critical", -5),
        ("critical", -1),
        ("warning", -9),
    ]


def test_server_that_a_reload_took_away_is_not_brought_back(cell: BoardCell) -> None:
    cell.swap(lambda board: replace(board, servers={"db1": None}))
    cell.put_server(server("db2"))
    assert list(cell.board.servers) == ["db1"]


def test_reader_keeps_the_board_it_took(cell: BoardCell) -> None:
    before = cell.board
    cell.put_server(server("db1"))
    assert before.servers["db1"] is None
    assert cell.board.servers["db1"] is not None


def test_no_change_is_lost_when_many_write_at_once(cell: BoardCell) -> None:
    names = [f"s{n}" for n in range(8)]
    cell.swap(lambda board: replace(board, servers=dict.fromkeys(names)))
    begin = threading.Barrier(len(names))

    def write(name: str) -> None:
        begin.wait()
        for errors in range(200):
            cell.put_server(server(name, tick_errors=errors))

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: board.tick_errors for name, board in cell.board.servers.items() if board} == dict.fromkeys(names, 199)
