"""`/incidents` and `/incidents/ID`: all that is kept, and a page of each, for whoever comes from the page or a chat.

Owns what is asked of the disk for it, and for how long an answer is good: the picture is made of the whole recording,
which is too much work for each reload of each reader. What it says is `page.incident`'s affair.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from batsignal.expose import page
from batsignal.expose.disk import Disk
from batsignal.expose.exchange import Refusal
from batsignal.expose.html import html_answer
from batsignal.expose.incidents import as_of_now, before_of
from batsignal.record.board import Board
from batsignal.record.past_slots import PastSlots

LINES_A_PAGE = 50
PICTURES_KEPT = 16
# Of an incident that goes on, or whose recording may not be made yet, the picture is looked up anew so rarely; and the
# more rarely, the longer it takes.
PICTURE_SECONDS = 10.0
COST_SHARE = 0.05
# Longer than the recording goes on after the end.
SETTLED_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    slots: PastSlots | None
    until: float
    """By the monotonic clock."""


class IncidentPages:
    """The handlers. `board` is what is known now, `runbooks` are the names that are served now."""

    def __init__(
        self,
        disk: Disk,
        board: Callable[[], Board],
        clock: Callable[[], float],
        runbooks: Callable[[], frozenset[str]],
    ) -> None:
        self._disk = disk
        self._board = board
        self._clock = clock
        self._runbooks = runbooks
        self._pictures: OrderedDict[str, _Picture] = OrderedDict()

    async def list(self, request: Request) -> Response:
        """Answer the newest incidents, or those before an instant."""
        try:
            past, before = self._disk.past, before_of(request)
            found = await self._disk.ask(lambda: past.incidents(limit=LINES_A_PAGE + 1, before=before))
        except Refusal as refusal:
            return html_answer(request, page.draw_missing(str(refusal), root="./").document(), refusal.status)
        drawn = page.draw_incidents(
            [as_of_now(one, self._board()) for one in found[:LINES_A_PAGE]],
            self._clock(),
            is_later_page=before is not None,
            has_more=len(found) > LINES_A_PAGE,
        )
        return html_answer(request, drawn.document())

    async def one(self, request: Request) -> Response:
        incident = request.path_params["incident"]
        try:
            past = self._disk.past
            view = await self._disk.ask(lambda: past.incident(incident))
        except Refusal as refusal:
            return _missing(request, refusal)
        if view is None:
            return _missing(request, Refusal(404, "No such incident is kept: it may be older than store.keep_days."))
        now = self._clock()
        is_settled = view["ended"] is not None and now - view["ended"] > SETTLED_SECONDS
        slots = await self._slots(incident, is_settled=is_settled)
        drawn = page.draw_incident(as_of_now(view, self._board()), slots, now, runbooks=self._runbooks())
        return html_answer(request, drawn.document())

    async def _slots(self, incident: str, *, is_settled: bool) -> PastSlots | None:
        """Return who held the slots, None where that cannot be had: the page stands without a picture too."""
        kept = self._pictures.get(incident)
        if kept is not None and time.monotonic() < kept.until:
            self._pictures.move_to_end(incident)
            return kept.slots
        past, asked = self._disk.past, time.monotonic()
        try:
            slots = await self._disk.ask(lambda: past.slots(incident))
        except Refusal:
            return None
        took_seconds = time.monotonic() - asked
        good_seconds = float("inf") if is_settled else max(PICTURE_SECONDS, took_seconds / COST_SHARE)
        self._pictures[incident] = _Picture(slots=slots, until=time.monotonic() + good_seconds)
        while len(self._pictures) > PICTURES_KEPT:
            self._pictures.popitem(last=False)
        return slots


def _missing(request: Request, refusal: Refusal) -> Response:
    return html_answer(request, page.draw_missing(str(refusal)).document(), refusal.status)
