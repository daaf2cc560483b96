import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from batsignal.drills.actors.pager import _Handler, page_lines

ALERT = {
    "status": "resolved",
    "labels": {"alertname": "BatSignalLeak", "severity": "critical"},
    "annotations": {"summary": "web leaks connections.", "action": "Roll back web."},
}


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def post(url: str, body: bytes) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as answer:  # noqa: S310 - our own
        status: int = answer.status
    return status


def test_a_page_is_written_with_the_receiver_it_came_for(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert post(f"{url}/pager", json.dumps({"alerts": [ALERT | {"status": "firing"}]}).encode()) == 200
    assert capsys.readouterr().out.splitlines() == [
        "[pager] firing critical BatSignalLeak: web leaks connections.",
        "[pager]     Roll back web.",
    ]


@pytest.mark.parametrize("body", [b"no json", b"[]", b"\xff"])
def test_what_is_no_message_of_alertmanager_is_refused(url: str, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(url, body)


def test_what_is_resolved_has_nothing_to_do_any_more() -> None:
    assert list(page_lines("pager", {"alerts": [ALERT]})) == [
        "[pager] resolved critical BatSignalLeak: it had said: web leaks connections."
    ]
    over = ALERT | {"annotations": {"summary": "web leaked connections. It is over.", "action": "Nothing."}}
    assert list(page_lines("pager", {"alerts": [over]})) == [
        "[pager] resolved critical BatSignalLeak: web leaked connections. It is over."
    ]


def test_the_watchdog_is_kept_quiet_and_an_alert_without_anything_is_shown() -> None:
    watchdog = {"labels": {"alertname": "BatSignalWatchdog"}}
    assert list(page_lines("x", {"alerts": [watchdog, {}]})) == ["[x] ? ? an alert without a name: "]
