"""An incident pages: made for real, the daemon, Prometheus and Alertmanager real, the pager rings.

Those of kinds that wake somebody within a minute or two; leaks stand in test_page.py.

What is asked of every kind: its own alert, the culprit in its labels, one incident one page, texts without a hole.
"""

import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from paging import alerting, answers, free_port, served, wait_for

PAGE_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What must arrive of a row: the alert, and labels that name the culprit."""

    alert: str
    labels: dict[str, str]
    says: str
    before: frozenset[str] = frozenset()
    """Alerts that may have come first, and belong to the same incident."""
    serves: str = "batsignal_signal"
    """A metric that its texts ask for, and that is served only then."""
    receiver: str = "pager"
    seconds: float = PAGE_SECONDS


EXPECTED = {
    "query-pileup": Expected(
        "BatSignalQueryPileup", {"application": "search"}, "search@3.2.0", serves="batsignal_query_info"
    ),
    # The transaction left open is called as soon as others wait for it; a moment later it is their queue.
    "lock-pileup-transaction": Expected("BatSignalLockPileup", {}, "wait", frozenset({"BatSignalIdleInTransaction"})),
    "storm-refused": Expected("BatSignalStorm", {}, "sessions"),
    "pool-starvation": Expected(
        "BatSignalPoolStarvation", {"application": "web"}, "pool", frozenset({"BatSignalLeak"})
    ),
    "pgbouncer-starvation": Expected(
        "BatSignalPoolStarvation", {}, "pool", serves="batsignal_pgbouncer_pool_wait_seconds"
    ),
    "idle-in-transaction": Expected("BatSignalIdleInTransaction", {}, "transaction"),
    # The last slot goes while saturation waits for its cause: the page then says that none is left.
    "saturation": Expected("BatSignalSlotsFull", {}, "slot", frozenset({"BatSignalSaturation"})),
    # It wants five minutes of calm first, to learn what is usual.
    "endpoint-slow": Expected(
        "BatSignalEndpointSlow", {"application": "web", "endpoint": "web"}, "is slow", receiver="morning", seconds=560.0
    ),
    "endpoint-down": Expected("BatSignalEndpointDown", {"application": "web", "endpoint": "web"}, "fails"),
}


@pytest.mark.takes(seconds=70)
@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[pytest.mark.long] if expected.seconds > PAGE_SECONDS else [])
        for row, expected in EXPECTED.items()
    ],
)
def test_an_incident_rings_the_pager_with_its_own_alert(row: str, tmp_path: Path) -> None:
    expected = EXPECTED[row]
    port = free_port()
    command = [sys.executable, "-m", "batsignal", "demo", "--incident", row]
    with (
        alerting(tmp_path, port) as pager,
        (tmp_path / "demo.log").open("wb") as out,
        subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=out, stderr=out) as demo,
    ):
        there: set[str] = set()

        def rings() -> bool:
            # Looked at all along: a page that Alertmanager gets at Prometheus' second try may come after the drill.
            if expected.serves not in there and answers(f"http://127.0.0.1:{port}/metrics"):
                there.update(served(f"http://127.0.0.1:{port}"))
            return any(page["labels"]["alertname"] == expected.alert for _, page in pager.pages(expected.receiver))

        try:
            wait_for(rings, expected.seconds, f"a page of {expected.alert}")
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(60)
    pages = [page for _, page in pager.pages(expected.receiver)]
    assert expected.serves in there
    assert {page["labels"]["alertname"] for page in pages} <= {expected.alert} | expected.before
    assert len(pager.incidents(expected.receiver)) == 1, "one incident is one page"
    for page in pages:
        text = " ".join(page["annotations"].values())
        assert not re.search(r"<no value>|<nil>|%!|\{\{", text)
        if page["labels"]["alertname"] == expected.alert:
            assert page["labels"].items() >= expected.labels.items()
            assert expected.says in text
