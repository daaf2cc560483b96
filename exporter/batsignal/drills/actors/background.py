"""The life that goes on around an incident: two pooled services under a little traffic, as any server has them.

Owns the two and the release of a new version of the first, the way a rolling release does it: the new one is up before
the old one goes. It must fit into the share of the slots together with the act. Which background goes on on a ground is
known here, not there: the ground is what actors stand on, and knows none of them.
"""

import contextlib
from collections.abc import Callable, Iterator

from batsignal.detect.signal import DeployRef
from batsignal.drills.act import Tell
from batsignal.drills.actors.service import Service
from batsignal.drills.ground import Ground

SERVICE = "web"
VERSION = "2.3.9"
NEXT_VERSION = "2.4.0"
OTHER_SERVICE = "billing"
OTHER_VERSION = "1.7.2"
OTHER_HOST = 2
# With less room than this the background keeps small, so that the act gets most of it.
SMALL_BUDGET = 40


class Background:
    """`web@2.3.9` and `billing@1.7.2`, each with a pool."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._is_small = ground.budget < SMALL_BUDGET
        self.version = VERSION
        self.web = self._web(VERSION)
        self.other = Service(
            ground,
            OTHER_SERVICE,
            OTHER_VERSION,
            minimum=2,
            maximum=2 if self._is_small else 4,
            requests_per_second=2.0,
            host=OTHER_HOST,
        )

    def start(self) -> None:
        """Fill both pools and let requests come."""
        self.web.start()
        self.other.start()

    def release(self, tell: Tell, version: str = NEXT_VERSION) -> DeployRef:
        """Replace the web service by another version of it."""
        before, previous = self.web, self.version
        deploy = tell.deployed(SERVICE, version, previous)
        self.web, self.version = self._web(version), version
        self.web.start()
        before.stop()
        return deploy

    def _web(self, version: str) -> Service:
        minimum, maximum = (2, 3) if self._is_small else (6, 12)
        return Service(
            self._ground,
            SERVICE,
            version,
            minimum=minimum,
            maximum=maximum,
            requests_per_second=8.0,
            lifetime_seconds=60,
        )


_GOING_ON: dict[Ground, Background] = {}


@contextlib.contextmanager
def going_on(ground: Ground) -> Iterator[Background]:
    """Let a background begin, and let acts on this ground find it within the block; it ends with the ground."""
    background = Background(ground)
    background.start()
    _GOING_ON[ground] = background
    try:
        yield background
    finally:
        del _GOING_ON[ground]


def of(ground: Ground) -> Background | None:
    """Return what goes on around an act; None where the act brings its own."""
    return _GOING_ON.get(ground)


def release(ground: Ground, tell: Tell, version: str = NEXT_VERSION) -> DeployRef:
    """Release a version over the background, or, where there is none, only say that it runs."""
    background = of(ground)
    return tell.deployed(SERVICE, version, VERSION) if background is None else background.release(tell, version)


def replace(ground: Ground, tell: Tell, start: Callable[[], object]) -> DeployRef:
    """Release `NEXT_VERSION` as the act runs it: `start` brings it up, then the background's own version goes."""
    background = of(ground)
    deploy = tell.deployed(SERVICE, NEXT_VERSION, None if background is None else background.version)
    start()
    if background is not None:
        background.web.stop()
    return deploy
