"""Who held the slots while something was recorded: a recording cut down to what a picture of it needs.

Owns the bound on the work: a recording of an hour of thousands of sessions is read only as far as there is time for,
and says so. It draws nothing and judges nothing.
"""

import io
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batsignal.names import ApplicationPattern
from batsignal.record.board import SlotSample
from batsignal.record.recording_format import RecordingError
from batsignal.record.recording_reader import read_stream
from batsignal.snapshot import Deploy, Snapshot

# Whoever asks waits for it, and a scrape shares the processor with it.
WORK_SECONDS = 2.5
APPLICATIONS_KEPT = 10

_NAME = Path("recording")
_WHOLE_NAME = r"^(?P<service>.+)$"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSlots:
    """What was seen, tick by tick. `is_whole` is false when there was more than there was time for, or it is cut off.

    `deploys` are those that the recording tells of, whenever they were.
    """

    interval_seconds: float
    samples: tuple[SlotSample, ...]
    deploys: tuple[Deploy, ...]
    is_whole: bool


def read_slots(pieces: Iterator[bytes], *, work_seconds: float = WORK_SECONDS) -> PastSlots:
    """Return what a recording tells of the slots, as far as it can be read within `work_seconds`; raises OSError."""
    samples: list[SlotSample] = []
    deploys: list[Deploy] = []
    deadline = time.monotonic() + work_seconds
    interval_seconds, is_whole = 1.0, True
    with io.BufferedReader(_Joined(pieces)) as stream:
        try:
            header, ticks = read_stream(stream, _NAME)
            interval_seconds = header.interval_seconds
            pattern = ApplicationPattern(re.compile(header.application_pattern or _WHOLE_NAME))
            for snapshot in ticks:
                samples.append(_sample(snapshot, pattern))
                deploys.extend(snapshot.deploys)
                if time.monotonic() > deadline:
                    is_whole = next(ticks, None) is None
                    break
        except RecordingError:
            is_whole = False  # its end is missing: it is being written, or its daemon was killed
    return PastSlots(
        interval_seconds=interval_seconds, samples=tuple(samples), deploys=tuple(deploys), is_whole=is_whole
    )


def _sample(snapshot: Snapshot, pattern: ApplicationPattern) -> SlotSample:
    usable = snapshot.slots.usable if snapshot.slots else None
    if snapshot.failure is not None:
        return SlotSample(t=snapshot.t, used=None, usable=usable)
    held: Counter[str] = Counter()
    named = Counter(session.application_name for session in snapshot.sessions if session.is_client)
    for name, sessions in named.items():
        who = pattern.split(name)
        held[f"{who.service}@{who.version}" if who.version else who.service or ""] += sessions
    largest = sorted(held.items(), key=lambda item: (-item[1], item[0]))[:APPLICATIONS_KEPT]
    return SlotSample(t=snapshot.t, used=snapshot.used, usable=usable, by_application=tuple(largest))


class _Joined(io.RawIOBase):
    """Pieces of bytes as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken = self._rest[: len(buffer)]
        self._rest = self._rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)
