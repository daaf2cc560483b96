"""The address that a demo's page will have: reserved before the daemon exists, so that nobody takes it meanwhile.

Owns the reservation. It must not listen for longer than it takes to know that the daemon can.
"""

import socket

from batsignal.config import LISTEN_ADDRESS
from batsignal.errors import UnreachableError
from batsignal.expose import listen


def reserve_address(listen_address: str | None) -> tuple[str, socket.socket]:
    """Return the host, and a socket that keeps the port for the daemon until it listens there itself.

    It is the address given, else the default, else any free port on loopback. Raises UnreachableError when the address
    given is taken, ConfigError when it is none.
    """
    if listen_address is not None:
        return _reserve(listen_address)
    try:
        return _reserve(LISTEN_ADDRESS)
    except UnreachableError:
        return _reserve("127.0.0.1:0")


def _reserve(listen_address: str) -> tuple[str, socket.socket]:
    host, _ = listen.split_address(listen_address)
    # Whether it can be had is found out as the daemon will: by listening. Then it is only bound, which keeps clients
    # off the port, and does not hinder the daemon, for both set SO_REUSEADDR.
    with listen.bind(listen_address) as listener:
        address = listener.getsockname()
        reservation = socket.socket(listener.family)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            v6only = listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            reservation.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    reservation.bind(address)
    return host, reservation
