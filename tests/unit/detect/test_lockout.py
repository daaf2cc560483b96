"""A limit that shuts us out: said by the reason of the refusal alone, as nobody can count."""

from collections.abc import Callable
from typing import Any

import pytest

from batsignal.snapshot import PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0
FULL = PollFailure(reason="slots_full", sqlstate="53300", text="no slot is left (53300): too many clients already")


class Server:
    """A server that is looked at once a second."""

    def __init__(self, watcher: Any) -> None:
        self.watcher = watcher
        self.t = T

    def answer(self, seconds: int, used: int, **facts: Any) -> "Server":
        for _ in range(seconds):
            self.t += 1.0
            rows = tuple(
                Session(pid=n, backend_start=T - 900, state="idle", state_change=self.t, usename="app", datname="shop")
                for n in range(used)
            )
            slots = Slots(max=103, superuser_reserved=3)
            self.watcher.look(
                Snapshot(server="db1", t=self.t, sessions=rows, slots=slots, ping_seconds=0.0004, **facts)
            )
        return self

    def refuse(self, seconds: int, failure: PollFailure = FULL, **facts: Any) -> "Server":
        for _ in range(seconds):
            self.t += 1.0
            self.watcher.look(Snapshot(server="db1", t=self.t, failure=failure, **facts))
        return self

    @property
    def said(self) -> list[tuple[str, str, str | None]]:
        return [(one.kind, one.severity, one.subject.limit) for one in self.watcher.now]


@pytest.fixture
def server(watcher: Any) -> Server:
    return Server(watcher)


def test_looks_refused_for_want_of_a_slot_are_a_server_that_is_full_within_seconds(server: Server) -> None:
    server.answer(30, used=40).refuse(3)
    assert server.said == []
    server.refuse(1)
    assert server.said == [("saturation", "critical", "server")]
    (found,) = server.watcher.now
    assert found.summary == "no slot is left: the server refuses new sessions, and is alive"
    assert found.exhaustion_seconds == 0.0
    assert "Do not restart the database: it is healthy." in found.action


def test_a_daemon_that_starts_while_all_is_full_says_that_it_is_alive(server: Server) -> None:
    server.refuse(10)
    (found,) = server.watcher.now
    assert found.kind == "saturation"
    assert found.database_healthy is None
    assert found.action == "Do not restart the database: it is alive, and full."


def test_a_limit_of_our_own_role_does_not_make_the_server_a_full_one(server: Server) -> None:
    server.refuse(10, PollFailure(reason="role_limit", text='too many connections for role "batsignal"'))
    (found,) = server.watcher.now
    assert found.action.endswith("Do not restart the database: it is alive.")
    assert found.summary.endswith("role batsignal is reached: the server refuses more of it, and is alive")


def test_who_looks_every_ten_seconds_says_it_at_the_first_refusal(server: Server) -> None:
    server.answer(1, used=40)
    server.t += 9.0
    server.refuse(1)
    assert server.said == [("saturation", "critical", "server")]


def test_a_refusal_of_a_moment_says_nothing(server: Server) -> None:
    for _ in range(20):
        server.answer(30, used=40).refuse(3)
        assert server.said == []


def test_it_is_one_signal_until_there_has_been_room_for_a_while(server: Server) -> None:
    server.answer(30, used=40)
    for _ in range(10):
        server.refuse(5).answer(3, used=99)
    server.answer(14, used=40)
    assert server.said == [("saturation", "critical", "server")]
    server.answer(5, used=40)
    assert server.said == []
    assert len(server.watcher.raised("saturation")) == 1


def test_it_is_told_from_before_where_the_slots_were_seen_to_run_out(server: Server) -> None:
    server.answer(30, used=95)
    (before,) = server.watcher.now
    (found,) = server.refuse(20).watcher.now
    assert (found.since, found.sessions) == (before.since, 95)
    assert len(server.watcher.raised("saturation")) == 1


@pytest.mark.parametrize(
    ("reason", "text", "limit"),
    [
        ("role_limit", 'the limit is reached (53300): too many connections for role "app"', "role:app"),
        ("role_limit", "zu viele Verbindungen von Rolle \u201eapp\u201c", "role:app"),
        ("role_limit", "trop de connexions pour le r\u00f4le \u00ab app \u00bb", "role:app"),
        ("role_limit", "too many", "role:app"),
        ("database_limit", 'too many connections for database "shop"', "database:shop"),
        ("database_limit", "too many", "database:shop"),
    ],
)
def test_a_limit_of_a_role_or_a_database_is_named(server: Server, reason: Any, text: str, limit: str) -> None:
    facts = {"role": "app", "database_limits": {"shop": 50}}
    server.answer(30, used=40, **facts).refuse(5, PollFailure(reason=reason, text=text))
    assert server.said == [("saturation", "critical", limit)]


