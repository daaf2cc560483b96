"""Records the real pools: a scratch server, one process of load a pool, and the project's own poller and recording.

Owns what is started for that and ends all of it. It must not judge the recording, nor look inside a pool.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batsignal.drills.embedded import EmbeddedServer
from batsignal.poll.postgres import PostgresPoller
from batsignal.poll.resolve import Resolver
from batsignal.record.recording import RecordingWriter
from simulator.reality.setups import LOOK_SECONDS, PHASE_SECONDS, SETUPS, Setup, Times, load_seconds

MAX_CONNECTIONS = 100
# From the moment at which every process of load is ready.
LEAD_SECONDS = 0.5
END_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of a recording beside itself."""

    started_at: float
    """Unix time at which the load began."""
    times: Mapping[str, Times]
    """The machine's, by application."""


class LoadError(Exception):
    """A process of load failed: what it left behind is no recording of its pool."""


def record(path: Path, *, setups: tuple[Setup, ...] = SETUPS, bindir: Path | None = None) -> Run:
    """Record all setups at once, on one server, into one file.

    Takes the time of the load and some 8 s. Raises LoadError when a request failed.
    """
    with EmbeddedServer(bindir, max_connections=MAX_CONNECTIONS) as server:
        loads = [_start_load(setup, server.port) for setup in setups]
        try:
            start_at = _begin(loads)
            _look_on(server, path, start_at)
            outcomes = {setup.application: _outcome(setup, load) for setup, load in zip(setups, loads, strict=True)}
        finally:
            for load in loads:
                load.kill()
                load.communicate()
    return Run(
        started_at=start_at,
        times={
            application: Times(
                connect_seconds=said["connect_seconds"],
                overhead_seconds=said["overhead_seconds"],
                asked_at=tuple(said["asked_at"]),
            )
            for application, said in outcomes.items()
        },
    )


def _start_load(setup: Setup, port: int) -> subprocess.Popen[str]:
    package = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "simulator.reality.load", setup.application, str(port)],
        env=os.environ | {"PYTHONPATH": str(package)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _begin(loads: list[subprocess.Popen[str]]) -> float:
    """Wait until every load is ready, and tell all of them when to begin; one that ended is found out later."""
    for load in loads:
        load.stdout.readline()  # type: ignore[union-attr]
    start_at = time.time() + LEAD_SECONDS
    for load in loads:
        with contextlib.suppress(BrokenPipeError):
            load.stdin.write(f"{start_at}\n")  # type: ignore[union-attr]
            load.stdin.flush()  # type: ignore[union-attr]
    return start_at


def _look_on(server: EmbeddedServer, path: Path, start_at: float) -> None:
    poller = PostgresPoller(server="real", dsn=server.dsn(application_name="batsignal"), resolver=Resolver())
    writer = RecordingWriter(path, server="real", interval_seconds=LOOK_SECONDS)
    try:
        poller.look()  # opens the session before the load begins
        for n in range(1, round(load_seconds() / LOOK_SECONDS) + 1):
            time.sleep(max(start_at + n * LOOK_SECONDS - PHASE_SECONDS - time.time(), 0.0))
            writer.write(poller.look())
    finally:
        writer.close()
        poller.close()


def _outcome(setup: Setup, load: subprocess.Popen[str]) -> dict[str, Any]:
    said, complaint = load.communicate(timeout=END_SECONDS)
    if load.returncode:
        raise LoadError(f"{setup.application}: the load ended with {load.returncode}: {complaint.strip()[-400:]}")
    outcome: dict[str, Any] = json.loads(said)
    if outcome["failed"]:
        raise LoadError(
            f"{setup.application}: {outcome['failed']} of {outcome['requests']} requests failed: {complaint}"
        )
    return outcome
