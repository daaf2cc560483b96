"""Where a command's lines go: a terminal, a pipe, or nobody any more.

Owns colour, the choice between drawn and plain characters, and what happens when the reader goes away. It must not
raise: a terminal that was closed must never stop a clean-up.
"""

import io
import os
import sys
from typing import Literal, TextIO

Tone = Literal["plain", "faint", "strong", "good", "alarm"]

_COLOURS: dict[Tone, str] = {"faint": "\x1b[2m", "strong": "\x1b[1m", "good": "\x1b[1;32m", "alarm": "\x1b[1;31m"}
_RESET = "\x1b[0m"


class Terminal:
    """Writes lines, one at a time, each flushed. `gone` turns true once nobody reads them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # With standard output closed from the start, there is no stream at all: nobody reads.
        self._stream = stream or sys.stdout or io.StringIO()
        self.gone = stream is None and sys.stdout is None
        self._coloured = (
            self._stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
        )

    @property
    def draws(self) -> bool:
        """Whether block characters can be shown."""
        return (self._stream.encoding or "ascii").lower().replace("-", "") == "utf8"

    def say(self, text: str = "", tone: Tone = "plain") -> None:
        """Write one line."""
        if self.gone:
            return
        encoding = self._stream.encoding or "ascii"
        text = text.encode(encoding, "replace").decode(encoding)
        colour = _COLOURS.get(tone) if self._coloured else None
        try:
            self._stream.write(f"{colour}{text}{_RESET}\n" if colour else f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError):  # a broken pipe, a hung-up terminal, a closed file
            self.gone = True
            self._let_go()

    def _let_go(self) -> None:
        # What is still buffered would raise again when the interpreter flushes it at exit.
        try:
            descriptor = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
        except (OSError, ValueError):
            return
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
