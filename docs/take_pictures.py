"""Takes the README's pictures of the pages from a real demo: `make screenshots`.

Needs chromium and its driver. Nothing is posed: the demo runs, and its page is photographed while all is quiet, once
the signal is lit (on a screen and on a phone), and so is the page of the incident.
"""

import argparse
import base64
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
ADDRESS = "127.0.0.1:9980"
PAGE = f"http://{ADDRESS}/"
SCREEN, PHONE = (1200, 1000), (390, 844)
CALM_SECONDS, LIT_SECONDS, GROWN_SECONDS = 10, 15, 40
# A palette keeps the night smooth enough and a picture below 200 KB.
COLOURS = 256


def main() -> None:
    """Run the demo and take the pictures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PICTURES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "batsignal", "demo", "--web.listen-address", ADDRESS]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    try:
        with browser() as camera:
            wait_for("applications", seconds=60)
            time.sleep(CALM_SECONDS)
            camera.take("quiet", PAGE, SCREEN)
            lit = wait_for("signals", seconds=120)
            time.sleep(LIT_SECONDS)
            camera.take("lit", PAGE, SCREEN)
            camera.take("phone", PAGE, PHONE)
            time.sleep(GROWN_SECONDS)
            camera.take("incident", f"{PAGE}incidents/{lit}", SCREEN)
    finally:
        demo.terminate()
        demo.wait(30)


def wait_for(key: str, *, seconds: float) -> Any:
    """Wait until the first server of the status shows any of `key`, and return the first of them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{PAGE}api/v1/status", timeout=2) as response:
                servers = json.load(response)["servers"]
        except OSError:
            servers = []
        if servers and servers[0][key]:
            return servers[0][key][0]
        time.sleep(0.5)
    raise SystemExit(f"no {key} within {seconds:.0f} s")


class Camera:
    """Chromium, told by its driver what to show."""

    def __init__(self, driver: str, profile: str) -> None:
        self._driver = driver
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        arguments += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        wanted = {"goog:chromeOptions": {"args": [*arguments, "--force-prefers-reduced-motion"]}}
        opened = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{opened['sessionId']}"

    def take(self, name: str, url: str, size: tuple[int, int]) -> None:
        """Photograph a page as it stands, on a screen of that size."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call(
            "POST",
            f"{self._session}/goog/cdp/execute",
            {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics},
        )
        self._call("POST", f"{self._session}/url", {"url": url})
        time.sleep(1.5)  # the first event of the stream
        picture = Image.open(io.BytesIO(base64.b64decode(self._call("GET", f"{self._session}/screenshot"))))
        small = picture.convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.FLOYDSTEINBERG)
        small.save(PICTURES / f"{name}.png", optimize=True)

    def close(self) -> None:
        self._call("DELETE", self._session)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode("utf-8")
        request = urllib.request.Request(
            self._driver + path, data=data, method=method, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser() -> Iterator[Camera]:
    """Run the driver and a browser."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)  # noqa: S607
    assert driver.stdout is not None  # noqa: S101 - it is a pipe
    try:
        port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        with tempfile.TemporaryDirectory() as profile:
            camera = Camera(f"http://127.0.0.1:{port}", profile)
            try:
                yield camera
            finally:
                camera.close()
    finally:
        driver.terminate()
        driver.wait(30)
        driver.stdout.close()


if __name__ == "__main__":
    main()
