from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from batsignal.expose.metrics import Exposition
from batsignal.snapshot import PoolerPool

SHOP = PoolerPool(database="shop", user="web", cl_active=20, cl_waiting=3, sv_active=5, sv_idle=0, maxwait_seconds=2.25)

LABELS = ("server", "poller", "database", "user", "state")


def series(board: Any, prefix: str = "batsignal_pgbouncer_pool_") -> dict[tuple[str, ...], float]:
    text = Exposition(lambda: board).answer(False, False).decode()
    return {
        (sample.name.removeprefix(prefix), *(sample.labels[name] for name in LABELS if name in sample.labels)): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(prefix)
    }


def board_of(boards: Any, pools: Any, **facts: Any) -> Any:
    server = boards.server(snapshot=replace(boards.snapshot(), pools=pools, **facts))
    return replace(boards.quiet(), servers={"db1": server})


def test_pools_of_a_pooler_are_told_as_far_as_it_tells_of_them(boards: Any) -> None:
    assert series(board_of(boards, (SHOP,))) == {
        ("clients", "db1", "shop", "web", "active"): 20,
        ("clients", "db1", "shop", "web", "waiting"): 3,
        ("servers", "db1", "shop", "web", "active"): 5,
        ("servers", "db1", "shop", "web", "idle"): 0,
        ("wait_seconds", "db1", "shop", "web"): 2.25,
    }


def test_nothing_is_told_of_a_pooler_that_does_not_answer_but_that(boards: Any) -> None:
    asked = {"poll_seconds": {"sessions": 0.01, "pgbouncer": 1.0}}
    assert not series(board_of(boards, None, **asked))
    success = "batsignal_poll_success"
    assert series(board_of(boards, None, **asked), success) == {("", "db1", "pgbouncer"): 0, ("", "db1", "sessions"): 1}
    assert series(board_of(boards, (), **asked), success)["", "db1", "pgbouncer"] == 1


def test_of_very_many_pools_those_with_the_longest_queues_are_told(boards: Any) -> None:
    pools = tuple(replace(SHOP, user=f"u{n}", cl_waiting=n) for n in range(300))
    users = {key[3] for key in series(board_of(boards, pools))}
    assert users == {f"u{n}" for n in range(200, 300)}
