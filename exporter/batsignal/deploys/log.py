"""Every deploy known to the daemon, from any server's sessions; bounded, and shared by the servers' ticks."""

import threading
from collections.abc import Iterable

from batsignal.deploys.find import DEPLOYS_KEPT, VERSION_GONE_SECONDS, VersionWatch
from batsignal.snapshot import ApplicationPattern, Deploy, Snapshot


class DeployLog:
    """Finds deploys in each look and remembers the newest; safe to share between threads."""

    def __init__(self, pattern: ApplicationPattern, known: Iterable[Deploy] = ()) -> None:
        """`known` are those of an earlier life."""
        self._watch = VersionWatch(pattern)
        self._lock = threading.Lock()
        self._known: tuple[Deploy, ...] = tuple(sorted(known, key=lambda one: one.at)[-DEPLOYS_KEPT:])

    @property
    def known(self) -> tuple[Deploy, ...]:
        """The newest deploys, oldest first."""
        return self._known

    def add(self, snapshot: Snapshot) -> tuple[Deploy, ...]:
        """Take in one look and return every deploy known after it."""
        with self._lock:
            for deploy in (*snapshot.deploys, *self._watch.add(snapshot)):
                self._take(deploy)
            return self._known

    def mark(self, deploy: Deploy) -> tuple[Deploy, bool]:
        """Take in a deploy that somebody told of; return it as it is known now, and whether it is news."""
        with self._lock:
            before = self._known
            self._take(deploy)
            known = next((one for one in self._known if _is_same(deploy, one)), deploy)
            return known, self._known != before

    def _take(self, deploy: Deploy) -> None:
        if not any(_is_same(deploy, known) for known in self._known):
            self._known = tuple(sorted((*self._known, deploy), key=lambda one: one.at)[-DEPLOYS_KEPT:])


def _is_same(deploy: Deploy, known: Deploy) -> bool:
    """Whether two servers' sessions show the same deploy of one service."""
    return (deploy.service, deploy.version) == (known.service, known.version) and abs(
        deploy.at - known.at
    ) <= VERSION_GONE_SECONDS
