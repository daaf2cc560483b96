"""Releases over HTTP: who may have sessions ended, and what an order must look like.

Owns the door (a bearer token of its own: telling of a deploy is one thing, ending sessions another) and the reading of
the order; a dry run needs the token as well, for it names sessions. Errors are JSON: the key, and what was expected.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from batsignal.expose.exchange import Refusal, admit, answered, json_answer, read_body, read_object, spelled
from batsignal.names import printable
from batsignal.releases.order import LOCAL, STATES, Order, Release

TOKEN_KEY = "web.release_token_file"  # noqa: S105 - the name of a key
NAMES = ("application", "version", "user", "client", "database")
KEYS = ("server", *NAMES, "states", "idle_longer_seconds", "for_real", "by")
NAME_CHARACTERS_MOST = 256
IDLE_SECONDS_MOST = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An order as it came in. `server` is None when none was named; `by` and `address` are who asks, from where."""

    server: str | None
    order: Order
    for_real: bool
    by: str
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDesk:
    """Where releases are asked for: `release` may wait for the server and raise Refusal."""

    release: Callable[[Wish], Release]
    token: Callable[[], str | None]


class ReleaseViews:
    """The handler of `/api/v1/release`. One at a time: two would end the same sessions."""

    def __init__(self, desk: ReleaseDesk) -> None:
        self._desk = desk
        self._busy = asyncio.Lock()

    async def handle(self, request: Request) -> Response:
        return await answered(lambda: self._released(request))

    async def _released(self, request: Request) -> Response:
        admit(request.headers.get("authorization"), self._desk.token(), key=TOKEN_KEY, what="session can be ended")
        wish = read_wish(await read_body(request), address=request.client.host if request.client else None)
        if self._busy.locked():
            raise Refusal(409, "another release is under way: try again in a moment")
        async with self._busy:
            done = await run_in_threadpool(self._desk.release, wish)
        return json_answer(done.as_json())


def read_wish(body: bytes, *, address: str | None) -> Wish:
    """Return the order that a body holds; raises Refusal that names the key and what was expected."""
    told = read_object(body, keys=KEYS, expected="a JSON object that names whose sessions")
    names = {key: _name(told, key) for key in NAMES}
    if names["application"] is None and names["user"] is None and names["client"] is None:
        raise Refusal(400, "application, user or client: one of them is needed, so that not everybody's sessions end")
    client = names["client"]
    if client is not None and not _is_address(client):
        raise Refusal(400, f"client: expected an IP address or {LOCAL}, got {spelled(client)}")
    for_real = told.get("for_real", False)
    if not isinstance(for_real, bool):
        raise Refusal(400, f"for_real: expected true or false, got {spelled(for_real)}")
    defaults = Order()
    order = Order(
        **names,
        states=_states(told, defaults.states),
        idle_longer_seconds=_seconds(told, "idle_longer_seconds", defaults.idle_longer_seconds),
    )
    by = printable(_name(told, "by") or "") or "not said"
    return Wish(server=_name(told, "server"), order=order, for_real=for_real, by=by, address=address)


def _name(told: dict[str, Any], key: str) -> str | None:
    value = told.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARACTERS_MOST:
        raise Refusal(400, f"{key}: expected a text of 1 to {NAME_CHARACTERS_MOST} characters, got {spelled(value)}")
    return value


def _states(told: dict[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    value = told.get("states")
    if value is None:
        return default
    if not isinstance(value, list) or not value or any(state not in STATES for state in value):
        raise Refusal(400, f"states: expected a list of {', '.join(STATES)}, got {spelled(value)}")
    return tuple(dict.fromkeys(value))


def _seconds(told: dict[str, Any], key: str, default: float) -> float:
    value = told.get(key)
    if value is None:
        return default
    expected = f"a number of seconds from 0 to {IDLE_SECONDS_MOST:.0f}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= IDLE_SECONDS_MOST:
        raise Refusal(400, f"{key}: expected {expected}, got {spelled(value)}")
    return float(value)


def _is_address(text: str) -> bool:
    if text == LOCAL:
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
