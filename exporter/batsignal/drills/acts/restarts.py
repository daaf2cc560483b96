"""Restarts that end by themselves: of the server, after which everybody comes back at once, and of our own daemon.

Owns both acts. The server that restarts is the embedded one; the daemon is whichever watches the drill.
"""

import contextlib
import functools
import random
from collections.abc import Mapping

import psycopg2

from batsignal.drills.act import ActSpec, Pace, Tell
from batsignal.drills.actors.clients import Calm, Clients
from batsignal.drills.actors.pods import Course, Fleet, read_item, room
from batsignal.drills.acts.everyday import PODS, RATE_PER_SECOND, begin_shop
from batsignal.drills.ground import Ground

CLIENTS = 30
HOSTS = 6
TABLE_ROWS = 1000
HOLD_SECONDS = 0.05
THINK_SECONDS = 1.0
RETRY_SECONDS = 0.25
DOWN_SECONDS = 5.0
RESTART_SECONDS = 180.0
RESTART_AT = 60.0

OWN_RESTART_SECONDS = 300.0
OWN_RESTART_AT = 150.0
OWN_DESKS = 10


class _Desks:
    """Clients that keep a session each and work on it now and then; one that is lost they open again at once."""

    def __init__(self, ground: Ground, size: int = CLIENTS) -> None:
        self.clients = Clients(ground)
        self._table = ground.table("tickets", TABLE_ROWS)
        self._size = 0
        self._started = 0
        self.resize(size)

    def resize(self, wanted: int) -> None:
        """Let there be that many, or those that fit."""
        self._size = min(wanted, self._size + room(self.clients.ground, wanted))
        while self._started < self._size:
            self.clients.start(functools.partial(self._keep_connected, self._started))
            self._started += 1

    def _keep_connected(self, number: int) -> None:
        while number < self._size and self.clients.sleep(0.0):
            with contextlib.suppress(psycopg2.Error):
                self._work(number)
            self.clients.sleep(RETRY_SECONDS)

    def _work(self, number: int) -> None:
        with contextlib.closing(self.clients.connect("support@2.8.0", host=1 + number % HOSTS)) as session:
            while number < self._size and self.clients.sleep(random.expovariate(1.0 / THINK_SECONDS)):
                read_item(session, self._table, hold_seconds=HOLD_SECONDS)


_DESKS: Calm[_Desks] = Calm(_Desks)
_WORKING_DAY: Calm[tuple[Fleet, _Desks]] = Calm(lambda ground: (begin_shop(ground), _Desks(ground, OWN_DESKS)))


def restart_server(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Restart the server under `size` clients, each with a session of its own; all come back at once, and stay.

    Each of them tries again every quarter of a second while the server is down.
    """
    course = Course(ground, pace, whole_seconds=RESTART_SECONDS)
    desks = _DESKS.of(ground)
    with desks.clients:
        desks.resize(pace.size or CLIENTS)
        if not course.until(RESTART_AT):
            return
        tell.note("the server restarts")
        ground.restart(down_seconds=course.seconds(DOWN_SECONDS))
        tell.note("the server is back")
        if course.finish():
            tell.done()


def restart_daemon(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Restart the daemon in the middle of a working day, while pools grow.

    There are `size` pods with `rate` requests a second, twice as many from the restart on, and ten clients that keep a
    session each.
    """
    course = Course(ground, pace, whole_seconds=OWN_RESTART_SECONDS)
    rate_per_second = pace.rate_per_second or RATE_PER_SECOND
    fleet, desks = _WORKING_DAY.of(ground)
    with fleet, desks.clients:
        fleet.resize(pace.size or PODS)
        fleet.work(rate_per_second)
        if not course.until(OWN_RESTART_AT):
            return
        fleet.work(2 * rate_per_second)
        if ground.daemon is None:
            tell.note("nobody watches: there is no daemon to restart")
        else:
            tell.note("the daemon restarts")
            ground.daemon.restart()
        if course.finish():
            tell.done()


ACTS: Mapping[str, ActSpec] = {
    "server-restart": ActSpec(
        run=restart_server,
        size=CLIENTS,
        duration_seconds=RESTART_SECONDS,
        needs=("restart",),
        prepare=_DESKS.prepare,
    ),
    "own-restart": ActSpec(
        run=restart_daemon,
        rate_per_second=RATE_PER_SECOND,
        size=PODS,
        duration_seconds=OWN_RESTART_SECONDS,
        prepare=_WORKING_DAY.prepare,
    ),
}
