"""The application that an incident is about: its pods with a pool each, its versions, its health endpoint.

Owns how it starts, is replaced by its next version, and answers for its health. What is wrong with it
is the incident's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batsignal.detect.signal import Subject
from simulator.pools import Pool
from simulator.probes import Answer, ask_pool

if TYPE_CHECKING:
    from simulator.scene import Scene

Curve = Callable[[float], float]


@dataclass(eq=False)
class App:
    """The application that an incident is about: one pool in each of its pods."""

    scene: "Scene"
    service: str
    version: str | None
    previous: str | None
    place: dict[str, Any]
    hosts: list[str]
    pool: dict[str, Any]
    rate: float
    """Requests a second, in all its pods together."""
    hold_seconds: float
    driver: str | None = None
    """What stands in application_name when the service does not say who it is."""
    named: bool = True
    curve: Curve = lambda _t: 1.0
    pools: dict[str, Pool] = field(default_factory=dict)
    is_released: bool = False
    """Whether the new version has come; until then it is the one before it that runs."""

    def name(self, version: str | None) -> str | None:
        if not self.named:
            return self.driver
        return f"{self.service}@{version}" if version else self.service

    @property
    def application(self) -> str | None:
        """Its application_name as of now: of the version that was deployed last."""
        return self.name(self.running)

    @property
    def running(self) -> str | None:
        """The version that runs as of now."""
        return self.version if self.is_released else self.previous

    def release(self) -> None:
        """From now on it is the new version that comes."""
        self.is_released = True

    def start(self, version: str | None, client: str) -> None:
        """Start one pod."""
        world = self.scene.world
        share = self.rate / len(self.hosts)
        self.pools[client] = world.pool(
            self.name(version),
            work=lambda t: share * self.curve(t),
            at=world.elapsed,
            seconds=self.hold_seconds,
            place=self.place | {"client": client},
            **self.pool,
        )

    def start_all(self) -> None:
        """Start every pod with the version before the deploy, at the world's beginning."""
        for client in self.hosts:
            self.start(self.previous, client)

    def deploy(self, at: float, *, rolling_seconds: float, overlap_seconds: float) -> None:
        """Replace pod after pod by the new version; the old one of each goes so much after the new one came."""
        world = self.scene.world
        world.call(at, self.release)
        for n, client in enumerate(self.hosts):
            begin = at + rolling_seconds * n

            def replace(client: str = client, begin: float = begin) -> None:
                old = self.pools[client]
                self.start(self.version, client)
                world.call(begin + overlap_seconds, old.close)

            world.call(begin, replace)

    def health(self) -> Answer:
        """What its health endpoint answers: of its first pod, which asks its own pool."""
        return ask_pool(self.scene.world, self.pools[self.hosts[0]])

    @property
    def statement(self) -> str:
        return str(self.place["query"])

    def subject(self, **facts: Any) -> Subject:
        """Who must be named."""
        if not self.named:
            return Subject(user=self.place["user"], client=self.hosts[0] if len(self.hosts) == 1 else None, **facts)
        return Subject(application=self.service, version=self.running, **facts)
