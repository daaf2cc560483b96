"""Rows of `pg_stat_get_activity` to `Session`s: cached names, normalised texts, one object while nothing moves.

Most sessions do not change from one second to the next. A row equal to the one before gives the very object of
before, so that whoever comes after can tell by identity, and no text is normalised twice.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from batsignal.names import legible
from batsignal.poll.same import SameTexts
from batsignal.poll.statements import read
from batsignal.snapshot import CLIENT_BACKEND, Session

Row = tuple[Any, ...]

_PID, _START, _STATE, _DATABASE, _ROLE, _NAME, _ADDRESS = range(7)
_QUERY_START, _WAIT_TYPE, _TYPE, _XID, _TEXT, _LONG_TEXT = 8, 10, 13, 14, 17, 18
_COME_AGAIN = frozenset({*range(_STATE, _ADDRESS + 1), _WAIT_TYPE, _WAIT_TYPE + 1, _TYPE})
# A text is asked for again when it may have changed this long before the last look: a statement reports its start a
# moment before it becomes visible.
_TEXT_OVERLAP_SECONDS = 2.0
SEEN_NAMES_MOST = 1000
# What the server shows in place of a statement that the role may not see.
_HIDDEN = "<insufficient privilege>"


class Names:
    """Names of roles and databases by oid, kept: asking for them takes locks that others may hold."""

    def __init__(self) -> None:
        self.roles: dict[int, str] = {}
        self.databases: dict[int, str] = {}
        self.role_limits: Mapping[str, int] = {}
        self.database_limits: Mapping[str, int] = {}
        self._seen: tuple[set[str], set[str]] = (set(), set())

    @property
    def told(self) -> tuple[Collection[str], Collection[str]]:
        """All names of roles and of databases that are known, by oid or only by sight."""
        roles, databases = self._seen
        return roles | set(self.roles.values()), databases | set(self.databases.values())

    def put_seen(self, role: str, database: str) -> bool:
        """Take over names that were seen without their oids, bounded; return whether one of them is new."""
        is_new = False
        for names, name in zip(self._seen, (role, database), strict=True):
            if name not in names and len(names) < SEEN_NAMES_MOST:
                names.add(name)
                is_new = True
        return is_new

    def put_roles(self, rows: Iterable[Row] | None) -> None:
        """Take over `(oid, name, limit)` rows; None keeps what is known."""
        if rows is not None:
            rows = list(rows)
            self.roles |= {oid: legible(name) for oid, name, _ in rows}
            self.role_limits = {legible(name): limit for _, name, limit in rows if limit > 0}

    def put_databases(self, rows: Iterable[Row] | None) -> None:
        if rows is not None:
            rows = list(rows)
            self.databases = {oid: legible(name) for oid, name, _ in rows}
            self.database_limits = {legible(name): limit for _, name, limit in rows if limit > 0}

    def lacking(self, rows: Iterable[Row]) -> tuple[frozenset[tuple[str, int]], list[int]]:
        """Return which roles and databases of the rows have no name here, and the oids of all roles in them."""
        roles, databases = {row[_ROLE] for row in rows}, {row[_DATABASE] for row in rows}
        unnamed = [("role", oid) for oid in roles if oid and oid not in self.roles]
        unnamed += [("database", oid) for oid in databases if oid and oid not in self.databases]
        return frozenset(unnamed), [oid for oid in roles if oid]


class RowReader:
    """Turns the rows of one look after the other into sessions."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._before: dict[int, tuple[Row, Session]] = {}
        self._looked_at: float | None = None
        self._same = SameTexts()

    def forget(self) -> None:
        """Start anew: the next look asks for every text."""
        self._before = {}
        self._looked_at = None

    @property
    def texts_since(self) -> float:
        """From when on a changed row must bring its text, in Unix seconds of the server's clock."""
        return 0.0 if self._looked_at is None else max(self._looked_at - _TEXT_OVERLAP_SECONDS, 0.0)

    @staticmethod
    def waiting(rows: Iterable[Row]) -> list[int]:
        """Return the pids that wait for a lock, the oldest statements first: the heads of the queues."""
        waiting = [row for row in rows if row[_WAIT_TYPE] == "Lock"]
        return [row[_PID] for row in sorted(waiting, key=lambda row: row[_QUERY_START] or 0.0)]

    @staticmethod
    def are_hidden(rows: Iterable[Row]) -> bool:
        """Whether the server hides other roles' sessions from us.

        Its own workers are in every look, and shown with their type to whoever may see.
        """
        return any(row[_PID] is not None and row[_TYPE] is None for row in rows)

    def read(self, rows: Iterable[Row], *, t: float, blocked_by: Mapping[int, tuple[int, ...]]) -> tuple[Session, ...]:
        """Return the client sessions, and whatever blocks one of them. The rows are without our own."""
        stepped_back = self._looked_at is not None and t < self._looked_at
        blockers = {pid for pids in blocked_by.values() for pid in pids}
        now: dict[int, tuple[Row, Session]] = {}
        databases, roles = self._names.databases, self._names.roles
        for row in rows:
            pid = row[_PID]
            if pid is None or not (_is_client(row) or pid in blockers):
                continue
            names = databases.get(row[_DATABASE]), roles.get(row[_ROLE])
            # Never 20 values: CPython 3.11 and 3.12 keep up to 2,000 tuples of that size and use none of them again.
            known = (*row[:_DATABASE], *names, *row[_NAME:_TEXT], blocked_by.get(pid, ()))
            before = self._before.get(pid)
            is_hidden = row[_TYPE] is None
            if is_hidden and before is not None:
                known = _called_as_before(known, before[0])
            if before is not None and before[0] == known:
                now[pid] = before
            else:
                same = before[1] if before is not None and not is_hidden else None
                known = self._sharing(known)
                now[pid] = (known, _session(known, _text(row), same))
        self._before = now
        # After the server's clock stepped back there is no saying which texts were new: the next look asks for all.
        self._looked_at = None if stepped_back else t
        # By pid, as a recording is read: a live run and its replay see the same in the same order.
        return tuple(now[pid][1] for pid in sorted(now))

    def _sharing(self, known: Row) -> Row:
        """Return the same with one object for texts that are equal: names, places and states, which come again."""
        of = self._same.of
        return tuple(of(one) if at in _COME_AGAIN and one is not None else one for at, one in enumerate(known))


