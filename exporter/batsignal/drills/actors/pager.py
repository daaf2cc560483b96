"""A pager to try things out with: takes what Alertmanager sends, and writes each page as a person reads it.

Owns the other end of a webhook. It must not decide what is worth a page: whatever comes is shown, under the name of the
receiver in its path.

    python -m batsignal.drills.actors.pager --port 9095
"""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REQUEST_TIMEOUT_SECONDS = 10.0
LARGEST_BYTES = 4 * 1024 * 1024
# What always fires, and says something only by its absence.
SILENT = frozenset({"BatSignalWatchdog"})


def page_lines(receiver: str, message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a webhook message of Alertmanager.

    >>> alert = {"status": "firing", "labels": {"alertname": "BatSignalLeak", "severity": "critical"},
    ...          "annotations": {"summary": "web leaks connections.", "action": "Roll back web."}}
    >>> list(page_lines("pager", {"alerts": [alert]}))
    ['[pager] firing critical BatSignalLeak: web leaks connections.', '[pager]     Roll back web.']
    """
    for alert in message.get("alerts", ()):
        labels, texts = alert.get("labels", {}), alert.get("annotations", {})
        name = labels.get("alertname", "an alert without a name")
        if name in SILENT:
            continue
        head = (alert.get("status", "?"), labels.get("severity", "?"), name)
        said = texts.get("summary", "")
        # A rule that cannot tell its own end leaves its last words, which are true no more.
        had_said = "it had said: " if alert.get("status") == "resolved" and not said.endswith(" It is over.") else ""
        yield f"[{receiver}] {' '.join(head)}: {had_said}{said}"
        if alert.get("status") == "firing" and texts.get("action"):
            yield f"[{receiver}]     {texts['action']}"


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", 0))
            message = json.loads(self.rfile.read(length)) if 0 <= length <= LARGEST_BYTES else None
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self._answer(400)
            return
        for line in page_lines(self.path.strip("/"), message):
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        self._answer(200)

    def log_message(self, *_: object) -> None:
        """Keep quiet: only pages are written."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main(arguments: list[str] | None = None) -> None:
    """Take pages until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m batsignal.drills.actors.pager")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    server = ThreadingHTTPServer((options.host, options.port), _Handler)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    server.serve_forever(poll_interval=0.2)
    server.server_close()


if __name__ == "__main__":
    main()
