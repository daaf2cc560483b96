import socket
import threading
import time
from collections.abc import Iterator

import pytest

from batsignal.drills import seats
from batsignal.drills.seats import BudgetSpentError, Reaper, Seats

DEADLINE_SECONDS = 20.0


def wait_until_held(budget: Seats, held: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while budget.held != held:
        assert time.monotonic() < deadline, f"held {budget.held}, waited for {held}"
        time.sleep(0.005)


@pytest.fixture
def budget() -> Seats:
    return Seats(3, strict=True)


@pytest.fixture
def reaper(budget: Seats) -> Iterator[Reaper]:
    ended: list[int] = []
    one = Reaper(budget, ended.append)
    yield one
    one.end(time.monotonic() + DEADLINE_SECONDS)


def test_no_seat_is_given_beyond_the_budget(budget: Seats) -> None:
    budget.take(3)
    with pytest.raises(BudgetSpentError, match="3 of 3 sessions"):
        budget.take()
    assert (budget.held, budget.withheld) == (3, 1)


def test_several_seats_are_given_together_or_not_at_all(budget: Seats) -> None:
    budget.take(2)
    with pytest.raises(BudgetSpentError):
        budget.take(2)
    assert budget.held == 2


def test_where_the_server_holds_the_bound_nothing_is_withheld() -> None:
    budget = Seats(3, strict=False)
    budget.take(5)
    assert (budget.held, budget.withheld) == (5, 0)


def test_a_seat_that_is_given_back_can_be_taken_again(budget: Seats) -> None:
    budget.take(3)
    budget.give_back()
    budget.take()
    assert budget.held == 3


def test_many_threads_never_hold_more_than_the_budget(budget: Seats) -> None:
    most = [0]

    def sit() -> None:
        for _ in range(300):
            try:
                budget.take()
            except BudgetSpentError:
                continue
            most[0] = max(most[0], budget.held)
            budget.give_back()

    threads = [threading.Thread(target=sit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0] <= 3, budget.held) == (True, 0)


def test_a_seat_comes_back_only_when_the_server_has_closed_its_end(budget: Seats, reaper: Reaper) -> None:
    ours, servers = socket.socketpair()
    budget.take(3)
    reaper.add(ours, 42)
    time.sleep(5 * seats.REAP_SECONDS)
    assert budget.held == 3
    servers.send(b"the last words of a session")
    servers.close()
    wait_until_held(budget, 2)


def test_who_wants_a_seat_waits_for_one_that_is_on_its_way_back(budget: Seats, reaper: Reaper) -> None:
    ours, servers = socket.socketpair()
    budget.take(3)
    reaper.add(ours, 42)
    threading.Timer(0.1, servers.close).start()
    budget.take()
    assert (budget.held, budget.withheld) == (3, 0)


def test_the_server_learns_at_once_that_the_session_is_over(reaper: Reaper) -> None:
    ours, servers = socket.socketpair()
    servers.settimeout(DEADLINE_SECONDS)
    reaper.add(ours, 42)
    assert servers.recv(1) == b""
    servers.close()


def test_a_session_that_was_refused_gives_its_seat_back_a_moment_later(budget: Seats, reaper: Reaper) -> None:
    budget.take()
    reaper.add(None, 0)
    assert budget.held == 1
    wait_until_held(budget, 0)


def test_the_end_waits_for_what_is_pending_and_says_when_that_was_in_vain(budget: Seats) -> None:
    reaper = Reaper(budget, lambda _pid: None)
    ours, servers = socket.socketpair()
    budget.take()
    reaper.add(ours, 42)
    assert not reaper.end(time.monotonic() + 0.05)
    servers.close()
