"""Incidents over HTTP: those that are kept, one with its timeline, and its recording to take away.

Owns paths, bounds and status codes of them. The disk is asked in threads of its own, few and with a deadline: one that
hangs holds up neither a scrape nor the page.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from batsignal.expose.deploys import json_answer
from batsignal.record.database import StoreError
from batsignal.record.history import LIMIT_DEFAULT, LIMIT_MOST

READERS = 2
WAITING_MOST = 16
DISK_SECONDS = 5.0

_PATH = "/api/v1/incidents"

T = TypeVar("T")


class Past(Protocol):
    """What is kept; every method may wait for a disk and raise StoreError."""

    def incidents(self, *, limit: int, before: float | None) -> list[dict[str, Any]]:
        """Return the newest incidents."""

    def incident(self, incident: str) -> dict[str, Any] | None:
        """Return one with its timeline."""

    def recording(self, incident: str) -> Iterator[bytes] | None:
        """Return its recording, piece by piece."""


class _Fault(Exception):  # noqa: N818 - an answer, not a fault of ours
    """An answer that is not what was asked for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class IncidentViews:
    """The handlers of `/api/v1/incidents`; `past` is None where nothing is kept."""

    def __init__(self, past: Past | None, clock: Callable[[], float]) -> None:
        self._past = past
        self._clock = clock
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="history")
        self._waiting = 0

    async def list(self, request: Request) -> Response:
        async def answer() -> Response:
            limit, before, past = _limit(request), _before(request), self._kept()
            found = await self._ask(lambda: past.incidents(limit=limit, before=before))
            return json_answer({"time": self._clock(), "incidents": [_addressed(one) for one in found]})

        return await _or_fault(answer)

    async def one(self, request: Request) -> Response:
        async def answer() -> Response:
            past, incident = self._kept(), request.path_params["incident"]
            found = await self._ask(lambda: past.incident(incident))
            if found is None:
                raise _Fault(404, "no such incident is kept")
            return json_answer(_addressed(found))

        return await _or_fault(answer)

    async def recording(self, request: Request) -> Response:
        async def answer() -> Response:
            past, incident = self._kept(), request.path_params["incident"]
            pieces = await self._ask(lambda: past.recording(incident))
            if pieces is None:
                raise _Fault(404, "no recording of such an incident is kept")
            disposition = f'attachment; filename="incident-{incident}.jsonl.gz"'
            return StreamingResponse(
                self._pieces(pieces), media_type="application/gzip", headers={"content-disposition": disposition}
            )

        return await _or_fault(answer)

    def _kept(self) -> Past:
        if self._past is None:
            raise _Fault(404, "nothing is kept here: store.path is null in the daemon's config")
        return self._past

    async def _pieces(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (piece := await self._ask(lambda: next(pieces, None))) is not None:
            yield piece

    async def _ask(self, question: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MOST:
            raise _Fault(503, "too many are asking the disk already; try again in a moment")
        self._waiting += 1
        try:
            answer = asyncio.get_running_loop().run_in_executor(self._readers, question)
            return await asyncio.wait_for(answer, DISK_SECONDS)
        except TimeoutError:
            raise _Fault(503, "the disk has not answered in time") from None
        except StoreError as exc:
            raise _Fault(503, f"history cannot be read: {exc}") from exc
        finally:
            self._waiting -= 1


async def _or_fault(answer: Callable[[], Any]) -> Response:
    try:
        response: Response = await answer()
    except _Fault as exc:
        return json_answer({"error": str(exc)}, exc.status)
    return response


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < LIMIT_MOST and 1 <= int(text) <= LIMIT_MOST):
        raise _Fault(400, f"limit: expected a whole number from 1 to {LIMIT_MOST}, got {json.dumps(text[:60])}")
    return int(text)


def _before(request: Request) -> float | None:
    text = request.query_params.get("before")
    if text is None:
        return None
    try:
        before = float(text)
    except ValueError:
        before = math.nan
    if not math.isfinite(before):
        raise _Fault(400, f"before: expected Unix seconds, got {json.dumps(text[:60])}")
    return before


def _addressed(incident: dict[str, Any]) -> dict[str, Any]:
    return incident | {"recording": f"{_PATH}/{incident['id']}/recording"}
