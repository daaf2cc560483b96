"""What is written is found again: by the next life of the daemon, and by whoever asks for history."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batsignal.detect.signal import Subject
from batsignal.record import store as store_module
from batsignal.record.database import Database, StoreError
from batsignal.record.history import LIMIT_MOST, History
from batsignal.record.kept import Left, Past
from batsignal.record.store import DAY_SECONDS, DEPLOYS_LOADED, EVENTS_MOST, Store
from batsignal.snapshot import Deploy

T = 1_760_000_000.0


class Kept:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path, put_aside=lambda *_: None)
        self.connection = self.database.open()
        self.store = Store(self.connection)
        self.history = History(path)

    def events(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM event").fetchone()[0])


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    one = Kept(tmp_path / "batsignal.db")
    yield one
    one.database.close()


def test_a_lit_signal_is_found_by_the_next_life_as_it_was_said(kept: Kept, lives: Any) -> None:
    kept.store.tell(lives.event("raised"), now=T)
    kept.store.looked("db1", T + 5, now=T + 5.1)
    past = kept.store.past()
    (found,) = past.servers["db1"].signals
    assert found == lives.signal()
    assert found.finding.key == ("service", "web")
    assert found.raised_as == Subject(application="web")
    assert past.servers["db1"].looked_at == T + 5


def test_a_signal_that_ended_is_left_lit_no_more_and_known_a_while_for_its_recording(kept: Kept, lives: Any) -> None:
    kept.store.tell(lives.event("raised"), now=T)
    kept.store.tell(lives.event("cleared", t=T + 60), now=T)
    kept.store.looked("db1", T + 90, now=T)
    left = kept.store.past().servers["db1"]
    assert (left.signals, left.ended) == ((), ((lives.signal(), T + 60),))
    kept.store.looked("db1", T + 60 + store_module.ENDED_LATELY_SECONDS, now=T)
    assert not kept.store.past().servers["db1"].ended


def test_a_signal_that_another_release_wrote_is_left_alone(kept: Kept, lives: Any) -> None:
    kept.store.tell(lives.event("raised"), now=T)
    kept.connection.execute("UPDATE incident SET signal = replace(signal, '\"leak\"', '\"flood\"')")
    assert not kept.store.past().servers
    assert kept.history.incidents()[0]["signal"]["kind"] == "flood"


DAMAGED_SIGNALS = (
    "'garbage'",
    "'{}'",
    "'[1]'",
    "'\"a\"'",
    "x'ff00'",
    "5",
    f"'{'[' * 100_000}'",
    'replace(signal, \'"since":\', \'"since":-1e300,"x":\')',
    'replace(signal, \'"sessions":\', \'"sessions":"many","x":\')',
    'replace(signal, \'"evidence":\', \'"evidence":[1],"x":\')',
    'replace(signal, \'"subject":\', \'"subject":{"user":[]},"x":\')',
    'replace(signal, \'"deploy":\', \'"deploy":{"service":"web"},"x":\')',
    'replace(signal, \'"exhaustion_seconds":\', \'"exhaustion_seconds":"soon","x":\')',
)


@pytest.mark.parametrize(
    "damage",
    [
        *(f"signal = {value}" for value in DAMAGED_SIGNALS),
        "ended = 'x'",
        "ended = 9e99",
        "worst = 'zzz'",
        "worst = x'00'",
    ],
)
def test_what_a_damaged_file_holds_in_an_incidents_place_is_no_incident_and_hides_no_other(
    kept: Kept, lives: Any, damage: str
) -> None:
    for incident, t in (("a1", T), ("b2", T + 1)):
        kept.store.tell(lives.event("raised", lives.signal(incident, detected=t), t), now=t)
        kept.store.tell(lives.event("cleared", lives.signal(incident, detected=t), t + 60), now=t)
    kept.store.looked("db1", T + 90, now=T)
    kept.connection.execute(f"UPDATE incident SET {damage} WHERE id = 'a1'")
    assert [one["id"] for one in kept.history.incidents()] == ["b2"]
    assert kept.history.incident("a1") is kept.history.recording("a1") is None
    past = kept.store.past()
    assert [one.id for one in past.recent] == ["b2"]
    assert "b2" in [signal.id for signal, _ in past.servers["db1"].ended]


@pytest.mark.parametrize(
    "damage", [*(f"signal = {value}" for value in DAMAGED_SIGNALS), "t = 'x'", "event = 'released'"]
)
def test_what_a_damaged_file_holds_in_an_events_place_is_left_out_of_the_timeline(
    kept: Kept, lives: Any, damage: str
) -> None:
    kept.store.tell(lives.event("raised"), now=T)
    kept.store.tell(lives.event("cleared", lives.signal(), T + 60), now=T)
    kept.connection.execute(f"UPDATE event SET {damage} WHERE event = 'raised'")
    view = kept.history.incident("a1")
    assert view is not None
    assert [event["event"] for event in view["timeline"]] == ["cleared"]


def test_the_timeline_is_every_event_with_the_signal_as_it_was_said(kept: Kept, lives: Any) -> None:
    grown = lives.signal(severity="critical", sessions=20)
    kept.store.tell(lives.event("raised"), now=T)
    kept.store.tell(lives.event("updated", grown, T + 10), now=T)
    kept.store.tell(lives.event("cleared", lives.signal(), T + 60, reason="superseded", by="b2"), now=T)
    view = kept.history.incident("a1")
    assert view is not None
    assert {name: view[name] for name in ("id", "open", "ended", "reason", "by", "worst")} == {
        "id": "a1",
        "open": False,
        "ended": T + 60,
        "reason": "superseded",
        "by": "b2",
        "worst": "critical",
    }
    assert [(one["t"], one["event"], one["signal"]["sessions"]) for one in view["timeline"]] == [
        (T, "raised", 8),
        (T + 10, "updated", 20),
        (T + 60, "cleared", 8),
    ]
    assert view["signal"] == lives.signal().as_json()
    assert "by" not in view["timeline"][0]


def test_incidents_are_read_newest_first_and_in_bounded_pages(kept: Kept, lives: Any) -> None:
    for n in range(5):
        kept.store.tell(lives.event("raised", lives.signal(f"a{n}", detected=T + n)), now=T)
    assert [one["id"] for one in kept.history.incidents(limit=2)] == ["a4", "a3"]
    assert [one["id"] for one in kept.history.incidents(limit=2, before=T + 3)] == ["a2", "a1"]
    assert len(kept.history.incidents(limit=10 * LIMIT_MOST)) == 5


@pytest.mark.parametrize("strange", ["", "b2", "../batsignal", "a1'; --", "A1", "a" * 65])
def test_an_incident_that_is_not_kept_is_none(kept: Kept, lives: Any, strange: str) -> None:
    kept.store.tell(lives.event("raised"), now=T)
    assert kept.history.incident(strange) is None


def test_history_of_no_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing is kept yet"):
        History(tmp_path / "none.db").incidents()


def test_an_incident_that_wavers_for_days_keeps_a_bounded_timeline_and_its_end(kept: Kept, lives: Any) -> None:
    kept.store.tell(lives.event("raised"), now=T)
    for n in range(EVENTS_MOST + 50):
        kept.store.tell(lives.event("updated", lives.signal(sessions=n)), now=T)
    kept.store.tell(lives.event("cleared", t=T + 9), now=T)
    view = kept.history.incident("a1")
    assert view is not None
    assert len(view["timeline"]) == EVENTS_MOST + 1
    assert view["timeline"][-1]["event"] == "cleared"


def test_deploys_outlive_a_restart_the_newest_of_them(kept: Kept) -> None:
    deploys = [Deploy(service="web", version=f"2.{n}", at=T + n) for n in range(DEPLOYS_LOADED + 5)]
    kept.store.deployed(deploys, now=T)
    kept.store.deployed([Deploy(service="web", version="2.104", at=T + 104, previous="2.103")], now=T)
    known = kept.store.past().deploys
    assert len(known) == DEPLOYS_LOADED
    assert known[0] == deploys[5]
    assert known[-1] == Deploy(service="web", version="2.104", at=T + 104, previous="2.103")


def test_names_of_any_bytes_are_kept(kept: Kept, lives: Any) -> None:
    kept.store.deployed([Deploy(service="w\udcffb", version="☃\udc00", at=T)], now=T)
    kept.store.tell(lives.event("raised", lives.signal(subject=Subject(application="w\udcffb\x00"))), now=T)
    assert kept.store.past().deploys[0].service == "w?b"
    assert kept.store.past().servers["db1"].signals[0].finding.subject.application == "w\udcffb\x00"


def test_what_is_usual_is_kept_beside_the_last_look(kept: Kept) -> None:
    kept.store.remember("db1", '{"storms":1}', now=T)
    kept.store.looked("db1", T, now=T)
    kept.store.remember("db1", '{"storms":2}', now=T)
    assert kept.store.past().servers["db1"] == Left(looked_at=T, usual='{"storms":2}')


def test_what_ended_long_ago_is_forgotten_and_what_is_open_is_not(kept: Kept, lives: Any) -> None:
    for incident in ("a1", "b2", "c3"):
        kept.store.tell(lives.event("raised", lives.signal(incident)), now=T)
    for incident, now in (("a1", T), ("b2", T + 2)):
        kept.store.tell(lives.event("cleared", lives.signal(incident)), now=now)
    kept.store.deployed([Deploy(service="web", version="2", at=T)], now=T)
    kept.store.looked("db1", T, now=T)
    kept.store.prune(keep_days=14, now=T + 1 + 14 * DAY_SECONDS)
    assert {one["id"] for one in kept.history.incidents()} == {"b2", "c3"}
    assert kept.events() == 3
    past = kept.store.past()
    assert (past.deploys, past.servers["db1"].looked_at) == ((), None)


def test_the_file_stays_within_its_bound_and_gives_room_back(kept: Kept, lives: Any) -> None:
    bound = 2_000_000
    store = Store(kept.connection, bytes_most=bound)
    for n in range(1500):
        signal = lives.signal(f"{n:x}", summary="x" * 1000)
        store.tell(lives.event("raised", signal), now=T + n)
        store.tell(lives.event("cleared", signal), now=T + n)
    assert store.used_bytes > 3 * bound
    store.prune(keep_days=14, now=T)
    assert bound / 4 < store.used_bytes <= bound
    store.give_back()
    kept.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert kept.path.stat().st_size <= bound
    assert kept.history.incidents(limit=1)[0]["id"]
    assert kept.history.incident("0") is None


def test_a_file_that_the_daemon_opens_late_agrees_with_what_is_lit(kept: Kept, lives: Any) -> None:
    for incident in ("a1", "b2"):
        kept.store.tell(lives.event("raised", lives.signal(incident)), now=T)
    kept.store.looked("db1", T + 5, now=T)
    alive = Past(
        servers={"db1": Left(signals=(lives.signal("b2"), lives.signal("c3")))},
        deploys=(Deploy(service="web", version="2", at=T),),
    )
    for _ in range(2):
        kept.store.restore(alive, now=T + 9)
    by_id = {one["id"]: one for one in kept.history.incidents()}
    assert {name for name, one in by_id.items() if one["open"]} == {"b2", "c3"}
    assert (by_id["a1"]["ended"], by_id["a1"]["reason"]) == (T + 5, "ended")
    ended = kept.history.incident("a1")
    assert ended is not None
    assert [one["event"] for one in ended["timeline"]] == ["raised", "cleared"]
    assert kept.store.past().deploys == alive.deploys


def test_no_two_daemons_can_make_one_event_of_two(kept: Kept, lives: Any) -> None:
    kept.store.tell(lives.event("raised"), now=T)
    with pytest.raises(sqlite3.IntegrityError):
        kept.connection.execute("INSERT INTO event SELECT * FROM event")


def test_the_last_few_incidents_are_loaded_in_one_line_each(kept: Kept, lives: Any) -> None:
    for n in range(10):
        kept.store.tell(lives.event("raised", lives.signal(f"a{n}", detected=T + n, severity="critical")), now=T)
    kept.store.tell(lives.event("cleared", lives.signal("a9", detected=T + 9), T + 60), now=T)
    first, *others = kept.store.past().recent
    assert (first.id, first.severity, first.ended) == ("a9", "critical", T + 60)
    assert (first.summary, first.since) == ("web@2.4.0 leaks connections", T - 30)
    assert [one.id for one in others] == [f"a{n}" for n in range(8, 1, -1)]


def test_a_release_stands_in_the_timeline_between_what_came_before_and_after_and_changes_no_life(
    kept: Kept, lives: Any
) -> None:
    audit = {"by": "alice@bastion", "ended": 3, "order": {"application": 'w"eb'}}
    kept.store.tell(lives.event("raised"), now=T)
    kept.store.released(lives.signal(), T + 5, audit, now=T + 5)
    kept.store.tell(lives.event("cleared", t=T + 60), now=T)
    view = kept.history.incident("a1")
    assert view is not None
    assert [event["event"] for event in view["timeline"]] == ["raised", "released", "cleared"]
    released = view["timeline"][1]
    assert (released["t"], released["release"]) == (T + 5, audit)
    assert "reason" not in released
    assert (view["open"], view["reason"]) == (False, "ended")


def test_a_release_is_kept_however_long_the_timeline_is(
    kept: Kept, lives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "EVENTS_MOST", 2)
    for _ in range(4):
        kept.store.tell(lives.event("updated"), now=T)
    kept.store.released(lives.signal(), T + 5, {"by": "alice"}, now=T + 5)
    view = kept.history.incident("a1")
    assert view is not None
    assert [event["event"] for event in view["timeline"]] == ["updated", "updated", "released"]
