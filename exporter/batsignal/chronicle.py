"""What the daemon remembers: its history on disk, and what a server's next watch goes on with.

Owns the wiring between ticks and the thread that writes (`record.keeper`), and what is logged of it. It must not hold
up a tick or end a watch: with a disk that takes nothing, or no store configured, everything here still works and is
forgotten at the end.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from batsignal.config import Config, ServerConfig, StoreConfig
from batsignal.detect.hindsight import told_over
from batsignal.detect.memory import Memory
from batsignal.detect.signal import Event, Signal
from batsignal.record.archive import recordings_folder
from batsignal.record.board import PastIncident, StoreHealth
from batsignal.record.flight import FlightRecorder
from batsignal.record.history import History
from batsignal.record.keeper import Keeper
from batsignal.record.kept import Left, Past
from batsignal.record.recent import with_events
from batsignal.snapshot import Deploy, Snapshot

# A disk that has not told the past by then is not waited for: the watch begins, and knows no past.
PAST_SECONDS = 3.0

log = structlog.get_logger(__name__)


class Chronicle:
    """One daemon's memory; safe to share between threads."""

    def __init__(self, config: StoreConfig, *, clock: Callable[[], float] = time.time) -> None:
        """Touch no disk yet: a second daemon by mistake must end before that, over its port."""
        self._path = None if config.path is None else Path(config.path)
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, Left] = {}
        self._deploys: tuple[Deploy, ...] = ()
        self._recent: tuple[PastIncident, ...] = ()
        self._keeper = (
            None
            if self._path is None
            else Keeper(self._path, keep_days=config.keep_days, alive=self._alive, clock=clock)
        )
        self._told = StoreHealth()
        self.history = None if self._path is None else History(self._path)

    def start(self) -> tuple[Deploy, ...]:
        """Open the store; return the deploys that an earlier life knew."""
        if self._keeper is None:
            return ()
        past = self._keeper.start(PAST_SECONDS)
        with self._lock:
            self._left, self._deploys, self._recent = dict(past.servers), past.deploys, past.recent
        return past.deploys

    def stop(self, timeout_seconds: float) -> None:
        """Write what has come, and end."""
        if self._keeper is not None:
            self._keeper.stop(timeout_seconds)
            self.tell()

    # -- the servers -----------------------------------------------------------------------------------------------

    def watch(self, server: ServerConfig, config: Config) -> Left:
        """Return what the watch of a server goes on with, and have its looks recorded from now on."""
        with self._lock:
            left = self._left.setdefault(server.name, Left())
        if self._keeper is not None and self._path is not None:
            recorder = FlightRecorder(
                recordings_folder(self._path),
                server=server.name,
                interval_seconds=server.poll_interval_seconds,
                application_pattern=config.application_pattern,
            )
            self._keeper.record(server.name, recorder, left)
        return left

    def watch_only(self, servers: Iterable[str]) -> None:
        """Forget every other server: what was lit there has ended."""
        wanted = set(servers)
        with self._lock:
            gone = [name for name in self._left if name not in wanted]
            lit = [signal for name in gone for signal in self._left.pop(name).signals]
            now = self._clock()
            over = [told_over(Event(t=now, event="cleared", signal=signal, reason="ended")) for signal in lit]
            self._recent = with_events(self._recent, over)
        if self._keeper is not None and gone:
            for name in gone:
                self._keeper.forget(name)
            self._keeper.write(lambda store: store.restore(self._alive(), now=self._clock()))

    def looked(
        self, server: str, snapshot: Snapshot, known_deploys: Sequence[Deploy], events: tuple[Event, ...]
    ) -> None:
        """Take in a tick: the look, and what it has changed."""
        with self._lock:
            left = self._left.get(server)
            if left is None:
                return  # a reload took the server away during its last tick
            self._left[server] = _after(left, snapshot, events)
            if events:
                self._recent = with_events(self._recent, events)
        keeper = self._keeper
        if keeper is None:
            return
        now = self._clock()
        for event in events:
            keeper.write(lambda store, event=event: store.tell(event, now=now))  # type: ignore[misc]
        keeper.write(lambda store: store.looked(server, snapshot.t, now=now))
        keeper.look(server, snapshot, known_deploys, events)

    def remember(self, server: str, memory: Memory) -> None:
        """Keep what is usual at a server."""
        usual = json.dumps(memory, separators=(",", ":"))
        with self._lock:
            if server not in self._left:
                return
            self._left[server] = replace(self._left[server], usual=usual)
        if self._keeper is not None:
            now = self._clock()
            self._keeper.write(lambda store: store.remember(server, usual, now=now))

    def deployed(self, known: tuple[Deploy, ...]) -> None:
        """Keep the deploys that are known now."""
        with self._lock:
            news = [deploy for deploy in known if deploy not in self._deploys]
            self._deploys = known
        if self._keeper is not None and news:
            now = self._clock()
            self._keeper.write(lambda store: store.deployed(news, now=now))

    def released(self, signals: Iterable[Signal], t: float, audit: Mapping[str, Any]) -> None:
        """Keep with the incidents of some signals who had sessions ended, and which; `t` is by the server's clock."""
        if self._keeper is None:
            return
        now = self._clock()
        for signal in signals:
            self._keeper.write(lambda store, signal=signal: store.released(signal, t, audit, now=now))  # type: ignore[misc]

    @property
    def recent(self) -> tuple[PastIncident, ...]:
        """The last few incidents; the same object as long as nothing has changed."""
        return self._recent

    def _alive(self) -> Past:
        with self._lock:
            return Past(servers=dict(self._left), deploys=self._deploys)

    # -- how it stands with the disk -------------------------------------------------------------------------------

    def tell(self) -> StoreHealth | None:
        """Return how it stands with the disk, None without a store; log a change of it once."""
        if self._keeper is None:
            return None
        health = self._keeper.health
        before, self._told = self._told, health
        path = str(self._path)
        if health.put_aside > before.put_aside:
            log.warning("store put aside, a new one is begun", path=path, reason=health.put_aside_last)
        if health.deleted > before.deleted:
            log.warning("store was deleted while in use, it is begun anew", path=path)
        if health.recorder_deleted > before.recorder_deleted:
            log.warning("recordings were deleted while in use, they are begun anew", path=path)
        if health.up and not before.up:
            log.info("history is kept", path=path)
        elif health.reason is not None and (before.up or before.reason is None):
            log.error("history is not kept, the watch goes on", path=path, reason=health.reason)
        if health.recorder_reason is not None and before.recorder_reason is None:
            log.error("looks are not recorded, the watch goes on", path=path, reason=health.recorder_reason)
        elif health.recorder_reason is None and before.recorder_reason is not None:
            log.info("looks are recorded again", path=path)
        return health


def _after(left: Left, snapshot: Snapshot, events: Iterable[Event]) -> Left:
    """Return what a watch would go on with after a tick."""
    signals = {signal.id: signal for signal in left.signals}
    for event in events:
        signals.pop(event.signal.id, None)
        if event.event != "cleared":
            signals[event.signal.id] = event.signal
    return replace(left, looked_at=snapshot.t, signals=tuple(signals.values()), ended=())
