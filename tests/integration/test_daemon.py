"""The daemon as a process against real servers: what it serves, what it says, and how it ends."""

import contextlib
import gzip
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from batsignal.drills.embedded import EmbeddedServer
from frozen import frozen
from paging import free_port

START_SECONDS = 20.0
STOP_SECONDS = 5.0
PASSWORD = "s3cr&t/pa:ss@w%rd"
MAX_CONNECTIONS = 40
TICKED = "batsignal_last_tick_timestamp_seconds"
OTHER_SECRET = "an0ther-s3cret"

Until = Callable[..., Any]

# What section 6 of the contract promises and this version has a source for.
SERVED = """
    batsignal_build_info batsignal_up batsignal_server_state batsignal_slots_full batsignal_privileged batsignal_view
    batsignal_connection_refusals_total batsignal_connection_slots_max batsignal_connection_slots_usable
    batsignal_connection_slots_used batsignal_connections batsignal_client_connections
    batsignal_sessions_opened_total batsignal_sessions_closed_total batsignal_session_seconds_total
    batsignal_connection_slots_used_ratio_bucket batsignal_query_active_sessions batsignal_query_info
    batsignal_blocked_sessions batsignal_ping_seconds_bucket batsignal_exhaustion_seconds batsignal_signals
    batsignal_signal_sessions batsignal_signal_since_timestamp_seconds batsignal_signal batsignal_endpoint_up
    batsignal_endpoint_duration_seconds_bucket batsignal_endpoint_phase_seconds
    batsignal_endpoint_tls_expiry_timestamp_seconds batsignal_deploy_timestamp_seconds batsignal_poll_success
    batsignal_poll_duration_seconds batsignal_last_tick_timestamp_seconds batsignal_config_last_reload_successful
    batsignal_config_last_reload_success_timestamp_seconds batsignal_store_up batsignal_recorder_up
    batsignal_store_errors_total batsignal_store_dropped_total batsignal_store_put_aside_total batsignal_store_bytes
    batsignal_store_deleted_total
"""


PASSING = {
    "server": "db1",
    "database": "postgres",
    "user": "postgres",
    "application": "passing",
    "version": "",
    "state": "idle",
}


