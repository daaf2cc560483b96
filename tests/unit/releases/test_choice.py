"""Whom a release means, and whom it never ends."""

import re
from dataclasses import replace
from typing import Any

import pytest

from batsignal.config import APPLICATION_PATTERN
from batsignal.names import ApplicationPattern
from batsignal.releases.choice import choose
from batsignal.releases.order import Near, Order
from batsignal.snapshot import Session, Snapshot

NOW = 1_760_000_000.0
PATTERN = ApplicationPattern(re.compile(APPLICATION_PATTERN))
HELD = Session(
    pid=1,
    backend_start=NOW - 600,
    state="idle",
    state_change=NOW - 60,
    application_name="web@2.4.0",
    usename="web",
    datname="shop",
    client_addr="10.0.0.4",
)


def chosen(order: Order, *sessions: Session) -> list[int]:
    return [held.session.pid for held in look(order, *sessions).chosen]


def look(order: Order, *sessions: Session) -> Any:
    return choose(Snapshot(server="db1", t=NOW, sessions=sessions, role="batsignal"), order, PATTERN)


@pytest.mark.parametrize(
    ("asked", "is_meant"),
    [
        ({"application": "web"}, True),
        ({"application": "web@2.4.0"}, True),
        ({"application": "we"}, False),
        ({"application": "web", "version": "2.4.0"}, True),
        ({"application": "web", "version": "2.4"}, False),
        ({"application": "web", "user": "web", "client": "10.0.0.4", "database": "shop"}, True),
        ({"application": "web", "user": "other"}, False),
        ({"application": "web", "database": "other"}, False),
        ({"client": "10.0.0.5"}, False),
        ({"client": "local"}, False),
        ({"user": "web"}, True),
    ],
)
def test_every_name_that_is_given_must_fit(asked: dict[str, str], is_meant: bool) -> None:
    assert chosen(Order(**asked), HELD) == ([1] if is_meant else [])  # type: ignore[arg-type]


def test_an_ipv6_address_may_be_spelled_in_any_way() -> None:
    session = replace(HELD, client_addr="fd00::4")
    assert chosen(Order(client="fd00:0:0::0004"), session) == [1]


def test_one_without_an_address_is_local_and_one_without_a_name_is_found_by_its_driver_s() -> None:
    session = replace(HELD, client_addr=None, application_name="psql")
    assert chosen(Order(client="local"), session) == [1]
    assert chosen(Order(application="psql"), session) == [1]
    assert look(Order(user="web"), session).chosen[0].application == "psql"


@pytest.mark.parametrize("state", ["active", "fastpath function call", "disabled"])
def test_one_that_may_be_at_work_is_ended_only_when_asked_for(state: str) -> None:
    busy = replace(HELD, pid=2, state=state)
    choice = look(Order(application="web"), HELD, busy)
    assert [held.session.pid for held in choice.chosen] == [1]
    assert choice.spared == {state: 1}
    assert chosen(Order(application="web", states=(state,)), HELD, busy) == [2]


@pytest.mark.parametrize(("seconds", "is_meant"), [(0.99, False), (1.0, True), (60.0, True)])
def test_one_that_was_used_a_moment_ago_is_left_alone(seconds: float, is_meant: bool) -> None:
    session = replace(HELD, state_change=NOW - seconds)
    choice = look(Order(application="web"), session)
    assert bool(choice.chosen) is is_meant
    assert choice.spared == ({} if is_meant else {"used lately": 1})


def test_how_long_it_must_be_idle_can_be_said() -> None:
    assert chosen(Order(application="web", idle_longer_seconds=61), HELD) == []
    assert chosen(Order(application="web", idle_longer_seconds=0), replace(HELD, state_change=NOW)) == [1]


def test_what_the_role_may_not_see_is_not_ended() -> None:
    choice = look(Order(user="web"), replace(HELD, state=None, state_change=None))
    assert (choice.chosen, choice.spared) == ((), {"state unknown": 1})


def test_ours_and_what_is_no_client_are_never_meant() -> None:
    ours = replace(HELD, pid=2, application_name="batsignal", usename="batsignal")
    sender = replace(HELD, pid=3, backend_type="walsender")
    worker = replace(HELD, pid=4, backend_type="parallel worker")
    for order in (Order(application="batsignal"), Order(user="batsignal"), Order(user="web"), Order(client="10.0.0.4")):
        assert set(chosen(order, ours, sender, worker)) == set()


def test_somebody_else_who_took_our_name_is_not_ours() -> None:
    assert chosen(Order(application="batsignal"), replace(HELD, application_name="batsignal")) == [1]


def test_the_longest_unused_come_first() -> None:
    younger = replace(HELD, pid=2, state_change=NOW - 30)
    assert chosen(Order(application="web"), younger, HELD) == [1, 2]


def test_whoever_is_called_alike_is_told_first_when_nobody_is_meant() -> None:
    others = [replace(HELD, pid=pid, application_name="batch", usename="jobs") for pid in range(10, 20)]
    choice = look(Order(application="wbe"), HELD, *others)
    assert choice.near == (
        Near(application="web", version="2.4.0", user="web", sessions=1),
        Near(application="batch", version=None, user="jobs", sessions=10),
    )


def test_nobody_else_is_named_when_somebody_was_meant_and_left_alone() -> None:
    choice = look(Order(application="web"), replace(HELD, state="active"), replace(HELD, pid=2, application_name="wbe"))
    assert (choice.near, choice.spared) == ((), {"active": 1})
