"""Who may have sessions ended, and what an order must look like."""

import json
import threading
from typing import Any

import pytest

from app_client import AppClient
from batsignal.expose.exchange import Refusal
from batsignal.expose.releases import ReleaseDesk, Wish
from batsignal.expose.server import build_app
from batsignal.releases.order import Choice, Order, Release

TOKEN = "n0t-guessed"
NAME = "a text of 1 to 256 characters"


class Door:
    def __init__(self, boards: Any, token: str | None = TOKEN) -> None:
        self.wishes: list[Wish] = []
        self.fault: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        app = build_app(
            board=boards.quiet,
            metrics=lambda *_: b"",
            reload=None,
            clock=lambda: boards.now,
            release_desk=ReleaseDesk(release=self.release, token=lambda: token),
        )
        self.client = AppClient(app)

    def release(self, wish: Wish) -> Release:
        self.wishes.append(wish)
        self.go_on.wait(20)
        if self.fault is not None:
            raise self.fault
        choice = Choice(t=1.0)
        return Release(server="db1", order=wish.order, choice=choice, dry_run=not wish.for_real, outcomes=())

    def ask(self, body: Any, authorization: str | None = f"Bearer {TOKEN}") -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body)
        headers = {} if authorization is None else {"Authorization": authorization}
        return self.client.post("/api/v1/release", content=content, headers=headers)


@pytest.fixture
def door(boards: Any) -> Door:
    return Door(boards)


def test_an_order_is_a_dry_run_of_what_is_idle_unless_it_says_more(door: Door) -> None:
    answer = door.ask({"application": "web"})
    assert answer.status_code == 200
    assert (answer.json()["dry_run"], answer.json()["sessions"]) == (True, [])
    (wish,) = door.wishes
    assert (wish.for_real, wish.server, wish.by) == (False, None, "not said")
    assert wish.order == Order(application="web")
    assert wish.order.states == ("idle", "idle in transaction", "idle in transaction (aborted)")


def test_everything_that_can_be_said_is_taken_in(door: Door) -> None:
    said = {
        "server": "db1",
        "application": "web",
        "version": "2",
        "user": "web",
        "client": "10.0.0.4",
        "database": "shop",
        "states": ["active"],
        "idle_longer_seconds": 30,
        "for_real": True,
        "by": "alice@bastion",
    }
    assert door.ask(said).status_code == 200
    (wish,) = door.wishes
    assert (wish.server, wish.for_real, wish.by, wish.address) == ("db1", True, "alice@bastion", "127.0.0.1")
    assert wish.order == Order(
        **{name: said[name] for name in ("application", "version", "user", "client", "database")},
        states=("active",),
        idle_longer_seconds=30.0,
    )


def test_without_a_token_in_the_config_nobody_may(boards: Any) -> None:
    door = Door(boards, token=None)
    for authorization in (None, "Bearer ", f"Bearer {TOKEN}"):
        answer = door.ask({"application": "web"}, authorization)
        assert answer.status_code == 403
        assert (
            answer.json()["error"]
            == "no session can be ended here: expected web.release_token_file in the daemon's config"
        )
    assert not door.wishes


@pytest.mark.parametrize("authorization", [None, "Bearer n0t", f"Basic {TOKEN}", TOKEN])
def test_the_wrong_token_opens_nothing_not_even_for_a_dry_run(door: Door, authorization: str | None) -> None:
    answer = door.ask({"application": "web"}, authorization)
    assert (answer.status_code, door.wishes) == (401, [])
    assert TOKEN not in answer.text


def test_it_cannot_be_asked_for_by_following_a_link(door: Door) -> None:
    assert door.client.get("/api/v1/release").status_code == 405


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "expected a JSON object that names whose sessions: "),
        (["web"], 'expected a JSON object that names whose sessions, got ["web"]'),
        ({}, "application, user or client: one of them is needed"),
        ({"version": "2", "database": "shop"}, "application, user or client: one of them is needed"),
        ({"aplication": "web"}, '"aplication": unknown key; expected one of server, application, '),
        ({"application": ""}, f'application: expected {NAME}, got ""'),
        ({"application": 7}, f"application: expected {NAME}, got 7"),
        ({"application": "w" * 257}, f"application: expected {NAME}, got "),
        ({"client": "db.example.com"}, 'client: expected an IP address or local, got "db.example.com"'),
        ({"application": "web", "states": "idle"}, "states: expected a list of idle, idle in transaction, "),
        ({"application": "web", "states": []}, "states: expected a list of "),
        (
            {"application": "web", "states": ["sleeping"]},
            "states: expected a list of idle, idle in transaction, idle in",
        ),
        (
            {"application": "web", "idle_longer_seconds": -1},
            "idle_longer_seconds: expected a number of seconds from 0 to",
        ),
        (
            {"application": "web", "idle_longer_seconds": 10**400},
            "idle_longer_seconds: expected a number of seconds from 0 to",
        ),
        (
            {"application": "web", "idle_longer_seconds": "5"},
            "idle_longer_seconds: expected a number of seconds from 0",
        ),
        (
            {"application": "web", "idle_longer_seconds": True},
            "idle_longer_seconds: expected a number of seconds from 0",
        ),
        ({"application": "web", "for_real": "yes"}, 'for_real: expected true or false, got "yes"'),
        ({"application": "web", "server": 1}, f"server: expected {NAME}, got 1"),
    ],
)
def test_what_is_wrong_with_an_order_is_said_with_its_key(door: Door, body: Any, error: str) -> None:
    answer = door.ask(body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)
    assert not door.wishes


def test_a_server_that_cannot_be_asked_is_no_fault_of_the_order(door: Door) -> None:
    door.fault = Refusal(503, "a look at the server hangs")
    answer = door.ask({"application": "web"})
    assert (answer.status_code, answer.json()) == (503, {"error": "a look at the server hangs"})
    door.fault = Refusal(400, "server: expected one of db1")
    assert door.ask({"application": "web"}).status_code == 400


def test_two_at_once_do_not_end_the_same_sessions(door: Door) -> None:
    door.go_on.clear()
    answers = []
    first = threading.Thread(target=lambda: answers.append(door.ask({"application": "web"})))
    first.start()
    while not door.wishes:
        first.join(0.01)
    assert door.ask({"application": "web"}).status_code == 409
    door.go_on.set()
    first.join()
    assert answers[0].status_code == 200
    assert len(door.wishes) == 1
