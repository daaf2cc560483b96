"""`batsignal deploy verify`: a gate for a pipeline, which waits until a deploy has shown whether it is good.

Owns the waiting and the exit codes: 0 when nothing speaks against it once the window is over, 1 as soon as something
does, 3 when the daemon, or the server through it, cannot be seen, or nothing of the deploy was. The checklist itself is
the daemon's.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from batsignal.cli.answers import asked
from batsignal.errors import UnreachableError
from batsignal.names import legible, printable
from batsignal.spelling import clock_time, duration

ASK_SECONDS = 1.0
# A daemon that restarts in the middle is waited for.
PATIENCE_SECONDS = 15.0

_KEYS = ("deploy", "time", "over", "verdict", "checks", "window_seconds")
_EXIT_CODES = {"ok": 0, "bad": 1, "unknown": 3}
_WORDS = {
    "ok": "nothing speaks against it",
    "bad": "roll it back",
    "unknown": "it could not be seen: judge by other means",
}


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
    query = urlencode({"service": service, "version": version, "window_seconds": window_seconds})
    path = f"/api/v1/deploys/verify?{query}"
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
    return _EXIT_CODES.get(found["verdict"], 3)


def _is_settled(found: Mapping[str, Any]) -> bool:
    return bool(found["over"]) or found["verdict"] == "bad"


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return what is printed of a checklist."""
    deploy, checks = found["deploy"], found["checks"]
    width = max(len(check["name"]) for check in checks)
    head = f"{printable(deploy['service'])} {printable(deploy['version'])}, deployed at {clock_time(deploy['at'])}"
    body = [f"{check['status']:<7} {check['name']:<{width}}  {legible(check['text'])}" for check in checks]
    verdict = found["verdict"]
    advice = _WORDS.get(verdict, "")
    unknown = [legible(check["name"]) for check in checks if check["status"] == "unknown"]
    if verdict == "ok" and unknown:
        advice = f"{advice}; unknown: {', '.join(unknown)}"
    if verdict == "bad" and deploy.get("previous"):
        advice = f"{advice} to {printable(deploy['previous'])}"
    return [head, *body, f"{verdict}: {advice}"]
