"""Reads what is kept, for whoever asks: incidents with their timelines, the newest first.

Opens the file for each question and only to read, so that it shares nothing with the thread that writes and can hold
nothing up. May wait for a disk: never call it from the event loop. Everything it returns is bounded.
"""

import contextlib
import itertools
import json
import math
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batsignal.detect.signal import SEVERITIES
from batsignal.record.archive import recording_path, recordings_folder, ring_folder
from batsignal.record.database import StoreError, explained, reading
from batsignal.record.flight import AFTER_END_SECONDS, BEFORE_ONSET_SECONDS
from batsignal.record.kept import RELEASED, is_instant, read_view
from batsignal.record.past_slots import PastSlots, read_slots
from batsignal.record.segments import PIECE_BYTES, joined, segments_in, within

LIMIT_DEFAULT = 50
LIMIT_MOST = 500

_ID = re.compile(r"[0-9a-f]{1,64}")
_COLUMNS = "id, ended, reason, by, worst, signal"

View = dict[str, Any]


class History:
    """The kept incidents of one daemon, and their recordings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = recordings_folder(path)

    def incidents(self, *, limit: int = LIMIT_DEFAULT, before: float | None = None) -> list[View]:
        """Return at most `limit` incidents, the one detected last first; only those detected before `before`.

        What a damaged file holds in their place is left out. Raises StoreError.
        """
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM incident WHERE detected < coalesce(?, 9e99) ORDER BY detected DESC, id LIMIT ?",
            (before, min(limit, LIMIT_MOST)),
        )
        return [view for row in rows if (view := _incident(row)) is not None]

    def incident(self, incident: str) -> View | None:
        """Return one incident with its `timeline`, None when it is not kept; raises StoreError."""
        if not _ID.fullmatch(incident):
            return None
        rows = self._rows(f"SELECT {_COLUMNS} FROM incident WHERE id = ?", (incident,))
        view = _incident(rows[0]) if rows else None
        if view is None:
            return None
        events = self._rows(
            "SELECT t, event, reason, by, signal FROM event WHERE incident = ? ORDER BY number", (incident,)
        )
        return view | {"timeline": [event for row in events if (event := _event(row)) is not None]}

    def recording(self, incident: str) -> Iterator[bytes] | None:
        """Return an incident's recording piece by piece, of one that goes on as far as it has come; None without any.

        Raises StoreError, from here or (the disk is gone in the middle) OSError from the iterator.
        """
        view = self.incident(incident)
        if view is None:
            return None
        try:
            pieces = self._pieces(view)
            first = next(pieces, None)
        except OSError as exc:
            raise StoreError(explained(exc)) from exc
        return None if first is None else itertools.chain((first,), pieces)

    def slots(self, incident: str) -> PastSlots | None:
        """Return who held the slots around an incident, None without a recording; raises StoreError.

        It reads the whole recording: seconds for a long one.
        """
        pieces = self.recording(incident)
        if pieces is None:
            return None
        try:
            return read_slots(pieces)
        except OSError as exc:
            raise StoreError(explained(exc)) from exc

    def _pieces(self, view: View) -> Iterator[bytes]:
        with contextlib.suppress(FileNotFoundError), recording_path(self._folder, view["id"]).open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
            return
        ring = segments_in(ring_folder(self._folder, view["signal"]["server"]))
        if ring:
            begins = view["signal"]["since"] - BEFORE_ONSET_SECONDS
            ends = math.inf if view["ended"] is None else view["ended"] + AFTER_END_SECONDS
            of_it = within(ring, epoch=ring[-1].epoch, begins=begins, ends=ends)
            yield from joined(of_it, {"incident": view["id"], "whole": False})

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            with contextlib.closing(reading(self._path)) as connection:
                return connection.execute(query, values).fetchall()
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(explained(exc)) from exc


def _incident(row: tuple[Any, ...]) -> View | None:
    """Return an incident; None for what is none."""
    incident, ended, reason, by, worst, signal = row
    if worst not in SEVERITIES or not (ended is None or is_instant(ended)):
        return None
    try:
        told = read_view(signal)
    except ValueError:
        return None
    return {
        "id": incident,
        "open": ended is None,
        "ended": ended,
        "reason": _text(reason),
        "by": _text(by),
        "worst": worst,
        "signal": told,
    }


def _event(row: tuple[Any, ...]) -> View | None:
    """Return a line of a timeline; None for what is none."""
    t, event, reason, by, signal = row
    line: View = {"t": t, "event": event}
    try:
        told = read_view(signal)
        if event == RELEASED:
            line["release"], reason = json.loads(reason), None
    except (ValueError, TypeError):
        return None
    if not is_instant(t):
        return None
    line |= {name: value for name, value in (("reason", _text(reason)), ("by", _text(by))) if value is not None}
    return line | {"signal": told}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
