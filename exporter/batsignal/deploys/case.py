"""What one verification of a deploy looks at: its service's sessions and lines, before it and after.

Owns which of what is known concerns a deploy. It judges nothing; `checks` does. Pure.
"""

from dataclasses import dataclass
from functools import cached_property

from batsignal.deploys.conduct import LINE_SECONDS, Line, Sight, SignalSeen
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, Session


@dataclass(frozen=True)  # no slots: what is looked at by several checks is kept
class Case:
    """What one verification looks at."""

    deploy: Deploy
    pattern: ApplicationPattern
    sights: tuple[Sight, ...]
    signals: tuple[SignalSeen, ...]
    is_over: bool

    @cached_property
    def held(self) -> list[tuple[float, str | None, Session]]:
        """Return the service's sessions at the last look, each with the time of that look and its version."""
        return [
            (sight.answered.t, who.version, session)
            for sight in self.sights
            if sight.up and sight.answered is not None
            for session in sight.answered.sessions
            if session.is_client
            and (who := self.pattern.split(session.application_name)).service == self.deploy.service
        ]

    @cached_property
    def sessions(self) -> list[tuple[float, Session]]:
        """Return those of the new version, each with the time of the look."""
        return [(t, session) for t, version, session in self.held if self.deploy.is_of(version)]

    @cached_property
    def old_versions(self) -> list[str]:
        """Return the other versions that run now."""
        versions = {version for _, version, _ in self.held if version is not None}
        return sorted(version for version in versions if not self.deploy.is_of(version))

    @property
    def is_seen(self) -> bool:
        """Whether every server is seen now: what is missing where nobody looks may be there."""
        return bool(self.sights) and all(sight.up for sight in self.sights)

    @property
    def seen_since(self) -> set[str]:
        """Return the versions that had sessions since the deploy; the empty one is of those that name none."""
        return {
            version
            for sight in self.sights
            if sight.service is not None
            for version, (_, last) in sight.service.versions.items()
            if last >= self.deploy.at
        }

    @property
    def was_seen(self) -> bool:
        """Whether something of the deploy was seen: its version, sessions that name none, or a probe of the service.

        A version that crashes before its first session leaves none of them behind, and nothing that is bad either.
        """
        shown = any(not version or self.deploy.is_of(version) for version in self.seen_since)
        return shown or any(line.probes for _, line in self.lines(after=True))

    def lines(self, *, after: bool) -> list[tuple[Sight, Line]]:
        """Return the service's lines that are wholly before the deploy, or those that begin after it."""
        at = self.deploy.at
        return [
            (sight, line)
            for sight in self.sights
            if sight.service is not None
            for line in sight.service.lines
            if (line.t >= at if after else line.t + LINE_SECONDS <= at)
        ]

    @property
    def knows_before(self) -> bool:
        """Whether somebody looked before the deploy."""
        return any(sight.since < self.deploy.at - LINE_SECONDS for sight in self.sights)
