"""From the onset of an incident to the page: the shipped rules against what postgres_exporter's users run.

100 slots, 18 in use, then one of four incidents: a release that takes a session every 2 s and gives none back; one
whose statement does not end (a session a second); a queue behind a lock (the same); a storm (40 a second, each for 3
s). Both monitors watch the same server in the same minutes, each behind a real Prometheus and a real Alertmanager,
and the page is what reaches a webhook. Ours scrapes and evaluates every 5 s, by the shipped configuration; theirs
every 15 s, with the connection conditions of postgres_exporter's mixin and of awesome-prometheus-alerts. Theirs waits
as long as ours to group alerts.
"""

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any

import psycopg2
import yaml

from batsignal.drills.embedded import HOST
from batsignal.errors import UnreachableError
from report import Line, bounded, run
from stage import Crowd, Program, Stage, wait_until

ALERTS = Path(__file__).parents[1] / "alerts"
SHIPPED_WEBHOOK = "127.0.0.1:9095"
SHIPPED_TARGET = "127.0.0.1:9988"
SHIPPED_ALERTMANAGER = "127.0.0.1:9093"

SLOTS = 100
IN_USE = 18
CALM_SECONDS = 60.0
# So long both are listened to after their first pages: a second page of the same incident would come by then.
AFTERWARDS_SECONDS = 45.0
PATIENCE_SECONDS = 420.0
GROUP_WAIT = "2s"