@dataclass
class Daemon:
    """A running `batsignal run`, and what can be asked of it."""

    process: subprocess.Popen[bytes]
    log_path: Path
    until: Until

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if line["event"] == event]

    @property
    def address(self) -> str:
        """Where it listens, as it says itself."""

        def said() -> list[dict[str, Any]]:
            assert self.process.poll() is None, self.log
            return self.logged("listening")

        return str(self.until(said, "the daemon to listen", START_SECONDS)[0]["address"])

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://{self.address}{path}", method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own daemon
                return response.status, response.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read()

    def text(self, path: str) -> str:
        status, body = self.get(path)
        assert status == 200, body
        return body.decode()

    def json(self, path: str) -> Any:
        return json.loads(self.text(path))

    def ready(self) -> "Daemon":
        self.until(lambda: self.get("/-/ready")[0] == 200, "the daemon to be ready", START_SECONDS)
        return self

    def server(self, name: str) -> dict[str, Any]:
        (server,) = [one for one in self.json("/api/v1/status")["servers"] if one["name"] == name]
        return dict(server)

    def signals(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.json("/api/v1/signals")["signals"] if one["kind"] == kind]

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of one series, None when it is absent."""
        for family in parse_text(self.text("/metrics")):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None

    def ticks(self, server: str = "db1") -> float:
        """Return how many looks have been answered."""
        return self.metric("batsignal_ping_seconds_count", server=server) or 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def environment(folder: Path, **more: str) -> dict[str, str]:
    # The code under test may be another than the one that is installed.
    ours = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {"PATH": os.defpath, "HOME": str(folder), "PGPASSFILE": "/nonexistent", **ours, **more}


@dataclass
class Launcher:
    """Starts daemons and other commands, and sees to it that none outlives its test."""

    folder: Path
    until: Until
    stack: ExitStack
    started: int = 0

    def write(self, config: dict[str, Any] | str) -> Path:
        file = self.folder / "batsignal.yml"
        file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return file

    def run(
        self, config: dict[str, Any] | str | None, *options: str, address: str = "127.0.0.1:0", **env: str
    ) -> Daemon:
        self.started += 1
        log_path = self.folder / f"daemon{self.started}.log"
        command = [sys.executable, "-m", "batsignal", "run", "--web.listen-address", address, "--log.format", "json"]
        if config is not None:
            command += ["--config.file", str(self.write(config))]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=log, cwd=self.folder, env=environment(self.folder, **env)
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return Daemon(process, log_path, self.until)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "batsignal", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=self.folder,
            env=environment(self.folder),
        )

    def check(self, config: dict[str, Any] | str) -> subprocess.CompletedProcess[str]:
        return self.command("check", "--config.file", str(self.write(config)))


@contextmanager
def launching(folder: Path, until: Until) -> Iterator[Launcher]:
    with ExitStack() as stack:
        yield Launcher(folder, until, stack)


@pytest.fixture
def launcher(tmp_path: Path, until: Until) -> Iterator[Launcher]:
    with launching(tmp_path, until) as launcher:
        yield launcher


@dataclass
class Health:
    """A real health endpoint that answers what it is told to."""

    status: int = 200
    asked: list[int] = field(default_factory=list)
    url: str = ""

    def failed_in_a_row(self) -> int:
        return len(self.asked) - next((n for n, one in reversed(list(enumerate(self.asked, 1))) if one == 200), 0)


@contextmanager
def health_endpoint(context: ssl.SSLContext | None = None) -> Iterator[Health]:
    health = Health()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            health.asked.append(health.status)
            self.send_response(health.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    health.url = f"{'https' if context else 'http'}://localhost:{server.server_port}/healthz"
    try:
        yield health
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def health() -> Iterator[Health]:
    with health_endpoint() as health:
        yield health


def database(name: str, dsn: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "dsn": dsn, **keys}


def watched(server: EmbeddedServer, name: str = "db1", user: str = "watcher") -> dict[str, Any]:
    return database(name, server.dsn(user=user))


def nobody_listens(name: str = "down") -> dict[str, Any]:
    return database(name, f"postgresql://watcher@127.0.0.1:{free_port()}/postgres")


def self_signed(folder: Path) -> Path:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        f" -addext subjectAltName=DNS:localhost -keyout {folder}/tls.pem -out {folder}/ca.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    with (folder / "tls.pem").open("a") as file:
        file.write((folder / "ca.pem").read_text())
    return folder / "tls.pem"


# -- one daemon that has something of everything -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(postgres15: EmbeddedServer, until: Until, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that sees sessions of two versions, a statement at work, a refusal, and an endpoint that fails."""
    folder = tmp_path_factory.mktemp("everything")
    with ExitStack() as stack:

        def session(**parameters: str) -> psycopg2.extensions.connection:
            opened = psycopg2.connect(postgres15.dsn(**parameters))
            stack.callback(opened.close)
            opened.autocommit = True
            return opened

        superuser = session()
        with superuser.cursor() as cursor:
            cursor.execute("CREATE ROLE shut LOGIN CONNECTION LIMIT 0; CREATE ROLE insider LOGIN IN ROLE pg_monitor")
        stack.callback(superuser.cursor().execute, "DROP ROLE shut; DROP ROLE insider")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self_signed(folder))
        down, encrypted = stack.enter_context(health_endpoint()), stack.enter_context(health_endpoint(context))
        down.status = 503
        launcher = stack.enter_context(launching(folder, until))
        config = {
            "servers": [watched(postgres15, user="insider"), watched(postgres15, "shut", "shut")],
            "endpoints": [
                {"name": "web", "url": down.url, "servers": ["db1"], "interval_seconds": 0.5},
                {"name": "encrypted", "url": encrypted.url, "interval_seconds": 0.5},
            ],
        }
        session(application_name="web@2.3.9")
        daemon = launcher.run(config, SSL_CERT_FILE=f"{folder}/ca.pem").ready()
        session(application_name="web@2.4.0")
        passing = session(application_name="passing")
        at_work = psycopg2.connect(postgres15.dsn(), async_=True)
        stack.callback(at_work.close)
        until(lambda: at_work.poll() == psycopg2.extensions.POLL_OK, "a session at work")
        at_work.cursor().execute("SELECT pg_sleep(3600), 'a secret'")
        until(lambda: daemon.metric("batsignal_connections", **PASSING), "the session to be seen")
        passing.close()
        until(lambda: not missing(daemon), "every metric to be there")
        yield daemon