def _called_as_before(known: Row, before: Row) -> Row:
    """Return what is known of a row whose begin is hidden with that of before, where a pid kept role, place and name.

    Else every session would have left, and another come, at the moment when `pg_monitor` is taken from our role.
    """
    if known[_DATABASE : _NAME + 1] != before[_DATABASE : _NAME + 1]:
        return known
    return (known[_PID], before[_START], *known[_STATE:_ADDRESS], before[_ADDRESS], *known[_ADDRESS + 1 :])


def _text(row: Row) -> str | None:
    long = row[_LONG_TEXT]
    return row[_TEXT] if long is None else bytes(long).decode("utf-8", "replace")


def _session(known: Row, text: str | None, before: Session | None) -> Session:
    (pid, start, state, datname, usename, application_name, client_addr, xact_start) = known[:_QUERY_START]
    (query_start, state_change, wait_event_type, wait_event, query_id, backend_type) = known[_QUERY_START:_XID]
    (xid, xmin, leader_pid, blocked_by) = known[_XID:]
    same = before if before is not None and before.backend_start == start else None
    query, code = read(text) if text else (same.query, same.code) if same else (None, None)
    return Session(
        pid=pid,
        backend_start=start,
        state=state,
        datname=datname,
        usename=usename,
        application_name=legible(application_name) if application_name else application_name,
        client_addr=client_addr,
        xact_start=xact_start,
        query_start=query_start,
        state_change=state_change,
        wait_event_type=wait_event_type,
        wait_event=wait_event,
        query_id=query_id,
        query=legible(query) if query and query != _HIDDEN else None,
        blocked_by=blocked_by,
        # Without pg_monitor the type is hidden, and only clients were let through.
        backend_type=backend_type or CLIENT_BACKEND,
        backend_xid=xid,
        backend_xmin=xmin,
        leader_pid=leader_pid,
        code=code,
    )


def _is_client(row: Row) -> bool:
    kind = row[_TYPE]
    # Without pg_monitor the type is hidden. A client has a role and a database; a launcher of workers has a role only.
    return bool(kind == CLIENT_BACKEND or (kind is None and row[_ROLE] and row[_DATABASE]))
