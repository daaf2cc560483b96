"""Reads a recording: its header, and its ticks one by one as they are asked for.

Holds one tick in memory, however long the recording. What cannot be read is an error with the file and the line's
number; what comes before that line has been handed out by then, so who must not show half a recording keeps it until
the end. It judges nothing.
"""

import codecs
import errno
import io
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Never

from batsignal import pipes
from batsignal.names import legible
from batsignal.record.recording_fields import Fault, Fields, each, instant, objects, pids, truth
from batsignal.record.recording_format import FORMAT, Header, RecordingError
from batsignal.record.recording_lines import read_facts, read_failure, read_header, read_tick
from batsignal.record.recording_rows import RowReader
from batsignal.snapshot import Session, Snapshot

# Ten thousand sessions with long statements are a third of it; a file without line ends must not fill the memory.
LINE_BYTES_MOST = 32 * 1024 * 1024
BUFFER_BYTES = 256 * 1024
PACKED_BYTES = 16 * 1024
GZIP_WINDOW_BITS = 31
WRITER_SECONDS_MOST = 5.0
GZIP_MAGIC = b"\x1f\x8b"


def read(path: Path) -> tuple[Header, Iterator[Snapshot]]:
    """Return a recording's header and its ticks, read as they are asked for; sessions in order of their pids.

    Raises RecordingError with the line's number, from here or from the iterator.
    """
    return _read(path, _lines(path))


def read_stream(stream: "io.BufferedReader[Any]", name: Path) -> tuple[Header, Iterator[Snapshot]]:
    """Read a recording that comes from elsewhere than a file of its own; `name` is what its errors call it."""
    return _read(name, _lines_of(stream, name))


def _read(path: Path, lines: Iterator[tuple[int, Fields]]) -> tuple[Header, Iterator[Snapshot]]:
    number, first = next(lines, (1, None))
    if first is None:
        raise RecordingError(f"{path}:1: expected a recording's header, got an empty file")
    try:
        header = read_header(first)
    except Fault as fault:
        raise RecordingError(f"{path}:{number}: {fault}") from None
    return header, _ticks(path, header, lines)


def _ticks(path: Path, header: Header, lines: Iterator[tuple[int, Fields]]) -> Iterator[Snapshot]:
    ticks = _Ticks(header)
    for number, line in lines:
        try:
            yield ticks.next(line)
        except Fault as fault:
            raise RecordingError(f"{path}:{number}: {fault}") from None


class _Ticks:
    """What is carried from one line to the next."""

    def __init__(self, header: Header) -> None:
        self._server = header.server
        self._facts = header.facts
        self._rows = RowReader()
        self._known: dict[int, Session] | None = None
        self._sessions: tuple[Session, ...] = ()
        self._t = float("-inf")

    def next(self, line: Fields) -> Snapshot:
        """Return the tick of the next line; raises Fault."""
        t = self._time(line)
        failure = read_failure(line)
        if failure is None:
            self._look(line)
            self._facts = read_facts(line, self._facts)
        return read_tick(
            line,
            server=self._server,
            t=t,
            facts=self._facts,
            failure=failure,
            sessions=self._sessions if failure is None else (),
        )

    def _time(self, line: Fields) -> float:
        """Return the line's instant: before anything of the line is used, for it may belong somewhere else."""
        t = instant(line, "t")
        if t is None:
            if line.get("format") == FORMAT:
                raise Fault("a second header: expected one recording a file")
            raise Fault("t: missing; expected Unix seconds")
        if t < self._t:
            raise Fault(f"t: time runs backwards: expected {self._t} or later, got {t}")
        self._t = t
        return t

    def _look(self, line: Fields) -> None:
        """Bring the sessions up to date; of a key line, a row equal to the one before stays the very object."""
        if line.get("sessions") is None:
            raise Fault("sessions: expected a list, got none")
        rows = _by_pid(self._rows_of(line))
        before = self._known
        is_key = truth(line, "key")
        if is_key:
            known = before or {}
            now = {pid: known[pid] if known.get(pid) == row else row for pid, row in rows.items()}
        elif before is None:
            raise Fault("expected the first look to list every session (key: true)")
        else:
            now = dict(before)
            for pid in pids(line, "gone"):
                now.pop(pid, None)
            now |= rows
        if before is None or is_key or now.keys() != before.keys():
            now = dict(sorted(now.items()))  # by pid, as the poller does: whatever order the rows were written in
        self._known = now
        self._sessions = tuple(now.values())

    def _rows_of(self, line: Fields) -> Sequence[Session]:
        try:
            return [self._rows.session(row) for row in objects(line, "sessions")]
        except Fault:
            # Once more and not as fast, for what says in which row it is.
            return each(line, "sessions", self._rows.session)


