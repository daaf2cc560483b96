"""What fails beside the sessions: a health endpoint that fails or turns slow, and a server that goes away.

Owns those three. The endpoint's failures must not touch the database, and the server is stopped only where it is ours.
"""

import time
from collections.abc import Mapping

from batsignal.detect.signal import Subject
from batsignal.drills.act import ActSpec, OnsetFacts, Pace, Tell
from batsignal.drills.actors.background import SERVICE
from batsignal.drills.ground import Ground

SLOW_MILLISECONDS = 1200
DOWN_SECONDS = 20.0


class BrokenDependencyError(Exception):
    """Something the application needs, and that is not the database, does not answer."""


def endpoint_down(ground: Ground, _pace: Pace, tell: Tell) -> None:
    """Let the health check fail from now on."""
    endpoint = ground.endpoint
    if endpoint is None:
        return

    def fail() -> None:
        raise BrokenDependencyError

    endpoint.check = fail
    tell.onset(OnsetFacts(kind="endpoint_down", subject=Subject(application=SERVICE, endpoint=SERVICE)))
    ground.stopped.wait()


def endpoint_slow(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Let the health check take `size` milliseconds from now on: slow, and still an answer."""
    endpoint = ground.endpoint
    if endpoint is None:
        return
    seconds = (pace.size or SLOW_MILLISECONDS) / 1000
    endpoint.check = lambda: ground.stopped.wait(seconds)
    tell.onset(OnsetFacts(kind="endpoint_slow", subject=Subject(application=SERVICE, endpoint=SERVICE)))
    ground.stopped.wait()


def database_unreachable(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Stop the server, and start it again for the last part of the drill."""
    duration = pace.duration_seconds or DOWN_SECONDS
    with ground.away() as server:
        at = time.time()
        server.stop("fast")
        tell.onset(OnsetFacts(kind="database_unreachable", subject=Subject(), at=at))
        tell.note("the server is stopped")
        ground.stopped.wait(duration * 0.6)
    if not ground.stopped.is_set():
        tell.note("the server is started again")


ACTS: Mapping[str, ActSpec] = {
    "endpoint-down": ActSpec(run=endpoint_down, duration_seconds=50.0, endpoint=True),
    "endpoint-slow": ActSpec(
        run=endpoint_slow, size=SLOW_MILLISECONDS, duration_seconds=80.0, endpoint=True, calm_seconds=300.0
    ),
    "database-unreachable": ActSpec(run=database_unreachable, duration_seconds=50.0, needs=("restart",)),
}
