"""Writes a recording: one server's snapshots, a line each, as they come.

A line carries only what changed; at least once a minute one lists every session. Numbers are written to the last
digit, so that a replay judges what the live run judged. Holds one tick in memory, however long the recording.

How large a day gets rests on the window of gzip: what was written more than 32 KB ago is written in full again, and a
tick of 100 busy sessions is more than that. So every second line is written from its end to its beginning, as an ox
ploughs: what stands at the turn is near to what stood there in the line before.
"""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from batsignal.record.recording_fields import Fields
from batsignal.record.recording_lines import facts_line, header_line, tick_line
from batsignal.record.recording_rows import row_of
from batsignal.snapshot import Deploy, ProbeResult, Session, Snapshot

KEY_SECONDS = 60.0
GZIP_WINDOW_BITS = 31
"""The largest window, in gzip's wrapping."""
# A gzipped recording can be unpacked up to the last flush; each flush costs some bytes.
GZIP_FLUSH_TICKS = 10
# Statements, names and addresses: whoever may read them is for the owner to say.
FILE_MODE = 0o600
# Of ticks that the format cannot hold, so many probes and deploys go into the next one that it can.
CARRIED_MOST = 1000

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class RecordingWriter:
    """Writes one server's snapshots; facts that become known or change later stand in the tick that shows them."""

    def __init__(
        self,
        path: Path,
        *,
        server: str,
        interval_seconds: float,
        application_pattern: str | None = None,
        is_segment: bool = False,
    ) -> None:
        """Open the file anew; raises OSError. `application_pattern` is what the live run splits names with.

        A segment (gzipped) is a recording that can also follow another without its header: that is a gzip member of its
        own, and what it says of the server the first tick says again. It can be unpacked up to the last tick.
        """
        self._server = server
        self._interval_seconds = interval_seconds
        self._application_pattern = application_pattern
        self._is_segment = is_segment
        self._flush_ticks = 1 if is_segment else GZIP_FLUSH_TICKS
        self._file = open_private(path)
        self._zip = _new_zip() if is_segment or path.suffix == ".gz" else None
        self._before: dict[int, Session] | None = None
        self._facts: Fields | None = None
        self._known_deploys: tuple[Deploy, ...] = ()
        self._carried = _Carried()
        self._key_due = float("-inf")
        self._t = float("-inf")
        self._ticks = 0

    def write(self, snapshot: Snapshot, known_deploys: Sequence[Deploy] = ()) -> None:
        """Append one tick; raises OSError when the disk does not take it.

        `known_deploys` are all that were known when the tick was judged, from whatever source: those that are new
        since the tick before are written. Of a tick before the last one (the server's clock stepped back, and the
        format knows no time that runs backwards) only what is new in it is kept, for the next tick.
        """
        if snapshot.t < self._t:
            self._carried.add(snapshot)
            return
        snapshot = self._carried.into(snapshot)
        self._t = snapshot.t
        facts = facts_line(snapshot)
        if self._facts is None:
            header = header_line(
                snapshot,
                server=self._server,
                interval_seconds=self._interval_seconds,
                application_pattern=self._application_pattern,
            )
            self._line(header | facts)
            self._facts = {} if self._is_segment else facts
            self._end_header()
        line = tick_line(self._with_new_deploys(snapshot, known_deploys))
        if snapshot.failure is None:
            line |= self._changes(snapshot)
            if facts != self._facts:
                line |= facts
                self._facts = facts
        if self._ticks % 2:
            line["sessions"].reverse()
            line = {"t": line.pop("t"), "sessions": line.pop("sessions")} | line
        self._line(line)
        self._ticks += 1
        self._flush()

    @property
    def size_bytes(self) -> int:
        """How large the file is by now."""
        return self._file.tell()

    def close(self) -> None:
        """End the file; raises OSError."""
        try:
            if self._zip is not None and not self._file.closed:
                self._file.write(self._zip.flush())
        finally:
            self._file.close()

    def _with_new_deploys(self, snapshot: Snapshot, known: Sequence[Deploy]) -> Snapshot:
        known = tuple(known)
        if known == self._known_deploys:
            return snapshot
        seen = {*self._known_deploys, *snapshot.deploys}
        self._known_deploys = known
        return replace(snapshot, deploys=(*snapshot.deploys, *(deploy for deploy in known if deploy not in seen)))

    def _changes(self, snapshot: Snapshot) -> Fields:
        now = {session.pid: session for session in snapshot.sessions}
        before = self._before
        self._before = now
        if before is None or snapshot.t >= self._key_due:
            self._key_due = snapshot.t + KEY_SECONDS
            return {"key": True, "sessions": [row_of(session) for session in snapshot.sessions]}
        changed = [session for session in snapshot.sessions if before.get(session.pid) is not session]
        return {
            "sessions": [row_of(session) for session in changed if before.get(session.pid) != session],
            "gone": [pid for pid in before if pid not in now],
        }

    def _end_header(self) -> None:
        if self._is_segment and self._zip is not None:
            self._file.write(self._zip.flush())
            self._zip = _new_zip()

    def _line(self, content: Fields) -> None:
        line = _encode(content).encode("ascii") + b"\n"
        self._file.write(line if self._zip is None else self._zip.compress(line))

    def _flush(self) -> None:
        if self._zip is None:
            self._file.flush()
        elif self._ticks % self._flush_ticks == 0:
            self._file.write(self._zip.flush(zlib.Z_SYNC_FLUSH))
            self._file.flush()


def open_private(path: Path) -> BinaryIO:
    """Open a file anew to write, one that only we may read if it was not there; raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE), "wb")


def _new_zip() -> "zlib._Compress":
    # Half of a row's bytes are digits without a pattern: "filtered" spares short matches among them, which is 5 %.
    return zlib.compressobj(9, zlib.DEFLATED, GZIP_WINDOW_BITS, zlib.DEF_MEM_LEVEL, zlib.Z_FILTERED)


class _Carried:
    """What was new in ticks that were left out, until a tick is written that can bring it."""

    def __init__(self) -> None:
        self._probes: tuple[ProbeResult, ...] = ()
        self._deploys: tuple[Deploy, ...] = ()
        self._refused = 0

    def add(self, snapshot: Snapshot) -> None:
        self._probes = (*self._probes, *snapshot.probes)[-CARRIED_MOST:]
        self._deploys = (*self._deploys, *snapshot.deploys)[-CARRIED_MOST:]
        self._refused += snapshot.refused or 0

    def into(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with what was left out before it, and forget that."""
        if not (self._probes or self._deploys or self._refused):
            return snapshot
        whole = replace(
            snapshot,
            probes=(*self._probes, *snapshot.probes),
            deploys=(*self._deploys, *snapshot.deploys),
            refused=(snapshot.refused or 0) + self._refused if self._refused else snapshot.refused,
        )
        self._probes, self._deploys, self._refused = (), (), 0
        return whole
