"""The course of an act in time: it shrinks as a whole, and ends with the drill."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from batsignal.drills.act import Pace
from batsignal.drills.actors.pods import Course, room


def ground_of(**facts: Any) -> Any:
    return SimpleNamespace(stopped=threading.Event(), **facts)


def test_with_less_time_every_part_keeps_its_share() -> None:
    course = Course(ground_of(), Pace(duration_seconds=6.0), whole_seconds=600.0)
    assert course.seconds(100.0) == pytest.approx(1.0)


def test_with_more_time_the_parts_are_as_long_as_in_life() -> None:
    course = Course(ground_of(), Pace(duration_seconds=6000.0), whole_seconds=600.0)
    assert course.seconds(100.0) == 100.0


def test_without_a_duration_the_act_is_as_long_as_in_life() -> None:
    course = Course(ground_of(), Pace(), whole_seconds=600.0)
    assert course.duration_seconds == 600.0


def test_waits_are_shrunk_and_a_pause_is_not() -> None:
    course = Course(ground_of(), Pace(duration_seconds=3.0), whole_seconds=3000.0)
    began = time.monotonic()
    assert course.until(500.0)
    assert course.wait(100.0)
    assert 0.59 < time.monotonic() - began < 60
    assert course.pause(1.0)
    assert time.monotonic() - began > 1.59


def test_pause_beyond_the_end_of_the_act_says_that_it_is_over_when_it_is() -> None:
    course = Course(ground_of(), Pace(duration_seconds=0.3), whole_seconds=300.0)
    began = time.monotonic()
    assert not course.pause(60.0)
    assert 0.29 < time.monotonic() - began < 10
    assert course.passed_ratio >= 1


@pytest.mark.parametrize("wait", ["wait", "until", "pause", "finish"])
def test_end_of_the_drill_ends_every_wait(wait: str) -> None:
    ground = ground_of()
    course = Course(ground, Pace(duration_seconds=600.0), whole_seconds=600.0)
    threading.Timer(0.1, ground.stopped.set).start()
    began = time.monotonic()
    assert not (course.finish() if wait == "finish" else getattr(course, wait)(300.0))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(("free", "expected"), [(50, 5), (49, 4), (10, 1), (9, 1), (0, 1), (500, 8)])
def test_only_so_many_pods_as_fit_but_always_one(free: int, expected: int) -> None:
    assert room(ground_of(room=free), 8, sessions_each=10) == expected
