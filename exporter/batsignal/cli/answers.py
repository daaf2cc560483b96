"""What a daemon answers to a command, as the command's own result or error.

Owns which answer is whose fault: what the daemon refuses is the caller's (exit code 2), a daemon that cannot is not to
be had (3), and so is something else at its address.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from batsignal.drills.daemon_api import ASK_TIMEOUT_SECONDS, api_at, without_login
from batsignal.errors import ConfigError, UnreachableError

_NOT_OUR_FAULT = 500
_CANNOT_NOW = 503
_LOGIN_WANTED = 401


def asked(
    url: str,
    method: str,
    path: str,
    *,
    keys: Collection[str],
    fits: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    body: Mapping[str, Any] | None = None,
    token: str | None = None,
    timeout_seconds: float = ASK_TIMEOUT_SECONDS,
) -> Mapping[str, Any]:
    """Return the object that a daemon answers, which has all of `keys`, and `fits`; raises as below.

    ConfigError for what the daemon refuses; UnreachableError where something else answers, or nothing.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = api_at(url).ask(method, path, body=body, headers=headers, timeout_seconds=timeout_seconds)
    if answer.status in {200, 201} and set(keys) <= answer.content.keys() and fits(answer.content):
        return answer.content
    shown = without_login(url)
    error = answer.content.get("error")
    if isinstance(error, str) and answer.status < _NOT_OUR_FAULT:
        raise ConfigError(f"the daemon at {shown} refuses: {error}")
    if isinstance(error, str) and answer.status == _CANNOT_NOW:
        raise UnreachableError(f"the daemon at {shown} cannot: {error}")
    if answer.status == _LOGIN_WANTED:
        raise ConfigError(f"{shown} wants a login: expected https://USER:PASSWORD@HOST:PORT in BATSIGNAL_URL or --url")
    said = f": {answer.said}" if answer.said else ""
    what = path.partition("?")[0]
    raise UnreachableError(f"{shown} is no daemon that knows {what}: it answered with status {answer.status}{said}")


def usable_token(token: str | None, key: str) -> str:
    """Return a token that a header can carry; raises ConfigError. `key` is where the daemon has it from."""
    if not token:
        raise ConfigError(f"no token: expected --token or BATSIGNAL_TOKEN, as in the daemon's {key}")
    if not token.isascii() or not token.isprintable():
        raise ConfigError("--token: expected printable ASCII")
    return token
