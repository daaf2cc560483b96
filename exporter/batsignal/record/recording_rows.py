"""A row of a recording, both ways: a JSON object of PostgreSQL's columns and a `Session`.

Rows are nearly all of a recording, so reading one is the one place here that is written for speed: what was found to
be of the right types once is not asked again column by column. It must refuse the same rows as if it were.
"""

from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any

from batsignal import code_path
from batsignal.record.recording_fields import (
    INSTANT_LEAST,
    INSTANT_MOST,
    INT4_MOST,
    Fields,
    instant,
    missing,
    pids,
    process,
    text,
)
from batsignal.record.recording_format import ROW_INSTANTS, ROW_TEXTS
from batsignal.snapshot import CLIENT_BACKEND, Session

_COLUMNS = tuple(one.name for one in fields(Session))
# Of a column that every row has, the default is of a type that none of its values has: MISSING.
_DEFAULTS: Fields = {one.name: one.default for one in fields(Session)}
_values_of_row = itemgetter(*_COLUMNS)
_QUICK_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(ROW_TEXTS, (str, type(None))),
    **dict.fromkeys(ROW_INSTANTS, (float, type(None))),
    "backend_type": (str,),
    "pid": (int,),
    "leader_pid": (type(None),),
    "blocked_by": (tuple, list),
}
_TYPE_PATTERNS_MOST = 4096
_TEXTS_LIKE_NUMBERS = ("query_id", "backend_xid", "backend_xmin")

_WRITTEN = (*ROW_TEXTS[1:], *ROW_INSTANTS[1:], "leader_pid")
_values_of_session = attrgetter(*_WRITTEN)
_DEFAULT_TYPE_AT = _WRITTEN.index("backend_type")


class _Unfrozen:
    """A `Session` in the making: the same slots in the same order, so that the finished object can change its class.

    A frozen dataclass puts each field in its place by a call of `object.__setattr__`: that took five times as long, and
    was a third of all that reading a recording takes. Python refuses the change of class when the slots differ.
    """

    __slots__ = _COLUMNS

    def __init__(self, values: tuple[Any, ...]) -> None:
        (
            self.pid,
            self.backend_start,
            self.state,
            self.datname,
            self.usename,
            self.application_name,
            self.client_addr,
            self.xact_start,
            self.query_start,
            self.state_change,
            self.wait_event_type,
            self.wait_event,
            self.query_id,
            self.query,
            self.blocked_by,
            self.backend_type,
            self.backend_xid,
            self.backend_xmin,
            self.leader_pid,
            self.code,
        ) = values


class RowReader:
    """Reads one recording's rows."""

    def __init__(self) -> None:
        # The types of a row's columns, in order, that have been found to be right.
        self._right: set[tuple[type, ...]] = set()

    def session(self, row: Fields) -> Session:
        """Return a row as a session; raises Fault. Rows are client backends where they do not say otherwise."""
        query = row.get("query")
        if type(query) is str and "/*" in query:
            row = _untagged(row, query)
        values = _values_of_row({**_DEFAULTS, **row})
        types = tuple(map(type, values))
        if types not in self._right and not self._is_right(types):
            return _read_with_care(row)
        made = _Unfrozen(values)
        if not (
            INSTANT_LEAST < (made.backend_start or 0.0) < INSTANT_MOST
            and INSTANT_LEAST < (made.xact_start or 0.0) < INSTANT_MOST
            and INSTANT_LEAST < (made.query_start or 0.0) < INSTANT_MOST
            and INSTANT_LEAST < (made.state_change or 0.0) < INSTANT_MOST
            and 0 <= made.pid <= INT4_MOST
            and made.datname != ""
            and made.usename != ""
            and made.client_addr != ""
            and made.query_id != ""
        ):
            return _read_with_care(row)
        if type(made.blocked_by) is list:
            made.blocked_by = pids(row, "blocked_by")
        made.__class__ = Session  # type: ignore[assignment]
        return made  # type: ignore[return-value]

    def _is_right(self, types: tuple[type, ...]) -> bool:
        if not all(one in _QUICK_TYPES[name] for name, one in zip(_COLUMNS, types, strict=True)):
            return False
        if len(self._right) < _TYPE_PATTERNS_MOST:
            self._right.add(types)
        return True


def _untagged(row: Fields, query: str) -> Fields:
    """Return a row that somebody recorded with the statement's tags in it as we record it: as its code path."""
    parts = code_path.split(query)
    if parts is None or not code_path.has_tags(parts[1]):
        return row
    before, comment, after = parts
    return {"code": code_path.spell(comment)} | row | {"query": f"{before.rstrip()} {after.strip()}".strip()}


def _read_with_care(row: Fields) -> Session:
    """Read a row column by column: one with a null or a whole number where that is rare, or a fault to be named."""
    pid = process(row, "pid")
    if pid is None:
        raise missing("pid", "the number of a process")
    for name, what in (("backend_start", "Unix seconds or null"), ("state", "text or null")):
        if name not in row:
            raise missing(name, what)
    # Somebody else's driver gives these as numbers, which they look like.
    numbers = {name: str(row[name]) for name in _TEXTS_LIKE_NUMBERS if type(row.get(name)) is int}
    given: dict[str, Any] = {name: text(row | numbers, name) for name in ROW_TEXTS}
    # Nobody and nothing is called so: somebody's way to write null.
    given |= {name: given[name] or None for name in ("datname", "usename", "client_addr", "query_id")}
    given |= {name: instant(row, name) for name in ROW_INSTANTS}
    if given["backend_type"] is None:
        given["backend_type"] = CLIENT_BACKEND
    return Session(pid=pid, leader_pid=process(row, "leader_pid"), blocked_by=pids(row, "blocked_by"), **given)


def row_of(session: Session) -> Fields:
    """Return a session as a row; columns that are null are left out, but for the three that every row has."""
    row: Fields = {"pid": session.pid, "backend_start": session.backend_start, "state": session.state}
    values = _values_of_session(session)
    for name, value in zip(_WRITTEN, values, strict=True):
        if value is not None:
            row[name] = value
    if values[_DEFAULT_TYPE_AT] == CLIENT_BACKEND:
        del row["backend_type"]
    if session.blocked_by:
        row["blocked_by"] = list(session.blocked_by)
    return row
