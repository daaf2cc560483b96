"""`batsignal demo`: a small shop deploys a version that breaks it, for real, and the terminal tells what happens.

Owns the order of the scene and its telling. It must leave nothing behind, whatever ends it: what it starts is in the
custody of `drills.guardian`, and signals of the operating system only make it end sooner.
"""

import contextlib
import itertools
import math
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from batsignal.cli.demo_timeline import Line, Moment, Timeline
from batsignal.cli.terminal import Terminal
from batsignal.config import LISTEN_ADDRESS
from batsignal.drills import incidents
from batsignal.drills.incidents import Incident
from batsignal.drills.scene import SERVICE, Scene
from batsignal.drills.watcher import DAEMON_COMMAND
from batsignal.errors import BatSignalError, UnreachableError
from batsignal.expose import listen

TICK_SECONDS = 1.0


class _Stopped(BaseException):
    """The user, or the system, wants the demo to end. Like KeyboardInterrupt, nothing on the way may catch it."""


class _StopSignals:
    """Turns the first SIGINT, SIGTERM or SIGHUP into `_Stopped`, and any after it into nothing."""

    def __init__(self) -> None:
        self._armed = True

    def disarm(self) -> None:
        """Let no signal interrupt what comes now."""
        self._armed = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise _Stopped


@contextlib.contextmanager
def _stop_signals() -> Iterator[_StopSignals]:
    stop = _StopSignals()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # One that is ignored was meant to be: `nohup`, or a shell's background job.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reserve_address(listen_address: str | None) -> tuple[str, socket.socket]:
    """Return the host, and a socket that keeps the port for the daemon until it listens there itself.

    It is the address given, else the default, else any free port on loopback. Raises UnreachableError when the address
    given is taken, ConfigError when it is none.
    """
    if listen_address is not None:
        return _reserve(listen_address)
    try:
        return _reserve(LISTEN_ADDRESS)
    except UnreachableError:
        return _reserve("127.0.0.1:0")


def _reserve(listen_address: str) -> tuple[str, socket.socket]:
    host, _ = listen.split_address(listen_address)
    # Whether it can be had is found out as the daemon will: by listening. Then it is only bound, which keeps clients
    # off the port, and does not hinder the daemon, for both set SO_REUSEADDR.
    with listen.bind(listen_address) as listener:
        address = listener.getsockname()
        reservation = socket.socket(listener.family)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            v6only = listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            reservation.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    reservation.bind(address)
    return host, reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the demo goes; `duration_seconds` counts from the first calm second, None is until Ctrl-C."""

    duration_seconds: float | None = None
    calm_seconds: float = 12.0
    leak_per_second: float = 0.5


def run(
    *,
    incident: str = "leak",
    listen_address: str | None = None,
    duration_seconds: float | None = None,
    pace: Pace | None = None,
    daemon_command: Sequence[str] = DAEMON_COMMAND,
) -> int:
    """Play an incident until Ctrl-C, or for `duration_seconds`; return the exit code.

    Raises ConfigError for an unknown incident or a bad address, UnreachableError when something cannot be started.
    """
    chosen = incidents.find(incident)
    pace = pace or Pace(duration_seconds=duration_seconds)
    terminal = Terminal()
    with _stop_signals() as stop, contextlib.suppress(_Stopped):
        host, reservation = reserve_address(listen_address)
        port: int = reservation.getsockname()[1]
        with reservation, Scene(host=host, port=port, daemon_command=daemon_command) as scene:
            play = _Play(scene, chosen, terminal)
            try:
                play.set_up()
                play.go_on(pace)
            except BatSignalError:
                _show_log(scene)
                raise
            finally:
                stop.disarm()
                play.close()
    terminal.say("Everything that was started is gone.", "faint")
    return 0


class _Play:
    """One performance: the scene, and its telling."""

    def __init__(self, scene: Scene, incident: Incident, terminal: Terminal) -> None:
        self._scene = scene
        self._incident = incident
        self._terminal = terminal
        self._timeline = Timeline(incident, scene.watcher.url, draws=terminal.draws)

    def set_up(self) -> None:
        """Start everything, and wait until the daemon has had its first look."""
        terminal, scene = self._terminal, self._scene
        terminal.say("Starting a scratch PostgreSQL on 127.0.0.1 ...", "faint")
        scene.start_server()
        terminal.say(f"Starting {SERVICE} {self._incident.version_before}, a small shop with a pool ...", "faint")
        scene.deploy(self._incident.version_before)
        terminal.say("Starting BatSignal ...", "faint")
        scene.start_daemon()
        terminal.say()
        terminal.say(f"The page is at {scene.watcher.url}", "strong")
        terminal.say("Ctrl-C ends the demo and removes all of it.")
        terminal.say()

    def go_on(self, pace: Pace) -> None:
        """Tell what happens, once a second, until the time is up or nobody reads it any more."""
        started = time.monotonic()
        duration_seconds = math.inf if pace.duration_seconds is None else pace.duration_seconds
        hinted = False
        for tick in itertools.count(1):
            if self._terminal.gone or time.monotonic() - started >= duration_seconds:
                return
            self._scene.require_life()
            if self._timeline.deployed_at is None and time.monotonic() - started >= pace.calm_seconds:
                self._deploy(pace.leak_per_second)
            self._say(self._timeline.observe(self._look()))
            if self._timeline.settled and not hinted:
                hinted = True
                self._terminal.say()
                self._terminal.say(f"The page stays up at {self._scene.watcher.url}; Ctrl-C ends the demo.", "strong")
            time.sleep(max(started + tick * TICK_SECONDS - time.monotonic(), 0.0))

    def close(self) -> None:
        """Tell how it went."""
        self._say(self._timeline.closing())
        self._terminal.say("Stopping ...", "faint")

    def _deploy(self, leak_per_second: float) -> None:
        self._say(self._timeline.deploy(time.time()))
        self._scene.deploy(self._incident.version_after, leak_per_second=leak_per_second)

    def _look(self) -> Moment:
        deployed_at = self._timeline.deployed_at
        leaks = deployed_at is not None and self._timeline.began_at is None
        return Moment(
            t=time.time(),
            sighting=self._scene.watcher.look(SERVICE),
            mood=self._scene.shoppers.mood(),
            leak=self._scene.leak() if leaks else None,
            failed_at=None if deployed_at is None else self._scene.shoppers.first_failure_since(deployed_at),
        )

    def _say(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._terminal.say(line.text, line.tone)


def _show_log(scene: Scene) -> None:
    tail = scene.watcher.log_tail()
    if tail:
        print("The daemon's last words:", *tail, sep="\n  ", file=sys.stderr)
