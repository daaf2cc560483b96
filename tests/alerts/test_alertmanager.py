"""The shipped Alertmanager config in a real Alertmanager: who silences whom, and how often a pager rings.

One server is started for all; each case has server names of its own.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from paging import free_port

CONFIG = Path(__file__).parents[2] / "alerts" / "alertmanager.yml"
DEADLINE_SECONDS = 30.0

ALERT = {
    "leak": {"alertname": "BatSignalLeak", "kind": "leak", "severity": "critical"},
    "leak_warning": {"alertname": "BatSignalLeak", "kind": "leak", "severity": "warning"},
    "full": {"alertname": "BatSignalSlotsFull", "kind": "slots_full", "severity": "critical"},
    "high": {"alertname": "BatSignalSaturation", "kind": "slots_high", "severity": "critical"},
    "saturation": {"alertname": "BatSignalSaturation", "kind": "saturation", "severity": "critical", "limit": "server"},
    "refused": {"alertname": "BatSignalSaturation", "kind": "refused", "severity": "critical"},
    "role_limit": {"alertname": "BatSignalSaturation", "kind": "saturation", "severity": "critical", "limit": "role:a"},
    "endpoint": {"alertname": "BatSignalEndpointDown", "kind": "endpoint_down", "severity": "critical"},
    "slow": {"alertname": "BatSignalEndpointSlow", "kind": "endpoint_slow", "severity": "warning"},
    "pool": {"alertname": "BatSignalPoolStarvation", "kind": "pool_starvation", "severity": "critical"},
    "pileup": {"alertname": "BatSignalQueryPileup", "kind": "query_pileup", "severity": "critical"},
    "queue": {"alertname": "BatSignalLockPileup", "kind": "lock_pileup", "severity": "critical"},
    "storm": {"alertname": "BatSignalStorm", "kind": "storm", "severity": "critical"},
    "storm_warning": {"alertname": "BatSignalStorm", "kind": "storm", "severity": "warning"},
    "open": {"alertname": "BatSignalIdleInTransaction", "kind": "idle_in_transaction", "severity": "critical"},
    "unreachable": {
        "alertname": "BatSignalDatabaseUnreachable",
        "kind": "database_unreachable",
        "severity": "critical",
    },
    "silent": {"alertname": "BatSignalDatabaseUnreachable", "kind": "not_answering", "severity": "critical"},
    "blind": {"alertname": "BatSignalBlind", "kind": "blind", "severity": "warning"},
    "down": {"alertname": "BatSignalDown", "kind": "daemon", "severity": "critical"},
}


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {what}")


class Receivers:
    """Takes what Alertmanager sends, by the path of the receiver."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                messages.append((self.path.strip("/"), json.loads(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep the tests' output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, receiver: str, server: str) -> list[dict[str, Any]]:
        """Return the messages to a receiver about one server, oldest first."""
        return [
            message
            for name, message in list(self.messages)
            if name == receiver and message["groupLabels"].get("server") == server
        ]


