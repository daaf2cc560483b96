"""Every panel returns data from a real Prometheus that scrapes the real daemon while a real incident goes on.

One incident with all that panels show: a deploy that leaks, a queue behind its open transaction, clients that wait for
PgBouncer, a refused login of our own, a role with a limit, endpoints, comings and goings.
"""

import contextlib
import json
import math
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from batsignal.drills.actors.health_endpoint import HealthEndpoint
from batsignal.drills.actors.pooler import PgBouncer
from batsignal.drills.ground import Ground, on_embedded
from boards.panels import STATE_POINTS
from dashboard_files import EVERY_QUERY, Query, filled, metrics
from paging import ANSWER_SECONDS, answers, free_port, process, served, wait_for

OLD = "web@1.0.0"
# Another service in another database: of one that its pooler starves, the empty pool would be said first.
STEADY, LEAKING = "search@1.0.0", "search@2.0.0"
LIT_SECONDS = 90.0
SERIES_MOST = 100


class Shop:
    """The applications of the incident: threads that open real sessions, until the ground is closed."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._kept: list[Any] = []

    def work(self) -> None:
        """Be a pool of the old version, and a job that comes and goes."""
        self._kept += [self._ground.connect(STEADY, database="audit") for _ in range(2)]
        self._run(self._pool)
        self._run(self._cron)

    def break_down(self) -> None:
        """Deploy: sessions that are never given back, and a queue behind a transaction that nobody ends."""
        self._kept.append(holder := self._ground.connect("billing", autocommit=False))
        holder.cursor().execute("UPDATE stock SET sold = 1 WHERE item = 1")
        for _ in range(4):
            self._run(self._wait_for_the_row)
        self._run(self._leak)

    def starve(self, pooler: PgBouncer, pool_size: int) -> None:
        """Hold all the sessions of the pool, and let a client wait."""
        for _ in range(pool_size):
            self._kept.append(held := pooler.connect(OLD))
            held.cursor().execute("SELECT 1")
        self._run(lambda: pooler.connect(OLD).cursor().execute("SELECT 1"))

    def _run(self, act: Callable[[], object]) -> None:
        def until_the_end() -> None:
            with contextlib.suppress(psycopg2.Error):
                act()

        self._ground.start_thread(until_the_end, "shop")

    def _pool(self) -> None:
        pool = [self._ground.connect(OLD) for _ in range(4)]
        while not self._ground.stopped.wait(0.05):
            for session in pool:
                session.cursor().execute("SELECT count(*) FROM stock WHERE item > 1")

    def _cron(self) -> None:
        while not self._ground.stopped.wait(0.2):
            with contextlib.closing(self._ground.connect("cron")) as session:
                session.cursor().execute("SELECT pg_sleep(1.2)")

    def _wait_for_the_row(self) -> None:
        self._ground.connect(OLD).cursor().execute("UPDATE stock SET sold = 2 WHERE item = 1")

    def _leak(self) -> None:
        while not self._ground.stopped.wait(0.5):
            self._kept.append(session := self._ground.connect(LEAKING, database="audit"))
            session.cursor().execute("SELECT 1")


@dataclass(frozen=True, slots=True)
class Incident:
    """Prometheus in the middle of it."""

    prometheus: int
    daemon: str
    began: float
    at: float

    def ask(self, path: str, **arguments: object) -> Any:
        text = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.prometheus}/api/v1/{path}?{text}", timeout=30) as answer:
            return json.load(answer)["data"]

    def answer(self, query: Query, expr: str, *, seconds: float, step: int) -> list[dict[str, Any]]:
        """Return the series as a panel gets them: at the end, or over the time before it."""
        if query.instant:
            found = self.ask("query", query=expr, time=self.at)
        else:
            found = self.ask("query_range", query=expr, start=self.at - seconds, end=self.at, step=step)
        series: list[dict[str, Any]] = found["result"]
        return series

    def without_data(self, seconds: float, *, step: int, rate_seconds: int, server: str = ".+") -> Iterator[str]:
        """Yield the queries that return nothing, nothing but NaN, or more than a picture can show."""
        for query in EVERY_QUERY:
            expr = filled(query.expr, server=server, rate_seconds=rate_seconds, range_seconds=round(seconds))
            found = self.answer(query, expr, seconds=seconds, step=step)
            numbers = [float(value) for one in found for _, value in one.get("values") or [one["value"]]]
            if all(math.isnan(number) for number in numbers):
                yield f"{query.where}: nothing for {expr}"
            if len(found) > SERIES_MOST:
                yield f"{query.where}: {len(found)} series"


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    folder = tmp_path_factory.mktemp("panels")
    daemon, prometheus = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        ground = stack.enter_context(on_embedded(max_connections=100))
        pooler = PgBouncer(ground, pool_size=2)
        stack.callback(pooler.stop)
        certificate = make_certificate(folder)
        endpoints = [HealthEndpoint("web"), with_tls(HealthEndpoint("search"), certificate)]
        for endpoint in endpoints:
            stack.callback(endpoint.close)
        prepare(ground)
        config = write_config(folder, ground, pooler, endpoints)
        trusting = ["env", f"SSL_CERT_FILE={certificate}"]
        run = [*trusting, sys.executable, "-m", "batsignal", "run", f"--config.file={config}"]
        stack.enter_context(process([*run, f"--web.listen-address=127.0.0.1:{daemon}"], folder / "daemon.log"))
        stack.enter_context(process(prometheus_command(folder, daemon, prometheus), folder / "prometheus.log"))
        url = f"http://127.0.0.1:{daemon}"
        wait_for(lambda: answers(f"{url}/-/ready"), 30, "the daemon is ready")
        wait_for(lambda: answers(f"http://127.0.0.1:{prometheus}/-/ready"), 30, "Prometheus is ready")
        began = time.time()
        refuse_once(ground, url)
        shop = Shop(ground)
        shop.work()
        shop.starve(pooler, 2)
        time.sleep(3)  # the old version alone: what is new must be seen to come
        shop.break_down()
        wait_for(lambda: {"leak", "lock_pileup"} <= lit(url), LIT_SECONDS, f"both are lit, of {lit(url)}")
        scraped = f"http://127.0.0.1:{prometheus}/api/v1/query?query=count(batsignal_signal_sessions)%3E1"
        wait_for(lambda: bool(results(scraped)), 20, "Prometheus has scraped what is lit")
        yield Incident(prometheus, url, began, time.time())


def prepare(ground: Ground) -> None:
    ground.execute("CREATE TABLE stock (item integer PRIMARY KEY, sold integer)")
    ground.execute("INSERT INTO stock SELECT n, 0 FROM generate_series(1, 500) AS n")
    ground.execute("GRANT ALL ON stock TO PUBLIC")
    ground.execute("CREATE DATABASE audit")
    ground.execute("ALTER ROLE web CONNECTION LIMIT 80")


def make_certificate(folder: Path) -> Path:
    """Make a key and a certificate for this host, in one file."""
    path = folder / "endpoint.pem"
    subject = ["-subj", "/CN=endpoint", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *subject]
    subprocess.run([*made, "-keyout", path, "-out", folder / "only.pem"], check=True, capture_output=True)
    path.write_text(path.read_text() + (folder / "only.pem").read_text())
    return path


def with_tls(endpoint: HealthEndpoint, certificate: Path) -> HealthEndpoint:
    """Let an endpoint that listens already speak TLS from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    endpoint._server.socket = context.wrap_socket(endpoint._server.socket, server_side=True)
    return endpoint


