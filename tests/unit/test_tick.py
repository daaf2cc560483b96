import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.deploys.log import DeployLog
from batsignal.detect.signal import Event
from batsignal.names import ApplicationPattern
from batsignal.record.board import ServerBoard
from batsignal.snapshot import PollFailure, ProbeResult, Session, Slots, Snapshot
from batsignal.tick import APPLICATIONS_SHOWN, HISTORY_SAMPLES, Watch, tick

T = 1_760_000_000.0
PATTERN = ApplicationPattern(re.compile(APPLICATION_PATTERN))
SLOTS = Slots(max=103, superuser_reserved=3)


class Server:
    """One watched server: shows snapshots to `tick` and keeps what it publishes."""

    def __init__(self) -> None:
        self.watch = Watch.of(
            server="db1", interval_seconds=1.0, thresholds=Thresholds(), pattern=PATTERN, top_names=100
        )
        self.deploys = DeployLog(PATTERN)
        self.boards: list[ServerBoard] = []
        self.events: list[Event] = []

    def tick(self, snapshot: Snapshot) -> ServerBoard:
        def publish(board: ServerBoard, events: tuple[Event, ...]) -> None:
            self.boards.append(board)
            self.events.extend(events)

        tick(
            self.watch,
            look=lambda: snapshot,
            find_deploys=self.deploys.add,
            publish=publish,
            now=lambda: snapshot.t + 0.01,
        )
        return self.boards[-1]

    def kinds(self) -> list[tuple[str, str]]:
        return [(event.event, event.signal.finding.kind) for event in self.events]


@pytest.fixture
def server() -> Server:
    return Server()


def good(t: float, *sessions: Session, **facts: Any) -> Snapshot:
    given = {"slots": SLOTS, "own_sessions": 1, "ping_seconds": 0.0004} | facts
    return Snapshot(server="db1", t=T + t, sessions=sessions, **given)


def failed(t: float, reason: Any = "refused") -> Snapshot:
    return Snapshot(
        server="db1", t=T + t, slots=SLOTS, failure=PollFailure(reason=reason, text="no way in"), view="none", refused=1
    )


def session(pid: int, opened: float, application: str = "web@1") -> Session:
    return Session(
        pid=pid, backend_start=T + opened, state="idle", state_change=T + opened + 0.1, application_name=application
    )


def leak(seconds: int) -> Iterator[Snapshot]:
    """A pool of the old version, and a new version that loses a session every two seconds from the tenth on."""
    for t in range(seconds):
        lost = [session(100 + n, 10 + 2 * n, "web@2") for n in range((t - 10) // 2)]
        yield good(t, *(session(n, 0) for n in range(5)), *lost)


def test_one_look_becomes_one_board(server: Server) -> None:
    snapshot = good(0, session(1, -5), session(2, -5))
    board = server.tick(snapshot)
    assert (board.name, board.snapshot, board.answered) == ("db1", snapshot, snapshot)
    assert (board.ticked_at, board.answered_at) == (T + 0.01, T + 0.01)
    assert board.up
    assert board.exhaustion_seconds == math.inf
    assert [(count.application, count.sessions) for count in board.answered_usage] == [("web", 2)]
    assert (board.history[-1].used, board.history[-1].usable) == (3, 100)
    assert board.history[-1].by_application == (("web@1", 2),)


def test_failed_look_keeps_the_last_good_one_beside_it(server: Server) -> None:
    answered = good(0, session(1, -5))
    server.tick(answered)
    board = server.tick(failed(1))
    assert board.snapshot.failure is not None
    assert board.answered is answered
    assert board.answered_at == T + 0.01
    assert [count.sessions for count in board.answered_usage] == [1]
    assert board.tally.usage is None
    assert board.tally.refusals == {"refused": 1}
    assert board.exhaustion_seconds is None
    assert board.history[-1].used is None
    assert board.history[-1].usable == 100


def test_server_that_never_answered_has_nothing_to_show(server: Server) -> None:
    board = server.tick(failed(0))
    assert (board.answered, board.answered_at, board.answered_usage) == (None, None, ())


def test_leak_goes_from_the_look_to_the_board_and_the_events(server: Server) -> None:
    for snapshot in leak(60):
        server.tick(snapshot)
    assert server.kinds()[0] == ("raised", "leak")
    (signal,) = server.boards[-1].signals
    assert signal.finding.subject.version == "2"
    assert signal.finding.deploy is not None
    assert signal.finding.deploy.previous == "1"
    assert server.boards[-1].exhaustion_seconds == pytest.approx(signal.finding.exhaustion_seconds)


def test_signal_stays_on_the_board_through_failed_looks(server: Server) -> None:
    for snapshot in leak(60):
        server.tick(snapshot)
    (before,) = server.boards[-1].signals
    for t in range(60, 70):
        server.tick(failed(t))
    assert before.id in {signal.id for signal in server.boards[-1].signals}
    assert ("raised", "database_unreachable") in server.kinds()
    assert ("cleared", "leak") not in server.kinds()


def test_probes_are_judged_even_when_the_database_is_not_seen(server: Server) -> None:
    for t in range(3):
        probe = ProbeResult(endpoint="web", service="web", at=T + t, up=False, seconds=0.1, status=503)
        look = failed(t)
        server.tick(Snapshot(server="db1", t=look.t, failure=look.failure, probes=(probe,)))
    assert ("raised", "endpoint_down") in server.kinds()


def test_history_is_bounded_and_names_the_largest(server: Server) -> None:
    rows = [session(100 * n + k, 0, f"service-{n}") for n in range(12) for k in range(n + 1)]
    for t in range(HISTORY_SAMPLES + 50):
        board = server.tick(good(t, *(rows if t > HISTORY_SAMPLES else ())))
    assert len(board.history) == HISTORY_SAMPLES
    shown = board.history[-1].by_application
    assert len(shown) == APPLICATIONS_SHOWN
    assert shown[0] == ("service-11", 12)


@pytest.mark.parametrize(("interval_seconds", "samples"), [(0.2, 4500), (1.0, 900), (5.0, 900)])
def test_history_reaches_back_a_quarter_of_an_hour_however_often_it_looks(
    interval_seconds: float, samples: int
) -> None:
    watch = Watch.of(
        server="db1", interval_seconds=interval_seconds, thresholds=Thresholds(), pattern=PATTERN, top_names=100
    )
    assert watch.history.maxlen == samples


def test_two_watches_over_the_same_looks_say_the_same() -> None:
    first, second = Server(), Server()
    for snapshot in leak(80):
        first.tick(snapshot)
        second.tick(snapshot)
    assert [event.as_json() for event in first.events] == [event.as_json() for event in second.events]