class Alertmanager:
    def __init__(self, url: str, receivers: Receivers) -> None:
        self.client = httpx.Client(base_url=f"{url}/api/v2", trust_env=False)
        self.receivers = receivers

    def post(self, *alerts: dict[str, str]) -> None:
        now = datetime.now(UTC)
        ends = now + timedelta(minutes=5)
        self.client.post(
            "/alerts",
            json=[{"labels": alert, "startsAt": now.isoformat(), "endsAt": ends.isoformat()} for alert in alerts],
        ).raise_for_status()

    def inhibited(self, labels: dict[str, str]) -> bool:
        for alert in self.client.get("/alerts").json():
            if alert["labels"] == labels:
                return bool(alert["status"]["inhibitedBy"])
        return False


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder = tmp_path_factory.mktemp("alertmanager")
    receivers = Receivers()
    config = folder / "alertmanager.yml"
    config.write_text(CONFIG.read_text().replace("127.0.0.1:9095", receivers.address))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={folder}"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address=", "--log.level=error"]
    process = subprocess.Popen(command)
    try:
        until(lambda: _is_ready(f"http://{address}"), "Alertmanager is ready")
        yield Alertmanager(f"http://{address}", receivers)
    finally:
        process.terminate()
        process.wait(timeout=DEADLINE_SECONDS)
        receivers.server.shutdown()
        receivers.server.server_close()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("source", "target", "silenced"),
    [
        (("leak", "web"), ("full", ""), True),
        (("leak", "web"), ("high", ""), True),
        (("leak", "web"), ("saturation", ""), True),
        (("leak", "web"), ("refused", ""), True),
        (("leak_warning", "web"), ("refused", ""), False),
        (("full", ""), ("refused", ""), True),
        (("unreachable", ""), ("refused", ""), True),
        (("queue", "web"), ("refused", ""), True),
        (("leak", ""), ("full", ""), True),
        (("leak", "web"), ("role_limit", ""), False),
        (("leak", "web"), ("endpoint", "web"), True),
        (("leak", "web"), ("endpoint", "api"), False),
        (("leak", ""), ("endpoint", ""), False),
        (("leak", "web"), ("unreachable", ""), False),
        (("leak", "web"), ("leak", "api"), False),
        (("leak", "web"), ("down", ""), False),
        (("leak_warning", "web"), ("full", ""), False),
        (("leak_warning", "web"), ("endpoint", "web"), False),
        (("leak_warning", "web"), ("leak", "web"), False),
        (("leak", "web"), ("leak_warning", "web"), True),
        (("leak", ""), ("leak_warning", ""), True),
        (("leak", "web"), ("leak_warning", "api"), False),
        (("leak", "web"), ("blind", ""), False),
        (("full", ""), ("endpoint", "api"), True),
        (("full", ""), ("unreachable", ""), True),
        (("full", ""), ("silent", ""), True),
        (("full", ""), ("blind", ""), True),
        (("full", ""), ("saturation", ""), True),
        (("full", ""), ("role_limit", ""), False),
        (("full", ""), ("leak", "web"), False),
        (("unreachable", ""), ("endpoint", "web"), True),
        (("silent", ""), ("endpoint", "web"), True),
        (("silent", ""), ("saturation", ""), True),
        (("unreachable", ""), ("blind", ""), True),
        (("unreachable", ""), ("leak", "web"), False),
        (("unreachable", ""), ("full", ""), False),
        (("unreachable", ""), ("down", ""), False),
        (("down", ""), ("leak", "web"), False),
        (("down", ""), ("unreachable", ""), False),
        (("down", ""), ("blind", ""), False),
        (("endpoint", "web"), ("leak", "web"), False),
        (("leak", "web"), ("slow", "web"), True),
        (("leak", "web"), ("open", "web"), True),
        (("leak", "web"), ("open", "api"), False),
        (("leak", "web"), ("pool", "web"), False),
        (("pool", "web"), ("leak", "web"), True),
        (("pool", "web"), ("leak", "api"), False),
        (("pool", ""), ("leak", ""), False),
        (("pool", "web"), ("endpoint", "web"), True),
        (("pool", "web"), ("endpoint", "api"), False),
        (("pool", "web"), ("full", ""), False),
        (("pileup", "web"), ("full", ""), True),
        (("pileup", "web"), ("saturation", ""), True),
        (("pileup", "web"), ("role_limit", ""), False),
        (("pileup", "web"), ("pool", "web"), True),
        (("pileup", "web"), ("pool", "api"), False),
        (("pileup", "web"), ("endpoint", "api"), False),
        (("pileup", "web"), ("storm", "web"), False),
        (("storm", "web"), ("full", ""), True),
        (("storm", "web"), ("endpoint", "web"), True),
        (("storm", "web"), ("endpoint", "api"), False),
        (("storm", "web"), ("pileup", "web"), False),
        (("storm_warning", "web"), ("saturation", ""), False),
        (("queue", "web"), ("pileup", "api"), True),
        (("queue", "web"), ("pool", "api"), True),
        (("queue", "web"), ("open", "web"), True),
        (("queue", ""), ("endpoint", "api"), True),
        (("queue", "web"), ("leak", "api"), False),
        (("queue", "web"), ("storm", "api"), False),
        (("open", "web"), ("queue", "web"), False),
        (("unreachable", ""), ("pool", "web"), True),
        (("unreachable", ""), ("storm", "web"), True),
        (("unreachable", ""), ("queue", "web"), False),
    ],
)
def test_one_alert_silences_another_only_where_it_explains_it(
    alertmanager: Alertmanager, source: tuple[str, str], target: tuple[str, str], silenced: bool
) -> None:
    server = f"{source[0]}:{source[1]}-{target[0]}:{target[1]}"
    first, second = labels_of(*source, server=server), labels_of(*target, server=server)
    elsewhere = labels_of(*target, server=f"{server}-elsewhere")
    homeless = {key: value for key, value in second.items() if key != "server"}
    settle(alertmanager, first, second, elsewhere, homeless, name=server)
    assert alertmanager.inhibited(second) is silenced
    assert not alertmanager.inhibited(elsewhere)
    assert not alertmanager.inhibited(homeless)


