"""The rules of well-known pools, as facts for `World.pool`: `world.pool("web@1", work=5, **queue_pool(size=5))`.

Owns the names and the defaults. Each was read off how that pool behaves; how near the model comes to it is measured for
three of them (see README.md).
"""

from typing import Any


def queue_pool(
    *,
    size: int = 5,
    overflow: int = 10,
    recycle_seconds: float | None = None,
    lifo: bool = False,
    wait_seconds: float = 30.0,
    **facts: Any,
) -> dict[str, Any]:
    """As SQLAlchemy's QueuePool: fills as it is asked, closes at their return those beyond `size`.

    A session older than `recycle_seconds` is replaced when it is asked for.
    """
    return {
        "least": 0,
        "most": size + overflow,
        "kept": size,
        "order": "lifo" if lifo else "fifo",
        "lifetime_seconds": recycle_seconds,
        "lifetime_spread": 0.0,
        "lifetime_ends": "checkout",
        "wait_seconds": wait_seconds,
        **facts,
    }


def psycopg_pool(
    *,
    least: int = 4,
    most: int = 4,
    lifetime_seconds: float | None = 3600.0,
    idle_seconds: float | None = 600.0,
    wait_seconds: float = 30.0,
    **facts: Any,
) -> dict[str, Any]:
    """As psycopg_pool's: a worker opens one after the other while somebody waits, and drops one an idle time."""
    return {
        "least": least,
        "most": most,
        "order": "fifo",
        "grows_by": "worker",
        "lifetime_seconds": lifetime_seconds,
        "lifetime_spread": 0.05,
        "lifetime_ends": "return",
        "idle_seconds": idle_seconds,
        "idle_rule": "shrink",
        "wait_seconds": wait_seconds,
        "retry_most_seconds": 300.0,
        **facts,
    }


def minimum_pool(
    *,
    least: int = 10,
    most: int = 10,
    idle_seconds: float | None = 300.0,
    wait_seconds: float = 30.0,
    **facts: Any,
) -> dict[str, Any]:
    """As asyncpg's since 0.32: a floor of `least`, and above it each session ends after its own idle time."""
    return {
        "least": least,
        "most": most,
        "order": "lifo",
        "idle_seconds": idle_seconds,
        "idle_rule": "each",
        "wait_seconds": wait_seconds,
        **facts,
    }


def hikari_pool(
    *,
    least: int = 10,
    most: int = 10,
    lifetime_seconds: float | None = 1800.0,
    idle_seconds: float | None = 600.0,
    wait_seconds: float = 30.0,
    **facts: Any,
) -> dict[str, Any]:
    """As HikariCP's: full from the start, each session replaced after its own lifetime, idle ones ended in rounds."""
    return {
        "least": least,
        "most": most,
        "order": "lifo",
        "grows_by": "worker",
        "lifetime_seconds": lifetime_seconds,
        "lifetime_spread": 1 / 40,
        "lifetime_ends": "timer",
        "idle_seconds": idle_seconds,
        "idle_rule": "housekeeping",
        "housekeeping_seconds": 30.0,
        "wait_seconds": wait_seconds,
        "retry_seconds": 0.25,
        "retry_most_seconds": 10.0,
        **facts,
    }
