"""The same happenings, told otherwise: other times, pids, names, orders, hosts, and looks that are missing.

Owns the alterations. Each keeps what the readers rely on: a row that did not change is the same object from look to
look. It must not know any detector.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from batsignal.names import UNNAMED
from batsignal.snapshot import PollFailure, Session, Snapshot

INSTANTS = ("backend_start", "xact_start", "query_start", "state_change")
GAP = PollFailure(reason="slots_full", sqlstate="53300", text="no slot is left")


class Rows:
    """Alters rows, each only once."""

    def __init__(self, alter: Callable[[Session], Session]) -> None:
        self._alter = alter
        self._known: dict[int, tuple[Session, Session]] = {}

    def __call__(self, rows: Iterable[Session]) -> tuple[Session, ...]:
        return tuple(self._one(row) for row in rows)

    def _one(self, row: Session) -> Session:
        known = self._known.get(id(row))
        if known is None or known[0] is not row:
            known = self._known[id(row)] = (row, self._alter(row))
        return known[1]


def shifted(looks: Sequence[Snapshot], seconds: int) -> list[Snapshot]:
    """Everything so many seconds later. Whole seconds: fractions of today's instants are exact in a float."""

    def later(value: float | None) -> float | None:
        return None if value is None else value + seconds

    rows = Rows(lambda row: replace(row, **{name: later(getattr(row, name)) for name in INSTANTS}))
    return [
        replace(
            look,
            t=look.t + seconds,
            sessions=rows(look.sessions),
            probes=tuple(replace(one, at=one.at + seconds) for one in look.probes),
            deploys=tuple(replace(one, at=one.at + seconds) for one in look.deploys),
        )
        for look in looks
    ]


class Pids:
    """Another number for each process; 0 stays, it is a prepared transaction."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
        self._new: dict[int, int] = {0: 0}
        self._old: dict[int, int] = {0: 0}

    def new(self, pid: int) -> int:
        while pid not in self._new:
            drawn = self._chance.randrange(1, 2**31)
            if drawn not in self._old:
                self._new[pid], self._old[drawn] = drawn, pid
        return self._new[pid]

    def old(self, key: str, value: Any) -> Any:
        return self._old[value] if key == "blocker" else value

    def of(self, looks: Sequence[Snapshot]) -> list[Snapshot]:
        rows = Rows(self._row)
        # In order of the new pids, as the poller gives them.
        return [replace(look, sessions=tuple(sorted(rows(look.sessions), key=lambda row: row.pid))) for look in looks]

    def _row(self, row: Session) -> Session:
        leader = None if row.leader_pid is None else self.new(row.leader_pid)
        blockers = tuple(self.new(pid) for pid in row.blocked_by)
        return replace(row, pid=self.new(row.pid), blocked_by=blockers, leader_pid=leader)


class Names:
    """Another name for each service, user, database, host, endpoint and version; what counts as no name stays."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
        self._new: dict[tuple[str, str], str] = {}
        self._old: dict[tuple[str, str], str] = {}

    def new(self, kind: str, name: Any) -> Any:
        if name is None or name.casefold() in UNNAMED:
            return name
        while (kind, name) not in self._new:
            drawn = f"{self._chance.choice('bcdfghjklmnpqrstvwxyz')}{self._chance.randrange(10**6)}"
            if kind == "client":
                drawn = ".".join(str(self._chance.randrange(1, 255)) for _ in range(4))
            if (kind, drawn) not in self._old:
                self._new[kind, name], self._old[kind, drawn] = drawn, name
        return self._new[kind, name]

    def old(self, key: str, value: Any) -> Any:
        if key == "limit" and ":" in value:
            kind, _, name = value.partition(":")
            return f"{kind}:{self._old['user' if kind == 'role' else 'database', name]}"
        if key == "pool":
            database, _, user = value.partition("/")
            return f"{self._old['database', database]}/{self._old['user', user]}"
        return self._old.get((key, value), value)

    def application(self, name: str | None) -> str | None:
        service, at, version = (name or "").partition("@")
        if not at:
            return self.new("application", name)
        return f"{self.new('application', service)}@{self.new('version', version)}"

    def of(self, looks: Sequence[Snapshot]) -> list[Snapshot]:
        rows = Rows(
            lambda row: replace(
                row,
                usename=self.new("user", row.usename),
                datname=self.new("database", row.datname),
                client_addr=self.new("client", row.client_addr),
                application_name=self.application(row.application_name),
            )
        )
        return [
            replace(
                look,
                sessions=rows(look.sessions),
                role_limits={self.new("user", name): most for name, most in look.role_limits.items()},
                database_limits={self.new("database", name): most for name, most in look.database_limits.items()},
                probes=tuple(
                    replace(
                        one, endpoint=self.new("endpoint", one.endpoint), service=self.new("application", one.service)
                    )
                    for one in look.probes
                ),
                deploys=tuple(
                    replace(
                        one,
                        service=self.new("application", one.service),
                        version=self.new("version", one.version),
                        previous=self.new("version", one.previous),
                    )
                    for one in look.deploys
                ),
                pools=None
                if look.pools is None
                else tuple(
                    replace(one, database=self.new("database", one.database), user=self.new("user", one.user))
                    for one in look.pools
                ),
            )
            for look in looks
        ]


def shuffled(looks: Sequence[Snapshot], seed: int) -> list[Snapshot]:
    """The rows of each look in another order."""
    chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
    return [replace(look, sessions=tuple(chance.sample(look.sessions, len(look.sessions)))) for look in looks]


def spread(looks: Sequence[Snapshot], hosts: int) -> list[Snapshot]:
    """Every session at one of so many addresses of its own application, whatever address it had."""
    rows = Rows(
        lambda row: replace(row, client_addr=f"10.9.{(row.pid * 7) % hosts // 250}.{(row.pid * 7) % hosts % 250}")
    )
    return [replace(look, sessions=rows(look.sessions)) for look in looks]


def without(looks: Sequence[Snapshot], begin: float, seconds: float) -> list[Snapshot]:
    """Nobody looked from `begin` seconds after the first look on, for so many; what was to be told is told after it."""
    told: list[Snapshot] = []
    probes: tuple[Any, ...] = ()
    deploys: tuple[Any, ...] = ()
    for look in looks:
        if _is_within(look, looks, begin, seconds):
            probes, deploys = probes + look.probes, deploys + look.deploys
        elif probes or deploys:
            told.append(replace(look, probes=probes + look.probes, deploys=deploys + look.deploys))
            probes, deploys = (), ()
        else:
            told.append(look)
    return told


def failing(looks: Sequence[Snapshot], begin: float, seconds: float) -> list[Snapshot]:
    """Looks that failed from `begin` seconds after the first one on, for so many; endpoints are probed all the same."""
    return [
        replace(
            look, sessions=(), own_sessions=0, counters=None, ping_seconds=None, pools=None, failure=GAP, view="none"
        )
        if look.failure is None and _is_within(look, looks, begin, seconds)
        else look
        for look in looks
    ]


def _is_within(look: Snapshot, looks: Sequence[Snapshot], begin: float, seconds: float) -> bool:
    return begin <= look.t - looks[0].t < begin + seconds
