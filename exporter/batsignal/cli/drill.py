"""`batsignal drill`: an incident, or a piece of everyday life, made for real on a scratch server, and the page timed.

Owns the arguments, the order of opening and closing, and the telling. It must leave the server as it was, whatever ends
it; signals of the operating system only make it end sooner.
"""

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from batsignal.cli.drill_timeline import DrillTimeline, as_json
from batsignal.cli.stop_signals import Stopped, StopSignals, stop_signals
from batsignal.cli.terminal import Terminal
from batsignal.drills import acts, ground, stage
from batsignal.drills.act import ActSpec, Pace
from batsignal.drills.catalogue import ROWS
from batsignal.drills.daemon_api import DaemonApi, api_at, without_login
from batsignal.drills.drill_event import DrillEvent
from batsignal.drills.embedded import reserve_port
from batsignal.drills.ground import Ground
from batsignal.drills.play import Play
from batsignal.drills.truth import Row
from batsignal.drills.watcher import DAEMON_COMMAND, Watcher
from batsignal.errors import BatSignalError, ConfigError, UnreachableError
from batsignal.spelling import duration

Spelling = Literal["text", "json"]
EMBEDDED_SHARE = 1.0
GIVEN_SHARE = 0.5
LONGEST_SECONDS = 30 * 86_400
SLOWEST_PER_SECOND = 1 / LONGEST_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for; None is the drill's own default."""

    name: str | None = None
    dsn: str | None = None
    pace: Pace = field(default_factory=Pace)
    slots_share: float | None = None
    may_be_unmarked: bool = False
    record: Path | None = None
    with_daemon: bool = True
    url: str | None = None
    spelling: Spelling = "text"
    daemon_command: Sequence[str] = DAEMON_COMMAND

    def check(self) -> None:
        """Raise ConfigError that names the option and says what was expected."""
        pace = self.pace
        _expect("--rate", pace.rate_per_second, "a number of sessions per second above 0", lambda rate: rate > 0)
        _expect("--size", pace.size, "a whole number from 1", lambda size: size >= 1)
        _expect("--duration-seconds", pace.duration_seconds, "a number of seconds from 1", lambda one: one >= 1)
        _expect("--calm-seconds", pace.calm_seconds, "a number of seconds from 0", lambda one: one >= 0)
        longest = f"at most {LONGEST_SECONDS} (30 days)"
        for option, seconds in (("duration", pace.duration_seconds), ("calm", pace.calm_seconds)):
            _expect(f"--{option}-seconds", seconds, longest, lambda one: one <= LONGEST_SECONDS)
        slowest = f"at least {SLOWEST_PER_SECOND:g}, a session in 30 days"
        _expect("--rate", pace.rate_per_second, slowest, lambda rate: rate >= SLOWEST_PER_SECOND)
        _expect("--slots-share", self.slots_share, "a share above 0 and at most 1", lambda share: 0 < share <= 1)
        if self.url is not None:
            if self.dsn is None:
                raise ConfigError("--url: expected --dsn beside it: nobody watches the embedded server yet")
            if not self.with_daemon:
                raise ConfigError("--url: expected without --no-daemon: one asks for a page, the other for none")
            api_at(self.url)
        if self.record is not None:
            if self.url is not None or not self.with_daemon:
                raise ConfigError("--record: expected without --url and --no-daemon: the drill's own daemon records")
            if self.record.is_dir() or not self.record.absolute().parent.is_dir():
                raise ConfigError(f"--record {self.record}: expected a file in a directory that exists")


def _expect(option: str, value: float | None, expected: str, holds: Callable[[float], bool]) -> None:
    if value is not None and not (math.isfinite(value) and holds(value)):
        raise ConfigError(f"{option}: expected {expected}, got {value:g}")


def run(wish: Wish, *, wants_list: bool = False) -> int:
    """Play one drill, or list all; return the exit code: 1 for a finding.

    Raises ConfigError for a bad argument, UnreachableError when a server or a daemon cannot be had or goes away.
    """
    if wants_list:
        return _list(wish.spelling)
    if wish.name is None:
        raise ConfigError("drill: expected the NAME of a drill; `batsignal drill --list` lists all")
    row, spec = acts.find(wish.name, option="drill")
    wish.check()
    if wish.dsn is not None and {"restart", "embedded"} & set(spec.needs):
        raise ConfigError(f"--dsn: {row.name} stops or restarts its server, so it plays on the embedded one only")
    with stop_signals() as stop, contextlib.suppress(Stopped):
        return _perform(wish, row, spec, stop)
    return 0


def _list(spelling: Spelling) -> int:
    for row in ROWS.values():
        spec = acts.ACTS[row.name]
        seconds = spec.calm_seconds + spec.duration_seconds
        if spelling == "json":
            listed = {"name": row.name, "group": row.group, "kinds": row.kinds, "story": row.story, "seconds": seconds}
            print(json.dumps(listed))
        else:
            print(f"{row.name:<24} {row.group:<9} {duration(seconds):>6}  {row.story}")
    return 0


