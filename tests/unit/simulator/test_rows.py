"""What no PostgreSQL server ever shows is shown by no row of any scenario; held against a look at a real one."""

from collections.abc import Iterator

import pytest

from batsignal.drills.catalogue import ROWS
from batsignal.snapshot import Session, Snapshot
from simulator.scenario import build

CLIENT_READ = ("Client", "ClientRead")
ROUNDING_SECONDS = 1e-6


def impossible(row: Session, t: float, pids: set[int]) -> Iterator[str]:
    """Tell what is wrong with a client's row that a look at `t` showed, among sessions of these pids."""
    instants = {name: getattr(row, name) for name in ("xact_start", "query_start", "state_change")}
    begun = row.backend_start
    for name, at in instants.items():
        if at is not None and begun is not None and not begun - ROUNDING_SECONDS <= at <= t + ROUNDING_SECONDS:
            yield f"{name} is not between backend_start and the look"
    if begun is None or begun > t or row.state is None or row.state_change is None:
        yield "a client that has not begun, or has no state"
    if row.state == "active" and not (row.query_start == row.state_change and row.xact_start is not None):
        yield "active, and not since its statement began, or outside of any transaction"
    if (row.state == "idle in transaction") != (row.xact_start is not None and row.state != "active"):
        yield "a transaction in a session without one, or none in one that has one"
    if None not in (row.xact_start, row.query_start) and row.xact_start > row.query_start + ROUNDING_SECONDS:  # type: ignore[operator]
        yield "a transaction that began after its statement"
    if (row.state or "").startswith("idle") and (row.wait_event_type, row.wait_event) != CLIENT_READ:
        yield "idle, and waiting for something else than its client"
    if (row.wait_event_type == "Lock") != bool(row.blocked_by) or not pids.issuperset(row.blocked_by):
        yield "waits for a lock that nobody holds"
    if (row.query is None) != (row.query_start is None) or (row.query is None and row.query_id is not None):
        yield "a statement without a text, or a text without a statement"


def faults(snapshot: Snapshot, before: dict[int, Session]) -> set[str]:
    """Tell what is wrong with one look; rows that the look before showed as well were judged then."""
    pids = {row.pid for row in snapshot.sessions}
    found = {
        fault
        for row in snapshot.sessions
        if before.get(row.pid) is not row and row.is_client
        for fault in impossible(row, snapshot.t, pids)
    }
    if [row.pid for row in snapshot.sessions] != sorted(pids):
        found.add("not in the order of pids, or a pid twice")
    if any(
        not row.is_client and not any(row.pid in one.blocked_by for one in snapshot.sessions)
        for row in snapshot.sessions
    ):
        found.add("a process of the server's own that nobody waits for")
    if snapshot.failure is None and snapshot.slots is not None and snapshot.used > snapshot.slots.usable:
        found.add("more sessions than slots")
    return found


@pytest.mark.parametrize("row", sorted(ROWS))
def test_no_look_shows_what_a_server_cannot_show(row: str) -> None:
    before: dict[int, Session] = {}
    found: set[str] = set()
    for snapshot in build(row, 8, quick=True).looks():
        found |= faults(snapshot, before)
        before = {one.pid: one for one in snapshot.sessions}
    assert found == set()
