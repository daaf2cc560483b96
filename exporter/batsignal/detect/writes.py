"""Which transactions hold something that hurts: what they have written, and its locks.

The server says so by the transaction's id (`backend_xid`), which it gives at the first write. Where nobody shows ids,
the statements tell that were seen in it; and whether it is one that a person has parked (`parking`). Owns that memory,
bounded by the sessions there are. It does not judge for how long a transaction may rest, has no clock and does no I/O.
"""

import re
from itertools import chain

from batsignal.detect.parking import Parking, is_of_a_service_at_work
from batsignal.detect.tracks import Track
from batsignal.detect.window import Window
from batsignal.snapshot import Session

# Exactly this: a transaction that failed ("... (aborted)") has let its locks go.
IDLE_IN_TRANSACTION = "idle in transaction"

# A server that shows ids of transactions has shown one within this time.
IDS_SECONDS = 600.0
# Who works in a transaction for so long does not only begin one.
AT_WORK_SECONDS = 30.0
# What is not known to have written must have rested for so long: nobody is coming back to it.
UNSURE_SECONDS = 300.0
STATEMENT_LOOKED_AT = 1000
_ANY = re.IGNORECASE | re.DOTALL
# How a statement begins that leaves locks behind in its transaction, as nobody who reads would mind.
_BEGINS = re.compile(
    r"\s*(UPDATE|INSERT|DELETE|MERGE|LOCK|ALTER|CREATE|DROP|TRUNCATE|REFRESH|REINDEX|CLUSTER|GRANT|REVOKE)\b", _ANY
)
# What a query may do beside reading: rows that it locks, locks that it asks for by name, writes in a WITH.
_CONTAINS = re.compile(r"\bFOR\s+(NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b|\bpg_(try_)?advisory_xact_lock", _ANY)
_WRITES_WITHIN = re.compile(r"\s*WITH\b.*\b(UPDATE|INSERT\s+INTO|DELETE\s+FROM|MERGE\s+INTO)\b", _ANY)
# What only reads, and rests in a transaction on purpose while others read what it has seen. Whoever waits for its locks
# is told anyway.
_LENDS_SNAPSHOT = re.compile(r"\bpg_export_snapshot\b", re.IGNORECASE)
_DUMPS = frozenset({"pg_dump", "pg_dumpall"})
_FILLS = re.compile(r"\s*COPY\b.*\bFROM\s+STDIN\b", _ANY)


class Writes:
    """The transactions of one server that have written, as far as looks show."""

    def __init__(self) -> None:
        self._ids_seen_at: float | None = None
        self._wrote: dict[tuple[int, float | None], float | None] = {}
        """Sessions of which a look has seen a statement that writes, with the begin of that transaction."""
        self._at_work: set[tuple[str | None, str | None]] = set()
        """Names and users of sessions that are at work in a transaction for a while now."""
        self._parking = Parking()

    def add(self, window: Window) -> None:
        """Take in a look that succeeded."""
        if window.began == window.t:
            self._ids_seen_at = None
            self._wrote.clear()
            self._parking.clear()
        self._at_work = set()
        begun = window.t - AT_WORK_SECONDS
        for session in () if window.snapshot is None else window.snapshot.sessions:
            if session.backend_xid is not None:
                self._ids_seen_at = window.t
            if session.state == "active" and session.xact_start is not None and session.xact_start <= begun:
                self._at_work.add((session.application_name, session.usename))
            elif session.state == IDLE_IN_TRANSACTION and (track := window.track_of(session)) is not None:
                self._parking.note(track, window)
        for track in window.left:
            self._wrote.pop(track.session.key, None)
        for track in chain(window.opened, window.changed):
            if track.session.xact_start is not None or self._wrote:
                self._note(track.session)

    def _note(self, session: Session) -> None:
        """Note what a session does within a transaction that goes on; a statement by itself ends its own."""
        is_alone = session.state != IDLE_IN_TRANSACTION and session.xact_start == session.query_start
        if session.xact_start is None or is_alone:
            self._wrote.pop(session.key, None)
        elif writes(session.query):
            self._wrote[session.key] = session.xact_start

    def holds(self, track: Track, window: Window) -> bool:
        """Return whether a session that rests in its transaction holds what others may come to wait for."""
        session = track.session
        if session.backend_xid is not None:
            return True
        if self._ids_seen_at is not None and window.t - self._ids_seen_at <= IDS_SECONDS:
            return False
        if writes(session.query) or self._wrote.get(session.key, session) == session.xact_start:
            return True
        if (session.application_name, session.usename) in self._at_work or _is_a_dumps_leader(session):
            return False
        return self._is_forgotten(track, window)

    def _is_forgotten(self, track: Track, window: Window) -> bool:
        """Whether a session of which nobody knows what it did was left by a service, or as nobody parks one here."""
        rested_since = track.session.state_change
        if rested_since is None or window.t - rested_since < UNSURE_SECONDS:
            return False
        if is_of_a_service_at_work(track, rested_since, window):
            return True
        return track.session.query is None and not self._parking.is_usual(track)


def _is_a_dumps_leader(session: Session) -> bool:
    """Return whether a session holds the snapshot of a dump: also before and after its workers are at work."""
    is_dump = session.application_name in _DUMPS
    return is_dump or (session.query is not None and _LENDS_SNAPSHOT.search(session.query) is not None)


def writes(query: str | None) -> bool:
    """Return whether a statement leaves locks behind that others mind.

    >>> [writes(query) for query in ("UPDATE t SET a = ?", "SELECT 1 FOR UPDATE", "SELECT updated_at FROM t")]
    [True, True, False]
    >>> writes("WITH done AS (UPDATE jobs SET state = ? RETURNING id) SELECT count(*) FROM done")
    True
    """
    if query is None:
        return False
    begin = query[:STATEMENT_LOOKED_AT]
    return bool(_BEGINS.match(begin) or _CONTAINS.search(begin) or _WRITES_WITHIN.match(begin) or _FILLS.match(begin))
