from typing import Any

import pytest

from batsignal.census import take_census
from batsignal.record.holders import LIMITS_SHOWN, limits_of, oldest_of
from batsignal.snapshot import Session, Snapshot

T = 1_760_000_000.0


def session(pid: int, **facts: Any) -> Session:
    return Session(pid=pid, backend_start=facts.pop("began", T), **({"state": "idle"} | facts))


def test_the_oldest_of_each_application_is_told() -> None:
    rows = [
        ("web", session(1, began=T - 60, state_change=T - 50)),
        ("web", session(2, began=T - 90, state="active", state_change=T - 80, xact_start=T - 3)),
        ("cron", session(3, began=T - 5, state="idle in transaction", state_change=T - 2, xact_start=T - 4)),
    ]
    cron, web = oldest_of(rows)
    assert (web.application, web.session_at, web.transaction_at, web.idle_since) == ("web", T - 90, T - 3, T - 50)
    assert (cron.session_at, cron.transaction_at, cron.idle_since) == (T - 5, T - 4, T - 2)


def test_what_works_is_not_idle_and_what_is_unknown_is_not_told() -> None:
    (only,) = oldest_of([("web", session(1, began=None, state="active", state_change=T - 9))])
    assert (only.session_at, only.transaction_at, only.idle_since) == (None, None, None)


def test_limits_count_client_sessions_of_their_role_or_database() -> None:
    rows = (
        session(1, usename="app", datname="shop"),
        session(2, usename="app", datname="shop"),
        session(3, usename="app", datname="shop", backend_type="walsender"),
        session(4, usename="cron", datname="shop"),
    )
    snapshot = Snapshot(
        server="db1", t=T, sessions=rows, role_limits={"app": 20, "never": 5}, database_limits={"shop": 30, "off": 0}
    )
    assert [(one.name, one.used, one.most) for one in limits_of(snapshot, take_census(snapshot))] == [
        ("database:shop", 3, 30),
        ("role:app", 2, 20),
        ("role:never", 0, 5),
    ]


def test_of_very_many_limits_the_fullest_are_told() -> None:
    rows = tuple(session(n, usename="busy") for n in range(9))
    limits = {f"r{n}": 10 for n in range(300)} | {"busy": 10}
    snapshot = Snapshot(server="db1", t=T, sessions=rows, role_limits=limits)
    told = limits_of(snapshot, take_census(snapshot))
    assert len(told) == LIMITS_SHOWN
    assert "role:busy" in {one.name for one in told}


@pytest.mark.parametrize("limits", [{}, {"role_limits": {"app": 0}}])
def test_no_limit_is_no_limit_that_is_full(limits: dict[str, Any]) -> None:
    snapshot = Snapshot(server="db1", t=T, sessions=(session(1, usename="app"),), **limits)
    assert limits_of(snapshot, take_census(snapshot)) == ()
