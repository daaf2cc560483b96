"""`docker compose up`, the incident, and what is seen of it; run as the first process of namespaces of its own.

    unshare --mount --pid --fork --kill-child --mount-proc --propagation private python play.py FOLDER

Prints what it saw as JSON; judging it is the test's part.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from containers.compose import Project
from containers.root import run

REPOSITORY = Path(__file__).resolve().parents[2]
NEW_NETWORK = 0x40000000
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
SEEN_SECONDS = 40.0
PAGE_SECONDS = 120.0
STATUS, PROMETHEUS = "http://127.0.0.1:9988", "http://127.0.0.1:9090"


def enter_own_network() -> None:
    """Leave the machine's network: the ports of the file are free in here, and nobody else is."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")
    with socket.socket() as sock:
        flags = struct.unpack("16sh22x", fcntl.ioctl(sock, GET_FLAGS, struct.pack("16sh22x", b"lo", 0)))[1]
        fcntl.ioctl(sock, SET_FLAGS, struct.pack("16sh22x", b"lo", flags | UP))


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - addresses of our own
        text = answer.read().decode()
    return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text


def ask(expr: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fetch(f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': expr})}")["data"][
        "result"
    ]
    return found


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.3)
    return found


def secrets(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Return content, owner and mode of every file that was made."""
    return {
        str(path.relative_to(folder)): (path.read_text(), str(path.stat().st_uid), oct(path.stat().st_mode & 0o777))
        for path in sorted(folder.glob("*-secrets/*"))
    }


def play(folder: Path) -> dict[str, Any]:
    mirrors = {name: value for name, value in os.environ.items() if name.lower().startswith(("pip_", "http", "ssl_"))}
    project = Project.load(REPOSITORY, folder, mirrors)
    image = project.image
    seen: dict[str, Any] = {
        "version": image.root.run([*image.entrypoint, "--version"], user=image.user, environment=image.environment),
        "runbooks": image.root.run(
            ["sh", "-c", "python -m batsignal assets export /tmp/all && ls /tmp/all/alerts/runbooks | wc -l"],
            environment=image.environment,
        ),
    }
    enter_own_network()
    try:
        for name in project.names():
            project.up(name)
        project.await_health()
        seen["lit_before"] = fetch(f"{STATUS}/api/v1/signals")["signals"]
        project.up("incident")
        seen["secrets"] = secrets(folder / "volumes")
        again = project.services["secrets"]
        again.start()
        seen["secrets_code"] = again.process.wait(SEEN_SECONDS) if again.process else None
        seen["secrets_again"] = secrets(folder / "volumes")
        wait_for(lambda: ask('up{job="batsignal"} == 1'), SEEN_SECONDS, "Prometheus scrapes the daemon")
        wait_for(lambda: ask("batsignal_endpoint_up == 1"), SEEN_SECONDS, "the shop's health is seen")
        wait_for(lambda: ask('batsignal_pgbouncer_pool_servers{database="shop"}'), SEEN_SECONDS, "the pool is seen")
        wait_for(
            lambda: ask('sum(increase(batsignal_session_seconds_total{application="web", state!="idle"}[30s])) > 0.5'),
            SEEN_SECONDS,
            "customers buy",
        )
        seen["privileged"] = ask("batsignal_privileged")[0]["value"][1]
        seen["rules"] = len(fetch(f"{PROMETHEUS}/api/v1/rules")["data"]["groups"])
        pager = project.services["pager"]
        wait_for(lambda: "firing critical BatSignalLeak" in pager.said(), PAGE_SECONDS, "the page")
        seen["page"] = pager.said()
        seen["lit"] = fetch(f"{STATUS}/api/v1/signals")["signals"]
        seen["codes"] = {
            name: service.stop() for name, service in reversed(project.services.items()) if name != "secrets"
        }
        seen["daemon_log"] = project.services["batsignal"].said()
    except Exception as exc:
        logs = {name: service.said()[-1500:] for name, service in project.services.items()}
        raise RuntimeError(f"{exc}; what the services said: {json.dumps(logs, indent=1)}") from exc
    return seen


if __name__ == "__main__":
    work = Path(sys.argv[1])
    run(["mount", "-t", "tmpfs", "tmpfs", str(work)])
    print(json.dumps(play(work)))  # noqa: T201 - it is what is asked for
