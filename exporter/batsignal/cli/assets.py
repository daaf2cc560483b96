"""`batsignal assets export`: the shipped rules, Alertmanager config, runbooks and dashboards as files of one's own.

Owns what is overwritten: nothing, unless told to, and then all is known before the first file is written.
"""

import contextlib
import filecmp
import os
import shutil
import tempfile
from pathlib import Path

from batsignal import assets
from batsignal.errors import ConfigError, UnreachableError


def export(directory: str, *, force: bool) -> int:
    """Copy every shipped file into `directory` and name it; return 0. Raises ConfigError before anything is written.

    A file that is there already with other content is in the way, unless `force`; one with the same content is left.
    """
    if not directory.strip():  # what a variable that is not set leaves of an argument
        raise ConfigError("DIR: expected the path of a folder, got an empty text; nothing was written")
    target = Path(directory)
    wanted = list(_shipped(target))
    if not wanted:
        raise UnreachableError("this copy of batsignal carries no assets; the repository does: alerts/, grafana/")
    others = [there for source, there in wanted if _differs(source, there)]
    if others and not force:
        raise ConfigError(
            f"{target}: expected nothing of these there yet, found {_listed(others)} with other content;"
            " --force overwrites, nothing was written"
        )
    try:
        for source, there in wanted:
            there.parent.mkdir(parents=True, exist_ok=True)
            if there in others or not there.exists():
                _put(source, there)
                print(f"wrote {there}")
            else:
                print(f"is there already {there}")
    except OSError as exc:
        raise ConfigError(f"{exc.filename or target}: expected to write there: {exc.strerror or exc}") from exc
    return 0


def _shipped(target: Path) -> list[tuple[Path, Path]]:
    return [
        (home / relative, target / name / relative)
        for name in assets.NAMES
        if (home := assets.folder(name)) is not None
        for relative in assets.files(name)
    ]


def _differs(source: Path, there: Path) -> bool:
    """Whether something else stands where a file is to go. Raises ConfigError for what can be no file."""
    try:
        if there.is_dir():
            raise ConfigError(f"{there}: expected a file or nothing, got a directory; nothing was written")
        if there.is_symlink() and not there.exists():
            raise ConfigError(f"{there}: expected a file or nothing, got a link to nowhere; nothing was written")
        return there.exists() and not filecmp.cmp(source, there, shallow=False)
    except OSError as exc:
        raise ConfigError(f"{there}: expected to read it: {exc.strerror or exc}; nothing was written") from exc


def _put(source: Path, there: Path) -> None:
    """Put a file in place as a whole: a Prometheus that reloads meanwhile sees the old one or the new."""
    descriptor, name = tempfile.mkstemp(dir=there.parent, prefix=f".{there.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, there)  # noqa: PTH105 - both are paths already
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        raise


def _listed(paths: list[Path]) -> str:
    shown = 3
    names = ", ".join(str(path) for path in paths[:shown])
    return f"{names} and {len(paths) - shown} more" if len(paths) > shown else names
