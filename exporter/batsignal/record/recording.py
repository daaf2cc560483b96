"""The recording format: JSON Lines, a header and then one line a tick, optionally gzipped (version 1).

Owns both directions, so that what a live run saw can be judged again by the very same code. A line carries only what
changed; at least once a minute one lists every session. Reading and writing hold one tick in memory, however long the
recording. Unknown keys are passed over; a key that is missing is unknown, never zero. What cannot be read is an error
with the line's number. Nothing is judged here.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from batsignal.errors import ConfigError
from batsignal.snapshot import (
    FAILURE_REASONS,
    VIEWS,
    Counters,
    Deploy,
    PollFailure,
    ProbeResult,
    Session,
    Slots,
    Snapshot,
)

FORMAT = "batsignal-recording"
VERSION = 1
KEY_SECONDS = 60.0
# A gzipped recording is readable up to the last flush; each flush costs some bytes.
GZIP_FLUSH_TICKS = 10

# Further away than any instant in seconds, nearer than one in milliseconds; and a number past which floats count in
# steps of more than one.
INSTANT_MOST = 1e11
NUMBER_MOST = 2**63

_TEXTS = (
    "state",
    "datname",
    "usename",
    "application_name",
    "client_addr",
    "wait_event_type",
    "wait_event",
    "query_id",
    "query",
    "backend_type",
    "backend_xid",
    "backend_xmin",
)
_INSTANTS = ("backend_start", "xact_start", "query_start", "state_change")
_PLAIN = Session(pid=0, backend_start=None, state=None)


class RecordingError(ConfigError):
    """A recording cannot be read; names the file and the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The server's slots and the connection limits of its roles and databases, and its version."""

    slots: Slots | None = None
    role_limits: Mapping[str, int] = field(default_factory=dict)
    database_limits: Mapping[str, int] = field(default_factory=dict)
    server_version_num: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line: whose recording it is, and the limits that hold until a tick brings others."""

    server: str
    started_at: float
    interval_seconds: float
    limits: Limits


class RecordingWriter:
    """Writes one server's snapshots; limits that become known or change later stand in the tick that shows them."""

    def __init__(self, path: Path, *, server: str, interval_seconds: float) -> None:
        """Open the file anew; raises OSError."""
        self._server = server
        self._interval_seconds = interval_seconds
        self._raw = path.open("wb")
        self._zipped = path.suffix == ".gz"
        self._file: BinaryIO | gzip.GzipFile = (
            gzip.GzipFile(fileobj=self._raw, mode="wb", mtime=0) if self._zipped else self._raw
        )
        self._before: dict[int, Session] | None = None
        self._limits: dict[str, Any] | None = None
        self._key_due = float("-inf")
        self._t = float("-inf")
        self._ticks = 0

    def write(self, snapshot: Snapshot) -> None:
        """Append one tick; raises OSError when the disk does not take it. A tick before the last one is left out."""
        if snapshot.t < self._t:
            return  # the server's clock stepped back: the format knows no time that runs backwards
        self._t = snapshot.t
        limits = _limits_json(snapshot)
        if self._limits is None:
            self._line(_header_json(snapshot, self._server, self._interval_seconds) | limits)
            self._limits = limits
        line = _tick_json(snapshot)
        if snapshot.failure is None:
            line |= self._changes(snapshot)
            if limits != self._limits:
                line |= limits
                self._limits = limits
        self._line(line)
        self._ticks += 1
        if not self._zipped or self._ticks % GZIP_FLUSH_TICKS == 0:
            self._file.flush()
            self._raw.flush()

    def close(self) -> None:
        """End the file; raises OSError."""
        try:
            self._file.close()
        finally:
            self._raw.close()

    def _changes(self, snapshot: Snapshot) -> dict[str, Any]:
        now = {session.pid: session for session in snapshot.sessions}
        before = self._before
        self._before = now
        if before is None or snapshot.t >= self._key_due:
            self._key_due = snapshot.t + KEY_SECONDS
            return {"key": True, "sessions": [_row_json(session) for session in snapshot.sessions]}
        changed = [session for session in snapshot.sessions if before.get(session.pid) is not session]
        return {
            "sessions": [_row_json(session) for session in changed if before.get(session.pid) != session],
            "gone": [pid for pid in before if pid not in now],
        }

    def _line(self, content: dict[str, Any]) -> None:
        self._file.write(json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n")


def read(path: Path) -> tuple[Header, Iterator[Snapshot]]:
    """Return a recording's header and its ticks, read as they are asked for.

    Raises RecordingError with the line's number, from here or from the iterator.
    """
    lines = _lines(path)
    number, first = next(lines, (1, None))
    if first is None:
        raise RecordingError(f"{path}:1: expected a recording's header, got an empty file")
    header = _Line(path, number, first).header()
    return header, _ticks(path, header, lines)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw
            for line in stream:
                number += 1
                yield number, _parsed(path, number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise RecordingError(f"{path}:{number + 1}: the file is cut off or not gzip throughout: {exc}") from exc
    except OSError as exc:
        raise RecordingError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise RecordingError(f"{path}:{number}: expected one JSON object a line: {exc}") from exc


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _ticks(path: Path, header: Header, lines: Iterator[tuple[int, Any]]) -> Iterator[Snapshot]:
    known: dict[int, Session] | None = None
    limits = header.limits
    t = float("-inf")
    for number, content in lines:
        line = _Line(path, number, content)
        failure = line.failure()
        if failure is None:
            known = line.sessions(known)
            limits = line.limits(limits)
        tick = line.tick(header.server, limits, failure, () if failure or known is None else tuple(known.values()))
        if tick.t < t:
            raise line.error(f"time runs backwards: {tick.t} after {t}")
        t = tick.t
        yield tick


class _Line:
    """One line on its way to a value; every complaint names the file and the line."""

    def __init__(self, path: Path, number: int, content: Any) -> None:
        self._where = f"{path}:{number}"
        if not isinstance(content, dict):
            raise self.error("expected a JSON object")
        self._content: dict[str, Any] = content

    def error(self, text: str) -> RecordingError:
        return RecordingError(f"{self._where}: {text}")

    def header(self) -> Header:
        content = self._content
        if content.get("format") != FORMAT:
            raise self.error(f'expected "format": "{FORMAT}", got {content.get("format")!r}')
        if type(content.get("version")) is not int or content["version"] != VERSION:
            raise self.error(f"expected version {VERSION}, got {content.get('version')!r}")
        return Header(
            server=self._text(content, "server") or "server",
            started_at=self._number(content, "started_at") or 0.0,
            interval_seconds=self._number(content, "interval_seconds") or 1.0,
            limits=self.limits(Limits()),
        )

    def limits(self, before: Limits) -> Limits:
        """Return the limits that this line gives, those of before where it gives none."""
        content = self._content
        if not any(key in content for key in ("slots", "role_limits", "database_limits", "server_version_num")):
            return before
        slots = self._mapping(content, "slots")
        return Limits(
            slots=Slots(
                max=self._whole(slots, "max") or 0,
                superuser_reserved=self._whole(slots, "superuser_reserved") or 0,
                reserved=self._whole(slots, "reserved") or 0,
            )
            if slots
            else before.slots,
            role_limits=self._limits("role_limits") if "role_limits" in content else before.role_limits,
            database_limits=self._limits("database_limits") if "database_limits" in content else before.database_limits,
            server_version_num=self._whole(content, "server_version_num") or before.server_version_num,
        )

    def tick(self, server: str, limits: Limits, failure: PollFailure | None, sessions: tuple[Session, ...]) -> Snapshot:
        content = self._content
        t = self._number(content, "t")
        if t is None:
            raise self.error("t: missing; expected Unix seconds")
        if abs(t) >= INSTANT_MOST:
            raise self.error(f"t: expected Unix seconds, got {t:.0f} (milliseconds?)")
        counters = self._mapping(content, "counters")
        view = content.get("view") or ("session" if failure is None else "none")
        if view not in VIEWS:
            raise self.error(f"view: expected one of {', '.join(VIEWS)}, got {view!r}")
        return Snapshot(
            server=server,
            t=t,
            sessions=sessions,
            own_sessions=self._whole(content, "own_sessions") or 0,
            slots=limits.slots,
            role_limits=limits.role_limits,
            database_limits=limits.database_limits,
            counters=Counters(
                sessions=self._whole(counters, "sessions"), xact_commit=self._whole(counters, "xact_commit")
            )
            if counters
            else None,
            refused=self._whole(content, "refused"),
            ping_seconds=self._number(content, "ping_seconds"),
            probes=tuple(self._probe(one, t) for one in self._objects("probes")),
            deploys=tuple(self._deploy(one) for one in self._objects("deploys")),
            failure=failure,
            view=view,
            server_version_num=limits.server_version_num,
        )

    def sessions(self, known: dict[int, Session] | None) -> dict[int, Session]:
        """Return all sessions by pid; a row equal to the one before stays the very object."""
        if not isinstance(self._content.get("sessions"), list):
            raise self.error("sessions: expected a list")
        rows = [self._session(row) for row in self._objects("sessions")]
        if self._content.get("key"):
            before = known or {}
            return {row.pid: before[row.pid] if before.get(row.pid) == row else row for row in rows}
        if known is None:
            raise self.error("expected the first look to list every session (key: true)")
        gone = self._content.get("gone") or ()
        if not isinstance(gone, list | tuple) or not all(type(pid) is int for pid in gone):
            raise self.error("gone: expected a list of pids")
        now = dict(known)
        for pid in gone:
            now.pop(pid, None)
        now.update((row.pid, row) for row in rows)
        return now

    def failure(self) -> PollFailure | None:
        failure = self._mapping(self._content, "failure")
        if not failure:
            return None
        reason = failure.get("reason")
        if reason not in FAILURE_REASONS:
            raise self.error(f"failure.reason: expected one of {', '.join(FAILURE_REASONS)}, got {reason!r}")
        return PollFailure(
            reason=reason, sqlstate=self._text(failure, "sqlstate"), text=self._text(failure, "text") or str(reason)
        )

    def _session(self, row: dict[str, Any]) -> Session:
        pid = self._whole(row, "pid")
        if pid is None:
            raise self.error("pid: missing in a session; expected a whole number")
        blocked_by = row.get("blocked_by") or ()
        if not isinstance(blocked_by, list | tuple) or not all(isinstance(one, int) for one in blocked_by):
            raise self.error("blocked_by: expected a list of pids")
        given: dict[str, Any] = {name: self._text(row, name) for name in _TEXTS if name in row}
        given |= {name: self._number(row, name) for name in _INSTANTS if name in row}
        if given.get("backend_type") is None:
            given["backend_type"] = _PLAIN.backend_type  # unknown: rows are client backends, by the format
        return Session(
            **{"backend_start": None, "state": None}
            | given
            | {"pid": pid, "blocked_by": tuple(blocked_by), "leader_pid": self._whole(row, "leader_pid")}
        )

    def _probe(self, probe: dict[str, Any], t: float) -> ProbeResult:
        endpoint = self._text(probe, "endpoint")
        if not endpoint or not isinstance(probe.get("up"), bool):
            raise self.error("probes: expected objects with endpoint and up")
        at = self._number(probe, "at")
        return ProbeResult(
            endpoint=endpoint,
            service=self._text(probe, "service") or endpoint,
            at=t if at is None else at,
            up=probe["up"],
            seconds=self._number(probe, "seconds") or 0.0,
            status=self._whole(probe, "status"),
            reason=self._text(probe, "reason"),
        )

    def _deploy(self, deploy: dict[str, Any]) -> Deploy:
        service, version, at = self._text(deploy, "service"), self._text(deploy, "version"), self._number(deploy, "at")
        if not service or not version or at is None:
            raise self.error("deploys: expected objects with service, version and at")
        return Deploy(service=service, version=version, at=at)

    def _limits(self, key: str) -> dict[str, int]:
        limits = self._mapping(self._content, key)
        return {name: self._whole(limits, name) or 0 for name in limits}

    def _objects(self, key: str) -> list[dict[str, Any]]:
        values = self._content.get(key) or []
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise self.error(f"{key}: expected a list of objects")
        return values

    def _mapping(self, source: dict[str, Any], key: str) -> dict[str, Any]:
        value = source.get(key) or {}
        if not isinstance(value, dict):
            raise self.error(f"{key}: expected an object")
        return value

    def _number(self, source: dict[str, Any], key: str) -> float | None:
        value = source.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < NUMBER_MOST:
            raise self.error(f"{key}: expected a number, got {str(value)[:40]!r}")
        return float(value)

    def _whole(self, source: dict[str, Any], key: str) -> int | None:
        value = source.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) >= NUMBER_MOST):
            raise self.error(f"{key}: expected a whole number, got {str(value)[:40]!r}")
        return value

    def _text(self, source: dict[str, Any], key: str) -> str | None:
        value = source.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(f"{key}: expected text, got {value!r}")
        return value


