"""All that is known of deploys, read by one pattern: the log of them, and how services behaved around them.

Owns that both read names alike and see the same looks. A reload with another pattern makes a new one, which is told
the deploys that were known. Safe to share between threads.
"""

from collections.abc import Iterable

from batsignal.census import Census
from batsignal.deploys.conduct import Conduct
from batsignal.deploys.log import DeployLog
from batsignal.deploys.verify import Verification, verify
from batsignal.detect.signal import Signal
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, Snapshot


class UnknownDeployError(Exception):
    """Nobody marked that deploy, and no session showed it; `seen` are the versions that sessions did show."""

    def __init__(self, seen: tuple[str, ...]) -> None:
        super().__init__(f"versions seen: {', '.join(seen) or 'none'}")
        self.seen = seen


class Ledger:
    """The log and the conduct."""

    def __init__(self, pattern: ApplicationPattern, known: Iterable[Deploy] = ()) -> None:
        """`known` are the deploys of an earlier life, or pattern."""
        self._log = DeployLog(pattern, known)
        self._conduct = Conduct(pattern)

    @property
    def known(self) -> tuple[Deploy, ...]:
        """The newest deploys, oldest first."""
        return self._log.known

    def add(self, snapshot: Snapshot, census: Census) -> tuple[Deploy, ...]:
        """Take in one look, counted, and return every deploy known after it."""
        self._conduct.add(snapshot, census)
        return self._log.add(snapshot, census)

    def lit(self, server: str, signals: Iterable[Signal], t: float) -> None:
        """Take in which signals are lit at a server."""
        self._conduct.lit(server, signals, t)

    def watch_only(self, servers: Iterable[str]) -> None:
        """Forget how services behaved on every other server."""
        self._conduct.watch_only(servers)

    def mark(self, deploy: Deploy) -> tuple[Deploy, bool]:
        """Take in a deploy that somebody told of; return it as it is known now, and whether it is news."""
        return self._log.mark(deploy)

    def verify(self, service: str, version: str, *, now: float, window_seconds: float) -> Verification:
        """Return the checklist of a deploy as it stands at `now`; raises UnknownDeployError."""
        return verify(self._deploy(service, version), self._conduct, now=now, window_seconds=window_seconds)

    def _deploy(self, service: str, version: str) -> Deploy:
        """Return the newest deploy of a version; of one that was there before us, since it was seen."""
        for known in reversed(self._log.known):
            if known.service == service and known.is_of(version):
                return known
        at = self._conduct.first_seen(service, version)
        if at is None:
            raise UnknownDeployError(self._conduct.versions(service))
        return Deploy(service=service, version=version, at=at)
