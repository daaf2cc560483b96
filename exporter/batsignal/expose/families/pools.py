"""PgBouncer's pools as metric families. All are absent without PgBouncer, and while it does not answer."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.expose.families.shapes import gauge
from batsignal.record.board import ServerBoard

POOLS_SHOWN = 100
POOL_SERVER_STATES = ("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login")


def pool_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield clients, server sessions and the longest wait of each pool."""
    # Those with the longest queues, then the largest: what nobody waits for may share the rest.
    pools = sorted(server.snapshot.pools or (), key=lambda pool: (-(pool.cl_waiting or 0), -(pool.sv_active or 0)))
    shown = [(pool, (server.name, pool.database, pool.user)) for pool in pools[:POOLS_SHOWN]]
    labels = ("server", "database", "user")
    for what, text, states in (
        ("clients", "Clients of a PgBouncer pool by state", ("cl_active", "cl_waiting")),
        ("servers", "Server sessions of a PgBouncer pool by state", POOL_SERVER_STATES),
    ):
        yield gauge(
            f"batsignal_pgbouncer_pool_{what}",
            f"{text}. Absent without PgBouncer, and while it does not answer.",
            (*labels, "state"),
            [
                ((*who, state.partition("_")[2]), count)
                for pool, who in shown
                for state in states
                if (count := getattr(pool, state)) is not None
            ],
        )
    yield gauge(
        "batsignal_pgbouncer_pool_wait_seconds",
        "How long the first client in a PgBouncer pool's queue has waited. Absent as the others.",
        labels,
        [(who, pool.maxwait_seconds) for pool, who in shown if pool.maxwait_seconds is not None],
    )
