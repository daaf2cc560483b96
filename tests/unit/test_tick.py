import re
from collections.abc import Iterable

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.signal import Event
from batsignal.record.board import ServerBoard
from batsignal.snapshot import ApplicationPattern, Deploy, PollFailure, Session, Slots, Snapshot
from batsignal.tick import HISTORY_SAMPLES, Watch, tick

T = 1_760_000_000.0
FULL = PollFailure(reason="slots_full", text="no slot is left", sqlstate="53300")


class Published:
    """Takes what a tick publishes."""

    def __init__(self) -> None:
        self.boards: list[ServerBoard] = []
        self.events: list[Event] = []

    def __call__(self, board: ServerBoard, events: tuple[Event, ...]) -> None:
        self.boards.append(board)
        self.events.extend(events)


def watch() -> Watch:
    pattern = ApplicationPattern(re.compile(APPLICATION_PATTERN))
    return Watch.of(server="db1", interval_seconds=1.0, thresholds=Thresholds(), pattern=pattern, top_names=100)


def look(second: float, used: int = 1, failure: PollFailure | None = None) -> Snapshot:
    if failure is not None:
        return Snapshot(server="db1", t=T + second, failure=failure, view="none")
    sessions = tuple(
        Session(pid=pid, backend_start=T - 600, state="active", application_name="web@1") for pid in range(used)
    )
    return Snapshot(
        server="db1", t=T + second, sessions=sessions, own_sessions=1, slots=Slots(max=103, superuser_reserved=3)
    )


def run(state: Watch, snapshots: Iterable[Snapshot]) -> Published:
    published = Published()
    for snapshot in snapshots:
        tick(
            state,
            look=lambda snapshot=snapshot: snapshot,
            find_deploys=lambda _: (Deploy(service="web", version="1", at=T),),
            publish=published,
            now=lambda snapshot=snapshot: snapshot.t + 0.25,
        )
    return published


def test_a_look_becomes_a_board() -> None:
    board = run(watch(), [look(0, used=4)]).boards[0]
    assert (board.name, board.up, board.state, board.view, board.ticked_at) == ("db1", True, "up", "session", T + 0.25)
    assert board.answered is board.snapshot
    assert board.history[-1].used == 5
    assert board.history[-1].by_application == (("web@1", 4),)
    assert not board.slots_full


def test_a_failed_look_shows_its_reason_and_keeps_what_was_last_seen() -> None:
    published = run(watch(), [look(0, used=4), look(1, failure=FULL)])
    board = published.boards[-1]
    assert (board.up, board.state, board.view, board.slots_full) == (False, "slots_full", "none", True)
    assert board.answered is published.boards[0].snapshot
    assert board.answered_at == T + 0.25
    assert [one.sessions for one in board.answered_usage] == [4]
    assert board.history[-1].used is None, "a gap is a gap"


def test_the_last_usable_slot_taken_is_full_though_the_kept_session_answers() -> None:
    boards = run(watch(), [look(0, used=98), look(1, used=99)]).boards
    assert [(board.up, board.slots_full) for board in boards] == [(True, False), (True, True)]


def test_a_signal_stands_on_the_board_from_raise_to_clear() -> None:
    published = run(watch(), [look(second, used=95) for second in range(20)] + [look(20 + n) for n in range(30)])
    raised, cleared = (event for event in published.events if event.event != "updated")
    assert (raised.event, cleared.event) == ("raised", "cleared")
    lit = [board.snapshot.t for board in published.boards if board.signals]
    assert (lit[0], lit[-1]) == (raised.t, cleared.t - 1)
    assert len(lit) == cleared.t - raised.t


def test_history_is_bounded() -> None:
    boards = run(watch(), [look(second) for second in range(HISTORY_SAMPLES + 50)]).boards
    assert len(boards[-1].history) == HISTORY_SAMPLES