def _by_pid(rows: Sequence[Session]) -> dict[int, Session]:
    """Return the rows, of a pid that was reused while they were read the younger; raises Fault for a session twice."""
    by_pid = {row.pid: row for row in rows}
    if len(by_pid) == len(rows):
        return by_pid
    for key, times in Counter(row.key for row in rows).items():
        if times > 1:
            raise Fault(f"sessions: expected each session once, got the one of pid {key[0]} {times} times")
    return {row.pid: row for row in sorted(rows, key=lambda row: row.backend_start or 0.0)}


# -- lines and bytes ---------------------------------------------------------------------------------------------------

_decode = json.JSONDecoder(parse_constant=lambda name: _refuse(f"{name} is not JSON")).decode


def _refuse(text: str) -> Never:
    raise ValueError(text)


class _Unzipped(io.RawIOBase):
    """What is in a gzipped file, up to the very byte where it is cut off; then EOFError or zlib.error.

    The standard library's reader asks for a whole buffer, and gives none of it out when the end of it is missing.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self._zip = zlib.decompressobj(GZIP_WINDOW_BITS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer).cast("B")
        while True:
            if self._zip.eof:
                packed = self._zip.unused_data or self._raw.read(PACKED_BYTES)
                if not packed:
                    return 0
                self._zip = zlib.decompressobj(GZIP_WINDOW_BITS)
            else:
                packed = self._zip.unconsumed_tail or self._raw.read(PACKED_BYTES)
            content = self._zip.decompress(packed, len(room))
            if content:
                room[: len(content)] = content
                return len(content)
            if not packed and not self._zip.eof:
                raise EOFError("the end is missing (its daemon still writes it, or was killed)")


def _opened(path: Path) -> "io.BufferedReader[Any]":
    """Open a recording; raises OSError, also for a named pipe into which nobody writes: it would be waited for forever.

    A pipe without a name, as a shell makes one of `<(command)`, has a writer, and is waited for.
    """
    # Not Path.resolve, which raises something of its own for links that go round in a circle.
    if not Path(os.path.realpath(path)).is_fifo():
        return path.open("rb")
    descriptor = pipes.opened(path)
    if not pipes.has_something(descriptor, WRITER_SECONDS_MOST):
        os.close(descriptor)
        raise OSError(errno.ETIMEDOUT, f"nobody has written into this pipe within {WRITER_SECONDS_MOST:g} s")
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def _lines(path: Path) -> Iterator[tuple[int, Fields]]:
    try:
        with _opened(path) as raw:
            yield from _lines_of(raw, path)
    except OSError as exc:
        raise RecordingError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _lines_of(raw: "io.BufferedReader[Any]", path: Path) -> Iterator[tuple[int, Fields]]:
    number = 0
    try:
        zipped = raw.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
        stream = io.BufferedReader(_Unzipped(raw), BUFFER_BYTES) if zipped else raw
        while line := stream.readline(LINE_BYTES_MOST):
            number += 1
            yield number, _parsed(path, number, line)
    except (EOFError, zlib.error) as exc:
        raise RecordingError(f"{path}:{number + 1}: the file is cut off or not gzip throughout: {exc}") from exc


# What may hold a character that is not printable: an escape but for those of quotes and slashes, or what is not ASCII.
_HOLDS_ANYTHING = re.compile(rb'\\[^"\\/]|[^\x00-\x7e]')


def _may_hold_anything(line: bytes) -> bool:
    # Nearly every line is told apart in C: the pattern alone took a tenth of a replay.
    return (not line.isascii() or b"\\" in line or b"\x7f" in line) and _HOLDS_ANYTHING.search(line) is not None


def _legible(content: Any) -> Any:
    """Return what a line says with every text in it as one that may be shown: names and texts of anybody's making."""
    if isinstance(content, str):
        return legible(content)
    if isinstance(content, list):
        return [_legible(one) for one in content]
    if isinstance(content, dict):
        return {legible(key): _legible(one) for key, one in content.items()}
    return content


def _fault_of(error: ValueError | RecursionError) -> str:
    """Return what is wrong with a line; the library counts lines within the line."""
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _parsed(path: Path, number: int, line: bytes) -> Fields:
    try:
        content: Any = _decode(line.decode("utf-8"))
        if _may_hold_anything(line):
            content = _legible(content)
    except (ValueError, RecursionError) as exc:
        if line.startswith(codecs.BOM_UTF8):
            what = "expected UTF-8 without a byte order mark at its begin"
        elif len(line) >= LINE_BYTES_MOST:
            what = f"expected a line of at most {LINE_BYTES_MOST} bytes"
        elif not line.endswith(b"\n"):
            what = f"the recording is cut off in this line, the {number - 1} before it are whole: {_fault_of(exc)}"
        elif not line.strip():
            what = "expected one JSON object a line, got an empty line"
        else:
            what = f"expected one JSON object a line: {_fault_of(exc)}"
        raise RecordingError(f"{path}:{number}: {what}") from exc
    if not isinstance(content, dict):
        raise RecordingError(f"{path}:{number}: expected a JSON object, got {type(content).__name__}")
    return content
