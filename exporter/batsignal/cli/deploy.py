"""`batsignal deploy mark`: tell a running daemon that a version of a service begins to run.

Owns how the command's arguments are read and how its errors are put; the daemon judges what it is told.
"""

import datetime as dt
import math
from typing import Any

from batsignal.detect.wording import clock_time
from batsignal.drills.daemon_api import Answer, api_at, without_login
from batsignal.errors import ConfigError, UnreachableError

_NOT_OUR_FAULT = 500


def mark(service: str, version: str, *, at: str | None, url: str, token: str | None) -> int:
    """Tell of a deploy and print what the daemon knows now; raises ConfigError or UnreachableError."""
    api = api_at(url)
    told: dict[str, Any] = {"service": service, "version": version}
    if at is not None:
        told["at"] = read_instant(at)
    if not token:
        raise ConfigError("no token: expected --token or BATSIGNAL_TOKEN, as in the daemon's web.deploy_token_file")
    if not token.isascii() or not token.isprintable():
        raise ConfigError("--token: expected printable ASCII")
    answer = api.ask("POST", "/api/v1/deploys", body=told, headers={"Authorization": f"Bearer {token}"})
    known = _known(answer, without_login(url))
    said = "was known already" if answer.content.get("known_already") else "is marked"
    print(f"{known['service']} {known['version']} {said}, at {clock_time(known['at'])}")
    return 0


def read_instant(text: str) -> float:
    """Return Unix seconds or an ISO 8601 date and time as Unix seconds; without a zone it is UTC.

    >>> read_instant("1760000000.5"), read_instant("2025-10-09T08:53:20Z"), read_instant("2025-10-09 10:53:20+02:00")
    (1760000000.5, 1760000000.0, 1760000000.0)
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            seconds = math.nan
        else:
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ConfigError(f"--at: expected Unix seconds or a date and time (2026-01-31T12:00:00Z), got {text!r}")
    return seconds


def _known(answer: Answer, url: str) -> dict[str, Any]:
    """Return the deploy that the daemon has taken in; raises what it has against it."""
    deploy = answer.content.get("deploy")
    if answer.status in {200, 201} and isinstance(deploy, dict) and {"service", "version", "at"} <= deploy.keys():
        return deploy
    error = answer.content.get("error")
    if isinstance(error, str) and answer.status < _NOT_OUR_FAULT:
        raise ConfigError(f"the daemon at {url} refuses: {error}")
    raise UnreachableError(f"{url} is no daemon that takes deploys: it answered with status {answer.status}")