def missing(daemon: Daemon) -> set[str]:
    present = {re.split(r"[{ ]", line, maxsplit=1)[0] for line in daemon.text("/metrics").splitlines()}
    return set(SERVED.split()) - present


def test_every_promised_metric_that_has_a_source_is_there(everything: Daemon) -> None:
    assert missing(everything) == set()


def test_promtool_has_nothing_to_complain_about(everything: Daemon) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=everything.get("/metrics")[1], capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_openmetrics_is_what_its_own_parser_takes(everything: Daemon, until: Until) -> None:
    until(lambda: not missing(everything), "a look that succeeded")  # one that failed, on a busy machine, has no counts
    _, body = everything.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["batsignal_connections"].type == "gauge"
    assert families["batsignal_session_seconds"].type == "counter"
    assert families["batsignal_ping_seconds"].type == "histogram"


def test_gzip_carries_the_same_series(everything: Daemon) -> None:
    _, plain = everything.get("/metrics")
    _, zipped = everything.get("/metrics", **{"Accept-Encoding": "gzip"})
    assert len(zipped) < len(plain) / 3

    def names(text: bytes) -> set[str]:
        return {line.rpartition(" ")[0] for line in text.decode().splitlines() if line.startswith("batsignal_")}

    assert names(gzip.decompress(zipped)) == names(plain)


def test_healthy_and_ready_are_said(everything: Daemon) -> None:
    assert everything.text("/-/healthy") == "BatSignal is healthy.\n"
    assert everything.text("/-/ready") == "BatSignal is ready.\n"


def test_statement_is_shown_without_its_literals(everything: Daemon) -> None:
    infos = [line for line in everything.text("/metrics").splitlines() if line.startswith("batsignal_query_info")]
    assert any('query="SELECT pg_sleep(?), ?"' in line for line in infos)
    assert "a secret" not in everything.text("/metrics") + everything.text("/") + everything.log


def test_limit_of_a_role_is_told_from_a_full_server(everything: Daemon) -> None:
    assert everything.server("shut")["state"] == "role_limit"
    assert everything.metric("batsignal_server_state", server="shut", state="role_limit") == 1
    assert everything.metric("batsignal_slots_full", server="shut") == 0
    assert (everything.metric("batsignal_connection_refusals_total", server="shut", reason="role_limit") or 0) > 0


def test_limit_of_our_own_role_that_refuses_us_from_the_start_wakes_nobody(
    everything: Daemon, until: Callable[..., Any]
) -> None:
    def said() -> list[Any]:
        return [one for one in everything.signals("saturation") if one["server"] == "shut"]

    until(said, "the limit of our role to be said")
    assert [(one["severity"], one["subject"]["limit"]) for one in said()] == [("warning", "role:shut")]


def test_new_version_is_a_deploy(everything: Daemon) -> None:
    deploys = everything.json("/api/v1/status")["deploys"]
    assert [(deploy["service"], deploy["version"]) for deploy in deploys] == [("web", "2.4.0")]


def test_own_session_on_the_server_is_one_at_any_moment(
    everything: Daemon, sessions: Any, postgres15: EmbeddedServer
) -> None:
    everything.ready()
    with sessions.open(postgres15).cursor() as cursor:
        counts = set()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            # The refused attempts of `shut` never get as far as a session of theirs.
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'insider'")
            counts.add(cursor.fetchone())
    assert counts == {(1,)}


# -- several servers ---------------------------------------------------------------------------------------------------


def test_server_that_is_down_stops_no_tick_of_another(
    launcher: Launcher, postgres15: EmbeddedServer, until: Until
) -> None:
    daemon = launcher.run({"servers": [nobody_listens(), watched(postgres15)]}).ready()
    assert daemon.server("down")["state"] == "refused"
    assert daemon.metric("batsignal_server_state", server="down", state="refused") == 1
    assert (daemon.metric("batsignal_up", server="down"), daemon.metric("batsignal_up", server="db1")) == (0, 1)
    assert daemon.metric("batsignal_connection_slots_used", server="down") is None
    before = daemon.ticks()
    until(lambda: daemon.ticks() >= before + 3, "three more ticks", seconds=15)
    assert len(daemon.logged("server not seen")) == 1, "a change of state is logged once"


