"""Passwords in every spelling that libpq takes, right and wrong; all that the daemon says is held against them."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from batsignal.drills.embedded import EmbeddedServer

RIGHT = "s3cr&t/pa:ss@w%rd"  # of the role with_password
WRONG = "hunter2-is@wr%ong /and' long\\"
TOKEN = "t0ken-of-a-probe"
COMMAND = (sys.executable, "-m", "batsignal")

Until = Callable[..., Any]


def keyword(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def spellings(place: str, host: str, port: int) -> dict[str, dict[str, str]]:
    """Return servers by name: the password in each place where libpq looks for one."""
    words = f"host={host} port={port} user=with_password dbname=postgres"
    servers: dict[str, dict[str, str]] = {}
    for kind, password in (("right", RIGHT), ("wrong", WRONG)):
        encoded = quote(password, safe="")
        servers |= {
            f"{kind}-uri": {"dsn": f"postgresql://with_password:{encoded}@{place}"},
            f"{kind}-query": {"dsn": f"postgresql://with_password@{place}?password={encoded}"},
            f"{kind}-words": {"dsn": f"{words} password={keyword(password)}"},
            f"{kind}-pooler": {
                "dsn": f"{words} passfile=passfile",
                "emergency_dsn": f"{words} password={keyword(password)}",
                "pgbouncer_dsn": f"postgresql://with_password:{encoded}@{host}:{port}/pgbouncer",
            },
        }
    return servers | {
        "passfile": {"dsn": f"{words} passfile=passfile"},
        "service": {"dsn": "service=shop"},
        "environment": {"dsn": words},
        "encrypted": {"dsn": f"{words} sslmode=require password={keyword(WRONG)} sslpassword={keyword(WRONG)}"},
        "nowhere": {"dsn": f"host=nowhere.invalid user=u password={keyword(WRONG)}"},
        "no-server": {"dsn": f"host={host} port=1 user=u password={keyword(WRONG)}"},
        "same-word": {"dsn": f"host={host} port=1 user=postgres password=postgres dbname=postgres"},
    }


class Talker:
    """A daemon at its most talkative, and all that it has said."""

    def __init__(self, folder: Path, until: Until, environment: dict[str, str]) -> None:
        self.folder = folder
        self.until = until
        options = ["--config.file", "batsignal.yml", "--log.format", "json", "--log.level", "debug"]
        more = ["--web.enable-lifecycle", "--record", "record-{server}.jsonl"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "run", *options, *more], cwd=folder, stdout=log, stderr=log, env=environment
            )

    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "log").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def ask(self, path: str, method: str = "GET") -> str:
        (listening,) = [line for line in self.lines() if line["event"] == "listening"]
        connection = http.client.HTTPConnection(listening["address"], timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def states(self) -> dict[str, str]:
        return {server["name"]: server["state"] for server in json.loads(self.ask("/api/v1/status"))["servers"]}

    def everything(self) -> bytes:
        paths = (
            "/",
            "/metrics",
            "/api/v1/status",
            "/api/v1/signals",
            "/api/v1/incidents",
            "/api/v1/deploys",
            "/-/ready",
        )
        said = "".join(self.ask(path) for path in paths).encode()
        kept = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in OURS]
        return said + b"".join(path.read_bytes() for path in kept)


OURS = {"batsignal.yml", "passfile", "services.conf"}


@pytest.fixture
def talker(postgres15: EmbeddedServer, until: Until, tmp_path: Path) -> Iterator[Talker]:
    host, port = "127.0.0.1", postgres15.port
    escaped = RIGHT.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "passfile").write_text(f"{host}:{port}:*:with_password:{escaped}\n")
    (tmp_path / "passfile").chmod(0o600)
    service = f"[shop]\nhost={host}\nport={port}\nuser=with_password\ndbname=postgres\npassword={RIGHT}\n"
    (tmp_path / "services.conf").write_text(service)
    servers = [{"name": name, **one} for name, one in spellings(f"{host}:{port}/postgres", host, port).items()]
    url = f"http://probe:{TOKEN}@127.0.0.1:1/healthz?token={TOKEN}"
    config = {
        "servers": servers,
        "endpoints": [{"name": "web", "url": url, "interval_seconds": 0.5}],
        "web": {"listen_address": "127.0.0.1:0"},
    }
    (tmp_path / "batsignal.yml").write_text(yaml.safe_dump(config))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
        "HOME": str(tmp_path),
        "PGPASSWORD": RIGHT,
        "PGSERVICEFILE": str(tmp_path / "services.conf"),
    }
    talker = Talker(tmp_path, until, environment)
    yield talker
    talker.process.kill()
    talker.process.wait()


def leaks(said: bytes) -> list[str]:
    found = []
    for secret in (RIGHT, WRONG, TOKEN):
        escaped = json.dumps(secret)[1:-1]
        for spelled in {secret, quote(secret, safe=""), quote(secret), escaped, keyword(secret)[1:-1]}:
            if spelled.encode() in said:
                found.append(spelled)  # noqa: PERF401 - read more easily so
    # Of a password that was cut in the middle, too.
    return found + [part for part in ("hunter2", "pa:ss", "pa%3Ass", "s3cr", "t0ken-of") if part.encode() in said]


def checked(folder: Path) -> tuple[int, list[str]]:
    """Return the exit code of `batsignal check`, and what it leaks."""
    command = [*COMMAND, "check", "--config.file", "batsignal.yml"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    return ended.returncode, leaks(ended.stdout + ended.stderr)


def test_no_spelling_of_a_password_is_said_anywhere(talker: Talker, until: Until) -> None:
    until(lambda: any(line["event"] == "listening" for line in talker.lines()), "the daemon to listen")
    until(lambda: "starting" not in talker.states().values(), "every first look", 30)
    states = talker.states()
    up = {name for name, state in states.items() if state == "up"}
    assert up == {
        *("right-uri", "right-query", "right-words", "right-pooler", "wrong-pooler"),
        *("passfile", "service", "environment"),
    }
    assert {states[f"wrong-{kind}"] for kind in ("uri", "query", "words")} == {"auth_failed"}
    until(lambda: len(json.loads(talker.ask("/api/v1/signals"))["signals"]) >= 5, "the signals", 30)
    assert leaks(talker.everything()) == []
    # A config that is broken in ways that libpq quotes.
    good = (talker.folder / "batsignal.yml").read_text()
    for dsn in (
        f"postgresql://bob:{WRONG}@db1/shop",
        f"host=db1 password={WRONG} user=bob",
        f"postgresql://bob:{RIGHT}@db1/shop",
        f"postgresql://bob:{quote(WRONG)}%zz@db1/shop",
        f"postgresql://bob@db1/shop?pasword={quote(WRONG)}",
        f"host=db1 port={keyword(WRONG)}",
        f"pasword={keyword(WRONG)}",
    ):
        (talker.folder / "batsignal.yml").write_text(yaml.safe_dump({"servers": [{"name": "db1", "dsn": dsn}]}))
        refused = talker.ask("/-/reload", "POST")
        assert "servers[0].dsn: expected a libpq connection string" in refused
        assert leaks(refused.encode()) == []
    assert checked(talker.folder) == (2, [])
    (talker.folder / "batsignal.yml").write_text(good)
    assert checked(talker.folder) == (1, [])
    talker.process.send_signal(signal.SIGTERM)
    assert talker.process.wait(10) == 0
    assert leaks((talker.folder / "log").read_bytes()) == []
    # A password that is a common word makes no text unreadable.
    (same,) = [line for line in talker.lines() if line["event"] == "server not seen" and line["server"] == "same-word"][
        :1
    ]
    assert "nothing listens" in same["reason"]
