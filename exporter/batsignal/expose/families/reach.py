"""Whether the server is seen, how, and how the looks themselves go, as metric families."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.expose.families.shapes import counter, gauge, histogram
from batsignal.record.board import ServerBoard
from batsignal.snapshot import FAILURE_REASONS, VIEWS

STATES = ("up", *FAILURE_REASONS)


def reach_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield whether and how the server is seen, and why not."""
    yield gauge(
        "batsignal_up",
        "Whether a query was answered in the last tick; 0 once the last answer is older than 3 intervals.",
        ("server",),
        [((server.name,), float(server.up))],
    )
    yield gauge(
        "batsignal_server_state",
        "What our own last look met: one state is 1.",
        ("server", "state"),
        [((server.name, state), float(state == server.state)) for state in STATES],
    )
    yield gauge(
        "batsignal_view",
        "Where the counts come from now: one view is 1.",
        ("server", "view"),
        [((server.name, view), float(view == server.view)) for view in VIEWS],
    )
    privileged = server.answered.privileged if server.answered else None
    yield gauge(
        "batsignal_privileged",
        "Whether our role may see other roles' sessions (pg_monitor); on 0 counts by state are not to be trusted."
        " Absent until the server answered once.",
        ("server",),
        [] if privileged is None else [((server.name,), float(privileged))],
    )
    yield counter(
        "batsignal_connection_refusals",
        "Refused connections that we learnt of, by reason.",
        ("server", "reason"),
        [((server.name, reason), count) for reason, count in sorted(server.tally.refusals.items())],
    )
    yield histogram(
        "batsignal_ping_seconds", "Round trip of the cheapest query, once a tick.", server, server.tally.ping
    )


def poller_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield how the looks go."""
    seconds = sorted(server.snapshot.poll_seconds.items())
    snapshot = server.snapshot
    failed = {"sessions"} if snapshot.failure is not None else set()
    failed |= {"pgbouncer"} if snapshot.pools is None else set()
    yield gauge(
        "batsignal_poll_success",
        "Whether a poller's last look succeeded.",
        ("server", "poller"),
        [((server.name, poller), float(poller not in failed)) for poller, _ in seconds],
    )
    yield gauge(
        "batsignal_poll_duration_seconds",
        "How long a poller's last look took.",
        ("server", "poller"),
        [((server.name, poller), duration) for poller, duration in seconds],
    )
    yield counter(
        "batsignal_tick_errors",
        "Ticks that a bug ended; the log has the traceback.",
        ("server",),
        [((server.name,), server.tick_errors)],
    )
    yield gauge(
        "batsignal_last_tick_timestamp_seconds",
        "When the last tick ended, by the daemon's clock.",
        ("server",),
        [((server.name,), server.ticked_at)],
    )
