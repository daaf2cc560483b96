"""The recordings that an operator asks for with `--record`: one file a server, never in place of one that is there.

Owns their names. What is written into them is `record.recording`'s affair; the recordings that the daemon keeps by
itself are the flight recorder's (`record.flight`).
"""

import itertools
import time
from pathlib import Path

import structlog

from batsignal.config import Config
from batsignal.errors import ConfigError
from batsignal.record.recording import RecordingWriter

log = structlog.get_logger(__name__)


def open_recordings(config: Config, record: str | None) -> dict[str, RecordingWriter]:
    """Open a file for each server, by its name; none when `record` is None. Raises ConfigError."""
    if record is None:
        return {}
    if len(config.servers) > 1 and "{server}" not in record:
        raise ConfigError(f"--record {record}: expected {{server}} in the file's name, for there are several servers")
    recordings = {}
    for server in config.servers:
        path = Path(record.replace("{server}", server.name.replace("/", "_")))
        try:
            _put_aside(path)
            recordings[server.name] = RecordingWriter(
                path,
                server=server.name,
                interval_seconds=server.poll_interval_seconds,
                application_pattern=config.application_pattern,
            )
        except OSError as exc:
            raise ConfigError(f"--record {path}: cannot be written: {exc.strerror or exc}") from exc
        log.info("recording", server=server.name, path=str(path))
    return recordings


def _put_aside(path: Path) -> None:
    """Rename a recording that is there already, by the time of its last line: a restart must not lose the day."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    ended = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(path.stat().st_mtime))
    name, dot, suffixes = path.name.partition(".")
    for number in itertools.count(1):
        again = f"-{number}" if number > 1 else ""
        aside = path.with_name(f"{name}-{ended}{again}{dot}{suffixes}")
        if not aside.exists():
            path.rename(aside)
            log.info("recording put aside", path=str(path), aside=str(aside))
            return
