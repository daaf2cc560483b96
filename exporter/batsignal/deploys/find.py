"""Finds deploys in what sessions say of themselves: a service's sessions begin to carry another version.

The versions that run when the watch begins are where it starts from, not deploys. A version that comes back after it
had been gone (a roll-back) is a deploy again. Pure: no clock, no I/O; memory is bounded.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from batsignal.census import Census
from batsignal.names import Application, ApplicationPattern
from batsignal.snapshot import Deploy, Snapshot

# A version without a session for this long is gone; less is a restart or a quiet minute of a service without a pool.
VERSION_GONE_SECONDS = 600.0
# Sessions at every look for so long, then none for so long while another version had some: it was replaced.
STEADY_SECONDS = 60.0
REPLACED_SECONDS = 60.0
# Looks that are further apart say nothing of what was between them.
UNSEEN_SECONDS = 10.0
# The old version, the new one, a canary, and the old side of a blue/green pair; of what is more, none is a version.
VERSIONS_AT_ONCE_MOST = 4
SERVICES_MOST = 2000
VERSIONS_MOST = 50
DEPLOYS_KEPT = 100


@dataclass(slots=True)
class _Service:
    last_seen: dict[str, float] = field(default_factory=dict)
    steady_since: dict[str, float] = field(default_factory=dict)
    """Since when a version has had sessions at every look."""
    sessions: Counter[str] = field(default_factory=Counter)

    def see(self, version: str, sessions: int, t: float) -> None:
        if t - self.last_seen.get(version, -math.inf) > UNSEEN_SECONDS:
            self.steady_since[version] = t
        self.last_seen[version] = t
        self.sessions[version] = sessions

    def is_new(self, version: str, t: float) -> bool:
        """Whether a version that is seen now was never here, or had gone."""
        seen = self.last_seen.get(version)
        if seen is None or t - seen > VERSION_GONE_SECONDS:
            return True
        if t - seen < REPLACED_SECONDS:
            return False
        was_steady = seen - self.steady_since[version] >= STEADY_SECONDS
        was_replaced = any(other > seen for name, other in self.last_seen.items() if name != version)
        return was_steady and was_replaced


class VersionWatch:
    """The fold over the snapshots of all servers that finds deploys."""

    def __init__(self, pattern: ApplicationPattern) -> None:
        self._pattern = pattern
        self._services: dict[str, dict[str, _Service]] = {}
        self._looked: dict[str, float] = {}

    def add(self, snapshot: Snapshot, census: Census) -> tuple[Deploy, ...]:
        """Return the deploys that this look, counted, is the first to show.

        `at` is the start of the version's oldest session.
        """
        if not snapshot.is_detailed:
            return ()
        before = self._looked.get(snapshot.server)
        self._looked[snapshot.server] = snapshot.t
        services = self._services.setdefault(snapshot.server, {})
        found = []
        for (name, version), count in _versions(self._pattern, census).items():
            service = services.get(name)
            if service is None:
                if len(services) >= SERVICES_MOST:
                    continue
                service = services[name] = _Service()
            if before is not None and service.is_new(version, snapshot.t) and _has_others(service, version, snapshot.t):
                # A pooler's sessions are older than the version that borrows them now: it was not there a look ago.
                at = min(max(self._oldest_start(snapshot, name, version), before), snapshot.t)
                found.append(Deploy(service=name, version=version, at=at, previous=_previous(service, version)))
            service.see(version, count, snapshot.t)
            _forget_old_versions(service)
        return tuple(found)

    def _oldest_start(self, snapshot: Snapshot, name: str, version: str) -> float:
        """Return when the first session of a version began, of those that say so; this look's instant if none does."""
        starts = (
            session.backend_start
            for session in snapshot.sessions
            if session.is_client
            and session.backend_start is not None
            and self._pattern.split(session.application_name) == Application(service=name, version=version)
        )
        return min(starts, default=snapshot.t)

    def previous(self, name: str, version: str) -> str | None:
        """Return the version of a service that was seen last beside this one; None when none was."""
        services = [known[name] for known in self._services.values() if name in known]
        seen = {other: service.last_seen[other] for service in services for other in service.last_seen}
        seen.pop(version, None)
        return max(seen, key=seen.__getitem__, default=None)


def _has_others(service: _Service, version: str, t: float) -> bool:
    """Whether other versions are known; so many that run are none, but names of hosts or jobs where versions stand."""
    running = sum(t - seen <= VERSION_GONE_SECONDS for seen in service.last_seen.values())
    return any(other != version for other in service.last_seen) and running < VERSIONS_AT_ONCE_MOST


def _versions(pattern: ApplicationPattern, census: Census) -> Mapping[tuple[str, str], int]:
    """Return how many sessions there are, by service and version."""
    versions: Counter[tuple[str, str]] = Counter()
    for held in census:
        who = pattern.split(held.application_name)
        if who.service is not None and who.version is not None:
            versions[who.service, who.version] += held.sessions
    return versions


def _previous(service: _Service, version: str) -> str | None:
    """Return the version that ran before: the one seen last, and of those the one with most sessions."""
    others = [other for other in service.last_seen if other != version]
    return max(others, key=lambda other: (service.last_seen[other], service.sessions[other]), default=None)


def _forget_old_versions(service: _Service) -> None:
    while len(service.last_seen) > VERSIONS_MOST:
        oldest = min(service.last_seen, key=service.last_seen.__getitem__)
        del service.last_seen[oldest]
        del service.steady_since[oldest]
        del service.sessions[oldest]