def test_frozen_server_is_shown_down_within_three_intervals_and_holds_up_neither_another_nor_the_exit(
    launcher: Launcher, postgres15: EmbeddedServer, fresh_server: Callable[..., EmbeddedServer], until: Until
) -> None:
    hanging = fresh_server()
    daemon = launcher.run({"servers": [watched(hanging, "hanging"), watched(postgres15)]}).ready()
    assert daemon.metric("batsignal_up", server="hanging") == 1
    with frozen(hanging.pid):
        # Three intervals, and a tick and the watchdog's own step.
        until(lambda: daemon.metric("batsignal_up", server="hanging") == 0, "the frozen server to be down", seconds=15)
        assert daemon.metric("batsignal_server_state", server="hanging", state="timeout") == 1
        before = daemon.ticks()
        until(lambda: daemon.ticks() >= before + 2, "more ticks")
        # Past the patience with the kept session, when it tries to get in anew.
        until(lambda: daemon.signals("database_unreachable"), "the signal")
        time_to_give_up = time.monotonic() + 8
        until(lambda: time.monotonic() > time_to_give_up, "the session to be given up")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(STOP_SECONDS) == 0
    assert "Traceback" not in daemon.log


def test_server_that_goes_away_lights_database_unreachable_and_clears_it_when_it_is_back(
    launcher: Launcher, fresh_server: Callable[..., EmbeddedServer], until: Until
) -> None:
    server = fresh_server()
    daemon = launcher.run({"servers": [watched(server)]}).ready()
    server.stop("immediate")
    (lit,) = until(lambda: daemon.signals("database_unreachable"), "the signal", seconds=15)
    assert lit["server"] == "db1"
    assert "reason: refused" in lit["evidence"]
    assert "no way into db1" in daemon.text("/")
    server.start()
    # The log says so a moment after the API does.
    (cleared,) = until(lambda: daemon.logged("signal cleared"), "the signal to clear", seconds=10)
    assert cleared["kind"] == "database_unreachable"
    assert daemon.signals("database_unreachable") == []
    assert daemon.server("db1")["state"] == "up"


# -- reload ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["walsender", "process_titles"])
def test_daemon_that_is_started_while_every_slot_is_taken_counts_them_says_full_but_alive_and_gets_in_later(
    launcher: Launcher, postgres15: EmbeddedServer, sessions: Any, until: Until, way: str
) -> None:
    emergency = {"emergency_dsn": postgres15.dsn()} if way == "walsender" else {}
    held: list[Any] = []
    with contextlib.suppress(psycopg2.OperationalError):
        while len(held) <= MAX_CONNECTIONS:
            held.append(sessions.open(postgres15, application_name="web@2.4.0"))
    assert len(held) <= MAX_CONNECTIONS
    daemon = launcher.run({"servers": [watched(postgres15) | emergency]}).ready()
    for _ in range(3):
        assert abs((daemon.metric("batsignal_connection_slots_used", server="db1") or 0) - MAX_CONNECTIONS) <= 1
        assert daemon.metric("batsignal_slots_full", server="db1") == 1
        assert daemon.metric("batsignal_server_state", server="db1", state="slots_full") == 1
        assert daemon.metric("batsignal_view", server="db1", view=way) == 1
        assert daemon.metric("batsignal_up", server="db1") == (1 if way == "walsender" else 0)
        ticked = daemon.metric(TICKED, server="db1")
        until(lambda ticked=ticked: daemon.metric(TICKED, server="db1") != ticked, "a tick")
    (signal_,) = until(lambda: daemon.signals("saturation"), "the limit to be said")
    assert (signal_["severity"], signal_["subject"]["limit"]) == ("critical", "server")
    assert daemon.logged("server seen another way")[0]["view"] == way
    assert daemon.server("db1")["failure"]["reason"] == "slots_full"
    for connection in held:
        connection.close()
    until(lambda: daemon.metric("batsignal_view", server="db1", view="session") == 1, "its own session")
    assert daemon.metric("batsignal_server_state", server="db1", state="up") == 1
    assert daemon.metric("batsignal_slots_full", server="db1") == 0


