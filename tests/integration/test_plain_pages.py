"""What pages when no detector does: each rule without one is seen firing, against what real daemons serve.

Everything goes wrong at once, each at a server of its own: one daemon with its detectors, one whose detectors recognise
nothing, one that is killed. Prometheus and Alertmanager run with the files that ship; beside them vmalert evaluates the
rules that are made for it, on the same series.
"""

import json
import re
import select
import signal
import socket
import socketserver
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from batsignal.drills.embedded import EmbeddedServer
from paging import ALERTS, Pager, alerting, answers, free_port, process, served, wait_for

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
TESTS = Path(__file__).parents[1]
SECONDS = 240.0
LINKS = ("runbook_url", "page_url", "dashboard_url")

# Alert and kind, and what else its labels must say.
FIRES = [
    ("BatSignalWatchdog", "watchdog", {}),
    ("BatSignalSlotsFull", "slots_full", {"server": "full"}),
    ("BatSignalDatabaseUnreachable", "database_unreachable", {"server": "gone"}),
    ("BatSignalDatabaseUnreachable", "not_answering", {"server": "away"}),
    ("BatSignalBlind", "blind", {"server": "no-database"}),
    ("BatSignalBlind", "blind", {"server": "no-privilege"}),
    ("BatSignalSaturation", "slots_high", {"server": "high"}),
    ("BatSignalSaturation", "refused", {"server": "refusing"}),
    ("BatSignalDown", "daemon", {"instance": "KILLED"}),
    ("BatSignalDown", "daemon", {"server": "stuck"}),
    ("BatSignalReloadFailed", "reload", {"instance": "WATCHING"}),
    ("BatSignalEndpointDown", "endpoint_down", {"endpoint": "shop"}),
]
SAYS = {
    "slots_full": "slots are used, 16 of them by shop.",
    "database_unreachable": "There is no way into gone: it refuses connections, nothing listens there.",
    "not_answering": "There is no way into away: it refuses connections, nothing listens there.",
    "slots_high": "high is running out of connection slots: ",
    "refused": "the connection limit of a database is reached",
    "reload": "could not reload its config file and runs with the old one.",
    "endpoint_down": "shop is down: health endpoint shop has failed every probe for two minutes.",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """What is watched, and by whom."""

    pager: Pager
    vmalert: str
    plain: str
    """The daemon whose detectors recognise nothing."""
    names: dict[str, str]
    """The placeholders of `FIRES`, and the instances they stand for."""

    def alerts(self, url: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{url}/api/v1/alerts", timeout=5) as answer:  # noqa: S310 - an address of our own
            found: list[dict[str, Any]] = json.load(answer)["data"]["alerts"] or []
        return [alert for alert in found if alert["state"] == "firing"]

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.pager.prometheus_port}"

    def firing(self, url: str, name: str, kind: str, labels: dict[str, str]) -> dict[str, Any] | None:
        """Return the one alert that fires so at that ruler, if it does by now."""
        wanted = {"kind": kind} | {key: self.names.get(value, value) for key, value in labels.items()}
        found = [
            alert
            for alert in self.alerts(url)
            if alert["labels"].get("alertname", alert.get("name")) == name and wanted.items() <= alert["labels"].items()
        ]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path
    watching, plain, killed = ports = (free_port(), free_port(), free_port())
    with ExitStack() as stack:
        full, away, roomy = (
            stack.enter_context(EmbeddedServer(DEBIAN_15, max_connections=slots)) for slots in (20, 20, 40)
        )
        for server in (full, away, roomy):
            ask(server, "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; CREATE ROLE app LOGIN")
        ask(roomy, "CREATE ROLE unprivileged LOGIN")
        ask(roomy, "CREATE DATABASE small CONNECTION LIMIT 1")
        daemons = {
            watching: config(
                folder / "watching.yml",
                servers={
                    "full": full.dsn(user="watcher"),
                    "gone": away.dsn(user="watcher"),
                    "no-privilege": roomy.dsn(user="unprivileged"),
                },
            ),
            plain: config(
                folder / "plain.yml",
                servers={
                    "away": away.dsn(user="watcher"),
                    "high": roomy.dsn(user="watcher"),
                    "no-database": relay(stack, roomy),
                    "stuck": roomy.dsn(user="watcher"),
                    "refusing": roomy.dsn(user="watcher", dbname="small"),
                },
                endpoints=[{"name": "shop", "url": f"http://127.0.0.1:{free_port()}/"}],
            ),
            killed: config(folder / "killed.yml", servers={"somewhere": roomy.dsn(user="watcher")}),
        }
        # The one that the database `small` has room for.
        stack.callback(psycopg2.connect(roomy.dsn(user="app", dbname="small")).close)
        running = {}
        for port, file in daemons.items():
            program = [str(TESTS / "daemon_without_detectors.py")] if port == plain else ["-m", "batsignal"]
            command = [sys.executable, *program, "run", f"--config.file={file}"]
            command.append(f"--web.listen-address=127.0.0.1:{port}")
            running[port] = stack.enter_context(process(command, file.with_suffix(".log")))
        for port, file in daemons.items():
            wait_for(lambda port=port: answers(f"http://127.0.0.1:{port}/-/ready"), 40, f"{file.stem} is ready")
        record = stack.enter_context(alerting(folder, *ports))
        prometheus = f"http://127.0.0.1:{record.prometheus_port}"
        ruler = f"127.0.0.1:{free_port()}"
        command = ["vmalert", f"-rule={ALERTS}/vmalert/*.rules.yml", f"-datasource.url={prometheus}"]
        command += [f"-notifier.url=http://127.0.0.1:{record.alertmanager_port}", f"-httpListenAddr={ruler}"]
        stack.enter_context(process([*command, "-external.label=ruler=vmalert"], folder / "vmalert.log"))
        go_wrong(stack, full, away, roomy)
        running[killed].kill()
        stack.callback(running[plain].kill)  # a look that never ends holds up its exit
        (folder / "watching.yml").write_text("servers: 3\n")
        running[watching].send_signal(signal.SIGHUP)
        names = {"KILLED": f"127.0.0.1:{killed}", "WATCHING": f"127.0.0.1:{watching}"}
        yield Stage(record, f"http://{ruler}", f"http://127.0.0.1:{plain}", names)


def config(file: Path, *, servers: dict[str, str], endpoints: Any = ()) -> Path:
    listed = [{"name": name, "dsn": dsn} for name, dsn in servers.items()]
    store = {"path": str(file.with_suffix(".db"))}
    file.write_text(yaml.safe_dump({"servers": listed, "endpoints": list(endpoints), "store": store}))
    return file


def ask(server: EmbeddedServer, statement: str) -> int:
    session = psycopg2.connect(server.dsn())
    session.autocommit = True
    with session.cursor() as cursor:
        cursor.execute(statement)
        number = cursor.fetchone()[0] if cursor.description else 0
    session.close()
    return int(number)


def relay(stack: ExitStack, server: EmbeddedServer) -> str:
    """Return a DSN that leads through another process's socket: who the postmaster behind it is cannot be shown.

    So the titles of its processes, which are there to be read on this host, are not taken for its own.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            # Who hangs up with a reset has hung up.
            with suppress(ConnectionError), socket.create_connection(("127.0.0.1", server.port)) as there:
                ways = {self.request: there, there: self.request}
                while True:
                    for source in select.select(list(ways), [], [])[0]:
                        if not (data := source.recv(65536)):
                            return
                        ways[source].sendall(data)

    listener = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    stack.callback(listener.shutdown)
    return f"postgresql://watcher@127.0.0.1:{listener.server_address[1]}/missing"


def go_wrong(stack: ExitStack, full: EmbeddedServer, away: EmbeddedServer, roomy: EmbeddedServer) -> None:
    """Take the slots of two servers, all of one and 35 of the other's 37, and stop the third."""
    taken = "SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'"
    for _ in range(35 - ask(roomy, taken)):
        stack.callback(psycopg2.connect(roomy.dsn(user="app", application_name="shop@1")).close)
    while True:
        try:
            stack.callback(psycopg2.connect(full.dsn(user="app", application_name="shop@1")).close)
        except psycopg2.OperationalError:
            break
    away.stop("immediate")


@pytest.mark.takes(seconds=150)
@pytest.mark.timeout(400)
def test_every_plain_rule_fires_against_what_the_daemon_serves(stage: Stage) -> None:
    missing = list(FIRES)
    seen: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + SECONDS
    while missing and time.monotonic() < deadline:
        for expected in list(missing):
            name, kind, labels = expected
            ours = stage.firing(stage.prometheus, *expected)
            theirs = stage.firing(stage.vmalert, *expected)
            if ours and theirs:
                missing.remove(expected)
                seen[f"{kind} {labels}"] = ours
                assert theirs["annotations"].keys() == ours["annotations"].keys()
                for link in LINKS:
                    assert theirs["annotations"][link] == ours["annotations"][link]
                for alert in (ours, theirs):
                    text = " ".join(alert["annotations"].values())
                    assert not re.search(r"<no value>|<nil>|%!|\{\{|NaN", text), f"{name}: {text}"
                    assert SAYS.get(kind, "") in alert["annotations"]["summary"]
        time.sleep(0.5)
    assert not missing, "not seen firing at both rulers"
    assert "its role lacks pg_monitor" in seen["blind {'server': 'no-privilege'}"]["annotations"]["summary"]
    assert "DSN does not exist" in seen["blind {'server': 'no-database'}"]["annotations"]["summary"]
    assert "its ticks stand still" in seen["daemon {'server': 'stuck'}"]["annotations"]["summary"]
    assert "does not answer" in seen["daemon {'instance': 'KILLED'}"]["annotations"]["summary"]
    # Nobody who is woken by a server that is alive is told that it is down.
    away = {alert["labels"].get("server") for alert in stage.alerts(stage.prometheus) if is_away(alert)}
    assert away == {"gone", "away"}
    assert "batsignal_connection_refusals_total" in served(stage.plain), "it is served once somebody was refused"
    wait_for(
        lambda: any(page["labels"].get("ruler") == "vmalert" for _, page in stage.pager.pages("pager")),
        90,
        "a page that vmalert sent through the same Alertmanager",
    )


def is_away(alert: dict[str, Any]) -> bool:
    return bool(alert["labels"]["alertname"] == "BatSignalDatabaseUnreachable")
