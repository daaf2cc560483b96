"""Looks at anything: what a broken server, a foreign recording or somebody malicious could show.

Owns the drawing of nonsense, two ways: made of nothing, and made of plays that are spoiled here and there, which reach
what nonsense alone never does. It must not know any detector.
"""

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from batsignal.snapshot import (
    FAILURE_REASONS,
    Counters,
    Deploy,
    HostLoad,
    PollFailure,
    PoolerPool,
    ProbeResult,
    Session,
    Slots,
    Snapshot,
)

T = 1_760_000_000.0
STATES = (
    *("active", "idle", "idle in transaction", "idle in transaction (aborted)", "fastpath function call"),
    *("disabled", "starting", "", None, "\x00", "IDLE"),
)
WAITS = (None, "Lock", "Client", "IO", "LWLock", "Activity", "Timeout", "", "lock")
EVENTS = (None, "ClientRead", "ClientWrite", "relation", "transactionid", "tuple", "virtualxid", "", "PgSleep")
KINDS = ("client backend", None, "autovacuum worker", "walsender", "parallel worker", "", "background worker")
QUERIES = (
    *(None, "", "SELECT ?", "COPY t FROM STDIN", "copy", "COMMIT", "<insufficient privilege>", "ALTER TABLE t", ";"),
    *("autovacuum: VACUUM t (to prevent wraparound)", "\ud800", "{{ x }} <b>&", "x" * 5000),
)
NAMES = (None, "", "web", "web@1", "web@2", "@", "@@", "a@", "@b", "psql", "\n@\t", "\u202e@1", "<script>", "é" * 31)
FAR = (0.0, -1.0, -1e10, 1e10, 9.9e10, 1e-300)


