"""Deploys that go well: the new version beside the old for a while, and twice the sessions for as long.

Owns the acts of a rolling and of a blue/green deploy. Both versions are real pools at work; that the old one's sessions
rest, or end, is what such a deploy does and no incident.
"""

from collections.abc import Mapping
from dataclasses import replace

from batsignal.drills.act import ActSpec, Pace, Tell
from batsignal.drills.actors.clients import Calm
from batsignal.drills.actors.pods import Application, Course, Fleet
from batsignal.drills.actors.service import Service
from batsignal.drills.ground import Ground

PODS = 4
RATE_PER_SECOND = 12.0
TABLE_ROWS = 1000
OLD, NEW = "2.3.9", "2.4.0"
SERVICE = "checkout"

ROLLING_SECONDS = 360.0
ROLLING_STARTS_AT = 90.0
DOUBLED_SECONDS = 120.0
POD_EVERY_SECONDS = 5.0

BLUE_GREEN_SECONDS = 3900.0
GREEN_STARTS_AT = 120.0
SWITCHED_AFTER_SECONDS = 20.0
BLUE_IDLE_SECONDS = 3600.0


def _begin_checkout(ground: Ground) -> Fleet:
    application = Application(
        service=SERVICE, version=OLD, table=ground.table("checkout", TABLE_ROWS), minimum=5, maximum=6
    )
    fleet = Fleet(ground, application)
    fleet.resize(PODS, sessions_each=2 * application.maximum)
    fleet.work(RATE_PER_SECOND)
    return fleet


_CHECKOUT: Calm[Fleet] = Calm(_begin_checkout)


def roll_out(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Replace `size` pods of one version by as many of the next, with `rate` requests a second over all of them.

    The new pods start one after the other, each on a host of its own; two minutes later the old ones end in the same
    order.
    """
    course = Course(ground, pace, whole_seconds=ROLLING_SECONDS)
    rate_per_second = pace.rate_per_second or RATE_PER_SECOND
    with _CHECKOUT.of(ground) as fleet:
        old, new = _both_sides(fleet, pace)
        fleet.work(rate_per_second)
        if not course.until(ROLLING_STARTS_AT):
            return
        tell.deployed(SERVICE, NEW, OLD)
        for host in range(len(old) + 1, 2 * len(old) + 1):
            fleet.add(application=new, host=host)
            fleet.work(rate_per_second)
            if not course.wait(POD_EVERY_SECONDS):
                return
        if not course.until(ROLLING_STARTS_AT + DOUBLED_SECONDS):
            return
        for pod in old:
            fleet.remove(pod)
            fleet.work(rate_per_second)
            if not course.wait(POD_EVERY_SECONDS):
                return
        tell.note(f"{SERVICE} {OLD} is gone")
        if course.finish():
            tell.done()


def switch_sides(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Start the green side of `size` pods beside the blue one and send all `rate` requests a second there.

    Blue keeps its sessions for an hour, in case somebody wants to go back, and then ends.
    """
    course = Course(ground, pace, whole_seconds=BLUE_GREEN_SECONDS)
    rate_per_second = pace.rate_per_second or RATE_PER_SECOND
    with _CHECKOUT.of(ground) as fleet:
        blue, application = _both_sides(fleet, pace)
        fleet.work(rate_per_second)
        if not course.until(GREEN_STARTS_AT):
            return
        tell.deployed(SERVICE, NEW, OLD)
        green = [fleet.add(application=application, host=host) for host in range(len(blue) + 1, 2 * len(blue) + 1)]
        if not course.wait(SWITCHED_AFTER_SECONDS):
            return
        for old, new in zip(blue, green, strict=True):
            old.requests_per_second, new.requests_per_second = 0.0, rate_per_second / len(green)
        tell.note("traffic goes to green; blue rests")
        if not course.wait(BLUE_IDLE_SECONDS):
            return
        fleet.remove(*blue)
        tell.note("blue is gone")
        if course.finish():
            tell.done()


def _both_sides(fleet: Fleet, pace: Pace) -> tuple[list[Service], Application]:
    """Return the pods of the old version, no more than can be doubled, and what the new ones will run."""
    fleet.resize(pace.size or PODS, sessions_each=2 * fleet.application.maximum)
    return list(fleet.pods), replace(fleet.application, version=NEW)


ACTS: Mapping[str, ActSpec] = {
    "rolling-deploy": ActSpec(
        run=roll_out,
        rate_per_second=RATE_PER_SECOND,
        size=PODS,
        duration_seconds=ROLLING_SECONDS,
        prepare=_CHECKOUT.prepare,
    ),
    "blue-green": ActSpec(
        run=switch_sides,
        rate_per_second=RATE_PER_SECOND,
        size=PODS,
        duration_seconds=BLUE_GREEN_SECONDS,
        prepare=_CHECKOUT.prepare,
    ),
}