def test_sighup_takes_a_good_file_and_leaves_the_unchanged_servers_alone(
    launcher: Launcher, postgres15: EmbeddedServer, sessions: Any, until: Until
) -> None:
    config = {"servers": [watched(postgres15)]}
    daemon = launcher.run(config).ready()
    until(lambda: daemon.ticks() >= 2, "two ticks")
    own = "SELECT pid FROM pg_stat_activity WHERE usename = 'watcher'"
    ((pid,),) = sessions.run(postgres15, own)
    before = daemon.ticks()
    loaded = daemon.metric("batsignal_config_last_reload_success_timestamp_seconds") or 0

    config["servers"].append(nobody_listens())
    launcher.write(config)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.logged("config reloaded"), "the reload")
    daemon.ready()
    assert daemon.server("down")["state"] == "refused"
    assert daemon.ticks() >= before
    assert (daemon.metric("batsignal_config_last_reload_success_timestamp_seconds") or 0) > loaded
    assert sessions.run(postgres15, own) == [(pid,)], "the session is kept"

    config["servers"].pop()
    launcher.write(config)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.metric("batsignal_up", server="down") is None, "the server's series to go")
    assert [server["name"] for server in daemon.json("/api/v1/status")["servers"]] == ["db1"]


def test_reload_keeps_signals_and_another_pattern_keeps_session_and_counters(
    launcher: Launcher, postgres15: EmbeddedServer, sessions: Any, health: Health, until: Until
) -> None:
    health.status = 503
    sessions.open(postgres15, application_name="shop/2.4.0")
    config = {
        "servers": [watched(postgres15)],
        "endpoints": [{"name": "web", "url": health.url, "interval_seconds": 0.5}],
    }
    daemon = launcher.run(config).ready()
    (lit,) = until(lambda: daemon.signals("endpoint_down"), "the signal")
    own = "SELECT pid FROM pg_stat_activity WHERE usename = 'watcher'"
    ((pid,),) = sessions.run(postgres15, own)

    def shown(application: str, version: str) -> float | None:
        labels = {"database": "postgres", "user": "postgres", "state": "idle"}
        return daemon.metric("batsignal_connections", server="db1", application=application, version=version, **labels)

    assert shown("shop/2.4.0", "") == 1
    launcher.write(config | {"endpoints": [*config["endpoints"], {"name": "more", "url": health.url}]})
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.logged("config reloaded"), "the reload")
    (after,) = [one for one in daemon.signals("endpoint_down") if one["subject"]["endpoint"] == "web"]
    assert (after["id"], after["since"]) == (lit["id"], lit["since"])

    before = daemon.ticks()
    launcher.write(config | {"application_pattern": "^(?P<service>[^/]+)/(?P<version>.+)$"})
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: shown("shop", "2.4.0") == 1, "the names to be read the other way")
    assert daemon.ticks() >= before
    assert sessions.run(postgres15, own) == [(pid,)], "the session is kept"
    until(lambda: [one["id"] for one in daemon.signals("endpoint_down")] == [lit["id"]], "the signal to go on")
    assert "Traceback" not in daemon.log


def test_sighup_with_a_bad_file_keeps_the_old_config_and_says_so_until_it_is_mended(
    launcher: Launcher, postgres15: EmbeddedServer, until: Until
) -> None:
    config = {"servers": [watched(postgres15)]}
    daemon = launcher.run(config).ready()
    assert daemon.metric("batsignal_config_last_reload_successful") == 1
    file = launcher.write("servers: []\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.metric("batsignal_config_last_reload_successful") == 0, "the metric")
    said = f"{file}:1: servers: expected a list of at least one server, each with name and dsn, got an empty list"
    assert [line["reason"] for line in daemon.logged("config not reloaded, the old one stays in force")] == [said]
    assert daemon.json("/api/v1/status")["config"]["error"] == said
    before = daemon.ticks()
    until(lambda: daemon.ticks() > before, "the ticks to go on")
    launcher.write(config)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.metric("batsignal_config_last_reload_successful") == 1, "the metric")
    assert daemon.json("/api/v1/status")["config"]["error"] is None


def test_reload_over_http_is_there_only_when_it_was_asked_for(launcher: Launcher, postgres15: EmbeddedServer) -> None:
    config = {"servers": [watched(postgres15)]}
    assert launcher.run(config).get("/-/reload", "POST")[0] == 403
    daemon = launcher.run(config, "--web.enable-lifecycle").ready()
    assert daemon.get("/-/reload", "POST")[0] == 200
    launcher.write("servers: 5\n")
    status, body = daemon.get("/-/reload", "POST")
    assert (status, b"expected a list of at least one server" in body) == (500, True)
    assert daemon.get("/-/reload")[0] == 405


