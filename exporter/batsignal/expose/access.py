"""Who may ask: HTTP Basic by bcrypt, the rate limit and the headers of the web config, in front of every path.

Owns the door, not the key: what the rules are comes from `web_config`, whether a password is right from `passwords`.
With users configured there is no path without a login, be it /metrics or /-/healthy; only what shows its own bearer
token (`TOKEN_PATHS`) is let through to be judged there, for a request has one Authorization header.
"""

import base64
import binascii
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batsignal.errors import ConfigError
from batsignal.expose import tls
from batsignal.expose.passwords import BusyError, Passwords
from batsignal.web_config import WebRules

TOKEN_PATHS = frozenset({"/api/v1/deploys", "/api/v1/release"})
"""Paths that judge a bearer token themselves, whatever is sent to them with one."""

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="batsignal", charset="UTF-8"'}


class TokenBucket:
    """At most `burst` requests at once, refilled by one each `interval_seconds`; 0 lets everybody pass."""

    def __init__(self, interval_seconds: float, burst: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._interval_seconds = interval_seconds
        self._burst = burst
        self._monotonic = monotonic
        self._left = float(burst)
        self._at = monotonic()

    def is_like(self, other: "TokenBucket") -> bool:
        """Whether it lets the same pass."""
        return (self._interval_seconds, self._burst) == (other._interval_seconds, other._burst)  # noqa: SLF001 - one of us

    def take(self) -> bool:
        """Whether one more may pass now."""
        if not self._interval_seconds:
            return True
        now = self._monotonic()
        self._left = min(self._left + (now - self._at) / self._interval_seconds, self._burst)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the rules make of the next connection (`context`: None is plain HTTP) and of the next request."""

    context: ssl.SSLContext | None = None
    allowed_names: frozenset[str] | None = None
    """Of a client's certificate, one at least; None: whatever it is called."""
    passwords: Passwords = field(default_factory=lambda: Passwords({}))
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(0, 0))
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, rules: WebRules, before: "Access | None" = None) -> "Access":
        """Read the certificates and make ready; raises ConfigError.

        `before` is what was in force: a rate limit that did not change goes on counting.
        """
        limit = rules.whole.rate_limit
        names = None if rules.tls is None else rules.tls.client_allowed_sans
        bucket = TokenBucket(limit.interval, limit.burst) if limit else TokenBucket(0, 0)
        try:
            known = Passwords(rules.users)
        except ImportError as exc:
            raise ConfigError(
                f"{rules.place('basic_auth_users')}: expected the package bcrypt to be installed"
            ) from exc
        return cls(
            context=tls.context(rules),
            allowed_names=None if names is None else frozenset(names),
            passwords=known,
            bucket=before.bucket if before is not None and before.bucket.is_like(bucket) else bucket,
            headers=tuple((name.lower().encode(), value.encode()) for name, value in rules.headers.items()),
        )


class Guard:
    """The ASGI application in front of the application."""

    def __init__(self, app: ASGIApp, access: Callable[[], Access]) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        access = self._access()
        if access.headers:
            send = _with_headers(send, access.headers)
        refusal = await _refusal(access, scope)
        await (self._app if refusal is None else refusal)(scope, receive, send)


async def _refusal(access: Access, scope: Scope) -> PlainTextResponse | None:
    """Return the answer to a request that may not pass, None when it may."""
    if not access.bucket.take():
        return PlainTextResponse("Too many requests (rate_limit of the web config).\n", 429)
    if not access.passwords.is_needed:
        return None
    shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, credentials = shown.partition(b" ")
    if scheme.lower() == b"bearer" and scope["path"] in TOKEN_PATHS and scope["method"] == "POST":
        return None
    user, password = _login(credentials) if scheme.lower() == b"basic" else ("", b"")
    try:
        is_right = await access.passwords.is_right(user, password) if scheme.lower() == b"basic" else False
    except BusyError:
        return PlainTextResponse("Too many logins are being checked; try again in a moment.\n", 503)
    if is_right:
        return None
    what = "The user or the password is not right." if shown else "A login is needed here (HTTP Basic)."
    return PlainTextResponse(f"{what}\n", 401, headers=_CHALLENGE)


def _login(credentials: bytes) -> tuple[str, bytes]:
    """Return user and password of a Basic header; what cannot be read is nobody's.

    >>> _login(base64.b64encode(b"prom:a:b")), _login(b"?")
    (('prom', b'a:b'), ('', b''))
    """
    try:
        user, _, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
        return user.decode("utf-8"), password
    except (binascii.Error, UnicodeDecodeError):
        return "", b""


def _with_headers(send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> Send:
    names = {name for name, _ in headers}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [(name, value) for name, value in message["headers"] if name.lower() not in names]
            message = {**message, "headers": [*others, *headers]}
        await send(message)

    return send_with_headers
