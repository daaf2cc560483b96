"""The composition root: config in, pollers, ticks, board and web server wired together, signals of the OS, clean stop.

It decides nothing about databases. Whatever hangs, SIGTERM ends it within seconds.
"""

import asyncio
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from batsignal import __version__, footprint
from batsignal.census import Census
from batsignal.chronicle import Chronicle
from batsignal.clerk import Clerk
from batsignal.config import Config, SecretText
from batsignal.deploys.ledger import Ledger
from batsignal.endpoints import Endpoints
from batsignal.errors import ConfigError
from batsignal.expose.deploys import Desk
from batsignal.expose.releases import ReleaseDesk
from batsignal.expose.server import WebServer, build_app
from batsignal.names import ApplicationPattern
from batsignal.poll.resolve import Resolver
from batsignal.publication import Publication
from batsignal.record.board import Board, ServerBoard
from batsignal.recordings import open_recordings
from batsignal.runner import ServerRunner
from batsignal.schedule import Schedule
from batsignal.snapshot import Deploy, Snapshot
from batsignal.web_watch import WebWatch

STOP_SECONDS = 2.0
GIVE_BACK_SECONDS = 30.0
RELOAD_SECONDS = 4.0
# A queue of clients is judged by seconds.
POOLER_LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Daemon:
    """The running whole. `read_config` reads the configuration again on a reload and raises ConfigError."""

    def __init__(
        self,
        config: Config,
        *,
        read_config: Callable[[], Config],
        listen_address: str,
        web_config_file: str | None = None,
        enable_lifecycle: bool = False,
        runbooks: Path | None = None,
        record: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Bind the listening socket, so that a taken port is said before anything starts (UnreachableError).

        `record` is the file to record into, with `{server}` in it when there are several servers.
        """
        self._config = config
        self._read_config = read_config
        self._clock = clock
        self._reloading = threading.Lock()
        self._is_settled = False
        self._give_back_at = 0.0
        now = clock()
        self._publication = Publication(Board(version=__version__, started_at=now, config_reload_at=now))
        self._resolver = Resolver()
        self._deploy_token = _secret(config.web.deploy_token())
        self._web_watch = WebWatch(web_config_file)
        self._release_token = _secret(config.web.release_token())
        self._chronicle = Chronicle(config.store, clock=clock)
        self._ledger = Ledger(self._pattern(config))
        self._runners: dict[str, ServerRunner] = {}
        self._clerk = Clerk(
            ledger=lambda: self._ledger,
            pattern=lambda: self._pattern(self._config),
            runners=self._runners,
            publication=self._publication,
            chronicle=self._chronicle,
            clock=clock,
        )
        self._schedule = Schedule(check=self._check)
        self._endpoints = Endpoints(schedule=self._schedule, publication=self._publication, clock=clock)
        app = build_app(
            board=lambda: self._publication.board,
            metrics=self._publication.metrics,
            reload=self.reload if enable_lifecycle else None,
            clock=clock,
            runbooks=runbooks,
            past=self._chronicle.history,
            desk=Desk(mark=self._clerk.mark, token=lambda: self._deploy_token, verify=self._clerk.verify),
            release_desk=ReleaseDesk(release=self._clerk.release, token=lambda: self._release_token),
        )
        self._web = WebServer(app, WebServer.bind(listen_address), lambda: self._web_watch.access)
        # After the port: a second daemon by mistake must not empty the recording of the first.
        self._recordings = open_recordings(config, record)

    @property
    def address(self) -> str:
        """HOST:PORT where it really listens."""
        return self._web.address

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop everything within about `STOP_SECONDS`."""
        self._ledger = Ledger(self._pattern(self._config), known=self._chronicle.start())
        self._endpoints.start()
        self._schedule.start()
        try:
            self._apply(self._config, before=None)
            log.info(
                "listening",
                address=self.address,
                tls=self._web_watch.access.context is not None,
                servers=len(self._config.servers),
                version=__version__,
            )
            asyncio.run(self._serve())
        finally:
            self._stop()

    def reload(self) -> str | None:
        """Read the configuration again; return None, or why the old one stays in force."""
        with self._reloading:
            web_error = self._web_watch.reload()
            self._publication.show(web_config_error=self._web_watch.error)
            try:
                config = self._read_config()
                deploy_token = _secret(config.web.deploy_token())
                release_token = _secret(config.web.release_token())
            except ConfigError as exc:
                text = str(exc)
                log.error(  # noqa: TRY400 - the file is wrong, not the code: no traceback
                    "config not reloaded, the old one stays in force", reason=text
                )
                self._publication.show(config_reload_ok=False, config_reload_error=text)
                return text
            for key, new, old in (
                ("web.listen_address", config.web.listen_address, self._config.web.listen_address),
                ("store", config.store, self._config.store),
            ):
                if new != old:
                    log.warning("a change of this key takes effect at the next start", key=key)
            self._deploy_token, self._release_token = deploy_token, release_token
            before, self._config = self._config, config
            self._apply(config, before=before)
            self._publication.show(config_reload_ok=True, config_reload_at=self._clock(), config_reload_error=None)
            log.info("config reloaded", servers=len(config.servers), endpoints=len(config.endpoints))
            return web_error

    # -- wiring ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _pattern(config: Config) -> ApplicationPattern:
        return ApplicationPattern(re.compile(config.application_pattern))

    def _apply(self, config: Config, *, before: Config | None) -> None:
        """Make what runs agree with the config; servers and endpoints that did not change go on as they are."""
        same_reading = before is not None and (
            before.application_pattern == config.application_pattern and before.metrics == config.metrics
        )
        if before is not None and not same_reading:
            self._ledger = Ledger(self._pattern(config), known=self._ledger.known)
        wanted = {server.name: server for server in config.servers}
        deadline = time.monotonic() + RELOAD_SECONDS
        leaving = [
            runner
            for name, runner in self._runners.items()
            if wanted.get(name) != runner.config
            or not (same_reading or runner.read_as(self._pattern(config), config, deadline))
        ]
        for runner in leaving:
            self._schedule.remove(_server_job(runner.config.name))
            if runner.pooler is not None:
                self._schedule.remove(_pooler_job(runner.config.name))
            del self._runners[runner.config.name]
        for runner in leaving:
            runner.close(deadline)
        self._chronicle.watch_only(wanted)
        self._ledger.watch_only(wanted)
        kept = set(self._runners)
        self._publication.change(
            lambda board: replace(
                board, servers={name: board.servers.get(name) if name in kept else None for name in wanted}
            )
        )
        for name, server in wanted.items():
            if name not in kept:
                self._runners[name] = self._runner(server.name, config)
        self._endpoints.apply(config, before=before, runners=self._runners)
        for name in wanted.keys() - kept:
            runner = self._runners[name]
            if runner.pooler is not None:
                interval_seconds = max(runner.config.poll_interval_seconds, POOLER_LOOK_SECONDS)
                self._schedule.add(_pooler_job(name), runner.pooler.run, interval_seconds)
            self._schedule.add(_server_job(name), runner.run, runner.config.poll_interval_seconds)

    def _runner(self, name: str, config: Config) -> ServerRunner:
        server = next(one for one in config.servers if one.name == name)
        return ServerRunner(
            server,
            whole=config,
            pattern=self._pattern(config),
            resolver=self._resolver,
            find_deploys=self._find_deploys,
            publish=self._put_server,
            chronicle=self._chronicle,
            recording=self._recordings.get(name),
            clock=self._clock,
        )

    # -- what ticks and the watchdog bring -------------------------------------------------------------------------

    def _find_deploys(self, snapshot: Snapshot, census: Census) -> tuple[Deploy, ...]:
        return self._ledger.add(snapshot, census)  # a reload may have replaced it

    def _put_server(self, server: ServerBoard) -> None:
        self._publication.put(server)
        self._ledger.lit(server.name, server.signals, server.snapshot.t)
        self._clerk.keep_deploys()
        self._publication.show(incidents=self._chronicle.recent)

    def _check(self) -> None:
        """Look after what no tick can tell, twice a second: ticks that hang, the disk, and the web config's files."""
        self._check_ages()
        if not self._is_settled and self._publication.board.ready:
            self._is_settled = True
            footprint.settle()
        if time.monotonic() >= self._give_back_at:
            self._give_back_at = time.monotonic() + GIVE_BACK_SECONDS
            footprint.give_back()
        if self._web_watch.check():
            self._publication.show(web_config_error=self._web_watch.error)
        self._publication.show(store=self._chronicle.tell())

    def _check_ages(self) -> None:
        """Show a server as not answering once its last answer is too old, even when its tick hangs."""
        for name, runner in list(self._runners.items()):
            stale = runner.overdue(self._publication.board.servers.get(name))
            if stale is not None:
                log.warning("server not seen", server=name, state="timeout", reason="the tick hangs")
                self._put_server(stale)

    # -- start and stop --------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._web.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, self.reload))
        await self._web.serve()

    def _stop(self) -> None:
        # The loop gave the signals back: a second one must not end us with another exit code.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        log.info("stopping")
        deadline = time.monotonic() + STOP_SECONDS
        self._schedule.stop()
        self._endpoints.stop(STOP_SECONDS / 2)
        for runner in self._runners.values():
            runner.close(deadline)
        for name, recording in self._recordings.items():
            try:
                recording.close()
            except (OSError, ValueError) as exc:
                log.warning("recording not ended", server=name, reason=str(exc))
        self._chronicle.stop(STOP_SECONDS / 2)
        log.info("stopped")


def _secret(text: SecretText | None) -> str | None:
    return None if text is None else text.get_secret_value()


def _server_job(name: str) -> str:
    return f"server {name}"


def _pooler_job(name: str) -> str:
    return f"pooler {name}"
