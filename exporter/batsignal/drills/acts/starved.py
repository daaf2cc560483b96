"""A leak inside a bounded pool: the server has slots to spare, the application has none, and its health check shows it.

Owns the application that borrows from its own pool and does not give back. It must not touch the server's slots beyond
that pool: that the database is fine is the point of it.
"""

import time
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import psycopg2

from batsignal.detect.signal import DeployRef, Subject
from batsignal.drills.act import ActSpec, OnsetFacts, Pace, Tell
from batsignal.drills.actors.background import NEXT_VERSION, SERVICE, replace
from batsignal.drills.actors.pool import PoolExhaustedError
from batsignal.drills.actors.service import Service
from batsignal.drills.ground import Ground

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

POOL_SESSIONS = 20
POOL_MINIMUM = 6
HEALTH_CHECKOUT_SECONDS = 5.0
WATCH_SECONDS = 0.2


def pool_starvation(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Release a version that loses sessions inside its pool of `size`, until its health check waits in vain."""
    most = pace.size or POOL_SESSIONS
    service = Service(ground, SERVICE, NEXT_VERSION, minimum=min(POOL_MINIMUM, most), maximum=most)
    deploy = replace(ground, tell, service.start)
    endpoint = ground.endpoint
    if endpoint is not None:
        endpoint.check = partial(_check, service)
        ground.start_thread(partial(_watch, ground, tell, deploy), "drill endpoint watch")
    _lose_inside(ground, pace, tell, service)


def _lose_inside(ground: Ground, pace: Pace, tell: Tell, service: Service) -> None:
    """Borrow by the clock and keep what was borrowed; a borrower that gets nothing waits in line again."""
    borrowed: list[AbstractContextManager[Connection]] = []
    rate = pace.rate_per_second or 1.0
    started = time.monotonic()
    for number in count():
        if ground.stopped.wait(max(started + number / rate - time.monotonic(), 0.0)):
            return
        loan = service.pool.lend(timeout_seconds=HEALTH_CHECKOUT_SECONDS)
        try:
            with loan.__enter__().cursor() as cursor:
                cursor.execute("SELECT 1")
        except (PoolExhaustedError, psycopg2.Error):
            continue
        borrowed.append(loan)
        tell.lost()


def _check(service: Service) -> None:
    """Do what a health check does: ask the database for a sign of life, through the pool."""
    with service.pool.lend(timeout_seconds=HEALTH_CHECKOUT_SECONDS) as session, session.cursor() as cursor:
        cursor.execute("SELECT 1")


def _watch(ground: Ground, tell: Tell, deploy: DeployRef) -> None:
    """Tell the onset: the first health check that failed, or that its asker gave up."""
    endpoint = ground.endpoint
    while endpoint is not None and not ground.stopped.wait(WATCH_SECONDS):
        if endpoint.first_failure_at is None:
            continue
        subject = Subject(application=SERVICE, version=NEXT_VERSION)
        at = endpoint.first_failure_at
        tell.onset(OnsetFacts(kind="pool_starvation", subject=subject, deploy=deploy, at=at))
        tell.onset(OnsetFacts(kind="endpoint_down", subject=Subject(application=SERVICE), at=at, optional=True))
        # Seen from the server it is a leak that stops at the pool's bound: true, if not the whole truth.
        tell.onset(OnsetFacts(kind="leak", subject=subject, deploy=deploy, at=at, optional=True))
        return


ACTS: Mapping[str, ActSpec] = {
    "pool-starvation": ActSpec(
        run=pool_starvation,
        rate_per_second=0.5,
        size=POOL_SESSIONS,
        duration_seconds=120.0,
        least_slots=40,
        endpoint=True,
    ),
}
