"""What ships beside the code: alert rules, Alertmanager config, runbooks and dashboards, as folders of files.

Owns where they are. In the repository they stand at the top (`alerts/`, `grafana/`) and this package holds links to
them; the build follows the links, so that an installed package carries the files themselves. It reads none of them:
whoever ships another file puts it into its folder, and nothing here changes.
"""

from collections.abc import Iterator
from pathlib import Path

NAMES = ("alerts", "grafana")

_HERE = Path(__file__).parent
# A copy of the repository that lost the links, as some archives do, still has what they pointed to.
_REPOSITORY = _HERE.parents[2]
# What makes the assets, and what an interpreter leaves beside it.
_NOT_SHIPPED = (".py", ".pyc")


def folder(name: str) -> Path | None:
    """Return one of the folders in `NAMES`; None where this copy of the package carries none."""
    for parent in (_HERE, _REPOSITORY):
        if (parent / name).is_dir():
            return parent / name
    return None


def files(name: str) -> Iterator[Path]:
    """Yield the files of a folder, as paths relative to it, in order; nothing where there is no such folder."""
    home = folder(name)
    if home is not None:
        yield from sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file() and _is_shipped(path))


def _is_shipped(path: Path) -> bool:
    return path.suffix not in _NOT_SHIPPED and not path.name.startswith(".")
