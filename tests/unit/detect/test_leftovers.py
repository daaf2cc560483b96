"""A daemon that is restarted in the middle of a leak: what its earlier life left lit, and what its first looks show."""

from collections.abc import Callable
from typing import Any

import pytest

from batsignal.detect.verdict import Judge
from batsignal.record.incidents import Incidents
from batsignal.snapshot import PollFailure, Slots

ENDS = 120.0
"""The leaks take their last session here; the daemon ends 40 s later, and is away for 5 s."""
LEFT_AT = 160.0
BACK_AT = 165.0


class Lives:
    """A daemon in two lives: the second is told what the first left lit, as the store tells it."""

    def __init__(self, make_judge: Callable[[], Judge]) -> None:
        self._make = make_judge
        self.judge, self.incidents = make_judge(), Incidents("db1")
        self.left: Any = None

    def look(self, snapshot: Any) -> tuple[Any, ...]:
        verdict = self.judge.look(snapshot, ())
        return self.incidents.fold(snapshot.t, verdict.findings, verdict.superseded)

    def restart(self, left_at: float) -> None:
        (self.left,) = self.incidents.signals
        self.judge, self.incidents = self._make(), Incidents("db1")
        self.incidents.resume([self.left], left_at=left_at)
        self.judge.expect([self.left.finding], left_at)


@pytest.fixture
def lives(make_judge: Callable[[], Judge]) -> Lives:
    return Lives(make_judge)


def restart_in(world: Any, lives: Lives, start: float, seconds: float = 20.0) -> list[list[Any]]:
    """Look until the daemon ends, and again from its second start on; return the events of its second life's looks."""
    events = []
    for snapshot in world.looks(BACK_AT + seconds):
        t = snapshot.t - start
        if t < LEFT_AT:
            lives.look(snapshot)
        elif lives.left is None:
            lives.restart(left_at=start + LEFT_AT)
        elif t >= BACK_AT:
            events.append(list(lives.look(snapshot)))
    return events


@pytest.mark.parametrize("rest", ["idle", "idle in transaction", "ClientRead"])
def test_leak_that_stood_still_goes_on_at_the_first_look_with_its_onset(
    rest: str, world: Any, lives: Lives, start: float
) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    world.leak("web@2.4.0", every=2.0, at=60.0, until=ENDS, rest=rest)
    first, *later = restart_in(world, lives, start)
    assert [event.event for event in first] == ["updated"]
    assert not [event for events in later for event in events if event.event != "updated"]
    (signal,) = lives.incidents.signals
    assert (signal.id, signal.detected) == (lives.left.id, lives.left.detected)
    assert signal.finding.since == lives.left.finding.since
    assert signal.finding.sessions == pytest.approx(30, abs=2)
    assert signal.finding.subject == lives.left.finding.subject


def test_leak_through_a_pool_that_may_grow_goes_on_too(make_world: Any, lives: Lives, start: float) -> None:
    world = make_world(slots=Slots(max=203, superuser_reserved=3))
    pool = world.pool("web", least=4, most=80, work=8, seconds=0.2, order="fifo")
    for n in range(24):
        world.call(20 + 5.0 * n, pool.lose)
    events = restart_in(world, lives, start)
    assert [event.event for looks in events for event in looks][:1] == ["updated"]
    assert lives.incidents.signals[0].finding.since == lives.left.finding.since


def test_look_that_fails_at_first_ends_nothing(world: Any, lives: Lives, start: float) -> None:
    world.leak("web@2.4.0", every=2.0, at=60.0, until=ENDS)
    failure = PollFailure(reason="timeout", sqlstate=None, text="no answer")
    for t in (BACK_AT - 1, BACK_AT + 30):
        world.fail(t, 15, failure, ends_sessions=False)
    assert any(restart_in(world, lives, start, seconds=60))
    assert [signal.id for signal in lives.incidents.signals] == [lives.left.id]


@pytest.mark.parametrize(("kept", "goes_on"), [(18, True), (12, False), (0, False)])
def test_what_was_given_back_while_nobody_looked_is_not_said_to_be_held(
    kept: int, goes_on: bool, world: Any, lives: Lives, start: float
) -> None:
    world.pool("web@2.3.9", work=10, least=8)
    lost = world.leak("web@2.4.0", every=2.0, at=60.0, until=ENDS)
    world.call(LEFT_AT + 1, lambda: [world.close(seat) for seat in lost[kept:]])
    restart_in(world, lives, start)
    said = [signal.finding.sessions for signal in lives.incidents.signals]
    assert said == ([pytest.approx(kept, abs=1)] if goes_on else [])


def test_pool_that_took_the_place_of_the_leak_is_no_leak(world: Any, lives: Lives, start: float) -> None:
    lost = world.leak("web@2.4.0", every=2.0, at=60.0, until=ENDS)
    world.call(LEFT_AT + 1, lambda: [world.close(seat) for seat in lost])
    world.pool("web@2.3.9", least=40, at=LEFT_AT + 1, fill_gap_seconds=0.05)
    restart_in(world, lives, start, seconds=60)
    assert lives.incidents.signals == ()


def test_busy_pool_beside_a_leak_that_is_gone_is_no_leak(world: Any, lives: Lives, start: float) -> None:
    world.pool("web", least=30, work=40, order="fifo", at=62.0, fill_gap_seconds=0.05)
    lost = world.leak("web", every=2.0, at=60.0, until=ENDS, clients=["10.0.0.9"])
    world.call(LEFT_AT + 1, lambda: [world.close(seat) for seat in lost])
    restart_in(world, lives, start, seconds=60)
    assert lives.incidents.signals == ()


def test_leak_that_goes_on_need_not_grow_anew_to_be_called_again(
    world: Any, lives: Lives, make_judge: Callable[[], Judge], start: float
) -> None:
    world.leak("web@2.4.0", every=2.0, at=60.0)
    (first, *_), never_told = restart_in(world, lives, start, seconds=2), make_judge()
    assert [event.event for event in first] == ["updated"]
    assert never_told.look(next(iter(world.looks(BACK_AT + 3))), ()).findings == ()
