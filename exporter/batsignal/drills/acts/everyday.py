"""Everyday life of applications: pools that fill, grow, recycle or rest, and traffic that changes.

Owns the acts that are made of pods and requests alone. None of them is an incident: no act here tells an onset. The
sessions, the pools and the reasons why they grow are real. Each act says what `size` and `rate` are to it; with a
shorter duration its parts shrink in proportion, while rates stay. What is at work all the time is so before the daemon
starts to look, at the act's own default; size and rate hold from the end of the calm.
"""

import contextlib
import threading
from collections.abc import Mapping

from batsignal.drills.act import ActSpec, Pace, Tell
from batsignal.drills.actors.clients import Calm, Clients
from batsignal.drills.actors.pods import Application, Course, Fleet, read_item, room
from batsignal.drills.ground import Ground

PODS = 3
RATE_PER_SECOND = 12.0
TABLE_ROWS = 1000
RAMP_STEPS = 60

WARM_UP_PODS, WARM_UP_RATE_PER_SECOND, WARM_UP_SECONDS = 6, 3.0, 120.0
COLD_START_EVERY_SECONDS = 2.0
TRAFFIC_SECONDS = 600.0
NIGHT_SECONDS = 8 * 3600.0
VISITS_AT_ONCE, VISITS_PER_SECOND, NO_POOL_SECONDS = 8, 5.0, 600.0
VISIT_SECONDS = 0.1
SESSION_LIFETIME_SECONDS, RECYCLING_SECONDS = 30.0, 900.0


