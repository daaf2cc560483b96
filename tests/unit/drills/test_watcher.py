from pathlib import Path

import pytest

from batsignal.drills.guardian import Guardian
from batsignal.drills.watcher import Sighting, Watcher, read_sighting
from batsignal.errors import UnreachableError

STATUS = {
    "servers": [
        {
            "name": "db1",
            "state": "up",
            "slots": {"max": 100, "usable": 97, "used": 23},
            "applications": [
                {"application": "web", "version": "2.3.9", "sessions": 4},
                {"application": "web", "version": "2.4.0", "sessions": 17},
                {"application": "web", "version": None, "sessions": 1},
                {"application": None, "version": None, "sessions": 1},
            ],
        }
    ],
}
SIGNAL = {
    "id": "s1",
    "kind": "leak",
    "severity": "critical",
    "summary": "web@2.4.0 leaks connections",
    "action": "Roll back web to 2.3.9.",
    "evidence": ["11 sessions opened, 0 closed"],
    "detected": 100.0,
}


def test_a_sighting_counts_the_sessions_of_the_service_by_version() -> None:
    sighting = read_sighting(STATUS, {"signals": [SIGNAL]}, "web")
    assert sighting.sessions == {"2.3.9": 4, "2.4.0": 17, "?": 1}
    assert (sighting.slots_used, sighting.slots_usable) == (23, 97)
    assert [(seen.id, seen.evidence) for seen in sighting.signals] == [("s1", ("11 sessions opened, 0 closed",))]


def test_a_server_that_cannot_be_seen_has_no_slots() -> None:
    status = {"servers": [{"name": "db1", "state": "slots_full", "slots": None}]}
    expected = Sighting(state="slots_full", slots_used=None, slots_usable=None, sessions={}, signals=())
    assert read_sighting(status, {"signals": []}, "web") == expected


@pytest.mark.parametrize(
    ("host", "address", "url"),
    [
        ("127.0.0.1", "127.0.0.1:9988", "http://127.0.0.1:9988/"),
        ("", ":9988", "http://127.0.0.1:9988/"),
        ("0.0.0.0", "0.0.0.0:9988", "http://127.0.0.1:9988/"),  # noqa: S104 - an address to spell, not to bind
        ("::1", "[::1]:9988", "http://[::1]:9988/"),
    ],
)
def test_the_page_has_an_address_a_browser_can_open(host: str, address: str, url: str) -> None:
    with Guardian() as guardian:
        watcher = Watcher(guardian, Path("/"), host=host, port=9988)
    assert (watcher.address, watcher.url) == (address, url)


def test_a_daemon_that_ends_at_once_is_reported_with_its_exit_code_and_last_words(tmp_path: Path) -> None:
    with Guardian() as guardian:
        watcher = Watcher(guardian, tmp_path, host="127.0.0.1", port=1)
        watcher.start(tmp_path / "none.yml", ["/bin/sh", "-c", "echo it is broken >&2; exit 7"])
        with pytest.raises(UnreachableError, match="ended with exit code 7"):
            watcher.wait_until_ready()
        assert watcher.log_tail() == ["it is broken"]
