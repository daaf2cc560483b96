"""One server, live: its poller, its watch and its thread, from one tick to the next.

Owns what a tick needs from the world and what is logged of it. It must not decide when to run (`schedule`) and must
not judge (`detect`).
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import structlog

from batsignal.census import Census
from batsignal.chronicle import Chronicle
from batsignal.config import Config, ServerConfig, Thresholds
from batsignal.detect.signal import Event
from batsignal.names import ApplicationPattern
from batsignal.poll.host import HostPoller
from batsignal.poll.pgbouncer import PgBouncerPoller
from batsignal.poll.resolve import Resolver
from batsignal.poll.sight import Sight
from batsignal.record.board import ServerBoard
from batsignal.record.recording import RecordingWriter
from batsignal.schedule import OVERDUE_INTERVALS
from batsignal.snapshot import Deploy, HostLoad, ProbeResult, Snapshot
from batsignal.tick import Watch, tick

HOST_LOOK_SECONDS = 5.0
PROBES_KEPT = 10_000
# A look that somebody acts on must be of now.
FRESH_SECONDS = 1.5
# What is usual is learnt over minutes and days: a kill that loses the last minute of it loses nothing.
REMEMBER_SECONDS = 60.0

_EVENTS = {"raised": "signal raised", "updated": "signal updated", "cleared": "signal cleared"}

log = structlog.get_logger(__name__)


class ServerRunner:
    """Ticks one server. `run` is called by one thread at a time; `probed`, `is_overdue` and `close` by any."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        whole: Config,
        pattern: ApplicationPattern,
        resolver: Resolver,
        find_deploys: Callable[[Snapshot, Census], Iterable[Deploy]],
        publish: Callable[[ServerBoard], None],
        chronicle: Chronicle,
        recording: RecordingWriter | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._find_deploys = find_deploys
        self._known_deploys: tuple[Deploy, ...] = ()
        self._publish = publish
        self._chronicle = chronicle
        self._recording = recording
        self._clock = clock
        self._monotonic = monotonic
        self._poller = Sight.of(config, resolver, clock=clock, monotonic=monotonic)
        dsn = config.pgbouncer_dsn
        self.pooler = (
            None
            if dsn is None
            else PgBouncerPoller(server=config.name, dsn=dsn.get_secret_value(), resolver=resolver, monotonic=monotonic)
        )
        self._host: HostPoller | None = None
        self._host_port: int | None = None
        self._host_due = 0.0
        self._host_load: HostLoad | None = None
        self._watch = self._begin(whole, pattern)
        self._remember_due = monotonic() + REMEMBER_SECONDS
        self._probes: deque[ProbeResult] = deque(maxlen=PROBES_KEPT)
        self._busy = threading.Lock()
        self._closing = False
        self._answered_at = monotonic()
        self._errors = 0
        self._told: tuple[str, str, bool | None] | None = None

    def run(self) -> None:
        """Tick once. A bug in a tick is logged and counted; the next tick runs all the same."""
        with self._busy:
            if self._closing:
                return
            try:
                tick(
                    self._watch,
                    look=self._look,
                    find_deploys=self._deploys_after,
                    publish=self._published,
                    now=self._clock,
                )
            except Exception:
                self._errors += 1
                log.exception("tick failed", server=self.config.name)
            if self._closing:  # `close` has not waited for us
                self._poller.close()

    def probed(self, result: ProbeResult) -> None:
        """Take in a probe's result; the next tick sees it."""
        self._probes.append(result)

    def look_now(self, within_seconds: float) -> Snapshot | None:
        """Return a look that is fresh, taken now unless the last one is; None when a tick hangs, or none has answered.

        May be called by any thread, and waits for a tick that runs.
        """
        if not self._busy.acquire(timeout=within_seconds):
            return None
        try:
            fresh = self._watch.answered is not None and self._monotonic() - self._answered_at <= FRESH_SECONDS
        finally:
            self._busy.release()
        if not fresh:
            self.run()
        return self._watch.answered if self._monotonic() - self._answered_at <= FRESH_SECONDS else None

    @contextlib.contextmanager
    def between_looks(self, within_seconds: float) -> Iterator[Sight | None]:
        """Yield the poller, which no tick uses meanwhile; None when a tick hangs, or the watch is about to end."""
        if not self._busy.acquire(timeout=within_seconds):
            yield None
            return
        try:
            yield None if self._closing else self._poller
        finally:
            if self._closing:  # `close` has not waited for us
                self._poller.close()
            self._busy.release()

    def overdue(self, board: ServerBoard | None) -> ServerBoard | None:
        """Return the board to show instead when the last answer is older than three intervals, else None."""
        if board is None or board.stale:
            return None
        age = self._monotonic() - self._answered_at
        if age <= OVERDUE_INTERVALS * self.config.poll_interval_seconds or board.snapshot.failure is not None:
            return None
        self._told = None  # so that the log says when it is back
        return replace(board, stale=True, tick_errors=self._errors)

    def close(self, deadline: float) -> None:
        """Give the seat on the server back; a tick that hangs past `deadline` (monotonic) keeps it till the end."""
        self._closing = True
        if self.pooler is not None:
            self.pooler.close()
        if self._busy.acquire(timeout=max(deadline - self._monotonic(), 0)):
            self._poller.close()
            self._remember()
            self._busy.release()

    def read_as(self, pattern: ApplicationPattern, whole: Config, deadline: float) -> bool:
        """Read application names another way, on the session that is there; False when a tick hangs past `deadline`.

        Who is who has changed, so the detectors begin anew, as after a restart: what is lit goes on when it is found
        again. Totals and the picture of the slots go on.
        """
        if not self._busy.acquire(timeout=max(deadline - self._monotonic(), 0)):
            return False
        try:
            self._remember()
            before, self._watch = self._watch, self._begin(whole, pattern)
            self._watch.tally = before.tally
            self._watch.tally.read_as(pattern, whole.metrics.top_names)
            self._watch.history = before.history
            self._watch.answered, self._watch.answered_at = before.answered, before.answered_at
            self._watch.answered_usage = before.answered_usage
        finally:
            self._busy.release()
        return True

    def _begin(self, whole: Config, pattern: ApplicationPattern) -> Watch:
        """Return a watch that has taken over what an earlier one of this server left: what was lit, what is usual."""
        watch = Watch.of(
            server=self.config.name,
            interval_seconds=self.config.poll_interval_seconds,
            thresholds=Thresholds(),
            pattern=pattern,
            top_names=whole.metrics.top_names,
        )
        left = self._chronicle.watch(self.config, whole)
        if left.looked_at is not None:
            watch.incidents.resume(left.signals, left_at=left.looked_at)
            watch.judge.expect([signal.finding for signal in left.signals], left.looked_at)
        memory = left.memory
        try:
            unfit = ("all",) if memory is None else watch.judge.recall(memory)
        except Exception:  # it comes from a disk, and may be anything: the watch must begin all the same
            log.exception("what was usual cannot be read", server=self.config.name)
            unfit = ("all",)
        if unfit:
            log.warning("what was usual is learnt anew", server=self.config.name, detectors=", ".join(unfit))
        return watch

    def _remember(self) -> None:
        try:
            self._chronicle.remember(self.config.name, self._watch.judge.remembered())
        except Exception:  # a bug in a detector's memory must not end its watch, nor a clean stop
            log.exception("what is usual was not kept", server=self.config.name)

    def _look(self) -> Snapshot:
        snapshot = self._poller.look()
        if snapshot.failure is None:
            self._answered_at = self._monotonic()
        probes = tuple(self._probes.popleft() for _ in range(len(self._probes)))
        snapshot = replace(snapshot, probes=probes, host=self._look_at_host())
        if self.pooler is None:
            return snapshot
        look = self.pooler.latest()
        return replace(snapshot, pools=look.pools, poll_seconds={**snapshot.poll_seconds, "pgbouncer": look.seconds})

    def _deploys_after(self, snapshot: Snapshot, census: Census) -> tuple[Deploy, ...]:
        """Return every deploy known after a look, and keep them: the recording holds what the judge was told."""
        self._known_deploys = tuple(self._find_deploys(snapshot, census))
        return self._known_deploys

    def _look_at_host(self) -> HostLoad | None:
        process = self._poller.process
        now = self._monotonic()
        if process is None or process.port is None:
            return None
        if self._host is None or self._host_port != process.port:
            self._host = HostPoller(port=process.port, data_directory=self.config.data_directory)
            self._host_port, self._host_due = process.port, now
        if now >= self._host_due:
            self._host_due = now + HOST_LOOK_SECONDS
            self._host_load = self._host.look(
                backend_pid=process.backend_pid, postmaster_start=process.postmaster_start
            )
        return self._host_load

    def _published(self, board: ServerBoard, events: tuple[Event, ...]) -> None:
        self._chronicle.looked(self.config.name, board.snapshot, self._known_deploys, events)
        self._publish(replace(board, tick_errors=self._errors))
        self._record(board.snapshot)
        if self._monotonic() >= self._remember_due:
            self._remember_due = self._monotonic() + REMEMBER_SECONDS
            self._remember()
        self._tell(board)
        for event in events:
            signal = event.signal
            log.warning(
                _EVENTS[event.event],
                server=signal.server,
                id=signal.id,
                kind=signal.finding.kind,
                severity=signal.finding.severity,
                summary=signal.finding.summary,
                **({} if event.reason is None else {"reason": event.reason}),
            )

    def _record(self, snapshot: Snapshot) -> None:
        if self._recording is None:
            return
        try:
            self._recording.write(snapshot, known_deploys=self._known_deploys)
        except OSError as exc:
            # The watch goes on without its recording: a full disk must not blind it.
            self._recording = None
            log.error("recording stopped", server=self.config.name, reason=exc.strerror or str(exc))  # noqa: TRY400

    def _tell(self, board: ServerBoard) -> None:
        """Log a change of state once, not each tick."""
        privileged = board.answered.privileged if board.answered else None
        now = (board.state, board.view, privileged)
        if now == self._told:
            return
        before, self._told = self._told, now
        failure, refusal = board.snapshot.failure, board.snapshot.refusal
        if failure is not None:
            log.warning("server not seen", server=board.name, state=failure.reason, reason=failure.text)
        elif refusal is not None:
            log.warning(
                "server seen another way",
                server=board.name,
                view=board.view,
                state=refusal.reason,
                reason=refusal.text,
                used_slots=board.snapshot.used,
            )
        elif before is None or before[:2] != now[:2]:
            log.info(
                "server seen",
                server=board.name,
                view=board.view,
                usable_slots=_usable(board),
                used_slots=board.snapshot.used,
            )
        if privileged is False and (before is None or before[2] is not False):
            log.error(
                "the role may not see other roles' sessions: counts by state are not to be trusted",
                server=board.name,
                mend=board.snapshot.grant,
            )


def _usable(board: ServerBoard) -> int | None:
    return board.snapshot.slots.usable if board.snapshot.slots else None
