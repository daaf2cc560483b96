"""`batsignal check`: will it work, and what will it not see? One line a fact."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import structlog

from batsignal import web_config
from batsignal.cli.check_ways import check_ways, remark, say
from batsignal.config import Config, EndpointConfig, ServerConfig, StoreConfig, load
from batsignal.expose.access import Access
from batsignal.poll import ending
from batsignal.poll.guarded import DeadlineError
from batsignal.poll.health import Target, probe
from batsignal.poll.pgbouncer import PgBouncerPoller
from batsignal.poll.postgres import NO_POOLER
from batsignal.poll.resolve import Resolver
from batsignal.poll.rows import Row
from batsignal.poll.sight import Sight
from batsignal.record.database import examined
from batsignal.snapshot import Snapshot
from batsignal.spelling import count, latency, taken

PATIENCE_SECONDS = 5.0


def check(config_file: str | None, web_config_file: str | None = None) -> int:
    """Print a line per fact; return 0 when all is well and 1 when something is not. Raises ConfigError."""
    # What pollers log beside is no fact of the list. Looked up anew at each line: who calls us may put another there.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    config = load(config_file, os.environ)
    say(True, "config", f"{count(len(config.servers), 'server')}, {count(len(config.endpoints), 'endpoint')}")
    if web_config_file is not None:
        _check_web_config(web_config_file)
    well = [_check_store(config.store)]
    releases = config.web.release_token_file is not None
    well += [_check_server(server, releases=releases) for server in config.servers]
    well += [_check_pooler(server) for server in config.servers if server.pgbouncer_dsn is not None]
    well += asyncio.run(_check_endpoints(config))
    return 0 if all(well) else 1


def _check_web_config(file: str) -> None:
    """Say what the web config asks for. Raises ConfigError, also for a certificate that is none."""
    access = Access.of(web_config.read(file))
    say(
        True,
        "web config",
        f"{'TLS' if access.context else 'plain HTTP'}, {'a login' if access.passwords.is_needed else 'no login'}",
    )


def _check_store(store: StoreConfig) -> bool:
    """Say whether history can be kept; what is there is left as it is."""
    if store.path is None:
        remark("store", "store.path is null: no history, and a restart knows nothing of what was before")
        return True
    path = Path(store.path)
    fault, note = examined(path)
    if fault is not None:
        return say(False, "store", f"{path.absolute()}: {fault}; the watch goes on without history")
    say(True, "store", f"{path} and its recordings can be written, kept for {count(store.keep_days, 'day')}")
    if note is not None:
        remark("store", f"{path}: {note}")
    return True


def _check_server(server: ServerConfig, *, releases: bool) -> bool:
    where = f"server {server.name}"
    sight = Sight.of(server, Resolver())
    try:
        snapshot = _look(sight)
        well = _say_reached(where, snapshot)
        if well and not snapshot.privileged:
            well = say(
                False,
                where,
                "the role may not see other roles' sessions: states, statements and leaks will be blind;"
                f" {snapshot.grant}",
            )
        if sight.is_pooled:
            remark(where, f"a pooler answers there, and when its pool is empty nothing is seen: {NO_POOLER}")
        for query, reason in sight.denied.items():
            well = say(False, where, f"the role may not read {query}, which will be missing: {reason}")
        well = _say_untracked(where, snapshot) and well
        well = check_ways(server, snapshot, sight.try_ways()) and well
        if snapshot.met is None and releases:
            well = _check_release(where, sight) and well
        return well
    finally:
        sight.close()


def _say_reached(where: str, snapshot: Snapshot) -> bool:
    """Say whether the ordinary way is open, and how full the server is by whatever way."""
    slots = snapshot.slots
    of_all = f"{taken(snapshot.used, slots.usable)} usable slots" if slots else count(snapshot.used, "slot")
    used = f"{of_all} taken"
    met = snapshot.met
    if met is not None:
        seen = "" if snapshot.failure is not None else f"; seen by way of {snapshot.view}: {used}"
        return say(False, where, f"{met.reason}: {met.text}{seen}")
    version = (snapshot.server_version_num or 0) // 10000
    seat = ", and our seat is a reserved one" if snapshot.view == "reserved" else ""
    return say(True, where, f"PostgreSQL {version}, {used}, ping {latency(snapshot.ping_seconds)}{seat}")


def _say_untracked(where: str, snapshot: Snapshot) -> bool:
    """Say which sessions report nothing of what they do: nobody is told, whatever the role may see."""
    clients = [session for session in snapshot.sessions if session.is_client]
    untracked = sum(session.state == "disabled" for session in clients)
    if not untracked:
        return True
    return say(
        False,
        where,
        f"{untracked} of {count(len(clients), 'session')} run with track_activities off: what they do, leaks, pile-ups"
        " and lock queues will be blind; ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf();",
    )


def _look(sight: Sight) -> Snapshot:
    """Look until the server answers or the patience is at its end: a first refusal may be a restart."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        snapshot = sight.look()
        retry = snapshot.failure is not None and snapshot.failure.reason in {"not_accepting", "timeout"}
        if not retry or time.monotonic() >= deadline:
            return snapshot
        time.sleep(0.5)


def _check_release(where: str, sight: Sight) -> bool:
    """Say whether `batsignal release` could end what a culprit holds."""

    def ask(query: str, arguments: Mapping[str, Any]) -> list[Row]:
        return sight.ask(query, arguments, time.monotonic() + PATIENCE_SECONDS) or []

    try:
        rights = ending.rights(ask, ())
    except (DeadlineError, psycopg2.Error):
        rights = None
    if rights is None:
        return say(False, where, "whether `batsignal release` would work could not be asked")
    if rights.anybody:
        return say(True, where, "`batsignal release` may end other roles' sessions")
    return say(False, where, f"`batsignal release` may not end other roles' sessions; {rights.grant}")


def _check_pooler(server: ServerConfig) -> bool:
    dsn = server.pgbouncer_dsn
    where = f"PgBouncer of {server.name}"
    if dsn is None:
        return True
    poller = PgBouncerPoller(server=server.name, dsn=dsn.get_secret_value(), resolver=Resolver())
    try:
        look = poller.look()
    finally:
        poller.close()
    if look.pools is None:
        return say(False, where, f"its admin console does not answer: {look.failure}")
    waiting = sum(pool.cl_waiting or 0 for pool in look.pools)
    return say(True, where, f"{count(len(look.pools), 'pool')}, {count(waiting, 'client')} waiting")


async def _check_endpoints(config: Config) -> list[bool]:
    return list(await asyncio.gather(*(_check_endpoint(endpoint) for endpoint in config.endpoints)))


async def _check_endpoint(endpoint: EndpointConfig) -> bool:
    target = Target(
        name=endpoint.name,
        url=endpoint.url,
        service=endpoint.service_name,
        timeout_seconds=endpoint.timeout_seconds,
    )
    result = await probe(target)
    took = latency(result.seconds)
    where = f"endpoint {endpoint.name}"
    if result.up:
        return say(True, where, f"HTTP {result.status}, {took}")
    return say(False, where, f"{result.reason}, at {_place(endpoint.url)}")


def _place(url: str) -> str:
    """Return an address without what may be a secret in it.

    >>> _place("http://bob:pw@db1:8000/healthz?key=1")
    'http://db1:8000/healthz'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
