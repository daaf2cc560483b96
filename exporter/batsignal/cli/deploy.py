"""`batsignal deploy mark`: tell a running daemon that a version of a service begins to run.

Owns how the command's arguments are read and how its errors are put; the daemon judges what it is told.
"""

import datetime as dt
import math
import time
from collections.abc import Callable
from typing import Any

from batsignal.cli.answers import asked, usable_token
from batsignal.errors import ConfigError
from batsignal.record.kept import is_deploy
from batsignal.spelling import moment


def mark(
    service: str,
    version: str,
    *,
    at: str | None,
    url: str,
    token: str | None,
    clock: Callable[[], float] = time.time,
) -> int:
    """Tell of a deploy and print what the daemon knows now; raises ConfigError or UnreachableError."""
    told: dict[str, Any] = {"service": service, "version": version}
    if at is not None:
        told["at"] = read_instant(at)
    shown = usable_token(token, "web.deploy_token_file")
    answer = asked(
        url,
        "POST",
        "/api/v1/deploys",
        keys=("deploy", "known_already"),
        fits=lambda content: is_deploy(content["deploy"]),
        body=told,
        token=shown,
    )
    known = answer["deploy"]
    said = "was known already" if answer["known_already"] else "is marked"
    print(f"{known['service']} {known['version']} {said}, at {moment(known['at'], clock())}")
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
            when = dt.datetime.fromisoformat(text)
        except ValueError:
            seconds = math.nan
        else:
            seconds = (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ConfigError(f"--at: expected Unix seconds or a date and time (2026-01-31T12:00:00Z), got {text!r}")
    return seconds
