"""Names that only the daemon knows, and that can stop resolving: a hosts file of its own, over the system's.

Owns a mount namespace's worth of command line. Needs root and util-linux; without them the daemon does not start, and
says why.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batsignal.drills.embedded import HOST
from under_fault.faults import restarted_immediately
from under_fault.stand import Stand, stand

NAME = "a.batsignal.test"

_COMMAND = 'mount --bind "$0" /etc/hosts && exec "$@"'


@dataclass(frozen=True, slots=True)
class Names:
    """A hosts file at `path`."""

    path: Path

    def put(self, *names: str) -> None:
        """Let these names resolve to this host, and no others; the file stays the same one, for it is mounted."""
        with self.path.open("w", encoding="ascii") as file:
            file.writelines(f"{HOST} {name}\n" for name in ("localhost", *names))

    @contextmanager
    def stand(self, bindir: Path | None = None) -> Iterator[Stand]:
        """Set up a stand whose daemon reaches A by its name."""
        self.put(NAME)
        with stand(hosts=(NAME, HOST), prefix=self.prefix, bindir=bindir) as named:
            yield named

    @contextmanager
    def lost_over_a_restart(self, stand: Stand) -> Iterator[None]:
        """The name stops resolving, and the server is restarted meanwhile."""
        self.put()
        try:
            with restarted_immediately(stand):
                yield
        finally:
            self.put(NAME)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs another one with these names."""
        return ("unshare", "--mount", "sh", "-c", _COMMAND, str(self.path))
