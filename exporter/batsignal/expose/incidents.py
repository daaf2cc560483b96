"""Incidents over HTTP: those that are kept, one with its timeline, and its recording to take away.

Owns paths, bounds and status codes of them; how the disk is asked is `disk`'s affair.
"""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from batsignal.expose.disk import Disk
from batsignal.expose.exchange import Refusal, answered, json_answer
from batsignal.record.board import Board
from batsignal.record.history import LIMIT_DEFAULT, LIMIT_MOST

_PATH = "/api/v1/incidents"


class IncidentViews:
    """The handlers of `/api/v1/incidents`. `board` is what is known now."""

    def __init__(self, disk: Disk, board: Callable[[], Board], clock: Callable[[], float]) -> None:
        self._disk = disk
        self._board = board
        self._clock = clock

    async def list(self, request: Request) -> Response:
        async def answer() -> Response:
            limit, before, past = _limit(request), before_of(request), self._disk.past
            found = await self._disk.ask(lambda: past.incidents(limit=limit, before=before))
            known = [_addressed(as_of_now(one, self._board())) for one in found]
            return json_answer({"time": self._clock(), "incidents": known})

        return await answered(answer)

    async def one(self, request: Request) -> Response:
        async def answer() -> Response:
            past, incident = self._disk.past, request.path_params["incident"]
            found = await self._disk.ask(lambda: past.incident(incident))
            if found is None:
                raise Refusal(404, "no such incident is kept")
            return json_answer(_addressed(as_of_now(found, self._board())))

        return await answered(answer)

    async def recording(self, request: Request) -> Response:
        async def answer() -> Response:
            past, incident = self._disk.past, request.path_params["incident"]
            pieces = await self._disk.ask(lambda: past.recording(incident))
            if pieces is None:
                raise Refusal(404, "no recording of such an incident is kept")
            disposition = f'attachment; filename="incident-{incident}.jsonl.gz"'
            return StreamingResponse(
                self._pieces(pieces), media_type="application/gzip", headers={"content-disposition": disposition}
            )

        return await answered(answer)

    async def _pieces(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (piece := await self._disk.ask(lambda: next(pieces, None))) is not None:
            yield piece


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < LIMIT_MOST and 1 <= int(text) <= LIMIT_MOST):
        raise Refusal(400, f"limit: expected a whole number from 1 to {LIMIT_MOST}, got {json.dumps(text[:60])}")
    return int(text)


def before_of(request: Request) -> float | None:
    """Return the instant that is asked for as `before`, None when none is; raises Refusal."""
    text = request.query_params.get("before")
    if text is None:
        return None
    try:
        before = float(text)
    except ValueError:
        before = math.nan
    if not math.isfinite(before):
        raise Refusal(400, f"before: expected Unix seconds, got {json.dumps(text[:60])}")
    return before


def as_of_now(incident: dict[str, Any], board: Board) -> dict[str, Any]:
    """Return a kept incident with its signal as it is now, where it goes on: what is kept is as old as its last event.

    One that is over runs out of nothing.
    """
    if not incident["open"]:
        return incident | {"signal": incident["signal"] | {"exhaustion_seconds": None}}
    lit = (signal for signal in board.signals if signal.id == incident["id"])
    signal = next(lit, None)
    return incident if signal is None else incident | {"signal": signal.as_json()}


def _addressed(incident: dict[str, Any]) -> dict[str, Any]:
    return incident | {"recording": f"{_PATH}/{incident['id']}/recording"}