class Teller:
    """Prints events in the spelling that was asked for."""

    def __init__(self, spelling: Spelling, terminal: Terminal | None = None) -> None:
        self.terminal = terminal or Terminal()
        self._spelling = spelling
        self._timeline = DrillTimeline(draws=self.terminal.draws)

    def page_at(self, url: str) -> None:
        """Name the page's address with each signal from now on."""
        self._timeline = DrillTimeline(draws=self.terminal.draws, page_url=url)

    def tell(self, event: DrillEvent) -> None:
        if self._spelling == "json":
            self.terminal.say(as_json(event))
            return
        for line in self._timeline.lines(event):
            self.terminal.say(line.text, line.tone)

    def tell_all(self, events: Iterator[DrillEvent], ended: threading.Event) -> None:
        """Tell one event after the other; set `ended` when nobody reads them any more."""
        for event in events:
            self.tell(event)
            if self.terminal.gone:
                ended.set()

    def say(self, text: str) -> None:
        """Say something that is no event, to persons only."""
        if self._spelling == "text":
            self.terminal.say(text, "faint")


def _perform(wish: Wish, row: Row, spec: ActSpec, stop: StopSignals) -> int:
    teller = Teller(wish.spelling)
    ended = threading.Event()
    code = 0
    with _open(wish, teller) as place:
        try:
            stage.require(place, row.name, spec)
            with _daemon(wish, place, spec, teller) as api:
                play = Play(place, row, spec, wish.pace, api=api)
                stop.soften(ended)
                teller.tell_all(play.run(ended), ended)
                code = int(any(verdict.is_finding for verdict in play.verdicts))
        except UnreachableError as exc:
            teller.tell(_event("gone", text=str(exc)))
            raise
        finally:
            stop.disarm()
            is_clean = close(place, teller.tell)
    return code if is_clean else 1


@contextlib.contextmanager
def _open(wish: Wish, teller: Teller) -> Iterator[Ground]:
    if wish.dsn is None:
        teller.say("Starting a scratch PostgreSQL on 127.0.0.1 ...")
        with ground.on_embedded(share=wish.slots_share or EMBEDDED_SHARE) as place:
            yield place
        return
    share = wish.slots_share or GIVEN_SHARE
    with ground.on_given(wish.dsn, share=share, may_be_unmarked=wish.may_be_unmarked) as place:
        for left in place.leftovers:
            teller.say(f"Removed what a drill before left behind: {left}")
        yield place


@contextlib.contextmanager
def _daemon(wish: Wish, place: Ground, spec: ActSpec, teller: Teller) -> Iterator[DaemonApi | None]:
    """Yield the page to be timed: of a daemon of our own, of one that runs already, or none."""
    stage.open_endpoint(place, spec)
    if wish.url is not None or not wish.with_daemon:
        if spec.prepare is not None:
            spec.prepare(place)
        api = None if wish.url is None else api_at(wish.url)
        if api is not None and api.lit() is None:
            raise UnreachableError(f"--url: no daemon answers at {without_login(wish.url or '')}")
        yield api
        return
    teller.say("Starting BatSignal ...")
    with reserve_port() as reservation:
        port: int = reservation.getsockname()[1]
        record = None if wish.record is None else wish.record.absolute()
        try:
            watcher = stage.start_daemon(
                place, spec, host="127.0.0.1", port=port, record=record, command=wish.daemon_command
            )
            teller.page_at(watcher.url)
            teller.say(f"The page is at {watcher.url}; Ctrl-C ends the drill and removes all of it.")
            yield watcher.api
        except BatSignalError:
            show_log(place)
            raise
        finally:
            if place.daemon is not None:
                place.daemon.stop()
    if record is not None:
        _require_whole(record, watcher)


def _require_whole(record: Path, watcher: Watcher) -> None:
    """Raise UnreachableError when the daemon could not write all that it was to record."""
    for line in watcher.log():
        if "recording stopped" in line or "recording not ended" in line:
            raise UnreachableError(f"--record {record}: it is not whole; the daemon said: {line}")


def close(place: Ground, tell: Callable[[DrillEvent], None]) -> bool:
    """Clean up and tell how that went; return whether nothing stays."""
    cleaned = place.close()
    left = [] if cleaned is None else list(cleaned.left)
    by = cleaned.pid if cleaned is not None and not cleaned.finished else None
    tell(_event("clean", left=left, by=by))
    return not left


def show_log(place: Ground) -> None:
    """Print the last words of the daemon, where it has some."""
    tail = place.daemon.log_tail() if place.daemon is not None else []
    if tail:
        print("The daemon's last words:", *tail, sep="\n  ", file=sys.stderr)


def _event(name: str, **facts: object) -> DrillEvent:
    return DrillEvent(t=time.time(), event=name, facts=facts)