def test_a_limit_whose_name_nobody_tells_is_told_all_the_same(server: Server) -> None:
    server.refuse(5, PollFailure(reason="database_limit", text="too many"))
    assert server.said == [("saturation", "critical", "database:?")]
    (found,) = server.watcher.now
    assert found.subject.database is None
    assert found.summary.startswith("the connection limit of our database is reached")


def test_a_limit_of_a_role_that_nobody_else_uses_wakes_nobody(server: Server) -> None:
    refusal = PollFailure(reason="role_limit", text='too many connections for role "batsignal"')
    server.answer(30, used=40).refuse(30, refusal)
    assert server.said == [("saturation", "warning", "role:batsignal")]


@pytest.mark.parametrize(
    ("failure", "limits", "severity"),
    [
        ("role_limit", {}, "warning"),
        ("role_limit", {"role_limits": {"batsignal": 5}}, "warning"),
        ("role_limit", {"role_limits": {"batsignal": 6}}, "critical"),
        ("database_limit", {}, "critical"),
        ("slots_full", {}, "critical"),
    ],
)
def test_a_daemon_that_is_refused_from_its_start_by_its_own_roles_limit_wakes_nobody(
    server: Server, failure: Any, limits: dict[str, Any], severity: str
) -> None:
    """Nobody knows who else logs in: by a role's limit only those are shut out who do so by our role."""
    text = 'too many connections for role "batsignal"' if failure == "role_limit" else "too many connections"
    server.refuse(120, PollFailure(reason=failure, sqlstate="53300", text=text), **limits)
    raised = [one.signal.finding for one in server.watcher.events if one.event == "raised"]
    assert [(one.kind, one.severity) for one in raised] == [("saturation", severity)]
    (found,) = server.watcher.now
    assert found.severity == severity
    assert ("Raise the limit of our own role" in found.action) == (severity == "warning")


@pytest.mark.parametrize(("most", "severity"), [(5, "warning"), (40, "critical")])
def test_a_limit_that_no_monitor_fills_wakes_somebody_also_where_nobody_was_seen_to_hold_it(
    server: Server, most: int, severity: str
) -> None:
    refusal = PollFailure(reason="role_limit", text='too many connections for role "batsignal"')
    server.answer(30, used=40, role_limits={"batsignal": most}).refuse(30, refusal)
    assert server.said == [("saturation", severity, "role:batsignal")]


def test_connections_that_never_log_in_are_what_is_named_where_few_sessions_are_counted(server: Server) -> None:
    server.answer(30, used=4).answer(10, used=4, refusal=FULL)
    (found,) = server.watcher.now
    assert (found.severity, found.subject.limit) == ("critical", "server")
    assert found.action.startswith("Find who connects and does not log in")
    assert "only 4 sessions hold a slot: the rest are connections that have not logged in" in found.evidence


def test_the_cause_that_is_lit_stays_lit_and_is_what_is_said(
    watcher: Any, row: Callable[..., Session], show: Callable[..., Any]
) -> None:
    """Ten sessions that wait for a lock hold all the slots there are."""

    def queue(t: float) -> list[Session]:
        waiting = [
            row(n, "active", at=20.0 + n / 10, wait_event_type="Lock", wait_event="transactionid", blocked_by=(1,))
            for n in range(2, 12)
            if t > 20.0 + n / 10
        ]
        return [row(1, "idle in transaction", at=10.0, xact_start=9.0, backend_xid="7", query="UPDATE t"), *waiting]

    show(watcher, queue, 40.0, used=20)
    assert [one.kind for one in watcher.now] == ["lock_pileup"]
    server = Server(watcher)
    server.t = watcher.events[0].t + 20.0
    server.refuse(60)
    assert [one.kind for one in watcher.now] == ["lock_pileup"]
    assert "Do not restart the database" in watcher.now[0].action


def test_other_failures_change_nothing(server: Server) -> None:
    server.answer(30, used=40).refuse(5).refuse(60, PollFailure(reason="timeout", text="no answer"))
    assert ("saturation", "critical", "server") in server.said


def test_a_clock_that_steps_back_begins_anew(server: Server) -> None:
    server.answer(30, used=40).refuse(5)
    server.t -= 3600.0
    server.refuse(5)
    assert server.said == [("saturation", "critical", "server")]
    server.answer(20, used=40)
    assert server.said == []
