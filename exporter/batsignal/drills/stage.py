"""What stands ready before a drill begins: what it needs is there, its endpoint answers, its daemon watches.

Owns the daemon's config for a drill and the check of needs. It must not play.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from batsignal.drills.act import ActSpec
from batsignal.drills.actors.background import SERVICE
from batsignal.drills.actors.health_endpoint import HealthEndpoint
from batsignal.drills.ground import Ground
from batsignal.drills.watcher import DAEMON_COMMAND, Watcher
from batsignal.errors import ConfigError

PROBE_INTERVAL_SECONDS = 2
PROBE_TIMEOUT_SECONDS = 2
DAEMON_USER = "batsignal"
SERVER_NAME = "db1"
# It never holds more than two in any moment.
DAEMON_SESSIONS = 2


def require(ground: Ground, name: str, spec: ActSpec) -> None:
    """Raise ConfigError or UnreachableError, naming what to do, when the drill cannot be made on this ground."""
    if {"restart", "embedded"} & set(spec.needs) and ground.embedded is None:
        raise ConfigError(f"--dsn: {name} stops or restarts its server, so it plays on the embedded one only")
    if "role" in spec.needs and not ground.may_create_role:
        raise ConfigError(f"--dsn: {name} needs a role of its own; run ALTER ROLE {ground.administrator} CREATEROLE")
    if "database" in spec.needs and not ground.may_create_database:
        raise ConfigError(f"--dsn: {name} needs a database of its own; run ALTER ROLE {ground.administrator} CREATEDB")
    for program in ("pgbouncer", "pg_dump"):
        if program in spec.needs:
            ground.program(program)
    free = ground.slots.usable - ground.used()
    if ground.embedded is None and free < spec.least_slots <= ground.room:
        raise ConfigError(
            f"--dsn: only {free} of the server's {ground.slots.usable} usable slots are free;"
            f" {name} needs {spec.least_slots}, and would keep everybody else out"
        )
    if ground.room < spec.least_slots:
        raise ConfigError(
            f"--slots-share: {ground.share:g} of {ground.slots.usable} usable slots leave {ground.room} for the drill;"
            f" {name} needs {spec.least_slots}"
        )


def open_endpoint(ground: Ground, spec: ActSpec) -> None:
    """Let the drill's health endpoint answer, where it has one."""
    if spec.endpoint:
        ground.endpoint = HealthEndpoint(SERVICE)


def start_daemon(
    ground: Ground,
    spec: ActSpec,
    *,
    host: str,
    port: int,
    record: Path | None = None,
    command: Sequence[str] = DAEMON_COMMAND,
) -> Watcher:
    """Start a daemon that watches the server under drill, and wait for its first look.

    Raises UnreachableError when it ends instead; its last words are in `ground.daemon.log_tail`.
    """
    ground.charge(DAEMON_SESSIONS)
    ground.daemon = watcher = Watcher(ground.guardian, ground.directory, host=host, port=port)
    path = ground.directory / "batsignal.yml"
    path.write_text(yaml.safe_dump(_config(ground, spec), sort_keys=False), encoding="utf-8")
    # What libpq takes from the environment belongs to the DSN that was given.
    environment = dict(os.environ) if ground.embedded is None else None
    watcher.start(path, command, record=record, environment=environment)
    watcher.wait_until_ready()
    return watcher


def _config(ground: Ground, spec: ActSpec) -> dict[str, Any]:
    extras = spec.prepare(ground) if spec.prepare is not None else {}
    dsn = (
        ground.given_dsn
        if ground.embedded is None
        else ground.embedded.dsn(user=DAEMON_USER, dbname=ground.service_database)
    )
    config: dict[str, Any] = {"servers": [{"name": SERVER_NAME, "dsn": dsn, **extras}]}
    if ground.endpoint is not None:
        config["endpoints"] = [
            {
                "name": SERVICE,
                "service": SERVICE,
                "url": ground.endpoint.url,
                "interval_seconds": PROBE_INTERVAL_SECONDS,
                "timeout_seconds": PROBE_TIMEOUT_SECONDS,
            }
        ]
    config["store"] = {"path": str(ground.directory / "batsignal.db")}
    return config
