"""A folder where real daemons live one after the other, and a daemon as its user sees it: for tests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from batsignal.drills.embedded import EmbeddedServer

TOKEN = "n0t-guessed"
RELEASE_TOKEN = "n0t-guessed-either"
COMMAND = (sys.executable, "-m", "batsignal")

Until = Callable[..., Any]


@dataclass
class Home:
    """A folder with a config, where daemons live one after the other."""

    folder: Path
    server: EmbeddedServer
    until: Until
    stack: ExitStack
    role: str = "watcher"
    config: dict[str, Any] = field(default_factory=dict)
    lives: int = 0

    def begin(self, **sections: Any) -> "Life":
        self.lives += 1
        dsn = self.server.dsn(user=self.role)
        self.config = {
            "servers": [{"name": "db1", "dsn": dsn, "poll_interval_seconds": 0.2}],
            "web": {
                "listen_address": "127.0.0.1:0",
                "deploy_token_file": "token",
                "release_token_file": "release_token",
            },
        } | sections
        (self.folder / "token").write_text(f"{TOKEN}\n")
        (self.folder / "release_token").write_text(f"{RELEASE_TOKEN}\n")
        (self.folder / "batsignal.yml").write_text(yaml.safe_dump(self.config))
        log = self.folder / f"life{self.lives}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*COMMAND, "run", "--config.file", "batsignal.yml", "--log.format", "json"],
                cwd=self.folder,
                stdout=file,
                stderr=file,
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        life = Life(process, log, self.until)
        self.until(life.ready, "the first look", 30)
        return life

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@dataclass
class Life:
    process: subprocess.Popen[bytes]
    log: Path
    until: Until

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_bytes().splitlines(keepends=True)
        return [
            line for line in map(json.loads, (one for one in lines if one.endswith(b"\n"))) if line["event"] == event
        ]

    @property
    def url(self) -> str:
        return f"http://{self.said('listening')[0]['address']}"

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return bool(self.said("listening")) and self.get("/-/ready")[0] == 200

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urlopen(Request(self.url + path), timeout=10) as answer:  # noqa: S310 - our own daemon
                return answer.status, answer.read()
        except HTTPError as exc:
            return exc.code, exc.read()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def lit(self) -> list[dict[str, Any]]:
        return list(self.json("/api/v1/signals")["signals"])

    def metric(self, name: str) -> float | None:
        for line in self.get("/metrics")[1].decode().splitlines():
            if line.rpartition(" ")[0] == name:
                return float(line.rpartition(" ")[2])
        return None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0