def test_reload_takes_a_new_role_with_a_new_session_and_gives_the_old_seat_back(
    launcher: Launcher, postgres15: EmbeddedServer, sessions: Any, until: Until
) -> None:
    daemon = launcher.run({"servers": [watched(postgres15)]}).ready()
    launcher.write({"servers": [watched(postgres15, user="nobody_special")]})
    daemon.process.send_signal(signal.SIGHUP)
    own = "SELECT usename FROM pg_stat_activity WHERE usename IN ('watcher', 'nobody_special')"
    until(lambda: sessions.run(postgres15, own) == [("nobody_special",)], "the new session alone")
    until(lambda: daemon.metric("batsignal_privileged", server="db1") == 0, "its privilege to show")


# -- start and stop ----------------------------------------------------------------------------------------------------


def test_taken_port_is_exit_3_and_named(launcher: Launcher, postgres15: EmbeddedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = launcher.run({"servers": [watched(postgres15)]}, address=address)
        assert daemon.process.wait(START_SECONDS) == 3
    assert daemon.log == f"batsignal: cannot listen on {address}: address already in use\n"


@pytest.mark.parametrize("command", ["run", "check"])
def test_broken_config_is_exit_2_and_one_line_on_stderr(launcher: Launcher, command: str) -> None:
    file = launcher.write("servers:\n  - name: db1\n")
    ended = launcher.command(command, "--config.file", str(file))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"batsignal: {file}:2: servers[0].dsn: missing;"
        " expected a libpq connection string (postgresql://... or key=value pairs)\n"
    )


def test_no_config_at_all_is_exit_2(launcher: Launcher) -> None:
    ended = launcher.command("run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("batsignal: no configuration: expected --config.file FILE, or DATA_SOURCE_NAME")


def test_bad_listen_address_is_exit_2(launcher: Launcher, postgres15: EmbeddedServer) -> None:
    daemon = launcher.run({"servers": [watched(postgres15)]}, address="localhost")
    assert daemon.process.wait(START_SECONDS) == 2
    assert daemon.log.startswith("batsignal: listen address 'localhost': expected HOST:PORT")


def test_data_source_name_alone_is_a_config(launcher: Launcher, postgres15: EmbeddedServer) -> None:
    daemon = launcher.run(None, DATA_SOURCE_NAME=postgres15.dsn(user="watcher")).ready()
    assert daemon.server(f"127.0.0.1:{postgres15.port}")["state"] == "up"


def test_libpqs_own_variables_alone_are_a_config(launcher: Launcher, postgres15: EmbeddedServer) -> None:
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres15.port), "PGUSER": "watcher", "PGDATABASE": "postgres"}
    daemon = launcher.run(None, **place).ready()
    assert daemon.server(f"127.0.0.1:{postgres15.port}")["state"] == "up"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_exit_0_in_spite_of_an_open_connection_and_gives_the_seat_back(
    launcher: Launcher, postgres15: EmbeddedServer, sessions: Any, until: Until, number: signal.Signals
) -> None:
    daemon = launcher.run({"servers": [watched(postgres15)]}).ready()
    host, _, port = daemon.address.partition(":")
    scraper = http.client.HTTPConnection(host, int(port), timeout=10)
    scraper.request("GET", "/metrics")
    scraper.getresponse().read()
    assert daemon.stop(number) == 0
    scraper.close()
    own = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'watcher'"
    until(lambda: sessions.run(postgres15, own) == [(0,)], "the seat to be given back")
    assert daemon.logged("stopped")
    assert "Traceback" not in daemon.log


def test_sigterm_before_it_serves_is_exit_0_too(launcher: Launcher, postgres15: EmbeddedServer, until: Until) -> None:
    port = free_port()
    daemon = launcher.run({"servers": [watched(postgres15)]}, address=f"127.0.0.1:{port}")

    def is_bound() -> bool:
        assert daemon.process.poll() is None, daemon.log
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    until(is_bound, "the port to be taken", START_SECONDS)
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.stop() == 0


# -- privileges, secrets -----------------------------------------------------------------------------------------------


