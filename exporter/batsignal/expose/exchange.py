"""What the requests and answers of the API have in common: refusals, bearer tokens, bodies, JSON.

Owns what is neither about deploys nor about releases or incidents: who shows a token, how long and how slow a body may
be, and how an error is put. Errors are JSON, and name the key and what was expected.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from batsignal.expose import api

BODY_BYTES_MOST = 16 * 1024
BODY_SECONDS = 5.0
# Of a body that is refused so much is taken and thrown away: closed upon what is still on its way, a connection is
# reset, and whoever sends first and reads then would never see the answer.
DISCARDED_BYTES_MOST = 32 * 1024 * 1024


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """An answer that is not what was asked for: its status, what was expected, and headers."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def json_answer(view: Any, status: int = 200, **headers: str) -> Response:
    """Return a view as JSON; underscores in the names of headers stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(api.encode(view), status, headers=named, media_type="application/json")


async def answered(answer: Callable[[], Awaitable[Response]]) -> Response:
    """Return an answer, or as JSON why there is none."""
    try:
        return await answer()
    except Refusal as exc:
        return json_answer({"error": str(exc)}, exc.status, **exc.headers)


def admit(authorization: str | None, token: str | None, *, key: str, what: str) -> None:
    """Let only who shows the token pass; raises Refusal. `key` names the token's file in the config."""
    if token is None:
        raise Refusal(403, f"no {what} here: expected {key} in the daemon's config")
    scheme, _, shown = (authorization or "").partition(" ")
    # In constant time: how far a guess was right must not show in how long the answer takes.
    if not hmac.compare_digest(shown.strip().encode("utf-8", "replace"), token.encode()) or scheme.lower() != "bearer":
        what = "expected the header Authorization: Bearer TOKEN" if not shown else "the token is not the right one"
        raise Refusal(401, what, www_authenticate='Bearer realm="batsignal"')


async def read_body(request: Request) -> bytes:
    """Return a body that is neither too long nor too slow; raises Refusal."""
    too_long = Refusal(413, f"expected a body of at most {BODY_BYTES_MOST} bytes", connection="close")
    body, taken = b"", 0
    announced = request.headers.get("content-length", "")
    is_too_long = announced.isdecimal() and int(announced) > BODY_BYTES_MOST
    if is_too_long and (int(announced) > DISCARDED_BYTES_MOST or "expect" in request.headers):
        raise too_long  # it is said before it is sent: nothing is waited for
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                taken += len(piece)
                if taken > DISCARDED_BYTES_MOST:
                    break
                body += piece[: BODY_BYTES_MOST + 1 - len(body)]
    except TimeoutError:
        if is_too_long:
            raise too_long from None
        raise Refusal(408, f"the body did not come within {BODY_SECONDS:.0f} s", connection="close") from None
    except ClientDisconnect:
        raise Refusal(400, "the body did not come whole") from None
    if taken > BODY_BYTES_MOST:
        raise too_long
    return body


def read_object(body: bytes, *, keys: Collection[str], expected: str) -> dict[str, Any]:
    """Return the object in a body, which has none but these keys; raises Refusal. `expected` says what it is."""
    try:
        told = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise Refusal(400, f"expected {expected}: {exc}") from exc
    if not isinstance(told, dict):
        raise Refusal(400, f"expected {expected}, got {spelled(told)}")
    for key in told:
        if key not in keys:
            raise Refusal(400, f"{spelled(key)}: unknown key; expected one of {', '.join(keys)}")
    return told


def spelled(value: object) -> str:
    """Return a value as JSON, cut short."""
    shown = 60
    text = json.dumps(value)
    return text if len(text) <= shown else f"{text[: shown - 3]}..."


def _no_number(name: str) -> None:
    """Refuse NaN and Infinity, which JSON does not know."""
    raise ValueError(f"{name} is no number in JSON")
