"""Health endpoints as metric families. All are absent until the first probe of an endpoint ended."""

from collections.abc import Iterator

from prometheus_client.core import HistogramMetricFamily, Metric

from batsignal.expose.families.shapes import gauge, observe
from batsignal.record.board import Board


def endpoint_families(board: Board) -> Iterator[Metric]:
    """Yield how the last probe of each endpoint went, and how long all took."""
    endpoints = [one for one in board.endpoints.values() if one.last is not None]
    labels = ("endpoint", "service")
    yield gauge(
        "batsignal_endpoint_up",
        "Whether the last probe of a health endpoint succeeded. Absent until the first one ended.",
        labels,
        [((one.endpoint, one.service), float(one.last.up)) for one in endpoints if one.last],
    )
    duration = HistogramMetricFamily(
        "batsignal_endpoint_duration_seconds", "How long a probe took, whether it succeeded or not.", labels=labels
    )
    for one in endpoints:
        observe(duration, (one.endpoint, one.service), one.durations)
    yield duration
    yield gauge(
        "batsignal_endpoint_phase_seconds",
        "The parts of the last probe; a part that was not reached is absent.",
        (*labels, "phase"),
        [
            ((one.endpoint, one.service, phase), seconds)
            for one in endpoints
            if one.last
            for phase, seconds in sorted(one.last.phases.items())
        ],
    )
    yield gauge(
        "batsignal_endpoint_tls_expiry_timestamp_seconds",
        "When the certificate of a health endpoint expires. Absent without TLS.",
        labels,
        [
            ((one.endpoint, one.service), one.last.tls_expiry)
            for one in endpoints
            if one.last and one.last.tls_expiry is not None
        ],
    )
