"""When ticks and probes run: APScheduler's jobs, one thread per server, and a watchdog on the monotonic clock.

APScheduler runs on the wall clock: set it back an hour and no job runs for an hour. The watchdog measures on the
monotonic clock, re-arms what is overdue, and tells when a server's answers are too old to count. It must not poll.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

PROBES = "probes"
OVERDUE_INTERVALS = 3.0
CHECK_SECONDS = 0.5
# A tick that could not start in time is still worth running: late is better than blind.
MISFIRE_GRACE_SECONDS = 86_400

# APScheduler warns each time a job is still running when the next is due; a hung server would fill the log.
logging.getLogger("apscheduler").setLevel(logging.ERROR)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Beat:
    """One job and when it last began, on the monotonic clock."""

    interval_seconds: float
    began: float
    running: bool = False


class Schedule:
    """Runs named jobs at intervals. A job that is late is coalesced, one that hangs holds up no other server's."""

    def __init__(self, *, check: Callable[[], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        """`check` is called by the watchdog about twice a second."""
        self._check = check
        self._monotonic = monotonic
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={PROBES: ThreadPoolExecutor(1)})
        self._beats: dict[str, _Beat] = {}
        self._stopping = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._scheduler.start()
        self._watchdog.start()

    def add(self, name: str, job: Callable[[], None], interval_seconds: float, *, executor: str | None = None) -> None:
        """Run `job` now and then every interval, in a thread of its own unless an executor is named."""
        beat = _Beat(interval_seconds, self._monotonic())
        self._beats[name] = beat
        if executor is None:
            self._scheduler.add_executor(ThreadPoolExecutor(1), alias=name)

        def run() -> None:
            beat.began, beat.running = self._monotonic(), True
            try:
                job()
            finally:
                beat.running = False

        self._scheduler.add_job(
            run,
            "interval",
            seconds=interval_seconds,
            id=name,
            executor=executor or name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=MISFIRE_GRACE_SECONDS,
            next_run_time=datetime.now(UTC),
        )

    def remove(self, name: str, *, executor: str | None = None) -> None:
        """Stop a job; one that is running is not waited for."""
        self._beats.pop(name, None)
        self._scheduler.remove_job(name)
        if executor is None:
            self._scheduler.remove_executor(name, shutdown=False)

    def stop(self) -> None:
        """Start no more jobs; those that run are not waited for."""
        self._stopping.set()
        if self._watchdog.is_alive():
            self._watchdog.join(CHECK_SECONDS)
        self._scheduler.shutdown(wait=False)

    def _watch(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            try:
                self._check()
            except Exception:
                log.exception("watchdog check failed")
            now = self._monotonic()
            for name, beat in list(self._beats.items()):
                if not beat.running and now - beat.began > OVERDUE_INTERVALS * beat.interval_seconds + 1.0:
                    beat.began = now
                    self._rearm(name)

    def _rearm(self, name: str) -> None:
        try:
            self._scheduler.modify_job(name, next_run_time=datetime.now(UTC))
        except JobLookupError:
            return  # a reload took it away in this moment
