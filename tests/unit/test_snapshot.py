from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from batsignal.snapshot import PollFailure, Session, Slots, Snapshot, fingerprint

T = 1_760_000_000.0


def session(pid: int = 1, **facts: Any) -> Session:
    return Session(pid=pid, backend_start=T, state="idle", **facts)


def test_session_is_its_pid_and_start() -> None:
    assert session(7).key == (7, T)
    assert session(7).key != Session(pid=7, backend_start=T + 0.5, state="idle").key


def test_statement_is_known_by_the_servers_id_else_by_its_text() -> None:
    assert session(query_id="42", query="SELECT ?").statement_id == "42"
    assert session(query="SELECT ?").statement_id == fingerprint("SELECT ?")
    assert session().statement_id is None


def test_fingerprint_takes_any_text() -> None:
    assert len(fingerprint("SELECT '\ud800'")) == 12


@pytest.mark.parametrize(
    ("slots", "usable"),
    [
        (Slots(max=100, superuser_reserved=3), 97),
        (Slots(max=100, superuser_reserved=3, reserved=10), 87),
        (Slots(max=3, superuser_reserved=3, reserved=3), 0),
    ],
)
def test_usable_slots_are_those_an_ordinary_role_can_take(slots: Slots, usable: int) -> None:
    assert slots.usable == usable


def test_used_slots_are_client_sessions_and_our_own_seats() -> None:
    rows = (session(1), session(2), session(3, backend_type="walsender"), session(4, backend_type=None))
    assert Snapshot(server="db1", t=T, sessions=rows, own_sessions=2).used == 4


def test_failed_look_uses_no_slot_but_our_own() -> None:
    failed = Snapshot(server="db1", t=T, failure=PollFailure(reason="timeout", text="no"), own_sessions=1)
    assert failed.used == 1


def test_what_crosses_a_border_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        session().state = "active"  # type: ignore[misc]


@pytest.mark.parametrize("name", [one.name for one in fields(Session)])
def test_sessions_are_equal_when_every_value_is(name: str) -> None:
    session = Session(pid=1, backend_start=1.0, state="idle")
    same = Session(pid=1, backend_start=1.0, state="idle")
    assert session == same
    assert hash(session) == hash(same)
    assert session != replace(session, **{name: "another"})


def test_session_is_no_tuple() -> None:
    assert Session(pid=1, backend_start=1.0, state="idle") != (1, 1.0, "idle")
