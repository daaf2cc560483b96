"""What the daemon keeps from one life to the next: incidents with their timelines, deploys, and what is usual.

Owns what is written into the tables, how long it stays and how large it may grow. It is used by the one thread that
writes (`keeper`), inside that thread's transactions, and raises sqlite3.Error; it judges nothing and knows no clock.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batsignal.detect.hindsight import told_over
from batsignal.detect.signal import Event, Signal
from batsignal.record.board import PastIncident
from batsignal.record.kept import (
    RELEASED,
    Left,
    Past,
    is_instant,
    key_text,
    raised_as_text,
    read_line,
    read_signal,
    text,
)
from batsignal.record.recent import RECENT_MOST
from batsignal.snapshot import Deploy

DAY_SECONDS = 86_400.0
# Longer than an incident's recording goes on after its end.
ENDED_LATELY_SECONDS = 120.0
# Updates beyond these no longer stand in the timeline: an incident that wavers for days must not fill the disk.
EVENTS_MOST = 1000
DEPLOYS_MOST = 10_000
DEPLOYS_LOADED = 100
# Some 30,000 incidents with a timeline of a few events each.
BYTES_MOST = 256 * 1024 * 1024
INCIDENTS_AT_ONCE = 100
FREED_PAGES_AT_ONCE = 2000


class Store:
    """The tables, over a connection that somebody else opens and closes."""

    def __init__(self, connection: sqlite3.Connection, *, bytes_most: int = BYTES_MOST) -> None:
        self._connection = connection
        self._bytes_most = bytes_most

    # -- what a life leaves ----------------------------------------------------------------------------------------

    def tell(self, event: Event, *, now: float) -> None:
        """Keep a change in a signal's life, and the signal as it was said."""
        signal = event.signal
        said = text(signal.as_json())
        ended = event.t if event.event == "cleared" else None
        self._connection.execute(
            "INSERT INTO incident VALUES (:id, :server, :kind, :key, :raised_as, :severity, :detected, :ended, :reason,"
            " :by, :signal, :now) ON CONFLICT (id) DO UPDATE SET ended = :ended, reason = :reason, by = :by,"
            " signal = :signal, told_at = :now,"
            " worst = CASE WHEN worst = 'critical' THEN worst ELSE excluded.worst END",
            {
                "id": signal.id,
                "server": _plain(signal.server),
                "kind": signal.finding.kind,
                "key": key_text(signal),
                "raised_as": raised_as_text(signal),
                "severity": signal.finding.severity,
                "detected": signal.detected,
                "ended": ended,
                "reason": event.reason,
                "by": event.by,
                "signal": said,
                "now": now,
            },
        )
        number = self._next_event(signal.id)
        if number <= EVENTS_MOST or event.event != "updated":
            self._connection.execute(
                "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
                (signal.id, number, event.t, event.event, event.reason, event.by, said),
            )

    def released(self, signal: Signal, t: float, audit: Mapping[str, Any], *, now: float) -> None:
        """Keep in an incident's timeline who had sessions ended, and which: its line has the audit for a reason."""
        self._connection.execute(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
            (signal.id, self._next_event(signal.id), t, RELEASED, text(audit), None, text(signal.as_json())),
        )
        self._connection.execute("UPDATE incident SET told_at = max(told_at, ?) WHERE id = ?", (now, signal.id))

    def _next_event(self, incident: str) -> int:
        (number,) = self._connection.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM event WHERE incident = ?", (incident,)
        ).fetchone()
        return int(number)

    def looked(self, server: str, t: float, *, now: float) -> None:
        """Keep when a server was looked at last, by its own clock."""
        self._connection.execute(
            "INSERT INTO watch (server, t, told_at) VALUES (?, ?, ?)"
            " ON CONFLICT (server) DO UPDATE SET t = excluded.t, told_at = excluded.told_at",
            (_plain(server), t, now),
        )

    def remember(self, server: str, usual: str, *, now: float) -> None:
        """Keep what is usual at a server: JSON that only its detectors understand."""
        self._connection.execute(
            "INSERT INTO watch (server, usual, usual_at) VALUES (?, ?, ?)"
            " ON CONFLICT (server) DO UPDATE SET usual = excluded.usual, usual_at = excluded.usual_at",
            (_plain(server), usual, now),
        )

    def deployed(self, deploys: Iterable[Deploy], *, now: float) -> None:
        """Keep deploys; one that is there already is only completed."""
        self._connection.executemany(
            "INSERT INTO deploy VALUES (?, ?, ?, ?, ?) ON CONFLICT (service, version, at) DO UPDATE"
            " SET previous = coalesce(excluded.previous, previous)",
            [
                (_plain(one.service), _plain(one.version), one.at, one.previous and _plain(one.previous), now)
                for one in deploys
            ],
        )

    # -- what the next life finds ----------------------------------------------------------------------------------

    def past(self) -> Past:
        """Return what the life before left. A signal that this version cannot read is left out."""
        watched = {
            server: (t, usual) for server, t, usual in self._connection.execute("SELECT server, t, usual FROM watch")
        }
        lit: dict[str, list[Signal]] = {}
        ended: dict[str, list[tuple[Signal, float]]] = {}
        for server, end, *words in self._connection.execute(
            "SELECT server, ended, signal, key, raised_as FROM incident LEFT JOIN watch USING (server)"
            " WHERE ended IS NULL OR ended > t - ? ORDER BY detected",
            (ENDED_LATELY_SECONDS,),
        ):
            with contextlib.suppress(ValueError):
                signal = read_signal(*words)
                if end is None:
                    lit.setdefault(server, []).append(signal)
                elif is_instant(end):
                    ended.setdefault(server, []).append((signal, end))
        deploys = self._connection.execute(
            "SELECT service, version, at, previous FROM deploy ORDER BY at DESC LIMIT ?", (DEPLOYS_LOADED,)
        )
        return Past(
            servers={
                server: Left(
                    signals=tuple(lit.get(server, ())),
                    ended=tuple(ended.get(server, ())),
                    looked_at=watched.get(server, (None, None))[0],
                    usual=watched.get(server, (None, None))[1],
                )
                for server in lit.keys() | watched.keys()
            },
            deploys=tuple(
                Deploy(service=service, version=version, at=at, previous=previous)
                for service, version, at, previous in reversed(deploys.fetchall())
            ),
            recent=tuple(self._recent()),
        )

    def _recent(self) -> Iterator[PastIncident]:
        for line in self._connection.execute(
            "SELECT signal, worst, ended FROM incident ORDER BY detected DESC LIMIT ?", (RECENT_MOST,)
        ):
            with contextlib.suppress(ValueError):
                yield read_line(*line)

    def restore(self, alive: Past, *, now: float) -> None:
        """Make a file agree with the daemon that runs: what is lit stands in it as open, and nothing else."""
        lit = [signal for left in alive.servers.values() for signal in left.signals]
        for signal in lit:
            if not self._connection.execute("SELECT 1 FROM incident WHERE id = ?", (signal.id,)).fetchone():
                self.tell(Event(t=signal.detected, event="raised", signal=signal), now=now)
        self.deployed(alive.deploys, now=now)
        self._close_others([signal.id for signal in lit], now=now)

    def _close_others(self, lit: Iterable[str], *, now: float) -> None:
        """End every incident that is open in the file and not among `lit`: nobody looks after it any more."""
        self._connection.execute("CREATE TEMP TABLE IF NOT EXISTS lit (id TEXT PRIMARY KEY)")
        self._connection.execute("DELETE FROM lit")
        self._connection.executemany("INSERT OR IGNORE INTO lit VALUES (?)", [(one,) for one in lit])
        orphans = self._connection.execute(
            "SELECT id, coalesce((SELECT t FROM watch WHERE watch.server = incident.server), detected), signal, key,"
            " raised_as FROM incident WHERE ended IS NULL AND id NOT IN (SELECT id FROM lit)"
        ).fetchall()
        for incident, t, *words in orphans:
            signal = _over(words, t)
            self._connection.execute(
                "UPDATE incident SET ended = ?, reason = 'ended', told_at = ?, signal = ? WHERE id = ?",
                (t, now, signal, incident),
            )
            self._connection.execute(
                "INSERT INTO event SELECT ?1, coalesce(max(number), 0) + 1, ?2, 'cleared', 'ended', NULL, ?3"
                " FROM event WHERE incident = ?1",
                (incident, t, signal),
            )

    # -- how much of it --------------------------------------------------------------------------------------------

    def prune(self, *, keep_days: float, now: float) -> None:
        """Forget what ended more than `keep_days` ago, and the oldest beyond the bounds; in a transaction."""
        before = now - keep_days * DAY_SECONDS
        self._forget("ended IS NOT NULL AND told_at < ?", before)
        self._connection.execute("DELETE FROM deploy WHERE told_at < ?", (before,))
        self._connection.execute(
            "DELETE FROM watch WHERE max(coalesce(told_at, 0), coalesce(usual_at, 0)) < ?", (before,)
        )
        self._connection.execute(
            "DELETE FROM deploy WHERE (service, version, at) IN"
            " (SELECT service, version, at FROM deploy ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (DEPLOYS_MOST,),
        )
        while self.used_bytes > self._bytes_most:
            oldest = "id IN (SELECT id FROM incident WHERE ended IS NOT NULL ORDER BY told_at LIMIT ?)"
            if not self._forget(oldest, INCIDENTS_AT_ONCE):
                break

    def give_back(self) -> None:
        """Give freed pages back to the file system, some at a time; outside of a transaction."""
        # As a script: a statement without columns is stepped only once, and would free a single page.
        self._connection.executescript(f"PRAGMA incremental_vacuum({FREED_PAGES_AT_ONCE})")

    @property
    def used_bytes(self) -> int:
        """What the rows take, free pages not counted."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _forget(self, condition: str, value: float) -> int:
        self._connection.execute(
            f"DELETE FROM event WHERE incident IN (SELECT id FROM incident WHERE {condition})", (value,)
        )
        return self._connection.execute(f"DELETE FROM incident WHERE {condition}", (value,)).rowcount


def _over(words: Sequence[str], t: float) -> str:
    """Return a kept signal as it is told when it has ended; one that this version cannot read as it is."""
    try:
        signal = read_signal(*words)
    except ValueError:
        return words[0]
    return text(told_over(Event(t=t, event="cleared", signal=signal, reason="ended")).signal.as_json())


def _plain(name: str) -> str:
    """Return a name that a database takes, whatever bytes it was made of."""
    return name if name.isascii() else name.encode("utf-8", "replace").decode("utf-8")
