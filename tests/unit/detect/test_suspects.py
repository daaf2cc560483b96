"""A group that is sorted out only where something changed comes to what it would, sorted out whenever it is due."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from batsignal.config import Thresholds
from batsignal.detect import lost as losses
from batsignal.detect.suspects import Lineup
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Session, Snapshot

T = 1_760_000_000.0
LOOKS = 900
# A session is young for 30 s, and while one is, its origin is sorted out at every look: what is kept is asked later.
LOSES_EVERY_SECONDS = 200

Pids = tuple[list[int], ...]
"""Of the suspects, part by part: the last are those that were lent before they were lost."""


def lent_and_lost(seed: int) -> Iterator[Snapshot]:
    """Yield the looks at a pool that lends any of its sessions, and loses one now and then that it had lent before."""
    chance = random.Random(seed)  # noqa: S311 - a model, not a secret
    pool = [opened(pid, T - 600) for pid in range(1, 9)]
    lost: list[Session] = []
    for second in range(LOOKS):
        t = T + second
        for _ in range(chance.randrange(5)):
            index = chance.randrange(len(pool))
            at_work = chance.random() < 0.1
            used_at = t - chance.random()
            pool[index] = replace(
                pool[index], state="active" if at_work else "idle", query_start=used_at, state_change=used_at + 0.001
            )
        if second % LOSES_EVERY_SECONDS == 5:
            one = pool.pop(chance.randrange(len(pool)))
            lost.append(replace(one, state="idle", query_start=t - 0.5, state_change=t - 0.5))
        if second % LOSES_EVERY_SECONDS == 140:
            lost.clear()  # somebody ends them
        if second % LOSES_EVERY_SECONDS == 8:
            pool.append(opened(100 + second, t - 0.4))
        yield Snapshot(server="db1", t=t, sessions=(*pool, *lost))


def opened(pid: int, at: float) -> Session:
    return Session(pid=pid, backend_start=at, state="idle", application_name="web@1", usename="web", state_change=at)


def told(seed: int, pattern: ApplicationPattern) -> list[Pids]:
    """Return what a lineup says of the pool at each look."""
    window, lineup, said = Window(pattern), Lineup(Thresholds()), []
    for look in lent_and_lost(seed):
        window.add(look)
        lineup.look(window)
        (group,) = window.groups.values()
        found = lineup.suspects(group, window.t)
        parts = (found.lost, found.filling, found.lone, found.lone_used, found.reused, found.lent)
        said.append(tuple([track.session.pid for track in part] for part in parts))
    return said


@pytest.mark.parametrize("seed", range(8))
def test_what_was_kept_is_what_sorting_out_anew_would_give(
    seed: int, pattern: ApplicationPattern, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted_out: list[float] = []
    sort_out = losses.sort_out

    def counted(origin: losses.Origin, t: float, limits: Thresholds) -> losses.SortedOut:
        sorted_out.append(t)
        return sort_out(origin, t, limits)

    monkeypatch.setattr(losses, "sort_out", counted)
    kept, times_kept = told(seed, pattern), len(sorted_out)
    monkeypatch.setattr(losses, "due_again", lambda _found, _origin, t, _limits: t)
    anew = told(seed, pattern)
    assert kept == anew
    assert any(lent for *_, lent in kept), "nothing was lost that had been lent: the comparison is worth nothing"
    assert times_kept < len(sorted_out) - times_kept


def test_a_pool_that_opens_no_session_is_not_sorted_out_again(
    pattern: ApplicationPattern, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, lineup = Window(pattern), Lineup(Thresholds())
    pool = [opened(pid, T - 600) for pid in range(1, 9)]
    for second in range(120):
        pool = [replace(one, state_change=T + second - 0.5) for one in pool]
        window.add(Snapshot(server="db1", t=T + second, sessions=tuple(pool)))
        lineup.look(window)
        (group,) = window.groups.values()
        lineup.suspects(group, window.t)
        if second == 10:
            monkeypatch.setattr(losses, "sort_out", lambda *_: pytest.fail("sorted out once more"))