class Nonsense:
    """Draws looks of nothing but nonsense."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
        self.t = T

    def name(self) -> str | None:
        if self.chance.random() < 0.9:
            return self.chance.choice(NAMES)
        return "".join(self.chance.choice(string.printable + "é€😀\x00") for _ in range(self.chance.randint(1, 63)))

    def instant(self) -> float | None:
        drawn = self.chance.random()
        if drawn < 0.1:
            return None
        if drawn < 0.2:
            return self.chance.choice(FAR)
        if drawn < 0.3:
            return self.t + self.chance.uniform(-1, 1) * 10 ** self.chance.randint(0, 6)
        return self.t - self.chance.expovariate(1 / 30)

    def number(self) -> Any:
        return self.chance.choice((None, 0, 1, -1, 3, 97, 2**62, -(2**62)))

    def session(self) -> Session:
        choice = self.chance.choice
        return Session(
            pid=self.chance.randrange(12) if self.chance.random() < 0.5 else self.chance.randrange(2**31),
            backend_start=self.instant(),
            state=choice(STATES),
            datname=self.name(),
            usename=self.name(),
            application_name=self.name(),
            client_addr=choice((None, "10.0.0.1", "::1", "10.0.0.2", "")),
            xact_start=self.instant(),
            query_start=self.instant(),
            state_change=self.instant(),
            wait_event_type=choice(WAITS),
            wait_event=choice(EVENTS),
            query_id=choice((None, None, "1", "-5", "", "x")),
            query=choice(QUERIES),
            blocked_by=tuple(self.chance.randrange(12) for _ in range(choice((0, 0, 0, 1, 3)))),
            backend_type=choice(KINDS) if self.chance.random() < 0.2 else "client backend",
            backend_xid=choice((None, "1")),
            backend_xmin=choice((None, "7")),
            leader_pid=choice((None, None, 3)),
        )

    def spoil(self, session: Session) -> Session:
        """Return a row with a few columns that say nothing, or nonsense."""
        other = self.session()
        names = self.chance.sample(
            [one.name for one in fields(Session) if one.name != "pid"], self.chance.randint(1, 4)
        )
        return replace(session, **{name: getattr(other, name) for name in names})

    def surroundings(self) -> dict[str, Any]:
        """Draw all that is in a look beside its rows and its time; each is left out as often as not."""
        choice, number = self.chance.choice, self.number
        drawn = {
            "own_sessions": choice((0, 1, 5)),
            "slots": choice(
                (
                    None,
                    Slots(max=0, superuser_reserved=0),
                    Slots(max=2, superuser_reserved=9),
                    Slots(max=20, superuser_reserved=3),
                )
            ),
            "role_limits": {"web": choice((-1, 0, 1, 5)), "": 3},
            "database_limits": {"web": choice((-1, 0, 1, 5))},
            "counters": choice((None, Counters(sessions=number(), xact_commit=number()))),
            "refused": number(),
            "ping_seconds": choice((None, 0.0, -1.0, 1e-9, 3.0, 1e9)),
            "probes": tuple(self.probe() for _ in range(self.chance.randrange(4))),
            "deploys": tuple(
                Deploy(service=choice(("web", "", "\n")), version=choice(("1", "2", "")), at=self.instant() or 0.0)
                for _ in range(self.chance.randrange(3))
            ),
            "privileged": choice((None, True, False)),
            "pools": choice((None, (), tuple(self.pool() for _ in range(3)))),
            "host": choice(
                (None, HostLoad(cpu_ratio=9.0, memory_used_ratio=-1.0, load1=-3.0, cpu_count=0, tcp={"": -1}))
            ),
        }
        return {name: value for name, value in drawn.items() if self.chance.random() < 0.5}

    def probe(self) -> ProbeResult:
        choice = self.chance.choice
        return ProbeResult(
            endpoint=choice(("web", "", "x")),
            service=choice(("web", "")),
            at=self.instant() or 0.0,
            up=choice((True, False)),
            seconds=choice((0.0, 0.05, 9.0, -1.0, 1e9)),
            status=choice((None, 200, 503, 0)),
        )

    def pool(self) -> PoolerPool:
        number = self.number
        return PoolerPool(
            database=self.chance.choice(("web", "", "pgbouncer")),
            user=self.chance.choice(("web", "")),
            cl_active=number(),
            cl_waiting=number(),
            sv_active=number(),
            sv_idle=number(),
            sv_used=number(),
            sv_login=number(),
            maxwait_seconds=self.chance.choice((None, 0.0, -1.0, 5.0, 1e9)),
        )

    def failure(self) -> PollFailure | None:
        if self.chance.random() > 0.1:
            return None
        return PollFailure(reason=self.chance.choice(FAILURE_REASONS), text="gone")

    def step(self) -> None:
        """Let time go on, mostly by a second; now and then a clock is set."""
        self.t += self.chance.choice((1.0,) * 12 + (0.0, 0.001, 30.0, 400.0, 4000.0, -0.5, -30.0, -4000.0))

    def looks(self, count: int) -> Iterator[Snapshot]:
        rows: dict[int, Session] = {}
        for _ in range(count):
            self.step()
            for pid in [pid for pid in rows if self.chance.random() < 0.1]:
                del rows[pid]
            for pid, row in list(rows.items()):
                if self.chance.random() < 0.3:
                    rows[pid] = self.spoil(row)
            rows |= {row.pid: row for row in (self.session() for _ in range(self.chance.randrange(6)))}
            failure = self.failure()
            sessions = () if failure else tuple(rows.values())
            yield Snapshot(server="db1", t=self.t, sessions=sessions, failure=failure, **self.surroundings())


def spoiled(looks: Sequence[Snapshot], seed: int, *, ratio: float = 0.02) -> Iterator[Snapshot]:
    """Yield looks at what happened, in which now and then a column is nonsense, a fact is missing, a clock is set."""
    nonsense = Nonsense(seed)
    chance = nonsense.chance
    spoilt: dict[int, tuple[Session, Session]] = {}
    set_by = 0.0
    for look in looks:
        if chance.random() < 0.003:
            set_by += chance.choice((-3600.0, -2.0, 2.0, 3600.0))
        nonsense.t = look.t + set_by
        rows = []
        for row in look.sessions:
            known = spoilt.get(id(row))
            if known is None or known[0] is not row:
                known = spoilt[id(row)] = (row, nonsense.spoil(row) if chance.random() < ratio else row)
            rows.append(known[1])
        altered = nonsense.surroundings() if chance.random() < ratio else {}
        yield replace(look, t=nonsense.t, **{"sessions": tuple(rows), **altered})
