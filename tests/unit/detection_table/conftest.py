"""Truths and the events of a signal's life, made by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from batsignal.detect.signal import DeployRef, Event, Finding, Signal, Subject
from batsignal.drills.truth import Truth
from detection.score import Said, said_of

START = 1_760_000_000.0


class Life:
    """One signal's life, told step by step; times are seconds since the start."""

    def __init__(self, id_: str, t: float, **facts: Any) -> None:
        self.facts = {"kind": "leak", "severity": "critical", "subject": Subject(application="web")} | facts
        self.id = id_
        self.events: list[Event] = []
        self._add(t, "raised")

    def update(self, t: float, **facts: Any) -> "Life":
        self.facts |= facts
        self._add(t, "updated")
        return self

    def end(self, t: float, *, by: str | None = None) -> "Life":
        self._add(t, "cleared", reason="superseded" if by else "ended", by=by)
        return self

    def said(self, life: int = 0) -> Said:
        (one,) = said_of(self.events, life)
        return one

    def _add(self, t: float, event: Any, **facts: Any) -> None:
        finding = Finding(key=(self.id,), since=START + t, **self.facts)
        signal = Signal(
            id=self.id, server="db1", detected=self.events[0].t if self.events else START + t,
            raised_as=self.facts["subject"], finding=finding,
        )  # fmt: skip
        self.events.append(Event(t=START + t, event=event, signal=signal, **facts))


def make_truth(**facts: Any) -> Truth:
    """A leak of web that begins at 100 s and must be said by 145 s; times are seconds since the start."""
    numbers = {"onset": 100.0, "bound_seconds": 45.0} | facts
    numbers["onset"] += START
    if numbers.get("exhaustion") is not None:
        numbers["exhaustion"] += START
    if numbers.get("deploy") is not None:
        service, version, at = numbers["deploy"]
        numbers["deploy"] = DeployRef(service=service, version=version, at=START + at)
    return Truth(**({"kind": "leak", "subject": Subject(application="web")} | numbers))


@pytest.fixture
def raised() -> type[Life]:
    return Life


@pytest.fixture
def truth() -> Callable[..., Truth]:
    return make_truth


@pytest.fixture
def start() -> float:
    return START
