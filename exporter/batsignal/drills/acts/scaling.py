"""Applications that grow by pods: each on a host of its own, or all behind one address.

Owns both acts of autoscaling. The pods stay, and so do their sessions: nobody lost them. `size` and `rate` are each
act's own; with a shorter duration the pods come faster.
"""

from collections.abc import Mapping

from batsignal.drills.act import ActSpec, Pace, Tell
from batsignal.drills.actors.clients import Calm
from batsignal.drills.actors.pods import Application, Course, Fleet, room
from batsignal.drills.ground import Ground

TABLE_ROWS = 1000
SCALED_PODS, POD_RATE_PER_SECOND, AUTOSCALING_SECONDS = 8, 3.0, 600.0
POD_EVERY_SECONDS = 30.0
QUIET_PODS, QUIET_POD_RATE_PER_SECOND, ONE_ADDRESS_SECONDS = 20, 0.1, 900.0
QUIET_POD_EVERY_SECONDS = 20.0


def scale_out(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Add a pod on a host of its own every 30 s, from two up to `size`; all stay.

    Each gets `rate` requests a second.
    """
    course = Course(ground, pace, whole_seconds=AUTOSCALING_SECONDS)
    rate_per_second = pace.rate_per_second or POD_RATE_PER_SECOND
    with _SEARCH.of(ground) as fleet:
        fleet.work(rate_per_second * len(fleet.pods))
        wanted = len(fleet.pods) + ground.room // fleet.application.maximum
        for host in range(len(fleet.pods) + 1, min(pace.size or SCALED_PODS, wanted) + 1):
            if not course.wait(POD_EVERY_SECONDS):
                return
            fleet.add(host=host, requests_per_second=rate_per_second)
        tell.note(f"{len(fleet.pods)} pods, and they stay")
        if course.finish():
            tell.done()


def _begin_search(ground: Ground) -> Fleet:
    application = Application(
        service="search", version="1.9.0", table=ground.table("search", TABLE_ROWS), minimum=4, maximum=6
    )
    fleet = Fleet(ground, application)
    fleet.resize(2)
    fleet.work(2 * POD_RATE_PER_SECOND)
    return fleet


_SEARCH: Calm[Fleet] = Calm(_begin_search)


def scale_out_behind_one_address(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Add one small pod after the other every 20 s, up to `size`, all from one address; all stay.

    Each opens its two sessions and has little to do (`rate` requests a second), so most of them rest: a leak behind the
    same address would look so too.
    """
    course = Course(ground, pace, whole_seconds=ONE_ADDRESS_SECONDS)
    application = Application(
        service="push", version="2.0.3", table=ground.table("push", TABLE_ROWS), minimum=2, maximum=3
    )
    with Fleet(ground, application) as fleet:
        pods = room(ground, pace.size or QUIET_PODS, sessions_each=application.maximum)
        for _ in range(pods):
            fleet.add(requests_per_second=pace.rate_per_second or QUIET_POD_RATE_PER_SECOND)
            if not course.wait(QUIET_POD_EVERY_SECONDS):
                return
        tell.note(f"{pods} pods behind one address, and they stay")
        if course.finish():
            tell.done()


ACTS: Mapping[str, ActSpec] = {
    "autoscaling": ActSpec(
        run=scale_out,
        rate_per_second=POD_RATE_PER_SECOND,
        size=SCALED_PODS,
        duration_seconds=AUTOSCALING_SECONDS,
        prepare=_SEARCH.prepare,
    ),
    "autoscaling-one-address": ActSpec(
        run=scale_out_behind_one_address,
        rate_per_second=QUIET_POD_RATE_PER_SECOND,
        size=QUIET_PODS,
        duration_seconds=ONE_ADDRESS_SECONDS,
    ),
}
