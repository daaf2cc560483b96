"""Slots, sessions and statements as metric families: who holds what now, and what has come and gone.

Labels are capped by the tally; the only text of a statement is in `batsignal_query_info`.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.expose.families.shapes import counter, gauge, histogram
from batsignal.record.board import ServerBoard


def slot_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield how many slots there are, and are taken."""
    seen = server.answered
    slots = seen.slots if seen else None
    name = (server.name,)
    yield gauge(
        "batsignal_slots_full",
        "Whether no slot is left for an ordinary role, by whatever evidence.",
        ("server",),
        [(name, float(server.slots_full))],
    )
    yield gauge(
        "batsignal_connection_slots_max",
        "max_connections. Absent until the server answered once.",
        ("server",),
        [(name, slots.max)] if slots else [],
    )
    yield gauge(
        "batsignal_connection_slots_usable",
        "Slots that ordinary roles can take: max_connections less the reserved ones.",
        ("server",),
        [(name, slots.usable)] if slots else [],
    )
    yield gauge(
        "batsignal_connection_slots_used",
        "Slots taken now, our own included. Absent while the last look failed.",
        ("server",),
        [(name, server.snapshot.used)] if server.seen else [],
    )
    yield histogram(
        "batsignal_connection_slots_used_ratio",
        "Used slots over usable ones, observed once a tick.",
        server,
        server.tally.used_ratio,
    )
    exhaustion = server.exhaustion_seconds if server.seen else None
    yield gauge(
        "batsignal_exhaustion_seconds",
        "When the slots run out if things go on as they do; +Inf when nothing grows, absent when nothing is known.",
        ("server",),
        [] if exhaustion is None else [(name, exhaustion)],
    )


def session_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield who holds sessions, and what has come and gone."""
    tally = server.tally
    fresh = server.seen
    yield gauge(
        "batsignal_connections",
        "Client sessions now, without our own. An unnamed application is the empty label. Absent while the last look"
        " failed.",
        ("server", "database", "user", "application", "version", "state"),
        [
            ((server.name, one.database, one.user, one.application, one.version, one.state), one.sessions)
            for one in (tally.usage or ())
            if fresh
        ],
    )
    yield gauge(
        "batsignal_client_connections",
        "Client sessions now by client address; the empty label is a Unix socket. Absent while the last look failed.",
        ("server", "client"),
        [((server.name, client), count) for client, count in (tally.clients or ()) if fresh],
    )
    for name, text, totals in (
        ("opened", "Sessions seen to open; `unseen` are those too short for a look a second.", tally.opened),
        ("closed", "Sessions seen to close; `unseen` are those too short for a look a second.", tally.closed),
    ):
        yield counter(
            f"batsignal_sessions_{name}",
            text,
            ("server", "application"),
            [((server.name, application), count) for application, count in sorted(totals.items())],
        )
    yield counter(
        "batsignal_session_seconds",
        "Time that sessions spent in each state, added up once a tick: no spike between two scrapes is lost.",
        ("server", "application", "version", "state"),
        [((server.name, *key), seconds) for key, seconds in sorted(tally.session_seconds.items())],
    )
    yield gauge(
        "batsignal_blocked_sessions",
        "Sessions that wait for a lock now. Absent while the last look failed.",
        ("server",),
        [((server.name,), tally.blocked)] if fresh and tally.blocked is not None else [],
    )


def statement_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield the statements that hold most."""
    shown = (server.tally.statements or ()) if server.seen else ()
    yield gauge(
        "batsignal_query_active_sessions",
        "Active sessions of the statements that hold most; a statement is present while it runs.",
        ("server", "query_id"),
        [((server.name, one.query_id), one.sessions) for one in shown],
    )
    yield gauge(
        "batsignal_query_info",
        "The normalised text of a statement in batsignal_query_active_sessions; always 1.",
        ("server", "query_id", "query"),
        [((server.name, one.query_id, one.query), 1) for one in shown],
    )
