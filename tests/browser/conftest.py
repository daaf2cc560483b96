import asyncio
import fcntl
import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batsignal.expose.server import WebServer, build_app

DRIVER_STARTS_MOST = 5
DEADLINE_SECONDS = 60
CHROMIUM = "/usr/bin/chromium"
QUIET_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
]


@pytest.fixture(scope="session")
def boards() -> Any:
    """The unit tests' own boards; test folders are no packages, so their file is loaded by its path."""
    path = Path(__file__).parents[1] / "unit" / "expose" / "conftest.py"
    spec = importlib.util.spec_from_file_location("expose_boards", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Boards()


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class KeptIncident:
    """History that holds one incident, `a1`."""

    def __init__(self, boards: Any) -> None:
        self.view = boards.kept_incident()
        self.told = boards.past_slots()

    def incidents(self, *, limit: int, before: float | None) -> Any:
        return [self.view] * (limit if before is None else 1)

    def incident(self, incident: str) -> Any:
        return self.view if incident == "a1" else None

    def slots(self, _incident: str) -> Any:
        return self.told


class LiveSite:
    """The real server over a board that a test can change; notes what the browser asked for.

    Each board that is shown is a tick later than the one before. `held_back` paths get no answer, as behind a proxy
    that waits for their end.
    """

    def __init__(self, boards: Any) -> None:
        self.boards = boards
        self._ticks = 0
        self.seconds = 0.0
        self.shown = boards.quiet()
        self.kept: Any = KeptIncident(boards)
        self.asked: list[tuple[str, str]] = []
        self.held_back: set[str] = set()
        self.app = build_app(
            board=lambda: self.shown,
            metrics=lambda _o, _z: b"",
            reload=None,
            clock=lambda: boards.now + self.seconds,
            past=self.kept,
            runbooks=Path(__file__).parents[2] / "alerts" / "runbooks",
        )
        self.address = "127.0.0.1:0"
        self.start()

    @property
    def shown(self) -> Any:
        return self._shown

    @shown.setter
    def shown(self, board: Any) -> None:
        self._ticks += 1
        ticked = {
            name: server and replace(server, ticked_at=server.ticked_at + self._ticks / 1000)
            for name, server in board.servers.items()
        }
        self._shown = replace(board, servers=ticked)

    async def _noting(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        self.asked.append((scope["path"], headers.get(b"sec-fetch-dest", b"").decode("ascii")))
        if scope["path"] in self.held_back:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await self.app(scope, receive, send)

    def start(self) -> None:
        sock = WebServer.bind(self.address)
        self.server = WebServer(self._noting, sock)
        self.address = self.server.address
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://{self.address}/"


class Browser:
    """Real Chromium, spoken to in plain WebDriver."""

    def __init__(self, driver: str, profile: Path, arguments: list[str], width: int) -> None:
        self._driver = driver
        options = {
            "binary": CHROMIUM,
            "args": [*QUIET_ARGUMENTS, f"--user-data-dir={profile}", *arguments],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": 900, "pixelRatio": 1, "mobile": False}},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        opened = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{opened['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode("utf-8")
        request = urllib.request.Request(  # noqa: S310  # loopback, to the driver started here
            self._driver + path, data=data, method=method, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:  # noqa: S310  # as above
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def run_to_its_end(self, script: str) -> Any:
        """Return what the script hands to `done`."""
        whole = f"const done = arguments[arguments.length - 1];\n{script}"
        return self._call("POST", f"{self._session}/execute/async", {"script": whole, "args": []})

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def grant(self, permission: str) -> None:
        self._call("POST", f"{self._session}/permissions", {"descriptor": {"name": permission}, "state": "granted"})

    def press(self, element_id: str, key: str = "\ue007") -> None:
        """Press a key (Enter) on an element, as a person would who has tabbed to it."""
        query = {"using": "css selector", "value": f"[id='{element_id}']"}
        (found,) = self._call("POST", f"{self._session}/element", query).values()
        self._call("POST", f"{self._session}/element/{found}/value", {"text": key})

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def words(self) -> str:
        return " ".join(str(self.run("return document.body.innerText")).split())

    def headline(self) -> str:
        return str(self.run("return document.querySelector('h1').innerText"))

    def close(self) -> None:
        self._call("DELETE", self._session)


@pytest.fixture
def site(boards: Any) -> Iterator[LiveSite]:
    live = LiveSite(boards)
    yield live
    live.stop()


@pytest.fixture(scope="session")
def driver() -> Iterator[str]:
    said: list[str] = []
    for _ in range(DRIVER_STARTS_MOST):
        # It looks for a port that is free and takes it a moment later: it ends when somebody else was quicker.
        with subprocess.Popen(["/usr/bin/chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"started successfully on port (\d+)", line):
                    yield f"http://127.0.0.1:{found[1]}"
                    process.terminate()
                    process.wait(DEADLINE_SECONDS)
                    return
    pytest.fail(f"chromedriver did not start: {said}")


@pytest.fixture
def open_browser(driver: str, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    browsers: list[Browser] = []

    def build(*arguments: str, width: int = 1280) -> Browser:
        browsers.append(Browser(driver, tmp_path / f"profile{len(browsers)}", list(arguments), width))
        return browsers[-1]

    yield build
    for browser in browsers:
        browser.close()


@pytest.fixture
def wait() -> Callable[..., Any]:
    return until


@pytest.fixture(scope="session")
def axe() -> str:
    """The script that judges accessibility, fetched by npm as the lock says; workers wait for the one that fetches."""
    folder = Path(__file__).parent
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    with (folder / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = json.load(lock)["packages"]["node_modules/axe-core"]["version"]
        manifest = script.with_name("package.json")
        if not manifest.is_file() or json.loads(manifest.read_text("utf-8"))["version"] != wanted:
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return script.read_text("utf-8")
