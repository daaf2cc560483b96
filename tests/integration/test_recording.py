"""A live run against a real server, and the replay of what it recorded: the same signals in the same order."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from batsignal.drills.embedded import EmbeddedServer
from batsignal.record.recording import read

Until = Callable[..., Any]
LEAK_SECONDS = 1.0
SIGNAL_SECONDS = 90.0
# A way to name versions that is not the default: the replay must know it from the recording.
PATTERN = r"^(?P<service>[^/]+)/(?P<version>.+)$"
COMPARED = ("id", "kind", "severity", "server", "subject", "since", "detected", "deploy")
TOLD = {"signal raised": "raised", "signal updated": "updated", "signal cleared": "cleared"}


@dataclass
class Shop:
    """Sessions of an application: a pool that uses all of its own in turn, and from some moment on a leak."""

    server: EmbeddedServer
    leaking: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    held: list[psycopg2.extensions.connection] = field(default_factory=list)
    leaked: list[psycopg2.extensions.connection] = field(default_factory=list)

    def take(self, name: str, **parameters: str) -> psycopg2.extensions.connection:
        session = psycopg2.connect(self.server.dsn(application_name=name, **parameters))
        session.autocommit = True
        session.cursor().execute("SELECT count(*) FROM pg_class WHERE relpages > 1")
        return session

    def run(self) -> None:
        pool = [self.take("shop/2.3.9") for _ in range(4)]
        turn = 0
        leak_due = 0.0
        while not self.stopping.wait(0.1):
            turn += 1
            pool[turn % len(pool)].cursor().execute("SELECT 1")
            if self.leaking.is_set() and time.monotonic() >= leak_due:
                leak_due = time.monotonic() + LEAK_SECONDS
                self.leaked.append(self.take("shop/2.4.0"))
        for session in (*pool, *self.leaked, *self.held):
            session.close()

    def give_back(self) -> None:
        self.leaking.clear()
        for session in self.leaked:
            session.close()


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(max_connections=100) as server:
        superuser = psycopg2.connect(server.dsn())
        superuser.autocommit = True
        superuser.cursor().execute(
            "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE blind LOGIN;"
            "CREATE ROLE narrow LOGIN CONNECTION LIMIT 4; CHECKPOINT"
        )
        superuser.close()
        yield server


@pytest.fixture
def shop(server: EmbeddedServer) -> Iterator[Shop]:
    shop = Shop(server)
    thread = threading.Thread(target=shop.run, daemon=True)
    thread.start()
    yield shop
    shop.stopping.set()
    thread.join(20)


@dataclass
class LiveRun:
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def said(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def events(self, server: str) -> list[dict[str, Any]]:
        """Return what was logged of one server's signals, in the order it happened."""
        return [line for line in self.said if line["event"] in TOLD and line["server"] == server]

    def signals(self) -> list[dict[str, Any]]:
        (listening,) = [line for line in self.said if line["event"] == "listening"]
        connection = http.client.HTTPConnection(listening["address"], timeout=10)
        try:
            connection.request("GET", "/api/v1/signals")
            return list(json.loads(connection.getresponse().read())["signals"])
        finally:
            connection.close()


@pytest.fixture
def live_run(server: EmbeddedServer, tmp_path: Path) -> Iterator[LiveRun]:
    """A daemon that records two views of one server, with pg_monitor and without, and an endpoint that is down."""
    config = {
        "application_pattern": PATTERN,
        "servers": [{"name": name, "dsn": server.dsn(user=name)} for name in ("watcher", "blind")],
        "endpoints": [
            {"name": "shop", "url": "http://127.0.0.1:9/healthz", "servers": ["watcher"], "interval_seconds": 0.5}
        ],
    }
    (tmp_path / "batsignal.yml").write_text(yaml.safe_dump(config))
    log_path = tmp_path / "daemon.log"
    with ExitStack() as stack:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "batsignal", "run", "--config.file", "batsignal.yml", "--log.format", "json"),
                *("--web.listen-address", "127.0.0.1:0", "--record", "{server}.jsonl.gz"),
            ],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=stack.enter_context(log_path.open("wb")),
            env={"PATH": os.defpath, "HOME": str(tmp_path), "PGPASSFILE": "/nonexistent"},
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield LiveRun(process, log_path)


def replayed(path: Path, hash_seed: str) -> bytes:
    """Return what `batsignal replay` prints in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "batsignal", "replay", str(path), "--format", "json"],
        check=True,
        capture_output=True,
        timeout=60,
        env={"PATH": os.defpath, "PYTHONHASHSEED": hash_seed},
    ).stdout


def told(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return events of a replay as the daemon's log tells them."""
    return [
        (
            event["event"],
            *(event["signal"][key] for key in ("id", "kind", "severity", "summary")),
            event.get("reason"),
        )
        for event in events
    ]


def logged(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    keys = ("id", "kind", "severity", "summary")
    return [(TOLD[line["event"]], *(line[key] for key in keys), line.get("reason")) for line in lines]


def compared(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: shown[key] for key in COMPARED}


@pytest.mark.takes(seconds=50)
def test_a_live_run_and_the_replay_of_its_recording_give_the_same_signals(
    live_run: LiveRun, shop: Shop, until: Until, tmp_path: Path
) -> None:
    def kinds(event: str) -> set[str]:
        return {line["kind"] for line in live_run.events("watcher") if line["event"] == f"signal {event}"}

    until(lambda: "endpoint_down" in kinds("raised"), "the endpoint to be down", SIGNAL_SECONDS)
    shop.held.extend(shop.take("reports/1", user="narrow") for _ in range(4))
    shop.leaking.set()
    until(lambda: {"leak", "saturation"} <= kinds("raised"), "the leak and the role's limit", SIGNAL_SECONDS)
    live = {one["id"]: one for one in live_run.signals()}
    shop.give_back()
    until(lambda: "leak" in kinds("cleared"), "the leak to be over", SIGNAL_SECONDS)
    live_run.process.send_signal(signal.SIGTERM)
    assert live_run.process.wait(10) == 0

    for server in ("watcher", "blind"):
        path = tmp_path / f"{server}.jsonl.gz"
        printed = replayed(path, "1")
        assert printed == replayed(path, "2")
        events = [json.loads(line) for line in printed.splitlines()]
        assert told(events) == logged(live_run.events(server)) != []
        for one in (one for one in live.values() if one["server"] == server):
            assert compared(one) in [compared(event["signal"]) for event in events]

    (leak,) = [one for one in live.values() if one["kind"] == "leak"]
    assert (leak["subject"]["application"], leak["subject"]["version"]) == ("shop", "2.4.0")
    assert leak["deploy"]["version"] == "2.4.0"
    assert [list(read(tmp_path / f"{name}.jsonl.gz")[1])[-1].privileged for name in ("watcher", "blind")] == [
        True,
        False,
    ]
