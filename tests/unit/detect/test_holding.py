"""What is learnt of sessions that are held and given back, and what teaches nothing."""

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.holding import GROUPS_MOST, HELD_KEPT, Explained, Holdings
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Snapshot

PUSH = ("service", "push")


class Learner:
    """A window and what is learnt from it, look by look."""

    def __init__(self) -> None:
        self.window = Window(ApplicationPattern(re.compile(APPLICATION_PATTERN)))
        self.holdings = Holdings(Thresholds())

    def follow(self, looks: Iterable[Snapshot]) -> None:
        for snapshot in looks:
            self.window.add(snapshot)
            self.holdings.learn(self.window)

    def explain(self, t: float, group: tuple[str, ...] = PUSH) -> Explained:
        """What is known of a group, asked for all its living sessions."""
        origins = [origin for origin in self.window.origins.values() if origin.key.group == group]
        tracks = sorted((track for one in origins for track in one.tracks.values()), key=lambda one: one.opened_at)
        return self.holdings.explain(group, tracks, (), t, beside_idle=False)


@pytest.fixture
def learner() -> Learner:
    return Learner()


def hold(world: Any, at: float, seconds: float, application: str = "push@1", **place: Any) -> None:
    """Open a session, use it once, and close it after so many seconds."""

    def begin() -> None:
        seat = world.open(application, **place)
        seat.use(world.now + 0.01, 0.02)
        world.call(world.elapsed + seconds, lambda: world.close(seat))

    world.call(at, begin)


def test_as_many_as_were_held_at_once_and_given_back_are_usual(world: Any, learner: Learner) -> None:
    # Five arrive every hundred seconds and stay for fifty: five at once, however many there were in all.
    for n in range(20):
        for part in range(5):
            hold(world, 100.0 * n + 3 * part, 50 + part)
    for n in range(9):
        hold(world, 2000.0 + 3 * n, 500)
    learner.follow(world.looks(2040))
    explained = learner.explain(world.now)
    assert explained.known == 100
    assert explained.is_settled
    assert (explained.usual, explained.outlived) == (5, 0)


def test_sessions_outlive_those_before_them_when_they_are_a_quarter_older(world: Any, learner: Learner) -> None:
    for n in range(30):
        hold(world, 10.0 * n, 40)
    hold(world, 400.0, 500)
    hold(world, 430.0, 500)
    learner.follow(world.looks(445))
    assert learner.explain(world.now).outlived == 0
    learner.follow(world.looks(10))
    assert learner.explain(world.now).outlived == 1
    learner.follow(world.looks(30))
    assert learner.explain(world.now).outlived == 2


def test_what_is_closed_at_one_moment_teaches_nothing(world: Any, learner: Learner) -> None:
    for n in range(30):
        hold(world, 10.0 * n, 400 - 10 * n)
    hold(world, 0.0, 1000)
    learner.follow(world.looks(500))
    assert learner.explain(world.now).known == 0


def test_a_process_that_ends_with_its_two_sessions_gave_none_back(world: Any, learner: Learner) -> None:
    def end(client: str) -> None:
        for seat in [seat for seat in world.seats.values() if seat.client == client]:
            world.close(seat)

    for n in range(10):
        for at in (0.0, 30.0):
            hold(world, at, 10_000, client=f"10.0.0.{n}")
        world.call(100 + 20 * n, partial(end, f"10.0.0.{n}"))
    hold(world, 0.0, 1000)
    learner.follow(world.looks(400))
    assert learner.explain(world.now).known == 0


def test_sessions_that_were_used_again_say_nothing_about_holding(world: Any, learner: Learner) -> None:
    world.pool("push@1", least=5, most=5, order="fifo", work=5, seconds=0.1, lifetime_seconds=60)
    learner.follow(world.looks(600))
    assert any(origin.closings for origin in learner.window.origins.values())
    assert learner.explain(world.now).known == 0


def test_memory_is_bounded_whatever_names_come_by(world: Any, learner: Learner) -> None:
    for n in range(10_000):
        hold(world, 0.1 * n, 8, application=f"job{n}")
    learner.follow(world.looks(1010, interval=0.5))
    assert len(learner.holdings) == GROUPS_MOST


def test_memory_of_one_group_is_bounded(world: Any, learner: Learner) -> None:
    for n in range(2 * HELD_KEPT):
        hold(world, 1.0 * n, 20)
    hold(world, 0.0, 10_000)
    learner.follow(world.looks(2 * HELD_KEPT + 40))
    assert learner.explain(world.now).known == HELD_KEPT
