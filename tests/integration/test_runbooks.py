"""Every SQL block of every runbook, pasted as it stands into a real PostgreSQL 15 and 18 that has the incident.

Only what a runbook tells people to put in is put in: a pid in place of 4711.
"""

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from batsignal.drills.embedded import EmbeddedServer

RUNBOOKS = sorted((Path(__file__).parents[2] / "alerts" / "runbooks").glob("*.md"))
ROLES = ("web", "gateway", "batsignal")


def blocks(path: Path) -> list[str]:
    return re.findall(r"^ *```sql\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def statements(block: str) -> list[str]:
    """Return the statements of a block. A line for psql alone, which asks again each second, is left out."""
    lines = [line for line in block.splitlines() if not line.lstrip().startswith("\\")]
    return [statement for statement in "\n".join(lines).split(";") if statement.strip()]


@dataclass(frozen=True, slots=True)
class Incident:
    """Sessions of a release that keeps what it takes, one of them in a transaction, and one of another application."""

    server: EmbeddedServer
    lost: list[Any]
    other: Any
    pid: int


@pytest.fixture
def incident(postgres: EmbeddedServer, sessions: Any) -> Any:
    sessions.run(postgres, *(f"CREATE ROLE {role} LOGIN" for role in ROLES))
    lost = [sessions.open(postgres, application_name="web@2.4.0") for _ in range(3)]
    lost[0].autocommit = False
    lost[0].cursor().execute("SELECT 1")
    other = sessions.open(postgres, application_name="billing@1.0.0")
    yield Incident(postgres, lost, other, lost[0].info.backend_pid)
    sessions.close()
    sessions.run(postgres, *(f"DROP ROLE {role}" for role in ROLES))


def paste(incident: Incident, sessions: Any, block: str, *, soon: bool = False) -> list[tuple[Any, ...]]:
    """Run a block; `soon` takes seconds or minutes of waiting as none."""
    block = block.replace("4711", str(incident.pid))
    if soon:
        block = re.sub(r"interval '\d+ (?:seconds|minutes)'", "interval '0 seconds'", block)
    rows: list[tuple[Any, ...]] = sessions.run(incident.server, *statements(block))
    return rows


def alive(session: Any) -> bool:
    try:
        session.cursor().execute("SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_every_block_of_a_runbook_runs_as_it_stands(path: Path, incident: Incident, sessions: Any) -> None:
    for block in blocks(path):
        paste(incident, sessions, block)
    assert alive(incident.other)


@pytest.mark.parametrize(
    "name", ["BatSignalLeak", "BatSignalSlotsFull", "BatSignalSaturation", "BatSignalPoolStarvation"]
)
def test_what_ends_sessions_ends_those_of_the_culprit_and_no_others(
    name: str, incident: Incident, sessions: Any
) -> None:
    path = next(path for path in RUNBOOKS if path.stem == name)
    (ends,) = (block for block in blocks(path) if "pg_terminate_backend" in block)
    assert paste(incident, sessions, ends) == [], "what was used a moment ago is left alone"
    ended = {row[0] for row in paste(incident, sessions, ends, soon=True)}
    idle = {session.info.backend_pid for session in incident.lost[1:]}
    assert ended in (idle, idle | {incident.pid})
    assert alive(incident.other)
    assert not any(alive(session) for session in incident.lost[1:])


@pytest.mark.parametrize("name", ["BatSignalIdleInTransaction", "BatSignalLockPileup"])
def test_what_ends_a_transaction_ends_the_one_of_that_pid(name: str, incident: Incident, sessions: Any) -> None:
    path = next(path for path in RUNBOOKS if path.stem == name)
    (ends,) = (block for block in blocks(path) if "pg_terminate_backend" in block)
    assert paste(incident, sessions, ends) == [(True,)]
    assert not alive(incident.lost[0])
    assert all(alive(session) for session in [*incident.lost[1:], incident.other])


def test_the_diagnosis_of_a_leak_shows_who_holds_the_sessions(incident: Incident, sessions: Any) -> None:
    path = next(path for path in RUNBOOKS if path.stem == "BatSignalLeak")
    holders, unused, slots = blocks(path)[:3]
    assert ("web", "2.4.0", 2) in [(row[0], row[1], row[5]) for row in paste(incident, sessions, holders)]
    assert {session.info.backend_pid for session in incident.lost} == {
        row[0] for row in paste(incident, sessions, unused, soon=True)
    }
    assert len(paste(incident, sessions, slots)) == 1


def test_the_diagnosis_of_a_queue_names_its_root(incident: Incident, sessions: Any) -> None:
    blocker = incident.lost[0]
    blocker.cursor().execute("CREATE TABLE queue_here (); LOCK TABLE queue_here")
    blocker.commit()
    blocker.cursor().execute("LOCK TABLE queue_here")
    waiter = sessions.open(incident.server, application_name="billing@1.0.0", options="-c lock_timeout=20s")
    pid = waiter.info.backend_pid
    waits = threading.Thread(target=lambda: waiter.cursor().execute("SELECT * FROM queue_here"), daemon=True)
    waits.start()
    path = next(path for path in RUNBOOKS if path.stem == "BatSignalLockPileup")
    roots = blocks(path)[0]
    while not (found := paste(incident, sessions, roots)):
        assert waits.is_alive(), "it has waited for the lock in vain"
    assert [(row[0], row[7]) for row in found] == [(incident.pid, 1)]
    assert pid not in {row[0] for row in found}
    blocker.rollback()
    waits.join(20)
    sessions.run(incident.server, "DROP TABLE queue_here")
