"""`/incidents/ID`, from a disk that is slow, broken, or not there."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from app_client import AppClient
from batsignal.expose import incident_pages
from batsignal.expose.server import build_app
from batsignal.record.database import StoreError


class Kept:
    """History without a disk; counts how often the picture was asked for."""

    def __init__(self, boards: Any) -> None:
        self.view = boards.kept_incident()
        self.told: Any = boards.past_slots()
        self.asked = 0
        self.fault: Exception | None = None

    def incidents(self, *, limit: int, before: float | None) -> list[dict[str, Any]]:
        if self.fault is not None:
            raise self.fault
        first = self.view["signal"]["detected"]
        ids = [n for n in range(120) if before is None or first - n < before]
        return [
            self.view | {"id": f"{n:x}", "signal": self.view["signal"] | {"detected": first - n}} for n in ids[:limit]
        ]

    def incident(self, incident: str) -> dict[str, Any] | None:
        if self.fault is not None:
            raise self.fault
        return self.view if incident == "a1" else None

    def slots(self, _incident: str) -> Any:
        self.asked += 1
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


@pytest.fixture
def kept(boards: Any) -> Kept:
    return Kept(boards)


@pytest.fixture
def client(boards: Any, kept: Any, clock: Callable[[], float]) -> AppClient:
    return AppClient(build_app(board=boards.quiet, metrics=lambda *_: b"", reload=None, clock=clock, past=kept))


def test_the_page_of_an_incident_is_html_under_the_same_policy(client: AppClient) -> None:
    answer = client.get("/incidents/a1")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == client.get("/").headers["content-security-policy"]
    assert "leaks connections" in answer.text


def test_one_that_is_not_kept_is_missing_in_a_page_of_its_own(client: AppClient) -> None:
    answer = client.get("/incidents/b2")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "No such incident is kept: it may be older than store.keep_days." in answer.text


def test_where_nothing_is_kept_that_is_said(boards: Any, clock: Callable[[], float]) -> None:
    client = AppClient(build_app(board=boards.quiet, metrics=lambda *_: b"", reload=None, clock=clock))
    answer = client.get("/incidents/a1")
    assert answer.status_code == 404
    assert "store.path is null" in answer.text


def test_a_disk_that_cannot_be_read_is_said(client: AppClient, kept: Kept) -> None:
    kept.fault = StoreError("database disk image is malformed")
    answer = client.get("/incidents/a1")
    assert answer.status_code == 503
    assert "database disk image is malformed" in answer.text


def test_a_recording_that_cannot_be_read_leaves_the_page_without_a_picture(client: AppClient, kept: Kept) -> None:
    kept.told = StoreError("input/output error")
    answer = client.get("/incidents/a1")
    assert answer.status_code == 200
    assert "No recording of it is kept, or it cannot be read now." in answer.text
    client.get("/incidents/a1")
    assert kept.asked == 2, "a fault is not kept"


def test_the_picture_of_what_is_over_is_made_once(client: AppClient, kept: Kept) -> None:
    for _ in range(3):
        client.get("/incidents/a1")
    assert kept.asked == 1


def test_the_picture_of_what_goes_on_is_not_made_for_each_reader(client: AppClient, kept: Kept) -> None:
    kept.view |= {"ended": None}
    for _ in range(3):
        client.get("/incidents/a1")
    assert kept.asked == 1


def test_the_picture_of_what_goes_on_is_made_anew_after_a_while(
    client: AppClient, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident_pages, "PICTURE_SECONDS", 0.0)
    monkeypatch.setattr(incident_pages, "COST_SHARE", 1e9)
    kept.view |= {"ended": None}
    for _ in range(3):
        client.get("/incidents/a1")
    assert kept.asked == 3


def test_pictures_are_kept_of_a_few_incidents_only(
    client: AppClient, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident_pages, "PICTURES_KEPT", 1)
    monkeypatch.setattr(kept, "incident", lambda _incident: kept.view)
    for incident in ("a1", "b2", "a1"):
        client.get(f"/incidents/{incident}")
    assert kept.asked == 3


def test_all_that_is_kept_is_listed_page_by_page(client: AppClient) -> None:
    ids, path, pages = [], "/incidents", 0
    while path:
        text = client.get(path).text
        ids += re.findall(r'href="incidents/([0-9a-f]+)"', text)
        older = re.search(r'href="(incidents\?before=[^"]+)"', text)
        path, pages = f"/{older[1]}" if older else "", pages + 1
    assert ids == [f"{n:x}" for n in range(120)]
    assert pages == 3


def test_a_list_with_nothing_in_it_and_one_that_cannot_be_read_say_so(client: AppClient, kept: Kept) -> None:
    assert "No older incident is kept." in client.get("/incidents?before=5").text
    refused = client.get("/incidents?before=yesterday")
    assert (refused.status_code, "before: expected Unix seconds" in refused.text) == (400, True)
    kept.fault = StoreError("input/output error")
    broken = client.get("/incidents")
    assert (broken.status_code, "input/output error" in broken.text) == (503, True)
    assert 'href="./"' in broken.text
