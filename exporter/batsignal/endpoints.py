"""Health endpoints, live: which are probed, how often, and which servers are told of it.

Owns the prober and its jobs. It must not judge. Every server that an endpoint depends on is told of a probe, for each
may be why it fails; the endpoint's own signals are said at the first of them, or it would page once for each.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from batsignal.config import Config, EndpointConfig
from batsignal.poll.health import Prober, Target
from batsignal.publication import Publication
from batsignal.record.board import Board
from batsignal.record.endpoint_tally import EndpointTally
from batsignal.runner import ServerRunner
from batsignal.schedule import PROBES, Schedule
from batsignal.snapshot import ProbeResult


class Endpoints:
    """The endpoints of the configuration in force."""

    def __init__(self, *, schedule: Schedule, publication: Publication, clock: Callable[[], float] = time.time) -> None:
        self._schedule = schedule
        self._publication = publication
        self._prober = Prober(deliver=self._probed, clock=clock)
        self._dependants: dict[str, tuple[ServerRunner, ...]] = {}
        """The runners of the servers that an endpoint depends on, its home first."""

    def start(self) -> None:
        self._prober.start()

    def stop(self, timeout_seconds: float) -> None:
        self._prober.stop(timeout_seconds)

    def apply(self, config: Config, *, before: Config | None, runners: Mapping[str, ServerRunner]) -> None:
        """Make what is probed agree with the config; endpoints that did not change go on as they are."""
        old = {endpoint.name: endpoint for endpoint in before.endpoints} if before else {}
        new = {endpoint.name: endpoint for endpoint in config.endpoints}
        everywhere = [server.name for server in config.servers]
        self._dependants = {
            name: tuple(runners[server] for server in endpoint.servers or everywhere) for name, endpoint in new.items()
        }
        for name, endpoint in old.items():
            if new.get(name) != endpoint:
                self._schedule.remove(_job(name), executor=PROBES)
        self._publication.change(
            lambda board: replace(
                board,
                endpoints={
                    name: board.endpoints[name]
                    if old.get(name) == endpoint
                    else EndpointTally(endpoint=name, service=endpoint.service_name)
                    for name, endpoint in new.items()
                },
            )
        )
        for name, endpoint in new.items():
            if old.get(name) != endpoint:
                self._add(endpoint)

    def _add(self, endpoint: EndpointConfig) -> None:
        target = Target(
            name=endpoint.name,
            url=endpoint.url,
            service=endpoint.service_name,
            timeout_seconds=endpoint.timeout_seconds,
        )
        self._schedule.add(
            _job(endpoint.name), lambda: self._prober.submit(target), endpoint.interval_seconds, executor=PROBES
        )

    def _probed(self, result: ProbeResult) -> None:
        runners = self._dependants.get(result.endpoint)
        if runners is None:
            return  # a reload took the endpoint away while its probe was under way
        for runner in runners:
            runner.probed(replace(result, is_home=runner is runners[0]))

        def add(board: Board) -> Board:
            tally = board.endpoints.get(result.endpoint)
            if tally is None:
                return board
            return replace(board, endpoints={**board.endpoints, result.endpoint: tally.add(result)})

        self._publication.change(add)


def _job(name: str) -> str:
    return f"endpoint {name}"
