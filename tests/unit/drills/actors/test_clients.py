import threading
import time

import pytest

from batsignal.drills.actors import clients
from batsignal.drills.actors.clients import Calm, beats


def test_first_beat_comes_at_once_and_the_last_before_the_end() -> None:
    stopped = threading.Event()
    seen = []
    for at in beats(stopped, 1000.0):
        seen.append(at)
        if len(seen) == 5:
            stopped.set()
    assert len(seen) == 5
    assert seen == sorted(seen)


def test_no_beat_comes_after_the_end() -> None:
    stopped = threading.Event()
    stopped.set()
    assert list(beats(stopped, 1000.0)) == []


def test_beat_that_came_late_does_not_delay_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "BACKLOG_SECONDS", 60.0)
    stopped = threading.Event()
    began = time.monotonic()
    for number, _ in enumerate(beats(stopped, 10.0), start=1):
        if number == 1:
            time.sleep(2.5)
        if number == 30:
            stopped.set()
    # 29 gaps of 0.1 s: the 2.4 s lost are made up for, or it would be 5.3 s.
    assert 2.9 <= time.monotonic() - began < 5.0


def test_beats_that_are_too_late_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "BACKLOG_SECONDS", 0.05)
    stopped = threading.Event()
    at_once = 0
    late = 0.0
    for number, at in enumerate(beats(stopped, 100.0), start=1):
        if number == 1:
            time.sleep(0.5)
            late = time.time()
        elif at - late < 0.02:
            at_once += 1
        else:
            stopped.set()
    # Half a second of a hundred a second would be fifty.
    assert at_once <= 10


class _Place:
    """Stands for a ground: all that counts is which one it is."""


def test_what_was_set_up_before_the_calm_is_what_the_run_finds_once() -> None:
    made = []

    def set_up(ground: object) -> list[object]:
        made.append(ground)
        return [ground]

    calm = Calm(set_up)  # type: ignore[arg-type]
    here, there = _Place(), _Place()
    assert calm.prepare(here) == {}  # type: ignore[arg-type]
    assert made == [here]
    assert calm.of(here) == [here]  # type: ignore[arg-type]
    assert made == [here]
    assert calm.of(there) == [there]  # type: ignore[arg-type]
    assert made == [here, there]
