"""Sessions that rest like lost ones and come back: what they keep dark, and what they must not hide."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Row = Callable[..., Any]
Show = Callable[..., Any]


def parked(row: Row) -> Iterator[Any]:
    """What lies in the pool of that address since before: whatever is opened is opened beside idle ones."""
    return (row(90 + n, "idle", at=-500.0, opened=-600.0) for n in range(4))


def workers(row: Row, t: float, *, pauses: float, count: int = 14, every: float = 4.0) -> Iterator[Any]:
    """A burst of jobs, each on a session of its own that rests in its transaction, and lies in the pool afterwards."""
    yield from parked(row)
    for n in range(count):
        opened = 100.0 + every * n
        rests, ends = opened + 0.3, opened + 0.3 + pauses
        if rests <= t < ends:
            yield row(100 + n, "idle in transaction", at=rests, opened=opened, xact_start=opened)
        elif t >= ends:
            yield row(100 + n, "idle", at=ends, opened=opened)


def windows(
    row: Row, t: float, *, returns: Callable[[int], float | None], count: int = 60, every: float = 8.0
) -> Iterator[Any]:
    """Sessions behind one address that each run a statement and are left; `returns`: for how long, None for ever."""
    yield from parked(row)
    for n in range(count):
        opened = 100.0 + every * n
        if t < opened:
            return
        back = returns(n)
        used = opened if back is None else opened + back * ((t - opened) // back)
        yield row(100 + n, "idle", at=used, opened=opened)


def test_burst_of_jobs_that_rest_in_their_transactions_is_no_leak(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda t: workers(row, t, pauses=6.0), 300)
    assert not watcher.events, watcher.sentences()


def test_the_same_burst_is_a_leak_when_its_transactions_are_never_ended(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda t: workers(row, t, pauses=1e6), 160)
    assert watcher.raised("leak"), watcher.sentences()


def after_a_while(n: int) -> float:
    return (180.0, 20.0, 110.0, 230.0)[n % 4]


def every_fifth(n: int) -> float | None:
    return 8.0 if n % 5 == 0 else None


def nearly_a_quarter(n: int) -> float | None:
    return 8.0 if n % 13 in {1, 3, 9} else None


def test_windows_of_a_tool_that_people_come_back_to_are_no_leak(row: Row, show: Show, watcher: Any) -> None:
    show(watcher, lambda t: windows(row, t, returns=after_a_while), 500, used=197)
    assert not watcher.raised("leak"), watcher.sentences()


def test_sessions_that_outlast_all_that_came_back_are_lost(row: Row, show: Show, watcher: Any, start: float) -> None:
    show(watcher, lambda t: windows(row, t, returns=nearly_a_quarter), 460, used=197)
    raised = watcher.raised("leak")
    assert raised, watcher.sentences()
    assert 300 <= raised[0].t - start - 100 <= 350


@pytest.mark.parametrize(("returns", "severity"), [(every_fifth, "warning"), (lambda _: None, "critical")])
def test_a_burst_of_which_some_come_back_wakes_nobody_while_there_is_room(
    row: Row, show: Show, watcher: Any, returns: Any, severity: str
) -> None:
    show(watcher, lambda t: windows(row, t, returns=returns, count=60, every=0.7), 142, used=197)
    assert watcher.raised("leak"), watcher.sentences()
    assert {one.severity for _, one in watcher.said if one.kind == "leak"} == {severity}
