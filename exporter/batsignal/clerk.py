"""Who answers what the daemon is asked over its API: deploys that are told of or doubted, sessions that are to end.

Owns the way from a question to whoever knows, and how it is put that there is no answer. The doors (tokens, what a
question must look like) are `expose`'s; the judgement and the work are others'.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from batsignal.chronicle import Chronicle
from batsignal.deploys.ledger import Ledger, UnknownDeployError
from batsignal.expose.exchange import Refusal, spelled
from batsignal.expose.releases import Wish
from batsignal.names import ApplicationPattern
from batsignal.publication import Publication
from batsignal.releaser import NotSeenError, release
from batsignal.releases.order import Release
from batsignal.runner import ServerRunner
from batsignal.snapshot import Deploy

log = structlog.get_logger(__name__)


class Clerk:
    """The answers. What a reload replaces is asked for anew each time."""

    def __init__(
        self,
        *,
        ledger: Callable[[], Ledger],
        pattern: Callable[[], ApplicationPattern],
        runners: Mapping[str, ServerRunner],
        publication: Publication,
        chronicle: Chronicle,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._pattern = pattern
        self._runners = runners
        self._publication = publication
        self._chronicle = chronicle
        self._clock = clock

    def mark(self, deploy: Deploy) -> tuple[Deploy, bool]:
        """Take in a deploy that somebody tells of: the next tick judges by it, and the next life of the daemon.

        Raises Refusal for a service that no session can be of as names are split here: it would never be blamed.
        """
        split = self._pattern().split(deploy.service)
        if split.version is not None and not self._pattern().can_name(deploy.service):
            raise Refusal(
                400,
                f"service: expected a service as application_pattern tells it, got {spelled(deploy.service)}: a session"
                f" of that name is of service {spelled(split.service)}, version {spelled(split.version)}",
            )
        known, is_news = self._ledger().mark(deploy)
        if is_news:
            log.info("deploy marked", service=known.service, version=known.version, at=known.at)
            self.keep_deploys()
        return known, is_news

    def keep_deploys(self) -> None:
        """Keep and show the deploys that are known, if they are others than are shown."""
        deploys = self._ledger().known
        if deploys != self._publication.board.deploys:
            self._chronicle.deployed(deploys)
            self._publication.show(deploys=deploys)

    def verify(self, service: str, version: str, window_seconds: float) -> Mapping[str, Any]:
        """Return the checklist of a deploy; raises Refusal for one that nobody marked and no session showed."""
        try:
            found = self._ledger().verify(service, version, now=self._clock(), window_seconds=window_seconds)
        except UnknownDeployError as exc:
            raise Refusal(
                404,
                f"no deploy of {spelled(service)} {spelled(version)} was marked, and no session of it seen;"
                f" versions of that service seen: {', '.join(map(spelled, exc.seen)) or 'none'}",
            ) from exc
        return found.as_json()

    def release(self, wish: Wish) -> Release:
        """End what a culprit holds, or say what would end; raises Refusal."""
        runner = self._runner_of(wish)
        board = self._publication.board.servers.get(runner.config.name)
        try:
            return release(
                wish.order,
                runner,
                pattern=self._pattern(),
                signals=() if board is None else board.signals,
                dry_run=not wish.for_real,
                asked_by=(wish.by, wish.address),
                audit=self._chronicle.released,
            )
        except NotSeenError as exc:
            raise Refusal(503, str(exc)) from exc

    def _runner_of(self, wish: Wish) -> ServerRunner:
        names = ", ".join(self._runners)
        if wish.server is None and len(self._runners) > 1:
            raise Refusal(400, f"server: missing; expected one of {names}")
        runner = next(iter(self._runners.values())) if wish.server is None else self._runners.get(wish.server)
        if runner is None:
            raise Refusal(400, f"server: expected one of {names}, got {spelled(wish.server)}")
        return runner
