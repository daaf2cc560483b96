"""`batsignal demo`: a small shop deploys a version that breaks it, for real, and the terminal tells what happens.

Owns the order of the scene and its telling; every other row of the catalogue is played by `demo_rows`. It must leave
nothing behind, whatever ends it: what it starts is in the custody of `drills.guardian`, and signals of the operating
system only make it end sooner.
"""

import contextlib
import itertools
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batsignal.cli import demo_rows
from batsignal.cli.address import reserve_address
from batsignal.cli.demo_timeline import Line, Moment, Timeline
from batsignal.cli.stop_signals import Stopped, stop_signals
from batsignal.cli.terminal import Terminal
from batsignal.drills import acts
from batsignal.drills.act import ActSpec
from batsignal.drills.scene import RELEASE, SERVICE, Scene
from batsignal.drills.truth import Row
from batsignal.drills.watcher import DAEMON_COMMAND
from batsignal.errors import BatSignalError, ConfigError

TICK_SECONDS = 1.0


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
    row, spec = _find(incident)
    pace = pace or Pace(duration_seconds=duration_seconds)
    terminal = Terminal()
    with stop_signals() as stop, contextlib.suppress(Stopped):
        if row.name != RELEASE.kind:
            demo_rows.play(
                row,
                spec,
                terminal=terminal,
                stop=stop,
                listen_address=listen_address,
                duration_seconds=pace.duration_seconds,
                daemon_command=daemon_command,
            )
            return 0
        host, reservation = reserve_address(listen_address)
        port: int = reservation.getsockname()[1]
        with reservation, Scene(host=host, port=port, daemon_command=daemon_command) as scene:
            play = _Play(scene, terminal)
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


def _find(incident: str) -> tuple[Row, ActSpec]:
    try:
        return acts.find(incident, option="--incident")
    except ConfigError:
        raise ConfigError(f"--incident: expected one of {', '.join(acts.ACTS)}, got {incident!r}") from None


class _Play:
    """One performance: the scene, and its telling."""

    def __init__(self, scene: Scene, terminal: Terminal) -> None:
        self._scene = scene
        self._terminal = terminal
        self._timeline = Timeline(scene.watcher.url, draws=terminal.draws)

    def set_up(self) -> None:
        """Start everything, and wait until the daemon has had its first look."""
        terminal, scene = self._terminal, self._scene
        terminal.say("Starting a scratch PostgreSQL on 127.0.0.1 ...", "faint")
        scene.start_server()
        terminal.say(f"Starting {SERVICE} {RELEASE.version_before}, a small shop with a pool ...", "faint")
        scene.deploy(RELEASE.version_before)
        terminal.say("Starting BatSignal ...", "faint")
        scene.start_daemon()
        terminal.say()
        terminal.say(f"The page is at {scene.watcher.url}", "strong")
        terminal.say("Ctrl-C ends the demo and removes all of it.")
        terminal.say("Once it is lit, end what was lost, from another terminal:")
        terminal.say(f"  {_release_command(scene)}")
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
        self._scene.deploy(RELEASE.version_after, leak_per_second=leak_per_second)

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


def _release_command(scene: Scene) -> str:
    """Return what ends the leaked sessions and leaves the shop's pool alone, to be pasted into a shell."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "batsignal" else f"{sys.executable} -m batsignal"
    where = f"BATSIGNAL_URL={scene.watcher.url} BATSIGNAL_TOKEN={scene.release_token}"
    return f"{where} {program} release --application {SERVICE} --idle-longer-seconds 15 --yes"


def _show_log(scene: Scene) -> None:
    tail = scene.watcher.log_tail()
    if tail:
        print("The daemon's last words:", *tail, sep="\n  ", file=sys.stderr)
