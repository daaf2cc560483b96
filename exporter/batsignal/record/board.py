"""The board: the one immutable value that metrics, API and page read, and the cell it is swapped in.

Writers are the tick of each server (its own `ServerBoard`), the prober (its `EndpointBoard`s) and the daemon (config
state). Each swaps in a whole new board under a lock that is held for one dict copy; readers take the last one and
need no lock. The board does no I/O and judges nothing.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from batsignal.detect.signal import Signal
from batsignal.record.endpoint_tally import EndpointTally
from batsignal.record.tally import ConnectionCount, ServerTally
from batsignal.snapshot import Deploy, Snapshot, View


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSample:
    """Slots at one tick, for the picture over time: who held them, largest first, and the usable number.

    `used` is None where the look failed: a gap is drawn as a gap.
    """

    t: float
    used: int | None
    usable: int | None
    by_application: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBoard:
    """All that is shown of one server.

    `snapshot` is the last tick, `answered` the last one whose look succeeded (the same object while all is well).
    `answered_usage` is who held what at that last good look: it outlives a failure, as `tally.usage` does not.
    `answered_at` is when that was and `ticked_at` when the last tick ended, both by the daemon's clock.
    `exhaustion_seconds` is infinite when nothing grows and None when nothing is known. `stale` is set by the watchdog
    once the last answer is older than three intervals.
    """

    name: str
    interval_seconds: float
    snapshot: Snapshot
    answered: Snapshot | None
    answered_at: float | None = None
    answered_usage: tuple[ConnectionCount, ...] = ()
    ticked_at: float
    signals: tuple[Signal, ...] = ()
    exhaustion_seconds: float | None = None
    tally: ServerTally
    history: tuple[SlotSample, ...] = ()
    stale: bool = False
    tick_errors: int = 0

    @property
    def seen(self) -> bool:
        """Whether the sessions were seen in the last tick, by whatever way, and that tick is not too old to count."""
        return not self.stale and self.snapshot.failure is None

    @property
    def up(self) -> bool:
        """Whether a query was answered in the last tick: titles of processes are read without one."""
        return self.seen and self.snapshot.view != "process_titles"

    @property
    def view(self) -> View:
        """Where the counts come from now."""
        return self.snapshot.view if self.seen else "none"

    @property
    def state(self) -> str:
        """What our own last look met: `up`, or why the ordinary way in is shut."""
        if self.snapshot.met is not None:
            return self.snapshot.met.reason
        return "timeout" if self.stale else "up"

    @property
    def slots_full(self) -> bool:
        """Whether no slot is left for an ordinary role, by whatever evidence the last look gave."""
        met, slots = self.snapshot.met, self.snapshot.slots
        if met is not None and met.reason == "slots_full":
            return True
        return self.snapshot.failure is None and slots is not None and self.snapshot.used >= slots.usable


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """How it stands with what is kept on disk. Counts are since the start of the daemon.

    `reason` says why nothing can be written to the store, and is None while it can; `recorder_reason` the same of the
    flight recorders. `deleted` and `recorder_deleted` count how often their files were deleted while in use.
    `put_aside_last` says why a file that was there was not used, and what it is called now.
    """

    up: bool = False
    reason: str | None = None
    recorder_reason: str | None = None
    errors: int = 0
    recorder_errors: int = 0
    dropped_writes: int = 0
    dropped_looks: int = 0
    put_aside: int = 0
    put_aside_last: str | None = None
    deleted: int = 0
    recorder_deleted: int = 0
    store_bytes: int = 0
    recordings_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PastIncident:
    """An incident in one line. `severity` is the worst it had; `ended` is None while it is open."""

    id: str
    server: str
    kind: str
    severity: str
    summary: str
    since: float
    detected: float
    ended: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Everything, at one moment. `servers` lists every configured server; None until its first poll has ended.

    `incidents` are the last few, the newest first, those of earlier lives among them. `store` is None where nothing is
    kept on disk.
    """

    version: str
    started_at: float
    servers: Mapping[str, ServerBoard | None] = field(default_factory=dict)
    endpoints: Mapping[str, EndpointTally] = field(default_factory=dict)
    deploys: tuple[Deploy, ...] = ()
    config_reload_ok: bool = True
    config_reload_at: float = 0.0
    config_reload_error: str | None = None
    web_config_error: str | None = None
    """Why what stands in the web config is not in force; None where it is, or where there is none."""
    store: StoreHealth | None = None
    incidents: tuple[PastIncident, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the first poll of every server has ended, in success or in a known failure."""
        return all(server is not None for server in self.servers.values())

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Every lit signal: critical before warning, then the oldest first."""
        lit = [signal for server in self.servers.values() if server is not None for signal in server.signals]
        return tuple(sorted(lit, key=lambda signal: (signal.finding.severity != "critical", signal.finding.since)))


class BoardCell:
    """Holds the current board; `swap` is the only way to change it."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._lock = threading.Lock()

    @property
    def board(self) -> Board:
        return self._board

    def swap(self, change: Callable[[Board], Board]) -> Board:
        """Replace the board by `change(board)` and return the new one."""
        with self._lock:
            self._board = change(self._board)
            return self._board

    def put_server(self, server: ServerBoard) -> Board:
        """Publish one server's tick. A server that a reload has taken away is not brought back."""

        def put(board: Board) -> Board:
            if server.name not in board.servers:
                return board
            return replace(board, servers={**board.servers, server.name: server})

        return self.swap(put)
