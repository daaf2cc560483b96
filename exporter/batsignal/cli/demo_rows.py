"""Every row of the catalogue but the demo's own leak, played in the demo's way: on the embedded server, until Ctrl-C.

Owns the order of opening and closing for `batsignal demo --incident NAME`; what is told is told as `drill` tells it.
"""

import threading
from collections.abc import Sequence

from batsignal.cli.address import reserve_address
from batsignal.cli.drill import Teller, close, show_log
from batsignal.cli.stop_signals import StopSignals
from batsignal.cli.terminal import Terminal
from batsignal.drills import ground, stage
from batsignal.drills.act import ActSpec, Pace
from batsignal.drills.play import Play
from batsignal.drills.truth import Row
from batsignal.errors import BatSignalError


def play(
    row: Row,
    spec: ActSpec,
    *,
    terminal: Terminal,
    stop: StopSignals,
    listen_address: str | None,
    duration_seconds: float | None,
    daemon_command: Sequence[str],
) -> None:
    """Play a row until it is stopped, or for `duration_seconds` from the first calm second.

    Raises ConfigError for a bad address, UnreachableError when something cannot be started or goes away.
    """
    host, reservation = reserve_address(listen_address)
    port: int = reservation.getsockname()[1]
    ended = threading.Event()
    teller = Teller("text", terminal)
    teller.say("Starting a scratch PostgreSQL on 127.0.0.1 ...")
    with reservation, ground.on_embedded() as place:
        try:
            stage.require(place, row.name, spec)
            stage.open_endpoint(place, spec)
            teller.say("Starting BatSignal ...")
            watcher = stage.start_daemon(place, spec, host=host, port=port, command=daemon_command)
            teller.page_at(watcher.url)
            terminal.say(f"The page is at {watcher.url}", "strong")
            terminal.say("Ctrl-C ends the demo and removes all of it.")
            stop.soften(ended)
            drill = Play(place, row, spec, Pace(), api=watcher.api)
            timer = threading.Timer(duration_seconds or 0.0, ended.set)
            timer.daemon = True
            if duration_seconds is not None:
                timer.start()
            teller.tell_all(drill.run(ended, forever=True), ended)
        except BatSignalError:
            show_log(place)
            raise
        finally:
            stop.disarm()
            if place.daemon is not None:
                place.daemon.stop()
            close(place, teller.tell)