def test_role_without_pg_monitor_is_told_everywhere(launcher: Launcher, postgres15: EmbeddedServer) -> None:
    config = {"servers": [watched(postgres15, user="nobody_special")]}
    daemon = launcher.run(config).ready()
    assert daemon.metric("batsignal_privileged", server="db1") == 0
    assert daemon.server("db1")["privileged"] is False
    assert "pg_monitor" in daemon.text("/")
    (line,) = [line for line in map(json.loads, daemon.log.splitlines()) if line["level"] == "error"]
    assert (line["server"], line["mend"]) == ("db1", "GRANT pg_monitor TO nobody_special;")
    checked = launcher.check(config)
    assert checked.returncode == 1
    assert (
        "FAIL server db1: the role may not see other roles' sessions: states, statements and leaks will be blind;"
        " GRANT pg_monitor TO nobody_special;\n"
    ) in checked.stdout


def test_no_secret_is_ever_said(launcher: Launcher, postgres15: EmbeddedServer, health: Health, until: Until) -> None:
    place = f"127.0.0.1:{postgres15.port}/postgres"
    login = health.url.replace("://", f"://probe:{OTHER_SECRET}@") + f"?token={OTHER_SECRET}"
    config = {
        "servers": [
            database("right", f"postgresql://with_password:{quote(PASSWORD, safe='')}@{place}"),
            database("wrong", f"postgresql://with_password:{OTHER_SECRET}@{place}"),
            database(
                "missing", f"host=127.0.0.1 port={postgres15.port} user=with_password password='{PASSWORD}' dbname=no"
            ),
            database("encrypted", f"postgresql://with_password:{OTHER_SECRET}@{place}?sslmode=require"),
        ],
        "endpoints": [{"name": "web", "url": login, "interval_seconds": 0.5}],
    }
    health.status = 503
    daemon = launcher.run(config, "--log.level", "debug", "--web.enable-lifecycle").ready()
    states = {server["name"]: server["state"] for server in daemon.json("/api/v1/status")["servers"]}
    assert states == {"right": "up", "wrong": "auth_failed", "missing": "no_database", "encrypted": "tls_failed"}
    until(lambda: daemon.signals("endpoint_down") and daemon.signals("database_unreachable"), "the signals")
    launcher.write(f"servers:\n  - name: right\n    dsn: postgresql://with_password:{OTHER_SECRET}@h/%zz\n")
    _, reloaded = daemon.get("/-/reload", "POST")
    said = [daemon.text(path) for path in ("/", "/metrics", "/api/v1/status", "/api/v1/signals", "/-/ready")]
    everything = "".join([*said, reloaded.decode(), daemon.log, launcher.check(config).stdout])
    for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), OTHER_SECRET):
        assert secret not in everything
    assert daemon.stop() == 0
    assert OTHER_SECRET not in daemon.log


EVIL = 'x"y\n\x1b[31m<img src=x onerror=alert(1)>\u202e\\'
TAME = 'x"y ?[31m<img src=x onerror=alert(1)>?\\'


