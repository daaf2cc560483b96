"""Every deploy known to the daemon, from any server's sessions; bounded, and shared by the servers' ticks."""

import threading
from collections.abc import Iterable
from dataclasses import replace

from batsignal.census import Census
from batsignal.deploys.find import DEPLOYS_KEPT, VERSION_GONE_SECONDS, VersionWatch
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, Snapshot


class DeployLog:
    """Finds deploys in each look and remembers the newest; safe to share between threads."""

    def __init__(self, pattern: ApplicationPattern, known: Iterable[Deploy] = ()) -> None:
        """`known` are those of an earlier life."""
        self._watch = VersionWatch(pattern)
        self._lock = threading.Lock()
        self._known: tuple[Deploy, ...] = ()
        for deploy in sorted(known, key=lambda one: one.at):
            self._take(deploy)

    @property
    def known(self) -> tuple[Deploy, ...]:
        """The newest deploys, oldest first."""
        return self._known

    def add(self, snapshot: Snapshot, census: Census) -> tuple[Deploy, ...]:
        """Take in one look, counted, and return every deploy known after it."""
        with self._lock:
            for deploy in snapshot.deploys:
                self._take(deploy)
            for deploy in self._watch.add(snapshot, census):
                self._take(deploy, is_seen=True)
            return self._known

    def mark(self, deploy: Deploy) -> tuple[Deploy, bool]:
        """Take in a deploy that somebody told of; return it as it is known now, and whether it is news."""
        with self._lock:
            before = self._known
            self._take(deploy)
            known = next((one for one in self._known if _is_same(deploy, one)), deploy)
            return known, self._known != before

    def _take(self, deploy: Deploy, *, is_seen: bool = False) -> None:
        """Take in a deploy, one and the same with what is known of it; `is_seen` in what sessions call themselves."""
        if deploy.previous is None:
            deploy = replace(deploy, previous=self._previous(deploy))
        known = next((one for one in self._known if _is_same(deploy, one)), None)
        if known is not None:
            deploy = replace(
                known,
                # It began when the first of them says so: a pipeline may tell when it begins or when it is done.
                at=min(deploy.at, known.at),
                version=deploy.version if is_seen else known.version,
                previous=known.previous or deploy.previous,
            )
        others = (one for one in self._known if one is not known)
        self._known = tuple(sorted((*others, deploy), key=lambda one: one.at)[-DEPLOYS_KEPT:])

    def _previous(self, deploy: Deploy) -> str | None:
        """Return what ran before a deploy that does not say so: as sessions showed it, else the deploy before it."""
        shown = self._watch.previous(deploy.service, deploy.version)
        if shown is not None:
            return shown
        before = [one.version for one in self._known if one.service == deploy.service and one.at < deploy.at]
        return next((version for version in reversed(before) if not deploy.is_of(version)), None)


def _is_same(deploy: Deploy, known: Deploy) -> bool:
    """Whether two servers' sessions, or sessions and a pipeline, tell of the same deploy of one service."""
    if deploy.service != known.service or not deploy.is_of(known.version):
        return False
    return abs(deploy.at - known.at) <= VERSION_GONE_SECONDS
