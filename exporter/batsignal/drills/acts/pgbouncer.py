"""The act that starves the clients of a PgBouncer: transactions that never end hold all its server sessions.

Owns who its clients are and what they do. The server behind it has slots to spare all the while: what is empty is the
pool.
"""

import contextlib
import functools
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import psycopg2

from batsignal.drills.act import ActSpec, DeployRef, OnsetFacts, Pace, Subject, Tell
from batsignal.drills.actors.clients import beats
from batsignal.drills.actors.pods import read_item, room
from batsignal.drills.actors.pooler import POOL_SIZE, PgBouncer
from batsignal.drills.ground import Ground
from batsignal.drills.truth import POOLER_WAIT_BOUND_SECONDS

CLIENTS_PER_SESSION = 4
LOOK_SECONDS = 0.1
RETRY_SECONDS = 0.25
STUCK_PER_SECOND = 1.0
STARVATION_SECONDS = 60.0
BEFORE_SECONDS = 3.0
THINK_SECONDS = 1.0
HOLD_SECONDS = 0.05
TABLE_ROWS = 1000
SERVICE, OLD, NEW = "checkout", "2.3.9", "2.4.0"


class _Checkout:
    """A service behind PgBouncer, at work: four clients for each session of the pool, and none waits for long."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._table = ground.table("payments", TABLE_ROWS)
        self.pool_size = room(ground, POOL_SIZE)
        self._give_back = ground.charge(self.pool_size)
        self.pooler = PgBouncer(ground, pool_size=self.pool_size)
        self._clients = 0
        self._hire()

    def resize(self, wanted: int) -> None:
        """Let the pool have that many sessions, or those that fit, and its clients be as many as go with them."""
        self._give_back()
        size_before, self.pool_size = self.pool_size, room(self._ground, wanted)
        self._give_back = self._ground.charge(self.pool_size)
        if self.pool_size != size_before:
            self.pooler.restart(self.pool_size)
            self._hire()

    def end(self) -> None:
        """End PgBouncer: that ends whatever its clients wait for, and they themselves end with the drill."""
        self.pooler.stop()
        self._give_back()

    def get_stuck(self, per_second: float, tell: Tell) -> Iterator[int]:
        """Run the new version: it begins transactions, and waits in each for a payment provider that does not answer.

        Yields how many are stuck after each; not more than the pool has sessions.
        """
        with contextlib.ExitStack() as stack:
            stuck = 0
            for at in beats(self._ground.stopped, per_second):
                with contextlib.suppress(psycopg2.Error):
                    session = stack.enter_context(contextlib.closing(self.pooler.connect(f"{SERVICE}@{NEW}")))
                    read_item(session, self._table, hold_seconds=0.0)
                    tell.lost(at)
                    stuck += 1
                    yield stuck
                if stuck == self.pool_size:
                    break
            self._ground.stopped.wait()

    def _hire(self) -> None:
        while self._clients < self.pool_size * CLIENTS_PER_SESSION:
            self._ground.start_thread(functools.partial(self._work, self._clients), "drill checkout")
            self._clients += 1

    def _work(self, number: int) -> None:
        """Be a client of the old version: short transactions, again and again; who is turned away comes back."""
        while not self._is_over(number):
            with (
                contextlib.suppress(psycopg2.Error),
                contextlib.closing(self.pooler.connect(f"{SERVICE}@{OLD}")) as session,
            ):
                while not self._ground.stopped.wait(random.expovariate(1.0 / THINK_SECONDS)):
                    if self._is_over(number):
                        return
                    with session:
                        read_item(session, self._table, hold_seconds=HOLD_SECONDS)
            self._ground.stopped.wait(RETRY_SECONDS)

    def _is_over(self, number: int) -> bool:
        return self._ground.stopped.is_set() or number >= self.pool_size * CLIENTS_PER_SESSION


_CHECKOUTS: WeakKeyDictionary[Ground, _Checkout] = WeakKeyDictionary()


def prepare(ground: Ground) -> Mapping[str, Any]:
    """Let the service work behind its PgBouncer, and return what the daemon's config says of that."""
    _CHECKOUTS[ground] = checkout = _Checkout(ground)
    return {"pgbouncer_dsn": checkout.pooler.console_dsn}


def starve(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Deploy a version whose transactions never end, `rate` a second, until they hold all `size` sessions of the pool.

    It is starved from the moment from which a client waits that will not be served.
    """
    checkout = _CHECKOUTS.pop(ground, None) or _Checkout(ground)
    try:
        checkout.resize(pace.size or POOL_SIZE)
        if ground.stopped.wait(BEFORE_SECONDS):
            return
        deploy = tell.deployed(SERVICE, NEW, OLD)
        watching = functools.partial(_tell_onset, ground, checkout.pooler, tell, deploy)
        for stuck in checkout.get_stuck(pace.rate_per_second or STUCK_PER_SECOND, tell):
            # Who waited while a session was still left had one in the end: that was no starvation yet.
            if stuck == checkout.pool_size:
                ground.start_thread(watching, "drill pooler")
    finally:
        checkout.end()


def _tell_onset(ground: Ground, pooler: PgBouncer, tell: Tell, deploy: DeployRef) -> None:
    while not ground.stopped.wait(LOOK_SECONDS):
        row = pooler.look()
        if row is None or row.cl_waiting == 0:
            continue
        facts = OnsetFacts(
            kind="pool_starvation",
            subject=Subject(pool=pooler.pool),
            deploy=deploy,
            at=time.time() - row.maxwait_seconds,
            bound_seconds=POOLER_WAIT_BOUND_SECONDS,
        )
        tell.onset(facts)
        tell.note(f"{row.cl_waiting} clients wait for {row.sv_active} sessions, all of them taken")
        return


ACTS: Mapping[str, ActSpec] = {
    "pgbouncer-starvation": ActSpec(
        run=starve,
        rate_per_second=STUCK_PER_SECOND,
        size=POOL_SIZE,
        duration_seconds=STARVATION_SECONDS,
        needs=("pgbouncer",),
        prepare=prepare,
    ),
}
