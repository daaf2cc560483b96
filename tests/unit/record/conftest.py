"""Signals and their lives, as a detector and the fold over its findings leave them."""

from dataclasses import replace
from typing import Any, Literal

import pytest

from batsignal.detect.signal import DeployRef, Event, Finding, Signal, Subject

T = 1_760_000_000.0

LEAK = Finding(
    kind="leak",
    key=("service", "web"),
    severity="warning",
    subject=Subject(application="web", version="2.4.0", user="web"),
    since=T - 30,
    sessions=8,
    exhaustion_seconds=400.0,
    deploy=DeployRef(service="web", version="2.4.0", at=T - 40),
    database_healthy=True,
    evidence=("8 sessions", "ping \udcff ☃"),
    summary="web@2.4.0 leaks connections",
    action="Roll back web.",
)


class Lives:
    """Makes signals and the events in their lives."""

    t = T

    def signal(self, incident: str = "a1", server: str = "db1", detected: float = T, **facts: Any) -> Signal:
        return Signal(
            id=incident,
            server=server,
            detected=detected,
            raised_as=Subject(application="web"),
            finding=replace(LEAK, **facts),
        )

    def event(
        self, what: Literal["raised", "updated", "cleared"], signal: Signal | None = None, t: float = T, **facts: Any
    ) -> Event:
        reason = "ended" if what == "cleared" else None
        return Event(**{"t": t, "event": what, "signal": signal or self.signal(), "reason": reason} | facts)


@pytest.fixture
def lives() -> Lives:
    return Lives()
