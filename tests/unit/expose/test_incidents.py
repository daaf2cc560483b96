"""What is kept, as the API tells it, and what it says when the disk does not."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app_client import AppClient
from batsignal.expose import disk
from batsignal.expose.server import build_app
from batsignal.record.database import StoreError

INCIDENT = {"id": "a1", "open": True, "signal": {"kind": "leak"}}


class Kept:
    """History without a disk; `fault` is what it raises, `free` what it waits for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float | None]] = []
        self.fault: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def incidents(self, *, limit: int, before: float | None) -> list[dict[str, Any]]:
        self.free.wait(20)
        if self.fault is not None:
            raise self.fault
        self.asked.append((limit, before))
        return [INCIDENT]

    def incident(self, incident: str) -> dict[str, Any] | None:
        return INCIDENT | {"timeline": []} if incident == "a1" else None

    def recording(self, incident: str) -> Iterator[bytes] | None:
        return iter((b"one ", b"recording")) if incident == "a1" else None


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def client(boards: Any, kept: Kept, clock: Callable[[], float]) -> AppClient:
    return AppClient(build_app(board=boards.quiet, metrics=lambda *_: b"", reload=None, clock=clock, past=kept))


def test_incidents_are_listed_each_with_where_its_recording_is(client: AppClient, boards: Any, kept: Kept) -> None:
    answer = client.get("/api/v1/incidents").json()
    assert answer == {
        "time": boards.now,
        "incidents": [INCIDENT | {"recording": "/api/v1/incidents/a1/recording"}],
    }
    client.get("/api/v1/incidents?limit=500&before=1760000000.5")
    assert kept.asked == [(50, None), (500, 1_760_000_000.5)]


@pytest.mark.parametrize("limit", ["0", "501", "-1", "ten", "1.5", "", "\u0661", "9" * 5000])
def test_a_limit_out_of_bounds_is_refused(client: AppClient, limit: str) -> None:
    answer = client.get("/api/v1/incidents", params={"limit": limit})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("limit: expected a whole number from 1 to 500, got ")


@pytest.mark.parametrize("before", ["yesterday", "nan", "inf"])
def test_an_instant_that_is_none_is_refused(client: AppClient, before: str) -> None:
    answer = client.get("/api/v1/incidents", params={"before": before})
    assert (answer.status_code, answer.json()["error"].split(":")[0]) == (400, "before")


def test_one_incident_is_told_with_its_timeline(client: AppClient) -> None:
    assert client.get("/api/v1/incidents/a1").json()["timeline"] == []
    answer = client.get("/api/v1/incidents/b2")
    assert (answer.status_code, answer.json()) == (404, {"error": "no such incident is kept"})


def test_a_recording_is_a_file_to_take_away(client: AppClient) -> None:
    answer = client.get("/api/v1/incidents/a1/recording")
    assert answer.content == b"one recording"
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["content-disposition"] == 'attachment; filename="incident-a1.jsonl.gz"'
    assert "content-encoding" not in answer.headers
    assert client.get("/api/v1/incidents/b2/recording").status_code == 404


def test_where_nothing_is_kept_that_is_said(boards: Any, clock: Callable[[], float]) -> None:
    client = AppClient(build_app(board=boards.quiet, metrics=lambda *_: b"", reload=None, clock=clock))
    for path in ("", "/a1", "/a1/recording"):
        answer = client.get(f"/api/v1/incidents{path}")
        assert (answer.status_code, "store.path is null" in answer.json()["error"]) == (404, True)


def test_a_disk_that_cannot_be_read_is_said(client: AppClient, kept: Kept) -> None:
    kept.fault = StoreError("database is locked")
    answer = client.get("/api/v1/incidents")
    assert (answer.status_code, answer.json()) == (503, {"error": "history cannot be read: database is locked"})


def test_a_disk_that_hangs_is_not_waited_for_and_holds_up_nothing_else(
    client: AppClient, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "DISK_SECONDS", 0.1)
    kept.free.clear()
    for _ in range(disk.READERS + 1):
        answer = client.get("/api/v1/incidents")
        assert (answer.status_code, answer.json()) == (503, {"error": "the disk has not answered in time"})
    assert client.get("/-/healthy").status_code == 200
    kept.free.set()
    monkeypatch.undo()
    assert client.get("/api/v1/incidents").status_code == 200


def test_an_incident_that_goes_on_is_told_as_it_is_now_and_one_that_is_over_runs_out_of_nothing(
    boards: Any, kept: Kept, clock: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (now,) = boards.lit().signals
    old = now.as_json() | {"sessions": 1, "summary": "as it was"}
    told = {"id": now.id, "open": True, "ended": None, "signal": old}
    over = {"id": "b2", "open": False, "ended": boards.now - 60.0, "signal": old | {"exhaustion_seconds": 60.0}}
    monkeypatch.setattr(kept, "incidents", lambda **_: [told, over])
    monkeypatch.setattr(kept, "incident", lambda incident: told if incident == now.id else over)
    client = AppClient(build_app(board=boards.lit, metrics=lambda *_: b"", reload=None, clock=clock, past=kept))
    first, second = client.get("/api/v1/incidents").json()["incidents"]
    assert first["signal"] == now.as_json()
    assert second["signal"] == old | {"exhaustion_seconds": None}
    assert client.get(f"/api/v1/incidents/{now.id}").json()["signal"] == now.as_json()
