"""The listening socket: bound by ourselves before anything else starts, so that a taken port is said in one line.

Owns how a listen address is spelled (as Prometheus reads it) and what goes wrong while binding. It serves nothing.
"""

import re
import socket

from batsignal.errors import ConfigError, UnreachableError

PORT_MAX = 65535
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%]+[^\]]*)\]|(?P<host>[^:\[\]\s/]*)):(?P<port>[0-9]{1,5})")


def split_address(listen_address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, [IPv6]:PORT or :PORT; the host is empty for all interfaces.

    Raises ConfigError that names the address and what was expected.

    >>> split_address("127.0.0.1:9988"), split_address("[::1]:80"), split_address(":0")
    (('127.0.0.1', 9988), ('::1', 80), ('', 0))
    """
    match = _ADDRESS.fullmatch(listen_address.strip())
    if match is None or int(match["port"]) > PORT_MAX:
        raise ConfigError(
            f"listen address {listen_address!r}: expected HOST:PORT, [IPv6]:PORT or :PORT, "
            f"with a port from 0 to {PORT_MAX}"
        )
    return match["ipv6"] or match["host"] or "", int(match["port"])


def _bound(family: int, address: tuple[object, ...], *, dual_stack: bool) -> socket.socket:
    # asyncio sets TCP_NODELAY only on a socket that says TCP; without it Nagle adds 40 ms to every answer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        sock.bind(address)
        # Two sockets with SO_REUSEADDR may share an address until one listens: listen now, to learn it now.
        sock.listen(128)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def bind(listen_address: str) -> socket.socket:
    """Return a listening, non-blocking TCP socket; port 0 takes any free one.

    Raises ConfigError for a bad spelling, UnreachableError when the address is taken, forbidden or not ours.
    """
    host, port = split_address(listen_address)
    try:
        if host:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return _bound(family, address, dual_stack=False)
        if socket.has_dualstack_ipv6():
            return _bound(socket.AF_INET6, ("::", port), dual_stack=True)
        return _bound(socket.AF_INET, ("", port), dual_stack=False)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise UnreachableError(f"cannot listen on {listen_address.strip()}: {reason[:1].lower()}{reason[1:]}") from exc
    except UnicodeError as exc:
        raise UnreachableError(
            f"cannot listen on {listen_address.strip()}: the name is not one that DNS knows"
        ) from exc