def write_config(folder: Path, ground: Ground, pooler: PgBouncer, endpoints: list[HealthEndpoint]) -> Path:
    assert ground.embedded is not None
    server = {
        "name": "db1",
        "dsn": ground.embedded.dsn(user="batsignal", dbname=ground.service_database),
        "pgbouncer_dsn": pooler.console_dsn,
    }
    plain, tls = (endpoint.url for endpoint in endpoints)
    probes = [
        {"name": name, "url": url, "interval_seconds": 1, "timeout_seconds": 1}
        for name, url in (("web", plain), ("search", tls.replace("http:", "https:")))
    ]
    path = folder / "batsignal.yml"
    store = {"path": str(folder / "batsignal.db")}
    path.write_text(yaml.safe_dump({"servers": [server], "endpoints": probes, "store": store}))
    return path


def prometheus_command(folder: Path, daemon: int, port: int) -> list[str]:
    path = folder / "prometheus.yml"
    scrape = {"job_name": "batsignal", "static_configs": [{"targets": [f"127.0.0.1:{daemon}"]}]}
    path.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]})
    )
    return [
        *("prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]


def refuse_once(ground: Ground, url: str) -> None:
    """Turn our own login away for a moment: PostgreSQL counts no refusals, so the daemon can tell only of its own."""
    ground.execute("ALTER ROLE batsignal CONNECTION LIMIT 0")
    ground.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'batsignal'")
    wait_for(lambda: "batsignal_connection_refusals_total" in served(url), 30, "a refusal of our own")
    ground.execute("ALTER ROLE batsignal CONNECTION LIMIT -1")
    wait_for(lambda: "batsignal_connections" in served(url), 30, "the daemon sees the server again")


def lit(url: str) -> set[str]:
    with urllib.request.urlopen(f"{url}/api/v1/signals", timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - an address of our own
        return {signal["kind"] for signal in json.load(answer)["signals"]}


def results(url: str) -> list[Any]:
    with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - an address of our own
        found: list[Any] = json.load(answer)["data"]["result"]
    return found


@pytest.mark.takes(seconds=120)
@pytest.mark.timeout(300)
def test_every_panel_returns_data_of_a_real_incident(incident: Incident) -> None:
    """One test for all of it: a test each would play the incident in every worker."""
    seconds = incident.at - incident.began
    for server in (".+", "db1"):
        assert not list(incident.without_data(seconds, step=1, rate_seconds=4, server=server))
    assert not list(incident.without_data(30, step=1, rate_seconds=4))
    # A month, in as many points as a timeline has.
    step = 30 * 86_400 // STATE_POINTS
    assert not list(incident.without_data(30 * 86_400, step=step, rate_seconds=step + 1))

    names = {name for query in EVERY_QUERY for name in metrics(query.expr)} - {"up", "scrape_duration_seconds"}
    assert names <= served(incident.daemon)
    assert incident.ask("label/server/values", **{"match[]": "batsignal_last_tick_timestamp_seconds"}) == ["db1"]
    check_that_what_is_lit_is_one_row_a_signal(incident)


def check_that_what_is_lit_is_one_row_a_signal(incident: Incident) -> None:
    """Grafana merges the answers by the labels that they share: the others have none that the first has not."""
    asked = [query for query in EVERY_QUERY if "Who, since when" in query.where]
    first, *others = [incident.answer(query, filled(query.expr), seconds=60, step=1) for query in asked]
    assert {"leak", "lock_pileup"} <= {series["metric"]["kind"] for series in first}
    added = {"deploy", "advice", "runbook"}
    rows = sorted(sorted((name, value) for name, value in one["metric"].items() if name not in added) for one in first)
    for other in others:
        assert sorted(sorted(one["metric"].items()) for one in other) == rows
    leak = next(series["metric"] for series in first if series["metric"]["kind"] == "leak")
    assert (leak["application"], leak["deploy"], leak["runbook"]) == ("search", LEAKING, "BatSignalLeak")
