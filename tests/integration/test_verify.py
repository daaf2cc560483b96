"""`batsignal deploy verify` against a real daemon and a real server: a good deploy passes, a leaking one does not."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batsignal.drills.embedded import EmbeddedServer
from daemon_home import TOKEN, Home, Until


class Health:
    """A service's health endpoint, well as long as it is not told otherwise."""

    def __init__(self) -> None:
        self.status = 200
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(health.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def health() -> Iterator[Health]:
    one = Health()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def home(tmp_path: Path, postgres15: EmbeddedServer, until: Until) -> Iterator[Home]:
    with ExitStack() as stack:
        yield Home(tmp_path, postgres15, until, stack)


def use(*pool: Any) -> None:
    for connection in pool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


def checks(done: Any) -> dict[str, tuple[str, str]]:
    return {one["name"]: (one["status"], one["text"]) for one in json.loads(done.stdout)["checks"]}


@pytest.mark.takes(seconds=55)
def test_a_good_deploy_passes_one_that_breaks_health_does_not_and_a_leak_is_said_before_its_window_is_over(
    home: Home, sessions: Any, health: Health, until: Until
) -> None:
    endpoint = {"name": "web", "url": f"http://127.0.0.1:{health.server.server_port}/", "interval_seconds": 0.5}
    life = home.begin(endpoints=[endpoint])
    verify = ("deploy", "verify", "web", "--url", life.url, "--format", "json")

    def mark(version: str) -> None:
        marked = home.command("deploy", "mark", "web", version, "--url", life.url, BATSIGNAL_TOKEN=TOKEN)
        assert marked.returncode == 0, marked.stderr

    old = [sessions.open(home.server, application_name="web@1.0.0") for _ in range(3)]
    use(*old)
    # Some seconds of how it was is what the new one is held against.
    until(lambda: not use(*old) and (life.metric('batsignal_ping_seconds_count{server="db1"}') or 0) > 8 / 0.2, "", 60)
    mark("1.1.0")
    new = [sessions.open(home.server, application_name="web@1.1.0") for _ in range(3)]
    for connection in old:
        connection.close()
    use(*new)
    done = home.command(*verify, "1.1.0", "--window-seconds", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.startswith("waiting up to ")
    found = checks(done)
    assert [(name, text) for name, (status, text) in found.items() if status != "ok"] == []
    assert found["version"][1].startswith("1.1.0 runs, 3 sessions now")
    assert found["sessions"][1] == "3 now, at most 3 before"

    health.status = 500
    mark("1.1.1")
    done = home.command(*verify, "1.1.1", "--window-seconds", "600")
    assert done.returncode == 1
    assert checks(done)["health"][0] == "bad" or checks(done)["signals"][0] == "bad"
    health.status = 200
    until(lambda: not life.lit(), "the endpoint to be well again", 30)

    mark("1.2.0")
    for connection in new:
        connection.close()
    lost = [sessions.open(home.server, application_name="web@1.2.0")]

    def leak() -> bool:
        lost.append(sessions.open(home.server, application_name="web@1.2.0"))
        return stop.wait(1.3) or len(lost) > 28

    stop = threading.Event()
    leaking = threading.Thread(target=lambda: any(iter(leak, None)))
    leaking.start()
    try:
        done = home.command(*verify[:-2], "1.2.0", "--window-seconds", "600")
    finally:
        stop.set()
        leaking.join()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "bad: roll it back to 1.1.0"), done.stdout
    assert "bad     signals       leak (critical) lit: web@1.2.0 leaks connections" in done.stdout
    life.stop()


def test_a_version_that_nobody_knows_is_a_usage_error_and_one_that_never_came_has_not_passed(
    home: Home, sessions: Any, until: Until
) -> None:
    life = home.begin()
    sessions.open(home.server, application_name="web@1.0.0")
    verify = ("deploy", "verify", "web", "--url", life.url)
    wrong = 'no deploy of "web" "9.9" was marked, and no session of it seen; versions of that service seen: "1.0.0"'
    until(lambda: wrong in home.command(*verify, "9.9").stderr, "the session to be seen")
    assert home.command(*verify, "9.9").returncode == 2
    # It was there before the daemon was: nothing before it is known, and nothing speaks against it.
    done = home.command(*verify, "1.0.0", "--window-seconds", "0")
    assert done.returncode == 0
    assert "unknown sessions      1 now; nobody looked before the deploy" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("ok: nothing speaks against it; unknown: ")
    # Told of, and never seen: what crashes before its first session does nothing that is bad.
    assert home.command("deploy", "mark", "ghost", "1", "--url", life.url, BATSIGNAL_TOKEN=TOKEN).returncode == 0
    done = home.command("deploy", "verify", "ghost", "1", "--url", life.url, "--window-seconds", "1")
    assert done.returncode == 3, done.stdout
    assert "no session whose application_name says ghost was seen since the deploy" in done.stdout
    assert done.stdout.splitlines()[-1] == "unknown: it could not be seen: judge by other means"
    life.stop()
    assert home.command(*verify, "1.0.0").returncode == 3
