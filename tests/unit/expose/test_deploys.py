"""Who may tell of a deploy, and what a told deploy must look like."""

import json
from typing import Any

import pytest

from app_client import AppClient
from batsignal.expose.deploys import AGO_SECONDS_MOST, AHEAD_SECONDS_MOST, Desk
from batsignal.expose.exchange import BODY_BYTES_MOST
from batsignal.expose.server import build_app
from batsignal.snapshot import Deploy

TOKEN = "n0t-guessed"
NAME = "a text of 1 to 200 characters, without control characters or spaces at its ends"
Told = dict[str, Any]


class Door:
    def __init__(self, boards: Any, token: str | None = TOKEN) -> None:
        self.told: list[Deploy] = []
        self.now = boards.now
        app = build_app(
            board=boards.quiet,
            metrics=lambda *_: b"",
            reload=None,
            clock=lambda: boards.now,
            desk=Desk(mark=self.mark, token=lambda: token),
        )
        self.client = AppClient(app)

    def mark(self, deploy: Deploy) -> tuple[Deploy, bool]:
        is_news = deploy not in self.told
        self.told.append(deploy)
        return deploy, is_news

    def tell(self, body: Any = None, authorization: str | None = f"Bearer {TOKEN}") -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body)
        headers = {} if authorization is None else {"Authorization": authorization}
        return self.client.post("/api/v1/deploys", content=content, headers=headers)


@pytest.fixture
def door(boards: Any) -> Door:
    return Door(boards)


def test_a_deploy_that_is_told_is_marked_now_and_news_once(door: Door) -> None:
    deploy = {"service": "web", "version": "2.4.0"}
    answer = door.tell(deploy)
    assert answer.status_code == 201
    assert answer.json() == {"deploy": {**deploy, "at": door.now}, "known_already": False}
    assert door.told == [Deploy(service="web", version="2.4.0", at=door.now)]
    again = door.tell(deploy)
    assert (again.status_code, again.json()["known_already"]) == (200, True)


@pytest.mark.parametrize("before", [0, 60, AGO_SECONDS_MOST, -AHEAD_SECONDS_MOST])
def test_the_instant_may_be_told(door: Door, before: float) -> None:
    answer = door.tell({"service": "web", "version": "2", "at": door.now - before})
    assert answer.status_code == 201
    assert door.told[0].at == door.now - before


def test_without_a_token_in_the_config_nobody_may_tell_not_even_from_here(boards: Any) -> None:
    door = Door(boards, token=None)
    for authorization in (None, "Bearer ", "Bearer None", f"Bearer {TOKEN}"):
        answer = door.tell({"service": "web", "version": "2"}, authorization)
        assert answer.status_code == 403
        assert "web.deploy_token_file" in answer.json()["error"]
    assert not door.told


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer n0t", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN} x"],
)
def test_the_wrong_token_opens_nothing(door: Door, authorization: str | None) -> None:
    answer = door.tell({"service": "web", "version": "2"}, authorization)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in answer.text
    assert not door.told


def test_the_scheme_may_be_spelled_in_any_case(door: Door) -> None:
    assert door.tell({"service": "web", "version": "2"}, f"bearer  {TOKEN}").status_code == 201


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "expected a JSON object with service and version: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff\xfe", "expected a JSON object with service and version: "),
        (b'{"service": NaN}', "expected a JSON object with service and version: NaN is no number in JSON"),
        (b"[" * 15_000, "expected a JSON object with service and version: "),
        (["web"], 'expected a JSON object with service and version, got ["web"]'),
        ({}, f"service: missing; expected {NAME}"),
        ({"service": "web"}, f"version: missing; expected {NAME}"),
        ({"service": "web", "version": 2.4}, f"version: expected {NAME}, got 2.4"),
        ({"service": "", "version": "2"}, f'service: expected {NAME}, got ""'),
        ({"service": "we\nb", "version": "2"}, f'service: expected {NAME}, got "we\\nb"'),
        ({"service": " web", "version": "2"}, f'service: expected {NAME}, got " web"'),
        ({"service": "w" * 201, "version": "2"}, f"service: expected {NAME}, got "),
        ({"service": "web", "version": "2", "when": 1}, '"when": unknown key; expected one of service, version, at'),
        ({"service": "web", "version": "2", "at": "now"}, 'at: expected Unix seconds, got "now"'),
        ({"service": "web", "version": "2", "at": True}, "at: expected Unix seconds, got true"),
        (
            {"service": "web", "version": "2", "at": 1_760_000_700_000},
            "at: expected Unix seconds, got 1760000700000 (milliseconds?)",
        ),
        ({"service": "web", "version": "2", "at": 1e300}, "at: expected Unix seconds, got 1e+300\n"),
        ({"service": "web", "version": "2", "at": 10**400}, "at: expected Unix seconds, got 1000"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_with_its_key(door: Door, body: Any, error: str) -> None:
    answer = door.tell(body)
    assert answer.status_code == 400
    assert f"{answer.json()['error']}\n".startswith(error)
    assert not door.told


@pytest.mark.parametrize(("ahead", "error"), [(301, "that has come"), (-AGO_SECONDS_MOST - 1, "of the last 30 days")])
def test_an_instant_far_away_is_refused(door: Door, ahead: float, error: str) -> None:
    answer = door.tell({"service": "web", "version": "2", "at": door.now + ahead})
    assert answer.status_code == 400
    assert f"at: expected an instant {error}" in answer.json()["error"]


def test_a_body_may_not_be_large(door: Door) -> None:
    answer = door.tell(b'{"service": "' + b"x" * BODY_BYTES_MOST)
    assert answer.status_code == 413
    assert str(BODY_BYTES_MOST) in answer.json()["error"]


def test_a_body_that_is_announced_too_large_is_not_waited_for(door: Door) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Length": "99999999999"}
    answer = door.client.post("/api/v1/deploys", content=b"", headers=headers)
    assert answer.status_code == 413


def test_the_deploys_that_are_known_are_listed_newest_first(boards: Any, door: Door) -> None:
    answer = door.client.get("/api/v1/deploys")
    assert answer.json() == {
        "time": boards.now,
        "deploys": [{"service": "web", "version": "2.4.0", "at": boards.now - 96}],
    }
    assert door.client.put("/api/v1/deploys").status_code == 405
