"""The board as JSON: what `/api/v1/…` answers, in the shapes of the public contract.

Owns the shapes and nothing else: it takes a board and a time, and returns what `json.dumps` can write strictly (no
NaN, no Infinity). Numbers of a server whose last look failed are those of its last good look, whose age is told by
`last_answer`; nothing is interpolated.
"""

import json
import math
from collections import Counter
from typing import Any

from batsignal.record.board import Board, ServerBoard
from batsignal.record.endpoint_tally import EndpointTally
from batsignal.record.tally import ConnectionCount
from batsignal.snapshot import Deploy, Snapshot

APPLICATIONS_MAX = 20
STARTING = "starting"


def encode(view: Any) -> bytes:
    """Return strictly valid JSON in ASCII, a newline at its end; raises ValueError on NaN or infinity."""
    return json.dumps(view, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def finite(value: float | None) -> float | None:
    """Return the value, or None where it is unknown, infinite or no number: JSON knows none of these."""
    return value if value is not None and math.isfinite(value) else None


def signals_view(board: Board, now: float) -> dict[str, Any]:
    """Return `{"time", "signals"}`, the most urgent signal first."""
    return {"time": now, "signals": [signal.as_json() for signal in board.signals]}


def status_view(board: Board, now: float) -> dict[str, Any]:
    """Return everything that is known of servers, endpoints, deploys and the config."""
    return {
        "time": now,
        "version": board.version,
        "servers": [_server(name, server) for name, server in board.servers.items()],
        "endpoints": [_endpoint(tally) for tally in board.endpoints.values()],
        "deploys": deploys(board),
        "config": {
            "reload_ok": board.config_reload_ok,
            "reloaded_at": board.config_reload_at,
            "error": board.config_reload_error,
            "web_error": board.web_config_error,
        },
    }


def deploys(board: Board) -> list[dict[str, Any]]:
    """Return the deploys that are known, the newest first."""
    return [deploy(one) for one in sorted(board.deploys, key=lambda one: one.at, reverse=True)]


def deploy(one: Deploy) -> dict[str, Any]:
    """Return a deploy as it was told or found."""
    return {"service": one.service, "version": one.version, "at": one.at}


def slots_view(answered: Snapshot | None) -> dict[str, int] | None:
    """Return max, usable and used of a look, or None when it did not see them."""
    slots = None if answered is None else answered.slots
    if answered is None or slots is None:
        return None
    return {"max": slots.max, "usable": slots.usable, "used": answered.used}


def usage(server: ServerBoard) -> tuple[ConnectionCount, ...]:
    """Return who held what at the last good look."""
    return server.answered_usage if server.tally.usage is None else server.tally.usage


def applications(server: ServerBoard) -> list[dict[str, Any]]:
    """Return who holds how many sessions, the largest first, at most `APPLICATIONS_MAX`."""
    held: Counter[tuple[str, str]] = Counter()
    for count in usage(server):
        held[count.application, count.version] += count.sessions
    ranked = sorted(held.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"application": application, "version": version, "sessions": sessions}
        for (application, version), sessions in ranked[:APPLICATIONS_MAX]
        if sessions
    ]


def _server(name: str, server: ServerBoard | None) -> dict[str, Any]:
    if server is None:
        return {
            "name": name,
            "state": STARTING,
            "up": False,
            "view": "none",
            "privileged": None,
            "slots_full": False,
            "slots": None,
            "server_version_num": None,
            "last_poll": None,
            "last_answer": None,
            "failure": None,
            "ping_seconds": None,
            "exhaustion_seconds": None,
            "applications": [],
            "signals": [],
        }
    snapshot, answered = server.snapshot, server.answered
    failure = snapshot.met
    return {
        "name": name,
        "state": server.state,
        "up": server.up,
        "view": server.view,
        "privileged": None if answered is None else answered.privileged,
        "slots_full": server.slots_full,
        "slots": slots_view(answered),
        "server_version_num": None if answered is None else answered.server_version_num,
        "last_poll": server.ticked_at,
        "last_answer": server.answered_at,
        "failure": None
        if failure is None
        else {"reason": failure.reason, "sqlstate": failure.sqlstate, "text": failure.text},
        "ping_seconds": finite(snapshot.ping_seconds),
        "exhaustion_seconds": finite(server.exhaustion_seconds),
        "applications": applications(server),
        "signals": [signal.id for signal in server.signals],
    }


def _endpoint(tally: EndpointTally) -> dict[str, Any]:
    last = tally.last
    return {
        "endpoint": tally.endpoint,
        "service": tally.service,
        "up": None if last is None else last.up,
        "seconds": None if last is None else finite(last.seconds),
        "status": None if last is None else last.status,
        "reason": None if last is None else last.reason,
        "at": None if last is None else last.at,
    }
