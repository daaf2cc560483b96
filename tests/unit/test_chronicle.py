"""What the next watch of a server goes on with: after a restart, after a reload, and with nothing on disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from batsignal.chronicle import Chronicle
from batsignal.config import Config, load
from batsignal.detect.signal import Event, Finding, Signal, Subject
from batsignal.record.board import StoreHealth
from batsignal.snapshot import Deploy, Snapshot

T = 1_760_000_000.0
STOP_SECONDS = 20.0
DEPLOY = Deploy(service="web", version="2", at=T)


def config(path: Path | None) -> Config:
    loaded = load(None, {"DATA_SOURCE_NAME": "postgresql://batsignal@db1/postgres"})
    store = loaded.store.model_copy(update={"path": None if path is None else str(path)})
    return loaded.model_copy(update={"store": store})


def event(what: Any, incident: str = "a1", t: float = T) -> Event:
    finding = Finding(kind="leak", key=("web",), severity="critical", subject=Subject(application="web"), since=T - 9)
    signal = Signal(id=incident, server="db1:5432", detected=T, raised_as=finding.subject, finding=finding)
    return Event(t=t, event=what, signal=signal, reason="ended" if what == "cleared" else None)


class Lives:
    """Daemons one after the other, of one config."""

    def __init__(self, path: Path | None) -> None:
        self.config = config(path)
        (self.server,) = self.config.servers
        self.chronicle: Chronicle | None = None

    def begin(self) -> Chronicle:
        self.end()
        self.chronicle = Chronicle(self.config.store, clock=lambda: T)
        self.deploys = self.chronicle.start()
        self.left = self.chronicle.watch(self.server, self.config)
        return self.chronicle

    def end(self) -> None:
        if self.chronicle is not None:
            self.chronicle.stop(STOP_SECONDS)

    def look(self, *events: Event, t: float = T) -> None:
        assert self.chronicle is not None
        self.chronicle.looked(self.server.name, Snapshot(server=self.server.name, t=t), (), events)


@pytest.fixture(params=["on disk", "in memory alone"])
def lives(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lives]:
    both = Lives(tmp_path / "batsignal.db" if request.param == "on disk" else None)
    yield both
    both.end()


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Lives]:
    one = Lives(tmp_path / "batsignal.db")
    yield one
    one.end()


def test_a_restart_goes_on_with_what_was_lit_known_and_usual(on_disk: Lives) -> None:
    first = on_disk.begin()
    assert (on_disk.left.signals, on_disk.left.looked_at, on_disk.deploys) == ((), None, ())
    on_disk.look(event("raised"), event("raised", "b2"))
    on_disk.look(event("cleared", "b2", T + 1), t=T + 1)
    first.remember(on_disk.server.name, {"storms": {"web": 1.5}})
    first.deployed((DEPLOY,))
    second = on_disk.begin()
    assert [signal.id for signal in on_disk.left.signals] == ["a1"]
    assert [signal.id for signal, _ in on_disk.left.ended] == ["b2"]
    assert on_disk.left.looked_at == T + 1
    assert on_disk.left.usual == '{"storms":{"web":1.5}}'
    assert on_disk.deploys == (DEPLOY,)
    assert {one.id: one.ended for one in second.recent} == {"a1": None, "b2": T + 1}


def test_a_reload_goes_on_with_what_is_lit_also_without_a_disk(lives: Lives) -> None:
    chronicle = lives.begin()
    lives.look(event("raised"))
    chronicle.remember(lives.server.name, {"storms": 1})
    chronicle.watch_only([lives.server.name])
    left = chronicle.watch(lives.server, lives.config)
    assert [signal.id for signal in left.signals] == ["a1"]
    assert left.usual == '{"storms":1}'
    assert [(one.id, one.ended) for one in chronicle.recent] == [("a1", None)]


def test_a_server_that_is_watched_no_more_leaves_nothing_open(on_disk: Lives) -> None:
    chronicle = on_disk.begin()
    on_disk.look(event("raised"))
    chronicle.watch_only(["another"])
    on_disk.look(t=T + 5)  # its last tick was under way
    assert chronicle.recent[0].ended == T
    assert "web leaked connections" in chronicle.recent[0].summary
    on_disk.begin()
    assert chronicle.history is not None
    (kept,) = chronicle.history.incidents()
    assert kept["open"] is False
    assert "web leaked connections" in kept["signal"]["summary"]


def test_a_change_of_how_it_stands_with_the_disk_is_logged_once(tmp_path: Path) -> None:
    one = Lives(tmp_path / "nowhere" / "batsignal.db")
    with structlog.testing.capture_logs() as logs:
        chronicle = one.begin()
        for _ in range(3):
            health = chronicle.tell()
        one.end()
    assert isinstance(health, StoreHealth)
    assert (health.up, health.reason) == (False, "No such file or directory")
    assert [line["event"] for line in logs].count("history is not kept, the watch goes on") == 1


def test_without_a_store_there_is_nothing_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = Lives(None)
    chronicle = one.begin()
    one.look(event("raised"))
    one.end()
    assert (chronicle.tell(), chronicle.history) == (None, None)
    assert not list(tmp_path.iterdir())