USED = "sum by (server) (pg_stat_activity_count)"
LIMIT = "max by (server) (pg_settings_max_connections)"
RESERVED = "max by (server) (pg_settings_superuser_reserved_connections)"
# As facts, in our words: what is compared with what, and for how long it must hold.
PEER_CONDITIONS = (
    ("MixinAtTheLimit", f"{USED} >= {LIMIT} - {RESERVED}", "1m"),
    ("MixinNearTheLimit", f"{USED} > 0.8 * ({LIMIT} - {RESERVED})", "10m"),
    ("AwesomeTooManyConnections", f"{USED} > 0.8 * {LIMIT}", "2m"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What goes wrong, how fast, whose fault it is, and within how many seconds it must have paged."""

    per_second: float
    culprit: str
    seconds_at_most: float


INCIDENTS = {
    "leak": Incident(per_second=0.5, culprit="web@2.4.0", seconds_at_most=50),
    "pile": Incident(per_second=1, culprit="web@2.4.0", seconds_at_most=30),
    "queue": Incident(per_second=1, culprit="checkout@1.9.0", seconds_at_most=30),
    "storm": Incident(per_second=40, culprit="gateway@4.1.0", seconds_at_most=25),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a webhook received, and when."""

    at: float
    incident: str
    """Alertmanager's group: to whoever takes pages, each is one incident."""
    alerts: tuple[dict[str, Any], ...]

    @property
    def text(self) -> str:
        return json.dumps(self.alerts)

    @property
    def names(self) -> str:
        return ", ".join(sorted({alert["labels"]["alertname"] for alert in self.alerts}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One incident as it went: when it began, after how many seconds the slots were gone, and who was told."""

    name: str
    incident: Incident
    onset: float
    full_after: float
    ours: list[Page]
    peer: list[Page]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A local receiver; `pages` are those that would wake a person, oldest first."""

    address: str
    pages: list[Page]


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Receive pages on loopback."""
    pages: list[Page] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            firing = tuple(alert for alert in message["alerts"] if alert["status"] == "firing")
            if firing and self.path == "/pager":
                pages.append(Page(at=time.time(), incident=message["groupKey"], alerts=firing))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: the table is the output."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Webhook(f"{HOST}:{server.server_port}", pages)
        server.shutdown()


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Play each incident once and return who was told of it, and when."""
    for program in ("prometheus", "prometheus-alertmanager"):
        if which(program) is None:
            raise UnreachableError(f"{program} is not installed; install it with: apt-get install {program}")
    return [line for name in arguments.incident or INCIDENTS for line in _play(name, INCIDENTS[name])]


def options(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    parser.add_argument("--incident", action="append", choices=INCIDENTS, help="only this one; repeatable")


def _play(name: str, incident: Incident) -> list[Line]:
    with Stage(max_connections=SLOTS) as stage, webhook() as our_pager, webhook() as peer_pager:
        ours, peer = stage.daemon(), stage.exporter()
        crowd = stage.crowd()
        # The two monitors have a seat each, and so has the superuser who made the roles.
        crowd.ask(f"open {IN_USE - 3} {stage.dsn('web', 'web@2.3.9')}")
        crowd.ask("work")
        _watch_as_shipped(stage, ours, our_pager)
        _watch_as_peers_do(stage, peer, peer_pager)
        time.sleep(CALM_SECONDS)
        if our_pager.pages or peer_pager.pages:
            names = [page.names for page in (*our_pager.pages, *peer_pager.pages)]
            raise UnreachableError(f"paged before the {name} began: {'; '.join(names)}")
        with _begun(stage, name, incident) as (losers, onset):
            full_after = _until_full_and_paged(losers, onset, our_pager, peer_pager)
            time.sleep(AFTERWARDS_SECONDS)
            return _lines(
                Played(
                    name=name,
                    incident=incident,
                    onset=onset,
                    full_after=full_after,
                    ours=our_pager.pages,
                    peer=peer_pager.pages,
                )
            )


@contextmanager
def _begun(stage: Stage, name: str, incident: Incident) -> Iterator[tuple[Crowd, float]]:
    """Begin the incident; yield who plays it and when its first session is lost."""
    losers = stage.crowd()
    culprit, application = incident.culprit, incident.culprit
    with closing(psycopg2.connect(stage.dsn("web", culprit))) as blocker:
        if name == "queue":
            with closing(psycopg2.connect(stage.dsn())) as owner:
                owner.cursor().execute("CREATE TABLE queue (id int); GRANT ALL ON queue TO web")
                owner.commit()
            blocker.cursor().execute("LOCK TABLE queue IN ACCESS EXCLUSIVE MODE")
            application = "web@2.3.9"  # who waits does nothing wrong
        else:
            blocker.close()
        onset = time.time() + 1 / incident.per_second
        losers.ask(f"{name} {incident.per_second} {stage.dsn('web', application)}")
        yield losers, onset


def _until_full_and_paged(losers: Crowd, onset: float, ours: Webhook, peer: Webhook) -> float:
    """Wait for the first refusal and for both pages; return how many seconds after the onset the slots were gone."""
    full_after = 0.0

    def done() -> bool:
        nonlocal full_after
        _, refused = losers.ask("held").split()
        if int(refused) and not full_after:
            full_after = time.time() - onset
        return bool(full_after and ours.pages and peer.pages)

    if not wait_until(done, PATIENCE_SECONDS):
        missing = [name for name, hook in (("ours", ours), ("peer", peer)) if not hook.pages]
        raise UnreachableError(f"within {PATIENCE_SECONDS:g} s no page of: {', '.join(missing) or 'none, never full'}")
    return full_after


def _lines(played: Played) -> list[Line]:
    name, incident, full_after = played.name, played.incident, played.full_after
    ours, peer = played.ours, played.peer
    first, theirs = ours[0], peer[0]
    service, _, version = incident.culprit.partition("@")
    names_it = any(
        alert["labels"].get("application") == service and version in json.dumps(alert["annotations"])
        for alert in first.alerts
    )
    ours_after, peer_after = first.at - played.onset, theirs.at - played.onset
    what = f"{name}: onset to the first page ({first.names}; {theirs.names})"
    return [
        bounded(what, ours_after, "s", incident.seconds_at_most, peer_after),
        Line(what=f"{name}: slots gone, after the onset", ours=full_after, peer=full_after, unit="s"),
        Line(
            what=f"{name}: time left at the first page",
            ours=full_after - ours_after,
            peer=full_after - peer_after,
            unit="s",
        ),
        bounded(f"{name}: pages ({_named(ours)}; {_named(peer)})", _incidents(ours), "", 1, _incidents(peer)),
        Line(
            what=f"{name}: the page names application and version",
            ours=float(names_it),
            peer=float(service in theirs.text),
            unit="",
            bar="1",
            met=names_it,
        ),
    ]


def _incidents(pages: list[Page]) -> int:
    return len({page.incident for page in pages})


def _named(pages: list[Page]) -> str:
    return ", ".join(sorted({alert["labels"]["alertname"] for page in pages for alert in page.alerts}))


def _watch_as_shipped(stage: Stage, daemon: Program, pager: Webhook) -> None:
    """Start Prometheus and Alertmanager with the shipped files; only addresses are put in."""
    folder = stage.folder / "shipped"
    folder.mkdir()
    for rules in ALERTS.glob("*.rules.yml"):
        (folder / rules.name).write_text(rules.read_text(encoding="utf-8"), encoding="utf-8")
    routes = (ALERTS / "alertmanager.yml").read_text(encoding="utf-8")
    alertmanager = _alertmanager(stage, folder, _replaced(routes, SHIPPED_WEBHOOK, pager.address))
    config = (ALERTS / "prometheus.yml").read_text(encoding="utf-8")
    config = _replaced(config, SHIPPED_TARGET, f"{HOST}:{daemon.port}")
    _prometheus(stage, folder, _replaced(config, SHIPPED_ALERTMANAGER, alertmanager))


def _watch_as_peers_do(stage: Stage, exporter: Program, pager: Webhook) -> None:
    folder = stage.folder / "peers"
    folder.mkdir()
    route = {
        "route": {"receiver": "pager", "group_by": ["server"], "group_wait": GROUP_WAIT},
        "receivers": [{"name": "pager", "webhook_configs": [{"url": f"http://{pager.address}/pager"}]}],
    }
    alertmanager = _alertmanager(stage, folder, yaml.safe_dump(route))
    rules = [{"alert": name, "expr": condition, "for": hold} for name, condition, hold in PEER_CONDITIONS]
    groups = {"groups": [{"name": "connections", "rules": rules}]}
    (folder / "connections.rules.yml").write_text(yaml.safe_dump(groups), encoding="utf-8")
    config = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["*.rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [{"job_name": "postgres", "static_configs": [{"targets": [f"{HOST}:{exporter.port}"]}]}],
    }
    _prometheus(stage, folder, yaml.safe_dump(config))


def _alertmanager(stage: Stage, folder: Path, config: str) -> str:
    port = stage.free_port()
    file = folder / "alertmanager.yml"
    file.write_text(config, encoding="utf-8")
    command = ["prometheus-alertmanager", f"--config.file={file}", f"--storage.path={folder / 'alertmanager'}"]
    command += [f"--web.listen-address={HOST}:{port}", "--cluster.listen-address=", "--log.level=error"]
    stage.await_answer(stage.start(command), port, "/-/ready")
    return f"{HOST}:{port}"


def _prometheus(stage: Stage, folder: Path, config: str) -> None:
    port = stage.free_port()
    file = folder / "prometheus.yml"
    file.write_text(config, encoding="utf-8")
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}"]
    command += [f"--web.listen-address={HOST}:{port}", "--log.level=error"]
    stage.await_answer(stage.start(command), port, "/-/ready")


def _replaced(text: str, shipped: str, ours: str) -> str:
    if shipped not in text:
        raise UnreachableError(f"the shipped file no longer names {shipped}; put the new address into this command")
    return text.replace(shipped, ours)


if __name__ == "__main__":
    run(__doc__, measure, options)
