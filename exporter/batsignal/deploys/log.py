"""Every deploy known to the daemon, from any server's sessions; bounded, and shared by the servers' ticks."""

import threading

from batsignal.deploys.find import DEPLOYS_KEPT, VERSION_GONE_SECONDS, VersionWatch
from batsignal.snapshot import ApplicationPattern, Deploy, Snapshot


class DeployLog:
    """Finds deploys in each look and remembers the newest; safe to share between threads."""

    def __init__(self, pattern: ApplicationPattern) -> None:
        self._watch = VersionWatch(pattern)
        self._lock = threading.Lock()
        self._known: tuple[Deploy, ...] = ()

    @property
    def known(self) -> tuple[Deploy, ...]:
        """The newest deploys, oldest first."""
        return self._known

    def add(self, snapshot: Snapshot) -> tuple[Deploy, ...]:
        """Take in one look and return every deploy known after it."""
        with self._lock:
            for deploy in (*snapshot.deploys, *self._watch.add(snapshot)):
                if not any(_is_same(deploy, known) for known in self._known):
                    self._known = tuple(sorted((*self._known, deploy), key=lambda one: one.at)[-DEPLOYS_KEPT:])
            return self._known


def _is_same(deploy: Deploy, known: Deploy) -> bool:
    """Whether two servers' sessions show the same deploy of one service."""
    return (deploy.service, deploy.version) == (known.service, known.version) and abs(
        deploy.at - known.at
    ) <= VERSION_GONE_SECONDS
