"""The board as Prometheus metric families: which series exist, what they are called, and when they are absent.

A module a subject; here they are put together. Pure: a board in, families out. Missing is not zero: what the last look
could not see has no series. Labels come from closed or capped sets (the tally caps them).
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.expose.families.daemon import daemon_families
from batsignal.expose.families.endpoints import endpoint_families
from batsignal.expose.families.holders import holder_families
from batsignal.expose.families.host import host_families
from batsignal.expose.families.pools import pool_families
from batsignal.expose.families.reach import poller_families, reach_families
from batsignal.expose.families.sessions import session_families, slot_families, statement_families
from batsignal.expose.families.signals import signal_families
from batsignal.expose.families.store import store_families
from batsignal.record.board import Board, ServerBoard

_OF_A_SERVER = (
    reach_families,
    slot_families,
    session_families,
    holder_families,
    statement_families,
    signal_families,
    pool_families,
    host_families,
    poller_families,
)
_OF_NO_SERVER = (daemon_families, endpoint_families, store_families)


def families_of_server(server: ServerBoard) -> Iterator[Metric]:
    """Yield every family of one server."""
    for families in _OF_A_SERVER:
        yield from families(server)


def families_of_no_server(board: Board) -> Iterator[Metric]:
    """Yield the families that belong to no server: the daemon itself, endpoints, deploys, and history on disk."""
    for families in _OF_NO_SERVER:
        yield from families(board)
