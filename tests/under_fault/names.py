"""Names that only the daemon knows, and that can stop resolving: a hosts file of its own, over the system's.

Owns a mount namespace's worth of command line. Needs root and util-linux; without them the daemon does not start, and
says why.
"""

from dataclasses import dataclass
from pathlib import Path

_COMMAND = 'mount --bind "$0" /etc/hosts && exec "$@"'


@dataclass(frozen=True, slots=True)
class Names:
    """A hosts file at `path`."""

    path: Path

    def put(self, **addresses: str) -> None:
        """Let these names resolve and no others; the file stays the same one, for it is mounted."""
        lines = [f"{address} {name.replace('_', '.')}\n" for name, address in addresses.items()]
        with self.path.open("w", encoding="ascii") as file:
            file.writelines(["127.0.0.1 localhost\n", *lines])

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs another one with these names."""
        return ("unshare", "--mount", "sh", "-c", _COMMAND, str(self.path))
