"""What is seen from outside while a fault lasts: our sessions, scrapes, and the ticks of the server beside.

Sessions are counted as the system shows them, five times a second: by the titles of the server's processes, which are
there also while the server hangs, and by the daemon's connections, which are there before the server lets them in.
The larger number counts. It must not cost the daemon more than a scraper would.
"""

import http.client
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from under_fault.faults import Fault
from under_fault.stand import Stand, StandError, until, value

SCRAPE_EVERY_SECONDS = 0.1
COUNT_EVERY_SECONDS = 0.2
SCRAPES_PER_PAGE = 5
BACK_WAIT_SECONDS = 20.0
OWN_SESSIONS_MOST = 2
BACK_SECONDS_MOST = 5.0
# The bar is 100 ms, and bench/faults.py measures against it; tests share their cores with one another.
SCRAPE_SECONDS_MOST = 2.0
# Established, and on the way there (SYN_SENT).
TCP_STATES = {"01", "02"}


@dataclass
class Seen:
    """What a witness has seen."""

    state: str = ""
    """How A was shown at the end of the fault."""
    own_sessions_most: int = 0
    worst_moment: list[str] = field(default_factory=list)
    """The sessions and connections of that moment."""
    scrapes: list[float] = field(default_factory=list)
    """How long each took, in seconds."""
    pages_failed: list[str] = field(default_factory=list)
    looks_at_b: list[tuple[float, float]] = field(default_factory=list)
    """The first and the last: when it was, by the daemon's clock, and how many had been answered by then."""
    back_seconds: float | None = None
    """How long after the end of the fault a look at A was answered again."""

    @property
    def slowest_scrape_seconds(self) -> float:
        return max(self.scrapes, default=0.0)

    @property
    def missed_ticks_of_b(self) -> int:
        """How many ticks of B there are too few, by the daemon's own clock; one that is late is not missed."""
        if not self.looks_at_b:
            return 0
        (began, before), (ended, after) = self.looks_at_b[0], self.looks_at_b[-1]
        return max(int(ended - began) - round(after - before), 0)

    def hold(self) -> None:
        """Raise AssertionError, with what was seen, when a bound is not kept."""
        assert self.own_sessions_most <= OWN_SESSIONS_MOST, self.worst_moment
        assert self.pages_failed == []
        assert self.slowest_scrape_seconds < SCRAPE_SECONDS_MOST, self.slowest_scrape_seconds
        assert self.missed_ticks_of_b == 0, self.looks_at_b
        assert self.back_seconds is not None
        assert self.back_seconds <= BACK_SECONDS_MOST, self.back_seconds


class Witness:
    """Watches a stand from the beginning of a `with` block to its end."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        # As its own network namespace shows them.
        self._network = Path(f"/proc/{stand.daemon.process.pid}/net")
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._scrape, self._count)]
        self.seen = Seen()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def back(self) -> float:
        """Wait until a look at A that began after this call was answered; note and return how long that took."""
        began, since = time.monotonic(), self._answered()
        until(lambda: self._answered() > since and self._stand.is_up(), "A to be seen again", BACK_WAIT_SECONDS)
        self.seen.back_seconds = time.monotonic() - began
        return self.seen.back_seconds

    def _answered(self) -> float:
        return self._stand.daemon.metric('batsignal_ping_seconds_count{server="a"}') or 0.0

    def _scrape(self) -> None:
        daemon = self._stand.daemon
        connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=30)
        number = 0
        while not self._ended.wait(SCRAPE_EVERY_SECONDS):
            number += 1
            began = time.monotonic()
            try:
                connection.request("GET", "/metrics")
                body = connection.getresponse().read().decode()
            except OSError as exc:
                self.seen.pages_failed.append(f"/metrics: {exc!r}")
                connection.close()
                continue
            self.seen.scrapes.append(time.monotonic() - began)
            at = value(body, 'batsignal_last_tick_timestamp_seconds{server="b"}')
            answered = value(body, 'batsignal_ping_seconds_count{server="b"}')
            if at is not None and answered is not None:
                self.seen.looks_at_b = [*self.seen.looks_at_b[:1], (at, answered)]
            if number % SCRAPES_PER_PAGE == 0:
                self._read_pages()
        connection.close()

    def _read_pages(self) -> None:
        for path in ("/", "/api/v1/status", "/-/healthy"):
            try:
                self._stand.daemon.text(path)
            except (StandError, OSError) as exc:
                self.seen.pages_failed.append(f"{path}: {exc!r}")

    def _count(self) -> None:
        while not self._ended.wait(COUNT_EVERY_SECONDS):
            served, connections = served_by(self._stand.guest), self._connections()
            now = max(len(served), len(connections))
            if now > self.seen.own_sessions_most:
                self.seen.own_sessions_most, self.seen.worst_moment = now, [*served, *connections]

    def _connections(self) -> list[str]:
        """Return the connections to A's port; only the daemon has any, for all others come over the socket."""
        found = []
        for name in ("tcp", "tcp6"):
            for line in (self._network / name).read_text().splitlines()[1:]:
                _, local, remote, state, *_ = line.split()
                if state in TCP_STATES and int(remote.rpartition(":")[2], 16) == self._stand.a.port:
                    found.append(f"port {int(local.rpartition(':')[2], 16)}, state {state}")
        return found


def served_by(role: str) -> list[str]:
    """Return the titles of PostgreSQL's processes that serve a role."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if title.startswith(f"postgres: {role} ".encode()):
                found.append(title.rstrip(b" \0").decode())
    return found


def play(stand: Stand, fault: Fault) -> Seen:
    """Let a fault last and end, and wait until A is seen again; return what was seen from its beginning on."""
    with Witness(stand) as witness:
        with fault.begin(stand):
            time.sleep(fault.lasts_seconds)
            witness.seen.state = stand.daemon.server("a")["state"]
        witness.back()
    witness.seen.scrapes += stand.scrapes
    stand.scrapes.clear()
    return witness.seen
