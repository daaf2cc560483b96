"""What the tests of the detectors share: the simulated world, and a judge that remembers what it said."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from batsignal.cli.replay import Life
from batsignal.config import APPLICATION_PATTERN, Thresholds
from batsignal.detect.signal import Event, Finding
from batsignal.detect.verdict import Judge
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Session, Slots, Snapshot
from simulator import START, World


class Watcher:
    """A judge with a memory of all it said: what a page, a log and a replay would show."""

    def __init__(self) -> None:
        self._life = Life("db1")
        self.incidents = self._life.incidents
        self.deploys = self._life.deploys
        self.events: list[Event] = []
        self.said: list[tuple[float, Finding]] = []
        self.now: tuple[Finding, ...] = ()

    def look(self, snapshot: Snapshot) -> tuple[Finding, ...]:
        verdict, events = self._life.look(snapshot)
        self.events += events
        self.said += [(snapshot.t - START, finding) for finding in verdict.findings]
        self.now = verdict.findings
        return verdict.findings

    def follow(self, looks: Iterable[Snapshot]) -> "Watcher":
        for snapshot in looks:
            self.look(snapshot)
        return self

    def raised(self, kind: str) -> list[Event]:
        return [one for one in self.events if one.event == "raised" and one.signal.finding.kind == kind]

    def cleared(self, kind: str) -> list[Event]:
        return [one for one in self.events if one.event == "cleared" and one.signal.finding.kind == kind]

    def at(self, seconds: float, kind: str = "leak") -> Finding:
        """What was said of that kind at the last look up to that many seconds after the start."""
        return [finding for t, finding in self.said if t <= seconds and finding.kind == kind][-1]

    def sentences(self) -> list[str]:
        """Every raise and clear in words, for a test that fails."""
        return [
            f"{one.t - START:.0f}s {one.event} {one.signal.finding.severity}: {one.signal.finding.summary}"
            for one in self.events
            if one.event != "updated"
        ]


def watch(world: World, seconds: float, *, starts: Iterable[float] = (0.0,), interval: float = 1.0) -> list[Watcher]:
    """Look on for so long; each watcher starts at its own time, as a daemon that is restarted in the middle does."""
    watchers = [(start, Watcher()) for start in starts]
    for snapshot in world.looks(seconds, interval):
        for start, watcher in watchers:
            if snapshot.t - START >= start:
                watcher.look(snapshot)
    return [watcher for _, watcher in watchers]


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def make_watcher() -> type[Watcher]:
    return Watcher


@pytest.fixture
def make_judge(pattern: ApplicationPattern) -> Callable[[], Judge]:
    return lambda: Judge(thresholds=Thresholds(), pattern=pattern)


@pytest.fixture
def look_on() -> Callable[..., list[Watcher]]:
    return watch


@pytest.fixture
def start() -> float:
    """The world's first instant, in Unix seconds."""
    return START


@pytest.fixture
def pattern() -> ApplicationPattern:
    return ApplicationPattern(re.compile(APPLICATION_PATTERN))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


Scene = Callable[[float], Iterable[Session]]
"""What a look shows, so many seconds after the start; the instants in its rows count from the start as well."""


def row(pid: int, state: str = "idle", *, at: float = -600.0, opened: float = -600.0, **facts: Any) -> Session:
    """One session of a hand-made look: in its state since `at`, by a statement that began then."""
    facts = {"query": "SELECT ?", "application_name": "web@1.0", "usename": "web", "datname": "shop"} | facts
    if facts.get("xact_start") is not None:
        facts["xact_start"] += START
    return Session(
        pid=pid, backend_start=START + opened, state=state, query_start=START + at, state_change=START + at, **facts
    )


def show(watcher: Watcher, scene: Scene, until: float, *, begin: float = 0.0, used: int = 97) -> Watcher:
    """Look at a scene once a second from `begin` to `until`."""
    slots = Slots(max=used + 3, superuser_reserved=3)
    for n in range(int(until - begin)):
        t = begin + n + 0.4
        watcher.look(Snapshot(server="db1", t=START + t, sessions=tuple(scene(t)), slots=slots, ping_seconds=0.0004))
    return watcher


@pytest.fixture(name="row")
def _row() -> Callable[..., Session]:
    return row


@pytest.fixture(name="show")
def _show() -> Callable[..., Watcher]:
    return show