def warm_up_pools(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Start `size` pods with cold pools one shortly after the other, `rate` requests a second over all of them.

    Each opens its minimum of 8 sessions at once, whether or not there is work for them.
    """
    course = Course(ground, pace, whole_seconds=WARM_UP_SECONDS)
    application = Application(
        service="catalog", version="4.2.0", table=ground.table("catalog", TABLE_ROWS), minimum=8, maximum=9
    )
    with Fleet(ground, application) as fleet:
        pods = room(ground, pace.size or WARM_UP_PODS, sessions_each=application.maximum)
        tell.note(f"{pods} pods of catalog start cold")
        for host in range(1, pods + 1):
            fleet.add(host=host, requests_per_second=(pace.rate_per_second or WARM_UP_RATE_PER_SECOND) / pods)
            if not course.wait(COLD_START_EVERY_SECONDS):
                return
        if course.finish():
            tell.done()


def begin_shop(ground: Ground) -> Fleet:
    """Let a service work whose pools grow with what happens at once: it keeps a session 0.4 s for each request."""
    application = Application(
        service="orders",
        version="5.3.1",
        table=ground.table("orders", TABLE_ROWS),
        minimum=3,
        maximum=12,
        hold_seconds=0.4,
    )
    fleet = Fleet(ground, application)
    fleet.resize(PODS)
    fleet.work(RATE_PER_SECOND)
    return fleet


SHOP: Calm[Fleet] = Calm(begin_shop)


def double_traffic_at_once(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let `rate` requests a second come to `size` pods, and twice as many from a third of the time on."""
    course = Course(ground, pace, whole_seconds=TRAFFIC_SECONDS)
    rate_per_second = pace.rate_per_second or RATE_PER_SECOND
    with SHOP.of(ground) as fleet:
        fleet.resize(pace.size or PODS)
        fleet.work(rate_per_second)
        if not course.until(TRAFFIC_SECONDS / 3):
            return
        tell.note(f"traffic doubles at once, to {2 * rate_per_second:g} requests a second")
        fleet.work(2 * rate_per_second)
        if course.finish():
            tell.done()


def double_traffic_bit_by_bit(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let `rate` requests a second come to `size` pods, and a little more each moment, until they are twice as many."""
    course = Course(ground, pace, whole_seconds=TRAFFIC_SECONDS)
    rate_per_second = pace.rate_per_second or RATE_PER_SECOND
    with SHOP.of(ground) as fleet:
        fleet.resize(pace.size or PODS)
        fleet.work(rate_per_second)
        tell.note(f"traffic doubles bit by bit, to {2 * rate_per_second:g} requests a second")
        for step in range(1, RAMP_STEPS + 1):
            if not course.until(TRAFFIC_SECONDS * (0.2 + 0.6 * step / RAMP_STEPS)):
                return
            fleet.work(rate_per_second * (1 + step / RAMP_STEPS))
        if course.finish():
            tell.done()


def rest_at_night(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let traffic (`rate` requests a second on `size` pods) end for the night; in the morning it comes back.

    The evening and the morning take 2 % of the time each. Pools keep their sessions all night.
    """
    course = Course(ground, pace, whole_seconds=NIGHT_SECONDS)
    rate_per_second = pace.rate_per_second or RATE_PER_SECOND
    with SHOP.of(ground) as fleet:
        fleet.resize(pace.size or PODS)
        fleet.work(rate_per_second)
        if not course.until(0.02 * NIGHT_SECONDS):
            return
        tell.note("traffic ends for the night")
        fleet.work(0.0)
        if not course.until(0.98 * NIGHT_SECONDS):
            return
        tell.note("morning: traffic is back")
        fleet.work(rate_per_second)
        if course.finish():
            tell.done()


class _Visits:
    """An application that opens a session for each request, and closes it after that."""

    def __init__(self, ground: Ground) -> None:
        self.clients = Clients(ground)
        self._table = ground.table("webhooks", TABLE_ROWS)
        self._arrivals = self._begin(VISITS_PER_SECOND, VISITS_AT_ONCE)

    def change(self, per_second: float, at_once: int) -> None:
        """Let so many requests come from now on, and no more than that at a time."""
        self._arrivals.set()
        self._arrivals = self._begin(per_second, at_once)

    def _begin(self, per_second: float, at_once: int) -> threading.Event:
        return self.clients.arrive(per_second, self._visit, at_once=room(self.clients.ground, at_once))

    def _visit(self) -> None:
        with contextlib.closing(self.clients.connect("webhooks@0.9.1")) as session:
            read_item(session, self._table, hold_seconds=VISIT_SECONDS)


_VISITS: Calm[_Visits] = Calm(_Visits)


def work_without_pool(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Open a session for each request, `rate` a second and never more than `size` at a time, all the time."""
    course = Course(ground, pace, whole_seconds=NO_POOL_SECONDS)
    visits = _VISITS.of(ground)
    with visits.clients:
        asked = (pace.rate_per_second or VISITS_PER_SECOND, pace.size or VISITS_AT_ONCE)
        if asked != (VISITS_PER_SECOND, VISITS_AT_ONCE):
            visits.change(*asked)
        tell.note(f"webhooks opens a session for each of its {asked[0]:g} requests a second")
        if course.finish():
            tell.done()


def _begin_billing(ground: Ground) -> Fleet:
    application = Application(
        service="billing",
        version="7.0.1",
        table=ground.table("billing", TABLE_ROWS),
        minimum=5,
        maximum=8,
        lifetime_seconds=SESSION_LIFETIME_SECONDS,
    )
    fleet = Fleet(ground, application)
    fleet.resize(PODS)
    fleet.work(RATE_PER_SECOND)
    return fleet


_BILLING: Calm[Fleet] = Calm(_begin_billing)


def recycle_sessions(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Work with pools whose sessions live at most 30 s: `size` pods, `rate` requests a second over all of them.

    The lifetime is no shorter with a shorter duration.
    """
    course = Course(ground, pace, whole_seconds=RECYCLING_SECONDS)
    with _BILLING.of(ground) as fleet:
        fleet.resize(pace.size or PODS)
        fleet.work(pace.rate_per_second or RATE_PER_SECOND)
        tell.note(f"{len(fleet.pods)} pools end each session after at most {SESSION_LIFETIME_SECONDS:g} s")
        if course.finish():
            tell.done()


ACTS: Mapping[str, ActSpec] = {
    "pool-warm-up": ActSpec(
        run=warm_up_pools,
        rate_per_second=WARM_UP_RATE_PER_SECOND,
        size=WARM_UP_PODS,
        duration_seconds=WARM_UP_SECONDS,
    ),
    "traffic-step": ActSpec(
        run=double_traffic_at_once,
        rate_per_second=RATE_PER_SECOND,
        size=PODS,
        duration_seconds=TRAFFIC_SECONDS,
        prepare=SHOP.prepare,
    ),
    "traffic-ramp": ActSpec(
        run=double_traffic_bit_by_bit,
        rate_per_second=RATE_PER_SECOND,
        size=PODS,
        duration_seconds=TRAFFIC_SECONDS,
        prepare=SHOP.prepare,
    ),
    "quiet-night": ActSpec(
        run=rest_at_night,
        rate_per_second=RATE_PER_SECOND,
        size=PODS,
        duration_seconds=NIGHT_SECONDS,
        own_background=True,
        prepare=SHOP.prepare,
    ),
    "no-pool-steady": ActSpec(
        run=work_without_pool,
        rate_per_second=VISITS_PER_SECOND,
        size=VISITS_AT_ONCE,
        duration_seconds=NO_POOL_SECONDS,
        prepare=_VISITS.prepare,
    ),
    "pool-recycling": ActSpec(
        run=recycle_sessions,
        rate_per_second=RATE_PER_SECOND,
        size=PODS,
        duration_seconds=RECYCLING_SECONDS,
        prepare=_BILLING.prepare,
    ),
}
