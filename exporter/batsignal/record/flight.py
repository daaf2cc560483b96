"""The flight recorder: the last minutes of one server on disk, and of each incident a recording that stays.

Looks go into a ring of segments of about a minute (`segments`), the oldest of which are deleted. An incident keeps
those from before its onset until after its end from being deleted, and when it is over they become one recording: so
several incidents at once cost no more writing than none, and a kill loses nothing that was in the ring.

Used by the one thread that writes (`keeper`). Raises OSError when the disk does not take a look, and goes on with the
next. It must not grow without bound, whatever the disk and the incidents do.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batsignal.detect.signal import Event, Signal
from batsignal.record.archive import recording_path, ring_folder
from batsignal.record.recording_writer import RecordingWriter, open_private
from batsignal.record.segments import (
    Segment,
    ended_path,
    joined,
    last_look,
    part_path,
    segments_in,
    within,
)
from batsignal.snapshot import Deploy, Snapshot

SEGMENT_SECONDS = 60.0
SEGMENT_BYTES_MOST = 16 * 1024 * 1024
BEFORE_ONSET_SECONDS = 300.0
AFTER_END_SECONDS = 60.0
# Five minutes before the onset of what takes longest to be told for sure: a transaction left open, five minutes more.
RING_SECONDS = 900.0
# A ring of 100 busy sessions takes 2 MB, one of 2,000 some 20 MB. Beyond the bound the oldest goes, incident or not.
RING_BYTES_MOST = 256 * 1024 * 1024
# Of an incident of days the first hour tells how it began; the rest would fill the disk.
INCIDENT_SECONDS_MOST = 3600.0 + BEFORE_ONSET_SECONDS
INCIDENT_BYTES_MOST = 64 * 1024 * 1024
# Clocks are set by milliseconds all the time; a look that much earlier is left out.
STEP_BACK_SECONDS = 2.0
RETRY_LOOKS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """What is to be kept of an incident; `ends` is None while it lasts."""

    incident: str
    epoch: int
    begins: float
    ends: float | None = None

    @property
    def ends_at_most(self) -> float:
        bound = self.begins + INCIDENT_SECONDS_MOST
        return bound if self.ends is None else min(self.ends, bound)


class FlightRecorder:
    """One server's ring, and the recordings of its incidents in `folder`."""

    def __init__(
        self, folder: Path, *, server: str, interval_seconds: float, application_pattern: str | None = None
    ) -> None:
        """Go on with the ring that is there; touches the disk at the first look."""
        self._folder = folder
        self._ring = ring_folder(folder, server)
        self._server = server
        self._interval_seconds = interval_seconds
        self._application_pattern = application_pattern
        self._segments: list[Segment] | None = None
        self._spans: dict[str, _Span] = {}
        self._writer: RecordingWriter | None = None
        self._current: Segment | None = None
        self._epoch = 0
        self._t = float("-inf")
        self._written: float | None = None
        self._finish_due = 0
        self._looks = 0
        self.deleted = 0
        """How often what was being written was deleted by somebody."""

    def resume(self, left: Iterable[tuple[Signal, float | None]]) -> None:
        """Go on keeping what belongs to incidents of an earlier life, each with its end or None; raises OSError."""
        self._know_ring()
        for signal, ended in left:
            self._begin(signal)
            if ended is not None:
                self._end(signal.id, ended)

    def take(self, snapshot: Snapshot | None, known_deploys: Sequence[Deploy], events: Iterable[Event]) -> None:
        """Keep one look, and mark what its events begin and end; None is a look that was lost on the way here.

        Raises OSError when the look was not kept.
        """
        self._looks += 1
        try:
            if snapshot is not None:
                self._write(snapshot, known_deploys)
        finally:  # also on a full disk, which what is deleted here may help
            for event in events:
                self._mark(event)
            self._prune()
        self._finish()

    def close(self) -> None:
        """End the segment that is being written; open incidents keep theirs for the next life. Raises OSError."""
        self._end_segment()
        for span in list(self._spans.values()):
            if span.ends is not None:
                self._keep(span)

    # -- the ring --------------------------------------------------------------------------------------------------

    def _know_ring(self) -> list[Segment]:
        """Return the finished segments; at first those that an earlier life left, the one it was writing among them."""
        if self._segments is None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for part in self._folder.glob("*.part"):  # a kill while it was made
                part.unlink(missing_ok=True)
            found = [_salvaged(one) for one in segments_in(self._ring)]
            self._segments = [one for one in found if one is not None]
            if self._segments:
                self._epoch = self._segments[-1].epoch
                self._t = self._segments[-1].last or self._segments[-1].first
        return self._segments

    def _write(self, snapshot: Snapshot, known_deploys: Sequence[Deploy]) -> None:
        self._know_ring()
        t, before = snapshot.t, self._t
        if before - STEP_BACK_SECONDS <= t < before:
            return
        self._t = t
        if t < before:
            self._epoch += 1
        if self._current is not None and not self._current.path.exists():
            self.deleted += 1
            self._abandon_segment()
        if self._must_end(t, before):
            self._end_segment()
        try:
            if self._writer is None:
                self._writer = self._begin_segment(t)
            self._writer.write(snapshot, known_deploys)
        except OSError:
            self._abandon_segment()
            raise
        self._written = t

    def _must_end(self, t: float, before: float) -> bool:
        if self._writer is None or self._current is None:
            return False
        is_full = self._writer.size_bytes > SEGMENT_BYTES_MOST
        return t < before or is_full or t - self._current.first >= SEGMENT_SECONDS

    def _begin_segment(self, t: float) -> RecordingWriter:
        for folder in (self._folder.parent, self._folder, self._ring):  # somebody may have deleted them
            folder.mkdir(mode=0o700, exist_ok=True)
        path = part_path(self._ring, self._epoch, t)
        self._current = Segment(path=path, epoch=self._epoch, first=t, last=None, is_whole=True)
        self._written = None
        return RecordingWriter(
            path,
            server=self._server,
            interval_seconds=self._interval_seconds,
            application_pattern=self._application_pattern,
            is_segment=True,
        )

    def _end_segment(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError:
            self._name_segment(is_whole=False)
            raise
        self._name_segment(is_whole=True)

    def _abandon_segment(self) -> None:
        """Stop writing to a segment that the disk has not taken whole: it is read as far as it goes."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()
        with contextlib.suppress(OSError):
            self._name_segment(is_whole=False)

    def _name_segment(self, *, is_whole: bool) -> None:
        current, self._current = self._current, None
        if current is None:
            return
        if self._written is None:  # not one look of it was kept
            current.path.unlink(missing_ok=True)
            return
        path = ended_path(current.path, self._written, is_whole=is_whole)
        with contextlib.suppress(FileNotFoundError):  # somebody has deleted it
            current.path.rename(path)
            self._know_ring().append(replace(current, path=path, last=self._written, is_whole=is_whole))

    def _prune(self) -> None:
        """Delete the segments that neither the last minutes nor an incident need, and the oldest beyond the bound."""
        segments = self._segments
        if not segments:
            return
        sizes = sum(one.size_bytes for one in segments) if self._looks % RETRY_LOOKS == 0 else 0
        while segments:
            oldest = segments[0]
            if self._is_needed(oldest) and sizes <= RING_BYTES_MOST:
                return
            sizes -= oldest.size_bytes
            oldest.path.unlink(missing_ok=True)
            del segments[0]

    def _is_needed(self, segment: Segment) -> bool:
        if segment.epoch == self._epoch and (segment.last or 0.0) >= self._t - RING_SECONDS:
            return True
        return any(
            span.epoch == segment.epoch and span.begins <= (segment.last or 0.0) and segment.first <= span.ends_at_most
            for span in self._spans.values()
        )

    # -- incidents -------------------------------------------------------------------------------------------------

    def _mark(self, event: Event) -> None:
        signal = event.signal
        if event.event == "cleared":
            self._end(signal.id, event.t)
            return
        span = self._spans.get(signal.id)
        if span is None:
            self._begin(signal)
        elif self._begins(signal) < span.begins:
            self._spans[signal.id] = replace(span, begins=self._begins(signal))

    def _begin(self, signal: Signal) -> None:
        if not recording_path(self._folder, signal.id).exists():  # else it has had all that it may have
            self._spans[signal.id] = _Span(incident=signal.id, epoch=self._epoch, begins=self._begins(signal))

    def _begins(self, signal: Signal) -> float:
        """Return from when on an incident is kept: not before there is anything, for its bound counts from there."""
        kept = [one.first for one in self._segments or () if one.epoch == self._epoch]
        oldest = min(kept, default=self._current.first if self._current else self._t)
        return max(signal.finding.since - BEFORE_ONSET_SECONDS, oldest)

    def _end(self, incident: str, t: float) -> None:
        span = self._spans.get(incident)
        if span is not None:
            self._spans[incident] = replace(span, ends=t + AFTER_END_SECONDS)

    def _finish(self) -> None:
        """Make recordings of incidents that are over, or as long as one may be; one that fails is tried again."""
        if self._looks < self._finish_due:
            return
        for span in list(self._spans.values()):
            is_over = span.epoch != self._epoch or self._t >= span.ends_at_most
            if is_over or self._bytes_of(span) > INCIDENT_BYTES_MOST:
                try:
                    self._end_segment()
                    self._keep(span)
                except OSError:
                    self._finish_due = self._looks + RETRY_LOOKS
                    raise

    def _bytes_of(self, span: _Span) -> int:
        return sum(one.size_bytes for one in self._of(span)) if self._looks % RETRY_LOOKS == 0 else 0

    def _of(self, span: _Span) -> list[Segment]:
        return within(self._segments or [], epoch=span.epoch, begins=span.begins, ends=span.ends_at_most)

    def _keep(self, span: _Span) -> None:
        """Write an incident's recording: whole under its name, or not at all."""
        path = recording_path(self._folder, span.incident)
        part = path.with_name(f"{path.name}.part")
        is_whole = span.ends is not None and span.ends <= span.ends_at_most
        facts = {"incident": span.incident, "whole": is_whole}
        try:
            with open_private(part) as file:
                for piece in joined(self._of(span), facts):
                    file.write(piece)
                is_empty = file.tell() == 0
            if is_empty:
                part.unlink()
            else:
                part.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        del self._spans[span.incident]


def _salvaged(segment: Segment) -> Segment | None:
    """Return a segment that an earlier life left, under the name of one that has ended; None when it holds nothing."""
    if segment.last is not None:
        return segment
    last = last_look(segment.path)
    if last is None:
        segment.path.unlink(missing_ok=True)
        return None
    path = ended_path(segment.path, last, is_whole=False)
    segment.path.rename(path)
    return replace(segment, path=path, last=last)
