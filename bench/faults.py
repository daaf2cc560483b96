"""How politely the daemon bears every fault of a server, of the network and of its names, each made for real.

    python bench/faults.py [--only WORDS] [--bindir DIR] [--json FILE]

Server A is broken in one way after the other, while B is left alone; our own sessions are counted as the system shows
them, five times a second, and the daemon is scraped ten times a second. Prints a line for each fault and the worst of
all. Exits 1 when a bar is missed, 3 when a fault could not be made here (a network namespace needs root).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from under_fault.faults import FAULTS, Fault
from under_fault.names import Names
from under_fault.network import NetworkError, far_stand, network
from under_fault.stand import Stand, stand
from under_fault.witness import BACK_SECONDS_MOST, OWN_SESSIONS_MOST, Seen, play

SCRAPE_SECONDS_MOST = 0.1
TIMEOUT = frozenset({"timeout"})
UP = frozenset({"up"})


@contextmanager
def stands(words: str, bindir: Path | None) -> Iterator[Iterator[tuple[Stand, Fault]]]:
    """Yield each fault whose title has these words, on a stand where it can be made."""

    def each() -> Iterator[tuple[Stand, Fault]]:
        here = [fault for fault in FAULTS if words in fault.title]
        if here:
            with stand(bindir=bindir) as shared:
                yield from ((shared, fault) for fault in here)
        for seconds in (3.0, 15.0):
            title = f"a network that eats packets, {seconds:g} s"
            if words in title:
                with network() as net, far_stand(net, bindir) as far:
                    begin = net.to_a.eating_packets
                    yield far, Fault(title=title, begin=begin, lasts_seconds=seconds, shown_as=TIMEOUT)
        title = "a name that stops resolving, and a restart"
        if words in title:
            with tempfile.TemporaryDirectory() as folder:
                names = Names(Path(folder) / "hosts")
                with names.stand(bindir) as named:
                    yield named, Fault(title=title, begin=names.lost_over_a_restart, lasts_seconds=3, shown_as=UP)

    yield each()


def main() -> int:
    """Measure, print, and say by the exit code whether every bar was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS", help="only faults whose name has these words")
    parser.add_argument("--bindir", type=Path, help="the programs of another PostgreSQL than the embedded 18")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured here, too")
    arguments = parser.parse_args()
    seen: dict[str, Seen] = {}
    print(f"{'fault':48} {'shown as':14} {'own':>3} {'scrape':>7} {'back':>6} {'B missed':>8}")
    try:
        with stands(arguments.only, arguments.bindir) as faults:
            for at, fault in faults:
                one = seen[fault.title] = play(at, fault)
                slowest, back = one.slowest_scrape_seconds * 1e3, one.back_seconds or 0
                print(
                    f"{fault.title:48} {one.state:14} {one.own_sessions_most:3} {slowest:4.0f} ms"
                    f" {back:4.1f} s {one.missed_ticks_of_b:8}",
                    flush=True,
                )
    except NetworkError as exc:
        print(f"could not be made here: {exc}", file=sys.stderr)
        return 3
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({title: asdict(one) for title, one in seen.items()}), encoding="utf-8")
    return _judged(list(seen.values()))


def _judged(seen: list[Seen]) -> int:
    bars = (
        ("own sessions, worst second", max(one.own_sessions_most for one in seen), OWN_SESSIONS_MOST),
        ("slowest scrape, seconds", max(one.slowest_scrape_seconds for one in seen), SCRAPE_SECONDS_MOST),
        ("back after, seconds", max(one.back_seconds or 0 for one in seen), BACK_SECONDS_MOST),
        ("missed ticks of B", sum(one.missed_ticks_of_b for one in seen), 0),
        ("pages that did not answer", sum(len(one.pages_failed) for one in seen), 0),
    )
    for what, measured, bar in bars:
        print(f"{'FAIL' if measured > bar else 'ok  '} {what}: {measured:.3g} (bar: {bar:g})")
    return int(any(measured > bar for _, measured, bar in bars))


if __name__ == "__main__":
    sys.exit(main())
