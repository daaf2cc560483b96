"""`batsignal deploy verify`: a gate for a pipeline, which waits until a deploy has shown whether it is good.

Owns the waiting and the exit codes: 0 when nothing speaks against it once the window is over, 1 as soon as something
does, 3 when the daemon, or the server through it, cannot be seen, or nothing of the deploy was. The checklist itself is
the daemon's.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from batsignal.cli.answers import asked
from batsignal.errors import BatSignalError, ConfigError, UnreachableError
from batsignal.names import legible, printable
from batsignal.spelling import duration, moment

ASK_SECONDS = 1.0
# A daemon that restarts in the middle is waited for.
PATIENCE_SECONDS = 15.0

_KEYS = ("deploy", "time", "over", "verdict", "checks", "window_seconds")
NOT_JUDGED = 3
_EXIT_CODES = {"ok": 0, "bad": 1, "unknown": NOT_JUDGED}
_WORDS = {
    "ok": "nothing speaks against it",
    "bad": "roll it back",
    "unknown": "it could not be seen: judge by other means",
}


def gate(service: str, version: str, *, window_seconds: float, url: str, spelling: str) -> int:
    """Verify, and return 3 where we fail ourselves: Python's own 1 would tell a pipeline to roll back.

    Raises as `verify` does.
    """
    try:
        code = verify(service, version, window_seconds=window_seconds, url=url, spelling=spelling)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BatSignalError:
        raise
    except OSError as exc:
        raise UnreachableError(f"the checklist could not be told: {exc.strerror or exc}") from exc
    except Exception:  # noqa: BLE001 - whatever it is, it is no finding
        traceback.print_exc()
        return NOT_JUDGED
    return code


def verify(
    service: str,
    version: str,
    *,
    window_seconds: float,
    url: str,
    spelling: str,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Ask until the window is over or something is bad, and print the checklist; raises as `asked` does."""
    path = f"/api/v1/deploys/verify?{_query(service, version, window_seconds)}"
    found = asked(url, "GET", path, keys=_KEYS)
    if not _is_settled(found):
        left = found["deploy"]["at"] + window_seconds - found["time"]
        print(f"waiting up to {duration(left)}, until its window is over", file=sys.stderr, flush=True)
    answered_at = monotonic()
    while not _is_settled(found):
        sleep(ASK_SECONDS)
        try:
            found = asked(url, "GET", path, keys=_KEYS)
            answered_at = monotonic()
        except UnreachableError:
            if monotonic() - answered_at > PATIENCE_SECONDS:
                raise
    if spelling == "json":
        print(json.dumps(found))
    else:
        for line in lines(found):
            print(line)
    return _EXIT_CODES.get(found["verdict"], NOT_JUDGED)


def _query(service: str, version: str, window_seconds: float) -> str:
    for name, text in (("SERVICE", service), ("VERSION", version)):
        if any("\ud800" <= char <= "\udfff" for char in text):  # how Python holds a byte that is no UTF-8
            raise ConfigError(f"{name}: expected a text in UTF-8, got {text!a}")
    return urlencode({"service": service, "version": version, "window_seconds": window_seconds})


def _is_settled(found: Mapping[str, Any]) -> bool:
    return bool(found["over"]) or found["verdict"] == "bad"


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return what is printed of a checklist."""
    deploy, checks = found["deploy"], found["checks"]
    width = max(len(check["name"]) for check in checks)
    at = moment(deploy["at"], found["time"])
    head = f"{printable(deploy['service'])} {printable(deploy['version'])}, deployed at {at}"
    body = [f"{check['status']:<7} {check['name']:<{width}}  {legible(check['text'])}" for check in checks]
    verdict = found["verdict"]
    advice = _WORDS.get(verdict, "")
    unknown = [legible(check["name"]) for check in checks if check["status"] == "unknown"]
    if verdict == "ok" and unknown:
        advice = f"{advice}; unknown: {', '.join(unknown)}"
    if verdict == "bad" and deploy.get("previous"):
        advice = f"{advice} to {printable(deploy['previous'])}"
    return [head, *body, f"{verdict}: {advice}"]
