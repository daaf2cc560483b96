"""The pieces of a flight recorder's ring, and one recording made of several of them.

A segment is a recording of about a minute, gzipped in two members: its header, and its ticks. So a recording is made by
putting one header before the ticks of many, byte by byte. Its file's name says which look was its first and which its
last; one whose end a kill or a full disk has cut off is read up to its last whole line.
"""

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PIECE_BYTES = 64 * 1024
GZIP_WINDOW_BITS = 31
MENDED_LEVEL = 6

# EPOCH-FIRST-LAST, in milliseconds; `.part` is being written (its last look is not known), `.cut` has lost its end.
_NAME = re.compile(r"(?P<epoch>\d{6})-(?P<first>\d{14})(?:-(?P<last>\d{14}))?\.(?P<kind>jsonl\.gz|cut|part)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of a ring. Within an epoch time runs forward; a clock that steps back begins another."""

    path: Path
    epoch: int
    first: float
    last: float | None
    is_whole: bool

    @property
    def size_bytes(self) -> int:
        """How large the file is; 0 when it is gone."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def part_path(folder: Path, epoch: int, first: float) -> Path:
    """Return where a segment is written that begins with a look at `first`."""
    return folder / f"{epoch:06d}-{_milliseconds(first):014d}.part"


def ended_path(part: Path, last: float, *, is_whole: bool) -> Path:
    """Return the name of a segment that has ended."""
    return part.with_name(f"{part.stem}-{_milliseconds(last):014d}.{'jsonl.gz' if is_whole else 'cut'}")


def segments_in(folder: Path) -> list[Segment]:
    """Return the segments of a ring, the oldest first; raises OSError. None when there is no such folder."""
    found = []
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is not None:
            found.append(
                Segment(
                    path=folder / name,
                    epoch=int(match["epoch"]),
                    first=int(match["first"]) / 1000,
                    last=int(match["last"]) / 1000 if match["last"] else None,
                    is_whole=match["kind"] == "jsonl.gz",
                )
            )
    return sorted(found, key=lambda one: (one.epoch, one.first))


def last_look(path: Path) -> float | None:
    """Return the time of the last whole tick of a segment, None when it has none; raises OSError."""
    last = b""
    with path.open("rb") as file:
        if _header(file) is None:
            return None
        for lines in _whole_lines(file):
            last = lines[lines.rfind(b"\n", 0, -1) + 1 :]
    try:
        t = json.loads(last)["t"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(t)


def within(segments: Sequence[Segment], *, epoch: int, begins: float, ends: float) -> list[Segment]:
    """Return the segments that hold a look between two instants, the oldest first."""
    return [
        one for one in segments if one.epoch == epoch and one.first <= ends and (one.last is None or one.last >= begins)
    ]


def joined(segments: Sequence[Segment], facts: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield one gzipped recording made of segments, with `facts` beside what its header says.

    It yields nothing when all are gone. The files are opened at the first piece: what is deleted after that is read
    all the same. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        for segment in segments:
            with contextlib.suppress(FileNotFoundError):
                opened.append((segment, stack.enter_context(_open(segment))))
        begun = False
        for segment, file in opened:
            header = _header(file)
            if header is None:
                continue
            if not begun:
                begun = True
                yield _zipped(json.dumps({**header, **facts}, separators=(",", ":")).encode("ascii") + b"\n")
            yield from _pieces(file) if segment.is_whole else _mended(file)


def _open(segment: Segment) -> IO[bytes]:
    try:
        return segment.path.open("rb")
    except FileNotFoundError:
        if segment.last is not None:
            raise
        # What was being written a moment ago has ended and got its name.
        for ended in segment.path.parent.glob(f"{segment.path.stem}-*"):
            return ended.open("rb")
        raise


def _header(file: IO[bytes]) -> dict[str, Any] | None:
    """Read a segment's header and leave the file where its ticks begin; None when the header is not whole."""
    unzip = zlib.decompressobj(GZIP_WINDOW_BITS)
    line = b""
    try:
        while not unzip.eof:
            packed = file.read(PIECE_BYTES)
            if not packed:
                return None
            line += unzip.decompress(packed)
        file.seek(-len(unzip.unused_data), 1)
        header = json.loads(line)
    except (zlib.error, ValueError):
        return None
    return header if isinstance(header, dict) else None


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _mended(file: IO[bytes]) -> Iterator[bytes]:
    zipped = zlib.compressobj(MENDED_LEVEL, zlib.DEFLATED, GZIP_WINDOW_BITS)
    for lines in _whole_lines(file):
        yield zipped.compress(lines)
    yield zipped.flush()


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is in a gzip member, some whole lines at a time, as far as it goes."""
    unzip = zlib.decompressobj(GZIP_WINDOW_BITS)
    rest = b""
    packed = b"."
    while packed and not unzip.eof:
        packed = unzip.unconsumed_tail or file.read(PIECE_BYTES)
        try:
            rest += unzip.decompress(packed, 16 * PIECE_BYTES) if packed else unzip.flush()
        except zlib.error:
            return
        lines, newline, rest = rest.rpartition(b"\n")
        if newline:
            yield lines + newline


def _zipped(content: bytes) -> bytes:
    zipped = zlib.compressobj(MENDED_LEVEL, zlib.DEFLATED, GZIP_WINDOW_BITS)
    return zipped.compress(content) + zipped.flush()


def _milliseconds(t: float) -> int:
    return max(int(t * 1000), 0)
