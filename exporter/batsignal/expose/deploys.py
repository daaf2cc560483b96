"""Deploys over HTTP: the list of them, and who may tell of one.

Owns what a told deploy must look like, and the door: only a bearer token opens it. Loopback is no proof: a proxy may
sit there. What becomes of a deploy is somebody else's affair. Errors are JSON, and name the key and what was expected.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from batsignal.expose import api
from batsignal.expose.exchange import Refusal, admit, answered, json_answer, read_body, read_object, spelled
from batsignal.record.board import Board
from batsignal.snapshot import Deploy

TOKEN_KEY = "web.deploy_token_file"  # noqa: S105 - the name of a key
NAME_CHARACTERS_MOST = 200
# Clocks differ; a pipeline may tell late, and one that is older explains nothing any more.
AHEAD_SECONDS_MOST = 300.0
AGO_SECONDS_MOST = 30 * 86_400.0
# Further away than any instant in seconds: it must be milliseconds.
INSTANT_MOST = 1e11

KEYS = ("service", "version", "at")
# How long after a deploy it is judged: most of what goes wrong with one has shown by then.
WINDOW_SECONDS = 120.0
WINDOW_SECONDS_MOST = 86_400.0


def _no_checklist(_service: str, _version: str, _window_seconds: float) -> Mapping[str, Any]:
    raise Refusal(404, "no deploy can be verified here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where deploys are told: `mark` returns the deploy as it is known now and whether it is news, `token` who may.

    `verify` returns the checklist of a service's version with a window in seconds, or raises Refusal.
    """

    mark: Callable[[Deploy], tuple[Deploy, bool]]
    token: Callable[[], str | None]
    verify: Callable[[str, str, float], Mapping[str, Any]] = _no_checklist


class DeployViews:
    """The handlers of `/api/v1/deploys`."""

    def __init__(self, board: Callable[[], Board], clock: Callable[[], float], desk: Desk) -> None:
        self._board = board
        self._clock = clock
        self._desk = desk

    async def handle(self, request: Request) -> Response:
        if request.method != "POST":
            return json_answer({"time": self._clock(), "deploys": api.deploys(self._board())})
        return await answered(lambda: self._marked(request))

    async def _marked(self, request: Request) -> Response:
        admit(request.headers.get("authorization"), self._desk.token(), key=TOKEN_KEY, what="deploy can be told of")
        deploy, is_news = self._desk.mark(read_deploy(await read_body(request), now=self._clock()))
        return json_answer({"deploy": api.deploy(deploy), "known_already": not is_news}, 201 if is_news else 200)

    async def verify(self, request: Request) -> Response:
        """Answer the checklist of a deploy as it stands; whoever wants to know how it ends asks again."""

        async def answer() -> Response:
            asked = request.query_params
            service, version = _name(asked, "service"), _name(asked, "version")
            window_seconds = _window(asked.get("window_seconds"))
            return json_answer(await run_in_threadpool(self._desk.verify, service, version, window_seconds))

        return await answered(answer)


def read_deploy(body: bytes, *, now: float) -> Deploy:
    """Return the deploy that a body tells of; raises Refusal that names the key and what was expected."""
    told = read_object(body, keys=KEYS, expected="a JSON object with service and version")
    return Deploy(service=_name(told, "service"), version=_name(told, "version"), at=_instant(told, now))


def _window(text: str | None) -> float:
    if text is None:
        return WINDOW_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= WINDOW_SECONDS_MOST:
        raise Refusal(
            400, f"window_seconds: expected a number from 0 to {WINDOW_SECONDS_MOST:.0f}, got {spelled(text)}"
        )
    return seconds


def _name(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    expected = f"a text of 1 to {NAME_CHARACTERS_MOST} characters, without control characters or spaces at its ends"
    if value is None:
        raise Refusal(400, f"{key}: missing; expected {expected}")
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARACTERS_MOST:
        raise Refusal(400, f"{key}: expected {expected}, got {spelled(value)}")
    if not value.isprintable() or value != value.strip():
        raise Refusal(400, f"{key}: expected {expected}, got {spelled(value)}")
    return value


def _instant(told: dict[str, Any], now: float) -> float:
    value = told.get("at")
    if value is None:
        return now
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(400, f"at: expected Unix seconds, got {spelled(value)}")
    if abs(value) >= INSTANT_MOST:
        hint = " (milliseconds?)" if abs(value) < INSTANT_MOST * 1000 else ""
        raise Refusal(400, f"at: expected Unix seconds, got {spelled(value)}{hint}")
    if value > now + AHEAD_SECONDS_MOST:
        raise Refusal(400, f"at: expected an instant that has come, got one {value - now:.0f} s from now")
    if value < now - AGO_SECONDS_MOST:
        days = AGO_SECONDS_MOST / 86_400
        raise Refusal(400, f"at: expected an instant of the last {days:.0f} days, got {spelled(value)}")
    return float(value)
