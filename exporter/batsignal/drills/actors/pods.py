"""Applications as they run in production: pods, each a process on a host with a pool, and requests that come in.

Owns how an act makes many of one service, adds some and takes some away, and the course of an act in time, which
shrinks as a whole when the act is given less time. What one pod does is `service`'s. It must leave no session behind
when an act stops in the middle.
"""

import math
import random
import time
from dataclasses import dataclass
from typing import Self

from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 spells small

from batsignal.drills.act import Pace
from batsignal.drills.actors.service import Service
from batsignal.drills.ground import Ground

ITEMS = 1000


class Course:
    """An act's course in time: its parts keep their proportions when the whole takes less time than in real life.

    Parts are given as they are in real life. With more time than `whole_seconds` they keep their length, and the rest
    is spent at the end. What the user sets as a rate is never shrunk.
    """

    def __init__(self, ground: Ground, pace: Pace, *, whole_seconds: float) -> None:
        self._ground = ground
        self._started = time.monotonic()
        self.duration_seconds = whole_seconds if pace.duration_seconds is None else pace.duration_seconds
        self.scale_ratio = min(1.0, self.duration_seconds / whole_seconds)

    @property
    def passed_ratio(self) -> float:
        """How much of the act has passed."""
        return (time.monotonic() - self._started) / self.duration_seconds

    def seconds(self, seconds: float) -> float:
        """Return how long a part takes in this act."""
        return seconds * self.scale_ratio

    def wait(self, seconds: float) -> bool:
        """Wait for that much of the act, and tell whether the drill goes on."""
        return not self._ground.stopped.wait(self.seconds(seconds))

    def until(self, seconds: float) -> bool:
        """Wait until that many seconds of the act have passed since its start, and tell whether the drill goes on."""
        return self._wait_until(self.seconds(seconds))

    def pause(self, seconds: float) -> bool:
        """Wait that long, not shrunk, and tell whether the act goes on: not when its end or the drill's came first."""
        left_seconds = self._started + self.duration_seconds - time.monotonic()
        if seconds >= left_seconds:
            self.finish()
            return False
        return not self._ground.stopped.wait(seconds)

    def finish(self) -> bool:
        """Wait until the whole duration has passed, and tell whether the drill goes on."""
        return self._wait_until(self.duration_seconds)

    def _wait_until(self, seconds: float) -> bool:
        return not self._ground.stopped.wait(max(self._started + seconds - time.monotonic(), 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What all pods of one version of a service have in common.

    `lifetime_seconds` is the pool's maximum lifetime of a session, `hold_seconds` how long a request keeps one.
    """

    service: str
    version: str
    table: str
    minimum: int = 5
    maximum: int = 10
    lifetime_seconds: float = math.inf
    hold_seconds: float = 0.1


class Fleet:
    """All pods that an act has running, each a process on a host with a pool of its own. They end with the block.

    They run `application`, unless a pod is told to run another version.
    """

    def __init__(self, ground: Ground, application: Application) -> None:
        self._ground = ground
        self.application = application
        self.pods: list[Service] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove(*self.pods)

    def add(
        self, *, host: int = 1, requests_per_second: float = 0.0, application: Application | None = None
    ) -> Service:
        """Start one more pod and return it. Its pool is filled to the minimum before its first request."""
        application = application or self.application
        pod = Service(
            self._ground,
            application.service,
            application.version,
            minimum=application.minimum,
            maximum=application.maximum,
            requests_per_second=requests_per_second,
            host=host,
            lifetime_seconds=application.lifetime_seconds,
            work=lambda session: read_item(session, application.table, hold_seconds=application.hold_seconds),
        )
        self.pods.append(pod)
        pod.start()
        return pod

    def resize(self, wanted: int, *, sessions_each: int | None = None) -> None:
        """Let there be that many pods on a host each, or those that fit; one needs `sessions_each`, or its maximum."""
        held = sum(pod.pool.total for pod in self.pods)
        fits = (self._ground.room + held) // (sessions_each or self.application.maximum)
        wanted = max(1, min(wanted, fits))
        self.remove(*self.pods[wanted:])
        for host in range(len(self.pods) + 1, wanted + 1):
            self.add(host=host)

    def remove(self, *pods: Service) -> None:
        """End some pods; each closes its sessions once its requests have ended."""
        for pod in pods:
            pod.stop()
        self.pods = [pod for pod in self.pods if pod not in pods]

    def work(self, requests_per_second: float) -> None:
        """Spread that many requests evenly over all pods."""
        for pod in self.pods:
            pod.requests_per_second = requests_per_second / len(self.pods)


def read_item(connection: Connection, table: str, *, hold_seconds: float) -> None:
    """Read one row, in a statement that takes as long as a request's work does."""
    item = random.randint(1, ITEMS)  # noqa: S311 - no secret
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT body FROM {table}, pg_sleep(%s) WHERE id = %s", (hold_seconds, item))


def room(ground: Ground, wanted: int, *, sessions_each: int = 1) -> int:
    """Return how many of the wanted pods, or sessions, fit into what the drill may still hold; at least one."""
    return max(1, min(wanted, ground.room // sessions_each))
