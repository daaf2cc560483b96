"""Keeps what `--web.config.file` says in force: reads it again when it, or a certificate that it names, has changed.

Owns when to read, and what stays in force when what is read is wrong: the old. New connections and requests ask
`access`, which is one swapped value; nothing is read while they wait.
"""

import os
import threading

import structlog

from batsignal import web_config
from batsignal.errors import ConfigError
from batsignal.expose.access import Access

Signature = tuple[tuple[int, int, int] | None, ...]

log = structlog.get_logger(__name__)


class WebWatch:
    """The rules of the endpoint in force. Without a file: plain HTTP for everybody."""

    def __init__(self, file: str | None) -> None:
        """Read the file for the first time; raises ConfigError."""
        self._file = file
        self._reading = threading.Lock()
        self._loaded: Signature = ()
        self._seen: Signature = ()
        self._files: tuple[str, ...] = ()
        self.access = Access()
        self.error: str | None = None
        """Why what stands in the files now is not in force."""
        if file is not None:
            self._files = (file,)
            self._load(file, _signature(self._files))

    def check(self) -> bool:
        """Read again what has changed, once it has stood still from one check to the next; return whether it did so.

        A certificate and its key are most often replaced one after the other: in between they do not fit.
        """
        with self._reading:
            if self._file is None:
                return False
            now = _signature(self._files)
            stands_still, self._seen = now == self._seen, now
            if now == self._loaded or not stands_still:
                return False
            self._reload(self._file, now)
            return True

    def reload(self) -> str | None:
        """Read it all again now; return None, or why the old rules stay in force."""
        with self._reading:
            if self._file is not None:
                self._reload(self._file, _signature(self._files))
            return self.error

    def _reload(self, file: str, signature: Signature) -> None:
        try:
            self._load(file, signature)
        except ConfigError as exc:
            if self._loaded[:1] != signature[:1]:
                self._loaded = signature  # not again before it changes
            self.error = str(exc)
            log.error("web config not reloaded, the old one stays in force", reason=self.error)  # noqa: TRY400
        else:
            self.error = None
            log.info("web config reloaded", tls=self.access.context is not None, users=self.access.passwords.is_needed)

    def _load(self, file: str, signature: Signature) -> None:
        rules = web_config.read(file)
        # Taken before the certificates are read, and kept also when they are at fault: it may be mended there.
        self._files = rules.files
        self._loaded = (*signature[:1], *_signature(self._files[1:]))
        before = self.access
        self.access = Access.of(rules, before)
        before.passwords.close()


def _signature(files: tuple[str, ...]) -> Signature:
    """Return what tells that a file was changed or replaced; of one that cannot be seen, None."""
    return tuple(_state(file) for file in files)


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        state = os.stat(file)  # noqa: PTH116 - a look twice a second, at a path that may hold anything
    except (OSError, ValueError):
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
