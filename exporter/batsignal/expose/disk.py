"""Questions to the disk from requests: in threads of their own, few and with a deadline.

Owns those threads and what an answer is when there is none to give. A disk that hangs holds up neither a scrape nor the
page, and a crowd of askers is turned away rather than queued.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from batsignal.expose.exchange import Refusal
from batsignal.record.database import StoreError
from batsignal.record.past_slots import PastSlots

READERS = 2
WAITING_MOST = 16
DISK_SECONDS = 5.0

T = TypeVar("T")


class Past(Protocol):
    """What is kept; every method may wait for a disk and raise StoreError."""

    def incidents(self, *, limit: int, before: float | None) -> list[dict[str, Any]]:
        """Return the newest incidents."""

    def incident(self, incident: str) -> dict[str, Any] | None:
        """Return one with its timeline."""

    def recording(self, incident: str) -> Iterator[bytes] | None:
        """Return its recording, piece by piece."""

    def slots(self, incident: str) -> PastSlots | None:
        """Return who held the slots around it."""


class Disk:
    """The way to what is kept; `past` is None where nothing is."""

    def __init__(self, past: Past | None) -> None:
        self._past = past
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="history")
        self._waiting = 0

    @property
    def past(self) -> Past:
        """What is kept; raises Refusal where nothing is."""
        if self._past is None:
            raise Refusal(404, "nothing is kept here: store.path is null in the daemon's config")
        return self._past

    async def ask(self, question: Callable[[], T]) -> T:
        """Return what a question comes to; raises Refusal when there are too many, or no answer in time."""
        if self._waiting >= WAITING_MOST:
            raise Refusal(503, "too many are asking the disk already; try again in a moment")
        self._waiting += 1
        try:
            answer = asyncio.get_running_loop().run_in_executor(self._readers, question)
            return await asyncio.wait_for(answer, DISK_SECONDS)
        except TimeoutError:
            raise Refusal(503, "the disk has not answered in time") from None
        except StoreError as exc:
            raise Refusal(503, f"history cannot be read: {exc}") from exc
        finally:
            self._waiting -= 1
