"""From a fresh clone, with nothing cached, to the first signal on the screen: what a newcomer waits for.

Clones the repository's last commit into a scratch directory and runs `make demo` there without pip's caches, as a
terminal would: its own process group, ended by SIGINT when the signal lights. What is not committed is not measured,
and the network's speed is in the number.
"""

import argparse
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from batsignal.errors import UnreachableError
from report import Line, bounded, run

REPOSITORY = Path(__file__).parents[1]
SECONDS_AT_MOST = 180
PATIENCE_SECONDS = 600.0
STOP_SECONDS = 60.0
INSTALLED = re.compile(rb"Starting a scratch PostgreSQL")
SIGNAL = re.compile(rb"SIGNAL LIT")


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Return the seconds to the first signal, and what of it was installation."""
    with tempfile.TemporaryDirectory(prefix="batsignal-first-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        began = time.monotonic()
        clone = ["git", "clone", "--quiet", f"file://{arguments.repository.resolve()}", str(folder / "clone")]
        subprocess.run(clone, check=True)
        installed, lit = _demo(folder / "clone", folder / "cache", began)
    seconds = lit - began
    return [
        bounded("fresh clone to the first signal", seconds, "s", SECONDS_AT_MOST),
        Line(what="of it clone and installation", ours=installed - began, unit="s"),
        Line(what="of it from the demo's start to the signal", ours=lit - installed, unit="s"),
    ]


def _demo(clone: Path, cache: Path, began: float) -> tuple[float, float]:
    """Run `make demo` until the signal lights; return when the demo began and when the signal lit."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}},
        "PIP_NO_CACHE_DIR": "1",
        "XDG_CACHE_HOME": str(cache),
    }
    process = subprocess.Popen(
        ["make", "demo"],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said = b""
        installed, said = _wait_for(INSTALLED, process, said, began + PATIENCE_SECONDS)
        lit, said = _wait_for(SIGNAL, process, said, began + PATIENCE_SECONDS)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=STOP_SECONDS)
    return installed, lit


def _wait_for(
    wanted: re.Pattern[bytes], process: "subprocess.Popen[bytes]", said: bytes, deadline: float
) -> tuple[float, bytes]:
    if process.stdout is None:
        raise RuntimeError("the demo is started with a pipe")
    while not wanted.search(said):
        ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        more = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not more:
            words = said.decode(errors="replace").strip().splitlines()[-5:]
            raise UnreachableError(
                f"`make demo` never said {wanted.pattern.decode()!r}; last words: {' / '.join(words)}"
            )
        said += more
    return time.monotonic(), said


def options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="what to clone")


if __name__ == "__main__":
    run(__doc__, measure, options)
