"""Passwords against bcrypt hashes: slow by design, so a right one is remembered and a wrong one costs one thread only.

Owns the check and what is remembered of it. It knows nothing of HTTP. What is remembered is a keyed digest, never a
password.
"""

import asyncio
import hmac
import importlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

REMEMBERED_MOST = 256
WAITING_MOST = 32
# More than that is not part of a bcrypt hash; Go's library, whose files these are, passes it over.
_BYTES_MOST = 72
_COST_LIKE_GO = 10


class BusyError(Exception):
    """So many checks wait already that another one would wait too long."""


class Passwords:
    """Users and their hashes. `is_right` is for the event loop: the slow part runs in one thread of its own."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = {user: text.encode() for user, text in hashes.items()}
        if hashes:  # late on purpose: an endpoint without logins does not carry it
            self._bcrypt = importlib.import_module("bcrypt")
        # Somebody unknown waits as long as somebody known: by the dearest of the hashes.
        cost = max((int(text[4:6]) for text in hashes.values()), default=_COST_LIKE_GO)
        self._salt_of_nobody = self._bcrypt.gensalt(cost) if hashes else b""
        self._pepper = os.urandom(32)
        self._answers: OrderedDict[bytes, bool] = OrderedDict()
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")

    @property
    def is_needed(self) -> bool:
        return bool(self._hashes)

    async def is_right(self, user: str, password: bytes) -> bool:
        """Whether this is the user's password; raises BusyError."""
        mark = hmac.digest(self._pepper, user.encode("utf-8", "replace") + b"\0" + password, "sha256")
        known = self._answers.get(mark)
        if known is not None:
            self._answers.move_to_end(mark)
            return known
        if self._waiting >= WAITING_MOST:
            raise BusyError
        self._waiting += 1
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._check, user, password)
        finally:
            self._waiting -= 1
        self._remember(mark, answer)
        return answer

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False)

    def _check(self, user: str, password: bytes) -> bool:
        given = password[:_BYTES_MOST]
        known = self._hashes.get(user)
        if known is None:
            self._bcrypt.hashpw(given, self._salt_of_nobody)
            return False
        try:
            return bool(self._bcrypt.checkpw(given, known))
        except ValueError:  # a hash that has the form of one and is none
            return False

    def _remember(self, mark: bytes, answer: bool) -> None:
        """Keep an answer; guesses push out guesses, never what is known to be right."""
        self._answers[mark] = answer
        if len(self._answers) > REMEMBERED_MOST:
            wrong = next((one for one, right in self._answers.items() if not right), None)
            del self._answers[next(iter(self._answers)) if wrong is None else wrong]
