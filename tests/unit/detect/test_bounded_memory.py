"""What the detectors keep is bounded, however many names come by and however long they run."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from batsignal.cli.replay import Life
from batsignal.snapshot import Counters, Deploy, PoolerPool, ProbeResult, Session, Slots, Snapshot

T = 1_760_000_000.0
NAMES = 10_000
EACH_LOOK = 100
# An origin, its group, its statement and its habits are a few objects each.
THINGS_A_NAME_MOST = 60


def names_come_by(start: int, count: int, *, t: float) -> Iterator[Snapshot]:
    """Yield looks at sessions of ever new services, users, databases, hosts, statements, endpoints and pools."""
    for look in range(count // EACH_LOOK):
        now = t + look
        rows = []
        for n in range(start + look * EACH_LOOK, start + (look + 1) * EACH_LOOK):
            row = Session(
                pid=2 * n + 2,
                backend_start=now - 1.0,
                state=("active", "idle", "idle in transaction")[n % 3],
                datname=f"database-{n}",
                usename=f"user-{n}",
                application_name=f"service-{n}@{n}.0",
                client_addr=f"10.{n // 65536}.{n // 256 % 256}.{n % 256}",
                query_start=now - 0.5,
                xact_start=now - 0.5 if n % 3 != 1 else None,
                state_change=now - 0.5,
                query=f"SELECT * FROM table_{n}",
                query_id=str(n),
                backend_xid="1",
            )
            rows += [row, replace(row, pid=2 * n + 3, wait_event_type="Lock", blocked_by=(row.pid,), state="active")]
        yield Snapshot(
            server="db1",
            t=now,
            sessions=tuple(rows),
            slots=Slots(max=1000, superuser_reserved=3),
            role_limits={f"user-{start + look}": 100},
            database_limits={f"database-{start + look}": 100},
            counters=Counters(sessions=start + look * EACH_LOOK, xact_commit=look),
            refused=look % 3,
            ping_seconds=0.001,
            probes=(
                ProbeResult(endpoint=f"e-{start + look}", service=f"s-{look}", at=now, up=look % 2 > 0, seconds=0.1),
            ),
            deploys=(Deploy(service=f"service-{start + look}", version="1", at=now),),
            pools=(PoolerPool(database=f"d-{start + look}", user="u", cl_waiting=3, sv_active=5, sv_idle=0),),
        )


def things_in(thing: Any, seen: set[int] | None = None) -> int:
    """Count what an object holds on to, at any depth; of classes, functions and modules nothing is counted."""
    seen = set() if seen is None else seen
    left, count = [thing], 0
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type) or callable(one) or type(one).__name__ == "module":
            continue
        seen.add(id(one))
        count += 1
        left.extend(gc.get_referents(one))
    return count


@pytest.mark.takes(seconds=17)
@pytest.mark.timeout(500)
def test_ten_thousand_names_cost_no_more_than_a_bound_and_as_many_again_cost_less() -> None:
    life = Life("db1")
    sizes = []
    for start in range(0, 3 * NAMES, NAMES):
        for look in names_come_by(start, NAMES, t=T + start / EACH_LOOK):
            life.look(look)
        sizes.append(things_in(life))
    assert sizes[0] <= THINGS_A_NAME_MOST * NAMES, sizes
    # By then what is kept of names that are gone is as much as is ever kept of them.
    assert sizes[2] - sizes[1] <= 0.5 * (sizes[1] - sizes[0]), sizes


def test_days_leave_no_more_behind_than_the_days_before() -> None:
    """A day in steps of half a minute, day after day: a batch every hour, a pool that is recycled, a probe."""
    life = Life("db1")
    sizes = []
    for day in range(6):
        for step in range(2880):
            t = T + day * 86_400.0 + step * 30.0
            life.look(_half_minute(t))
        sizes.append(things_in(life))
    assert sizes[-1] <= 1.02 * sizes[-3], sizes


def _half_minute(t: float) -> Snapshot:
    rows = [
        Session(
            pid=100 + n,
            backend_start=t - (t + n * 300) % 3600,
            state="idle",
            usename="web",
            application_name="web@1",
            client_addr="10.0.0.1",
            query_start=t - 1.0,
            state_change=t - 1.0,
            query="SELECT ?",
        )
        for n in range(6)
    ]
    if t % 3600 < 120:
        rows += [
            replace(row, pid=row.pid + 500, backend_start=t - t % 3600, application_name="batch", state="active")
            for row in rows
        ]
    return Snapshot(
        server="db1",
        t=t,
        sessions=tuple(rows),
        slots=Slots(max=100, superuser_reserved=3),
        counters=Counters(sessions=int(t - T), xact_commit=int(t - T)),
        refused=0,
        ping_seconds=0.001,
        probes=(ProbeResult(endpoint="web", service="web", at=t, up=True, seconds=0.02, status=200),),
    )