def _header_json(snapshot: Snapshot, server: str, interval_seconds: float) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "server": server,
        "started_at": snapshot.t,
        "interval_seconds": interval_seconds,
    }


def _limits_json(snapshot: Snapshot) -> dict[str, Any]:
    slots = snapshot.slots
    return {
        "server_version_num": snapshot.server_version_num,
        "slots": {"max": slots.max, "superuser_reserved": slots.superuser_reserved, "reserved": slots.reserved}
        if slots
        else None,
        "role_limits": dict(snapshot.role_limits),
        "database_limits": dict(snapshot.database_limits),
    }


def _tick_json(snapshot: Snapshot) -> dict[str, Any]:
    line: dict[str, Any] = {"t": snapshot.t, "key": False, "sessions": [], "own_sessions": snapshot.own_sessions}
    counters, failure = snapshot.counters, snapshot.failure
    if counters is not None:
        line["counters"] = {"sessions": counters.sessions, "xact_commit": counters.xact_commit}
    line["refused"] = snapshot.refused
    if snapshot.ping_seconds is not None:
        line["ping_seconds"] = round(snapshot.ping_seconds, 6)
    if snapshot.probes:
        line["probes"] = [_probe_json(probe) for probe in snapshot.probes]
    if snapshot.deploys:
        line["deploys"] = [{"service": one.service, "version": one.version, "at": one.at} for one in snapshot.deploys]
    line["failure"] = (
        {"reason": failure.reason, "sqlstate": failure.sqlstate, "text": failure.text} if failure else None
    )
    line["view"] = snapshot.view
    return line


def _probe_json(probe: ProbeResult) -> dict[str, Any]:
    return {
        "endpoint": probe.endpoint,
        "service": probe.service,
        "at": probe.at,
        "up": probe.up,
        "seconds": round(probe.seconds, 6),
        "status": probe.status,
        "reason": probe.reason,
    }


def _row_json(session: Session) -> dict[str, Any]:
    """Return a row's known columns; those that are null are left out, but for the three that every row has."""
    row: dict[str, Any] = {"pid": session.pid, "backend_start": session.backend_start, "state": session.state}
    for name in (*_TEXTS, *_INSTANTS, "leader_pid"):
        value = getattr(session, name)
        if value is not None and value != getattr(_PLAIN, name):
            row[name] = value
    if session.blocked_by:
        row["blocked_by"] = list(session.blocked_by)
    return row
