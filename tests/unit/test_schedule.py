import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from batsignal.schedule import Schedule

WAIT = 20.0


class Job:
    """Counts its runs, and can be made to hang or to fail."""

    def __init__(self) -> None:
        self.runs = threading.Semaphore(0)
        self.going = threading.Event()
        self.going.set()
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.runs.release()
        assert self.going.wait(WAIT)
        if self.error is not None:
            raise self.error

    def ran(self, times: int = 1) -> bool:
        return all(self.runs.acquire(timeout=WAIT) for _ in range(times))


@pytest.fixture
def schedule() -> Iterator[Callable[..., Schedule]]:
    schedules: list[Schedule] = []

    def make(check: Callable[[], None] = lambda: None) -> Schedule:
        made = Schedule(check=check)
        made.start()
        schedules.append(made)
        return made

    yield make
    for one in schedules:
        one.stop()


def test_job_runs_at_once_and_then_again_and_again(schedule: Callable[..., Schedule]) -> None:
    job = Job()
    schedule().add("server db1", job, 0.1)
    assert job.ran(times=3)


def test_job_that_hangs_holds_up_no_other(schedule: Callable[..., Schedule]) -> None:
    hanging, other = Job(), Job()
    hanging.going.clear()
    running = schedule()
    running.add("server hanging", hanging, 0.1)
    running.add("server other", other, 0.1)
    assert hanging.ran()
    assert other.ran(times=5)
    assert not hanging.runs.acquire(blocking=False), "it is not started twice"
    hanging.going.set()
    assert hanging.ran(times=2)


def test_job_that_fails_runs_again(schedule: Callable[..., Schedule]) -> None:
    job = Job()
    job.error = RuntimeError("a bug")
    schedule().add("server db1", job, 0.1)
    assert job.ran(times=3)


def test_job_that_was_removed_runs_no_more(schedule: Callable[..., Schedule]) -> None:
    job, other = Job(), Job()
    running = schedule()
    running.add("server db1", job, 0.1)
    assert job.ran()
    running.remove("server db1")
    while job.runs.acquire(blocking=False):
        pass
    running.add("server other", other, 0.1)
    assert other.ran(times=5)
    assert not job.runs.acquire(blocking=False)
    running.add("server db1", job, 0.1)
    assert job.ran()


def test_clock_set_back_an_hour_does_not_stop_the_ticks(schedule: Callable[..., Schedule]) -> None:
    job = Job()
    running = schedule()
    running.add("server db1", job, 0.2)
    assert job.ran()
    # What APScheduler makes of it: its next run is an hour away.
    running._scheduler.modify_job("server db1", next_run_time=datetime.now(UTC) + timedelta(hours=1))
    while job.runs.acquire(blocking=False):
        pass
    assert job.ran(times=3)


def test_watchdog_checks_on_though_a_check_failed(schedule: Callable[..., Schedule]) -> None:
    check = Job()
    check.error = RuntimeError("a bug")
    schedule(check)
    assert check.ran(times=2)