def test_an_alert_without_a_server_silences_nothing(alertmanager: Alertmanager) -> None:
    source = labels_of("leak", "nowhere")
    targets = [labels_of("endpoint", "nowhere"), labels_of("full", "")]
    settle(alertmanager, source, *targets, name="nowhere")
    assert not any(alertmanager.inhibited(target) for target in targets)


def labels_of(kind: str, application: str, **more: str) -> dict[str, str]:
    labels = ALERT[kind] | more
    return labels | {"application": application} if application else labels


def settle(alertmanager: Alertmanager, *alerts: dict[str, str], name: str) -> None:
    """Send the alerts and wait until Alertmanager has weighed them: it does so in order, and the last pair shows."""
    cause, symptom = (labels_of(kind, "", server=f"control of {name}") for kind in ("leak", "full"))
    alertmanager.post(*alerts, symptom, cause)
    until(lambda: alertmanager.inhibited(symptom), "the control is silenced")


def test_a_leak_rings_the_pager_once_with_its_symptoms_silent(alertmanager: Alertmanager) -> None:
    leak = labels_of("leak", "web", server="once")
    symptoms = [labels_of("endpoint", "web", server="once"), labels_of("full", "", server="once")]
    for _ in range(3):
        settle(alertmanager, leak, *symptoms, name="once")
    until(lambda: alertmanager.receivers.of("pager", "once"), "a page")
    # A later incident's page proves that everything due by then was sent.
    alertmanager.post(labels_of("leak", "web", server="later"))
    until(lambda: alertmanager.receivers.of("pager", "later"), "a later page")
    pages = alertmanager.receivers.of("pager", "once")
    assert [[alert["labels"] for alert in page["alerts"]] for page in pages] == [[leak]]
    assert alertmanager.receivers.of("morning", "once") == []


def test_two_incidents_on_two_databases_ring_twice(alertmanager: Alertmanager) -> None:
    leak = labels_of("leak", "web", server="first of two")
    queue = labels_of("queue", "web", server="second of two")
    symptoms = [labels_of("full", "", server="first of two"), labels_of("pileup", "api", server="second of two")]
    settle(alertmanager, leak, queue, *symptoms, name="two")
    for server, culprit in (("first of two", leak), ("second of two", queue)):
        (page,) = until(lambda server=server: alertmanager.receivers.of("pager", server), f"a page of {server}")
        assert [alert["labels"] for alert in page["alerts"]] == [culprit]


def test_a_symptom_that_is_seen_before_its_cause_waits_for_it(alertmanager: Alertmanager) -> None:
    full = labels_of("full", "", server="early")
    alertmanager.post(full)
    time.sleep(4)  # longer than the pager's wait for what explains itself
    storm = labels_of("storm", "web", server="early")
    alertmanager.post(storm)
    until(lambda: alertmanager.receivers.of("pager", "early"), "a page")
    # What is full with nothing to explain it is sent later: by then all that was due has been sent.
    alertmanager.post(labels_of("full", "", server="late"))
    until(lambda: alertmanager.receivers.of("pager", "late"), "a page of what has no cause")
    pages = alertmanager.receivers.of("pager", "early")
    assert [[alert["labels"] for alert in page["alerts"]] for page in pages] == [[storm]]


def test_the_watchdog_reaches_its_switch_and_never_the_pager(alertmanager: Alertmanager) -> None:
    alertmanager.post({"alertname": "BatSignalWatchdog", "severity": "none", "kind": "watchdog"})
    until(lambda: [name for name, _ in alertmanager.receivers.messages if name == "deadman"], "the watchdog")
    pages = [message for name, message in alertmanager.receivers.messages if name != "deadman"]
    assert not [page for page in pages if "BatSignalWatchdog" in json.dumps(page)]
