"""How old what is held has become, and how full roles' and databases' own limits are, as metric families.

Pure. Instants rather than ages: an age would be wrong as soon as it was scraped. All are absent while the last look
failed, and where there is nothing of the kind.
"""

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from batsignal.expose.families.shapes import gauge
from batsignal.record.board import ServerBoard


def holder_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield the families of one server."""
    oldest = (server.tally.oldest or ()) if server.seen else ()
    for name, text, instants in (
        (
            "batsignal_oldest_session_timestamp_seconds",
            "When the oldest session of an application that is still there began",
            {one.application: one.session_at for one in oldest},
        ),
        (
            "batsignal_oldest_transaction_timestamp_seconds",
            "When the oldest transaction of an application that is still open began",
            {one.application: one.transaction_at for one in oldest},
        ),
        (
            "batsignal_longest_idle_since_timestamp_seconds",
            "Since when the session of an application that was left alone longest has not been used",
            {one.application: one.idle_since for one in oldest},
        ),
    ):
        yield _family(server, name, text, "application", instants)
    limits = (server.tally.limits or ()) if server.seen else ()
    most = {one.name: float(one.most) for one in limits}
    used = {one.name: float(one.used) for one in limits}
    yield _family(
        server, "batsignal_connection_limit", "The limit that a role or a database has of its own", "limit", most
    )
    yield _family(
        server,
        "batsignal_connection_limit_used",
        "Client sessions that count against a role's or a database's own limit, without ours",
        "limit",
        used,
    )


def _family(server: ServerBoard, name: str, text: str, label: str, values: Mapping[str, float | None]) -> Metric:
    return gauge(
        name,
        f"{text}. Absent where there is none, and while the last look failed.",
        ("server", label),
        [((server.name, one), value) for one, value in values.items() if value is not None],
    )
