"""What is over is told in the past, and asks for nothing."""

import re
from typing import Any

import pytest

from batsignal.detect.hindsight import told_over
from batsignal.detect.signal import KINDS, Event, Finding, Kind, Signal, Subject
from batsignal.record.incidents import Incidents
from batsignal.snapshot import Deploy

T = 1_760_000_000.0
WEB = Subject(application="web", version="2.4.0", user="app", client="10.0.0.4")
PRESENT = re.compile(r"\b(is|are|has|leaks|blocks|fails|opens|run out|roll back|do not restart)\b", re.IGNORECASE)


def over(kind: Kind, subject: Subject = WEB, *, deploys: Any = (), by: str | None = None, **facts: Any) -> Finding:
    finding = Finding(
        **{"kind": kind, "key": (), "severity": "critical", "subject": subject, "since": T - 100, "sessions": 22}
        | {"summary": "22 are held; slots run out in 3 min", "action": "Roll back web to 2.3.9."}
        | facts
    )
    signal = Signal(id="a1", server="db1", detected=T - 80, raised_as=subject, finding=finding, sessions_most=31)
    reason: Any = "ended" if by is None else "superseded"
    return told_over(Event(t=T, event="cleared", signal=signal, reason=reason, by=by), deploys).signal.finding


@pytest.mark.parametrize(
    ("kind", "subject", "said"),
    [
        ("leak", WEB, "web@2.4.0 leaked connections: 31 sessions held at most; it lasted 1m40s"),
        ("leak", Subject(user="app"), "user app leaked connections: 31 sessions held at most; it lasted 1m40s"),
        ("pool_starvation", WEB, "web@2.4.0's own pool had nothing left to lend; it lasted 1m40s"),
        ("pool_starvation", Subject(pool="shop/app"), "PgBouncer's pool shop/app had nothing left to lend;"),
        ("query_pileup", WEB, "one statement of web@2.4.0 piled up: 31 sessions ran it at once at most;"),
        ("lock_pileup", WEB, "web@2.4.0 blocked others: 31 sessions waited for its locks at most;"),
        ("lock_pileup", Subject(blocker=0), "a transaction of nobody known blocked others: 31 sessions"),
        ("storm", WEB, "web@2.4.0 asked for sessions far faster than usual;"),
        ("storm", Subject(), "clients asked for sessions far faster than usual;"),
        ("idle_in_transaction", WEB, "web@2.4.0 had left a transaction open;"),
        ("saturation", Subject(limit="server"), "the connection slots of db1 ran short: 31 sessions held at most;"),
        ("saturation", Subject(limit="role:app"), "the connection limit of role app ran short: 31 sessions"),
        ("endpoint_down", Subject(application="web", endpoint="shop"), "the health endpoint shop of web failed;"),
        ("endpoint_slow", Subject(endpoint="shop"), "the health endpoint shop was slow against its own past;"),
        ("database_unreachable", Subject(), "there was no way into db1; it lasted 1m40s"),
    ],
)
def test_each_kind_is_told_in_the_past_with_how_long_it_lasted(kind: Kind, subject: Subject, said: str) -> None:
    finding = over(kind, subject)
    assert finding.summary.startswith(said)
    assert finding.summary.endswith("; it lasted 1m40s")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_over_is_told_in_the_present_or_asks_for_anything(kind: Kind) -> None:
    finding = over(kind)
    assert not PRESENT.search(finding.summary)
    assert finding.action == "Nothing is to be undone or restarted for it now: it is over."


def test_a_deploy_of_the_culprit_right_before_the_end_is_told_and_another_is_not() -> None:
    roll_back = Deploy(service="web", version="2.3.9", at=T - 40)
    before = Deploy(service="web", version="2.4.0", at=T - 110)
    other = Deploy(service="billing", version="7", at=T - 5)
    said = over("leak", deploys=(before, roll_back, other)).summary
    assert said.endswith("it lasted 1m40s, and ended 40 s after the deploy of web@2.3.9")
    assert over("leak", deploys=(before, other)).summary.endswith("; it lasted 1m40s")


def test_a_symptom_leads_to_what_it_came_of() -> None:
    finding = over("saturation", Subject(limit="server"), by="b2")
    assert finding.summary.endswith("; after 1m40s it was found to come of another incident")
    assert finding.action == "It came of incident b2: what to do is said there."


def test_what_is_lit_is_left_as_its_detector_says_it() -> None:
    finding = Finding(kind="leak", key=(), severity="warning", subject=WEB, since=T, summary="leaks", action="Undo.")
    (event,) = Incidents("db1").fold(T, [finding], {})
    assert told_over(event) is event


def test_the_most_that_were_held_are_those_of_its_whole_life() -> None:
    incidents = Incidents("db1")
    for n, held in enumerate((8, 31, 5)):
        finding = Finding(kind="leak", key=(), severity="warning", subject=WEB, since=T, sessions=held)
        incidents.fold(T + n, [finding], {})
    (cleared,) = incidents.fold(T + 9, [], {})
    assert "31 sessions held at most" in told_over(cleared).signal.finding.summary
