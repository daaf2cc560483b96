"""Takes the README's pictures of the status page, dark and lit, from a real demo: `make screenshots`.

Needs chromium. Nothing is posed: the demo runs, the page is photographed while all is quiet and once the signal lit.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
ADDRESS = "127.0.0.1:9980"
WIDTH, HEIGHT = 1200, 1000


def main() -> None:
    """Run the demo and take both pictures."""
    command = [sys.executable, "-m", "batsignal", "demo", "--web.listen-address", ADDRESS]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    try:
        wait_for(1, "applications", seconds=30)
        time.sleep(8)  # some seconds of calm, to be seen in the picture
        take("quiet")
        wait_for(1, "signals", seconds=90)
        time.sleep(15)
        take("lit")
    finally:
        demo.terminate()
        demo.wait(30)


def wait_for(count: int, key: str, *, seconds: float) -> None:
    """Wait until the first server of the status shows at least `count` of `key`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}/api/v1/status", timeout=2) as response:
                servers = json.load(response)["servers"]
        except OSError:
            servers = []
        if servers and len(servers[0][key]) >= count:
            return
        time.sleep(0.5)
    raise SystemExit(f"no {key} within {seconds:.0f} s")


def take(name: str) -> None:
    """Photograph the page as it stands."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(  # noqa: S603 - our own command
            [  # noqa: S607 - whichever Chromium the machine has
                "chromium",
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--screenshot={PICTURES / f'{name}.png'}",
                f"http://{ADDRESS}/",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )


if __name__ == "__main__":
    main()
