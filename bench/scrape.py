"""How long a scrape takes: the daemon against postgres_exporter, on one server, asked in turns.

Both are asked as Prometheus asks (OpenMetrics preferred), over a kept connection and over a fresh one for each scrape,
packed and plain. They take turns scrape by scrape, so that whatever else the machine does hits both alike.
"""

import argparse
import time
from collections.abc import Sequence

from report import Line, compared, quantile, run
from stage import Metrics, Program, Stage

RATIO_AT_MOST = 0.1
WARM_UP = 20
PAUSE_SECONDS = 0.003


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Return p50 and p99 of each variant at each number of sessions."""
    lines = []
    for sessions in arguments.sessions:
        with Stage(major=arguments.server, max_connections=max(110, sessions + 10)) as stage:
            stage.fill(sessions, busy=sessions <= 500)
            ours, peer = stage.daemon(), stage.exporter()
            for keep_alive in (True, False):
                for zipped in (True, False):
                    connection = "kept connection" if keep_alive else "fresh connection"
                    what = f"{sessions} sessions, {connection}, {'gzip' if zipped else 'plain'}"
                    lines += _compared(what, *_in_turns(ours, peer, arguments.scrapes, keep_alive, zipped))
    return lines


def _compared(what: str, ours: Sequence[float], peer: Sequence[float]) -> list[Line]:
    return [
        compared(f"scrape p50, {what}", quantile(ours, 0.5), quantile(peer, 0.5), "ms", RATIO_AT_MOST),
        compared(f"scrape p99, {what}", quantile(ours, 0.99), quantile(peer, 0.99), "ms"),
    ]


def _in_turns(
    ours: Program, peer: Program, scrapes: int, keep_alive: bool, zipped: bool
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each scrape."""
    clients = [Metrics(one.port, keep_alive=keep_alive, zipped=zipped) for one in (ours, peer)]
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(-WARM_UP, scrapes):
        for client, milliseconds in zip(clients, taken, strict=True):
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            client.scrape()
            if turn >= 0:
                milliseconds.append((time.perf_counter() - began) * 1000)
    for client in clients:
        client.close()
    return taken


def options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--sessions", type=int, nargs="+", default=[43, 100], help="sessions on the server")
    parser.add_argument("--scrapes", type=int, default=500, help="scrapes of each, for each line")
    parser.add_argument("--server", type=int, choices=(15, 18), default=15, help="PostgreSQL's major version")


if __name__ == "__main__":
    run(__doc__, measure, options)