def test_names_of_anybodys_making_are_told_in_print_and_escaped_everywhere(
    launcher: Launcher, postgres15: EmbeddedServer, health: Health, sessions: Any, until: Until
) -> None:
    name = '"{}"'.format(EVIL.replace('"', '""'))
    sessions.run(postgres15, f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 9")
    sessions.run(postgres15, f"CREATE DATABASE {name} CONNECTION LIMIT 9")
    health.status = 503
    service = '<blink>"\\{}</blink>'
    config = {
        "servers": [watched(postgres15)],
        "endpoints": [{"name": service, "service": service, "url": health.url, "interval_seconds": 0.5}],
    }
    evil = sessions.open(postgres15, user=EVIL, dbname=EVIL, application_name=f"{service}@\n1")
    evil.cursor().execute('SELECT 1 AS "\x1b[31m\u202e</script>"')
    daemon = launcher.run(config, "--record", "looks.jsonl", "--log.level", "debug").ready()
    until(lambda: daemon.signals("endpoint_down"), "the signal")
    labels = {"database": TAME, "user": TAME, "application": service, "version": "?1", "state": "idle"}
    assert daemon.metric("batsignal_connections", server="db1", **labels) == 1
    metrics = daemon.text("/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=metrics.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
    page = daemon.text("/")
    assert "<blink>" not in page
    assert "<img" not in page
    assert daemon.stop() == 0
    played = launcher.command("replay", "looks.jsonl")
    assert (played.returncode, "endpoint_down" in played.stdout) == (0, True)
    found = launcher.check(config).stdout
    for text in (metrics, page, daemon.log, played.stdout, found):
        assert [line for line in text.split("\n") if not line.replace("\t", "").isprintable()] == []
    evil.close()
    until(lambda: not sessions.run(postgres15, "SELECT 1 FROM pg_stat_activity WHERE datname LIKE 'x%'"), "it to end")
    sessions.run(postgres15, f"DROP DATABASE {name}")
    sessions.run(postgres15, f"DROP ROLE {name}")


# -- endpoints ---------------------------------------------------------------------------------------------------------


def test_endpoint_that_fails_three_times_in_a_row_is_lit_and_clears_when_it_is_well(
    launcher: Launcher, postgres15: EmbeddedServer, health: Health, until: Until
) -> None:
    endpoint = {"name": "shop-health", "url": health.url, "service": "shop", "interval_seconds": 0.5}
    daemon = launcher.run({"servers": [watched(postgres15)], "endpoints": [endpoint]}).ready()

    def up() -> float | None:
        return daemon.metric("batsignal_endpoint_up", endpoint="shop-health", service="shop")

    until(lambda: up() == 1, "a first good probe")
    health.status = 503
    (lit,) = until(lambda: daemon.signals("endpoint_down"), "the signal", seconds=10)
    assert health.failed_in_a_row() >= 3
    assert lit["subject"]["endpoint"] == "shop-health"
    assert lit["subject"]["application"] == "shop"
    assert lit["severity"] == "critical"
    assert "HTTP 503" in lit["summary"]
    assert lit["summary"] in daemon.text("/")
    assert up() == 0
    health.status = 200
    until(lambda: not daemon.signals("endpoint_down"), "the signal to clear", seconds=10)


def test_endpoint_that_depends_on_two_servers_is_told_once(
    launcher: Launcher, postgres15: EmbeddedServer, health: Health, until: Until
) -> None:
    health.status = 503
    servers = [watched(postgres15), watched(postgres15) | {"name": "db2"}]
    endpoint = {"name": "shop-health", "url": health.url, "service": "shop", "interval_seconds": 0.5}
    daemon = launcher.run({"servers": servers, "endpoints": [endpoint]}).ready()
    until(lambda: daemon.signals("endpoint_down"), "the signal", seconds=10)
    failed = health.failed_in_a_row()
    until(lambda: health.failed_in_a_row() >= failed + 4, "more failed probes", seconds=10)
    assert [lit["server"] for lit in daemon.signals("endpoint_down")] == ["db1"]


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_says_a_line_of_everything_that_is_well(
    launcher: Launcher, postgres15: EmbeddedServer, health: Health
) -> None:
    config = {"servers": [watched(postgres15)], "endpoints": [{"name": "web", "url": health.url}]}
    checked = launcher.check(config)
    assert (checked.returncode, checked.stderr) == (0, "")
    config_line, store_line, server_line, *ways, endpoint_line = checked.stdout.splitlines()
    assert [line.split()[0] for line in ways] == ["note", "ok"], ways
    assert store_line == "ok   store: batsignal.db and its recordings can be written, kept for 14 days"
    assert config_line == "ok   config: 1 server, 1 endpoint"
    assert re.fullmatch(r"ok   server db1: PostgreSQL 15, \d+ of 37 usable slots taken, ping [\d.]+ ms", server_line)
    assert re.fullmatch(r"ok   endpoint web: HTTP 200, [\d.]+ ms", endpoint_line)


def test_check_says_what_is_not_well_and_what_will_not_be_used(
    launcher: Launcher, postgres15: EmbeddedServer, health: Health
) -> None:
    down = nobody_listens()
    port = re.findall(r":(\d+)/", down["dsn"])[0]
    config = {
        "servers": [watched(postgres15) | {"pgbouncer_dsn": f"host=127.0.0.1 port={port} user=x"}, down],
        "endpoints": [{"name": "web", "url": health.url}],
    }
    health.status = 500
    checked = launcher.check(config)
    assert checked.returncode == 1
    lines = checked.stdout.splitlines()
    assert lines[0] == "ok   config: 2 servers, 1 endpoint"
    assert lines[2].startswith("ok   server db1: PostgreSQL 15, ")
    (pooler,) = [
        line for line in lines if line.startswith("FAIL PgBouncer of db1: its admin console does not answer: ")
    ]
    assert "refused" in pooler
    assert f"FAIL server down: refused: nothing listens on 127.0.0.1 port {port}" in lines
    assert lines[-1] == f"FAIL endpoint web: HTTP 500, at {health.url}"
