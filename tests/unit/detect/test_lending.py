"""In which order a pool lends, as looks once a second show it."""

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest

from batsignal.config import APPLICATION_PATTERN
from batsignal.detect.lending import Lending, Lendings
from batsignal.detect.pool import Order
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Session, Snapshot

T = 1_760_000_000.0
Take = Callable[[Sequence[int]], int]
"""Which of the free sessions, by when they came back, the one of longest ago first, is lent next."""


class Pool:
    """A pool under requests of moments; from `loses_at` on it loses a session every so often."""

    def __init__(self, take: Take, *, size: int, per_second: int, loses_at: float, every: float) -> None:
        self.take = take
        self.free = list(range(1, size + 1))
        self.used_at = dict.fromkeys(self.free, 0.0)
        self.opened_at = dict.fromkeys(self.free, -60.0)
        self.rows: dict[int, Session] = {}
        self.per_second, self.loses_at, self.every = per_second, loses_at, every

    def looks(self, seconds: int) -> Iterator[Snapshot]:
        """Yield a look a second."""
        next_loss = self.loses_at
        for second in range(seconds):
            for n in range(self.per_second):
                t = second + (n + 0.5) / self.per_second
                pid = self.free.pop(self.take(self.free))
                self.used_at[pid] = t
                if t < next_loss:
                    self.free.append(pid)
                else:
                    next_loss += self.every
            yield self.look(second + 1.0)

    def look(self, t: float) -> Snapshot:
        """Show all; what did not change is the same object, as a poller gives it."""
        for pid, used_at in self.used_at.items():
            row = self.rows.get(pid)
            if row is None or row.state_change != T + used_at:
                self.rows[pid] = Session(
                    pid=pid,
                    backend_start=T + self.opened_at[pid],
                    state="idle",
                    state_change=T + used_at,
                    query_start=T + used_at,
                    application_name="web@1",
                    usename="web",
                )
        return Snapshot(server="db1", t=T + t, sessions=tuple(self.rows.values()))


def lent(pool: Pool, seconds: int) -> Lending:
    window, lendings = Window(ApplicationPattern(re.compile(APPLICATION_PATTERN))), Lendings()
    for look in pool.looks(seconds):
        window.add(look)
        lendings.look(window, {"web"}, ())
    (found,) = lendings.of("web", T + seconds)
    return found


def newest_first(free: Sequence[int]) -> int:
    return len(free) - 1


def in_turn(_free: Sequence[int]) -> int:
    return 0


def at_random() -> Take:
    chance = Random(3)  # noqa: S311 - no secret
    return lambda free: chance.randrange(len(free))


@pytest.mark.parametrize("every", [2.0, 5.0])
@pytest.mark.parametrize("per_second", [1, 4])
def test_a_pool_that_lends_the_newest_first_shows_each_session_it_has_lost(per_second: int, every: float) -> None:
    found = lent(Pool(newest_first, size=30, per_second=per_second, loses_at=10.0, every=every), 60)
    lost = int(50 / every)
    assert lost - 4 <= len(found.held) <= lost


@pytest.mark.parametrize("take", [in_turn, at_random()])
def test_a_pool_that_lends_in_another_order_shows_what_it_has_lost(take: Take) -> None:
    found = lent(Pool(take, size=20, per_second=4, loses_at=60.0, every=4.0), 120)
    assert 8 <= len(found.held) <= 15


@pytest.mark.parametrize("take", [newest_first, in_turn, at_random()])
def test_a_pool_that_loses_none_holds_none(take: Take) -> None:
    assert lent(Pool(take, size=6, per_second=4, loses_at=1e9, every=1.0), 200).held == ()


@pytest.mark.parametrize("take", [newest_first, in_turn, at_random()])
@pytest.mark.parametrize("size", [4, 8])
def test_a_small_pool_that_is_all_at_work_shows_what_it_has_lost(take: Take, size: int) -> None:
    every = 6.0
    found = lent(Pool(take, size=size, per_second=10, loses_at=140.0, every=every), int(140 + every * (size - 1)) - 1)
    assert len(found.held) == size - 2


def test_what_a_leak_makes_of_the_order_of_a_pool_is_no_order() -> None:
    order = Order()
    for second in range(8):
        order.note(float(second), is_newest=False)
    for second in range(200, 300):
        order.note(float(second), is_newest=True)
    assert order.is_in_turn
    for second in range(300, 500):
        order.note(float(second), is_newest=True)
    assert order.is_newest_first
