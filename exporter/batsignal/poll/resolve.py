"""Names to addresses with a deadline.

`getaddrinfo` knows no timeout, so it runs in a thread that may be left behind. One look-up per name is under way at
most: a resolver that hangs costs one thread per name, not one per try. A name that had an address keeps it while the
resolver is away: a name server that is down must not keep us from a database that is not.
"""

import socket
import threading
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)


class ResolveError(Exception):
    """A name has no address, or none came in time; the text is for a person."""


@dataclass(slots=True)
class _Lookup:
    done: threading.Event = field(default_factory=threading.Event)
    addresses: tuple[str, ...] = ()
    error: str | None = None


class Resolver:
    """Resolves host names; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _Lookup] = {}
        # As many as there are names in the configuration.
        self._last: dict[str, tuple[str, ...]] = {}
        self._astray: set[str] = set()

    def addresses(self, host: str, wait_seconds: float) -> tuple[str, ...]:
        """Return the numeric addresses of `host` in the resolver's order, or those it had last; raises ResolveError."""
        try:
            found = self._ask(host, wait_seconds)
        except ResolveError as exc:
            with self._lock:
                last, is_news = self._last.get(host), host not in self._astray
                self._astray.add(host)
            if last is None:
                raise
            if is_news:
                log.warning("name does not resolve, its last addresses stand", host=host, reason=str(exc))
            return last
        with self._lock:
            is_news = host in self._astray and host in self._last
            self._astray.discard(host)
            self._last[host] = found
        if is_news:
            log.info("name resolves again", host=host)
        return found

    def _ask(self, host: str, wait_seconds: float) -> tuple[str, ...]:
        with self._lock:
            lookup = self._under_way.get(host)
            if lookup is None:
                lookup = self._under_way[host] = _Lookup()
                threading.Thread(target=self._look_up, args=(host, lookup), name=f"resolve-{host}", daemon=True).start()
        if not lookup.done.wait(max(wait_seconds, 0)):
            raise ResolveError(f"the name {host} was not resolved in time")
        if lookup.error is not None:
            raise ResolveError(f"the name {host} does not resolve: {lookup.error}")
        return lookup.addresses

    def _look_up(self, host: str, lookup: _Lookup) -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            lookup.addresses = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
        # ValueError: a name that cannot be written in DNS.
        except (OSError, ValueError) as exc:
            lookup.error = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        finally:
            with self._lock:
                del self._under_way[host]
            lookup.done.set()
