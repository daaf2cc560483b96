"""Lit signals as metric families: what the alert rules page on, and the numbers for their texts.

The labels that an alert is made of are those of the raise; what becomes known later would page a second time.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.detect.signal import KINDS, SEVERITIES, Signal
from batsignal.expose.families.shapes import gauge
from batsignal.record.board import ServerBoard

_WHO = (
    "kind",
    "severity",
    "application",
    "version",
    "database",
    "user",
    "client",
    "query_id",
    "endpoint",
    "pool",
    "limit",
)
# Labels that the alert rules drop by `max by`, and that may therefore follow what becomes known.
_MOVING = frozenset({"version", "client"})


def signal_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield what is lit, and how many of each kind are."""
    lit = server.signals
    counts = {(kind, severity): 0 for kind in KINDS for severity in SEVERITIES}
    for signal in lit:
        counts[signal.finding.kind, signal.finding.severity] += 1
    yield gauge(
        "batsignal_signals",
        "Lit signals by kind and severity, 0 when dark.",
        ("server", "kind", "severity"),
        [((server.name, *key), count) for key, count in counts.items()],
    )
    labels = ("server", *_WHO)
    yield gauge(
        "batsignal_signal",
        "1 while a signal is lit, absent otherwise; an unknown or mixed label is empty.",
        (*labels, "deploy"),
        [((server.name, *_who(signal), _deploy(signal)), 1) for signal in lit],
    )
    yield gauge(
        "batsignal_signal_previous_info",
        "1 while a signal is lit that came after a deploy: the version to go back to. Absent when it is not known.",
        (*labels, "previous"),
        [
            ((server.name, *_who(signal), signal.finding.deploy.previous), 1)
            for signal in lit
            if signal.finding.deploy is not None and signal.finding.deploy.previous
        ],
    )
    yield gauge(
        "batsignal_signal_sessions",
        "Sessions a lit signal is about.",
        labels,
        [((server.name, *_who(signal)), signal.finding.sessions) for signal in lit],
    )
    yield gauge(
        "batsignal_signal_since_timestamp_seconds",
        "The onset of a lit signal.",
        labels,
        [((server.name, *_who(signal)), signal.finding.since) for signal in lit],
    )
    yield gauge(
        "batsignal_signal_healthy",
        "Whether the database itself is well while a signal is lit: on 1 do not restart it. Absent when unknown.",
        labels,
        [
            ((server.name, *_who(signal)), float(signal.finding.database_healthy))
            for signal in lit
            if signal.finding.database_healthy is not None
        ],
    )


def _who(signal: Signal) -> tuple[str, ...]:
    """Return the labels in the order of `_WHO`: what an alert is made of as at the raise, the rest as known now."""
    found = signal.finding
    return (
        found.kind,
        found.severity,
        *(getattr(found.subject if name in _MOVING else signal.raised_as, name) or "" for name in _WHO[2:]),
    )


def _deploy(signal: Signal) -> str:
    deploy = signal.finding.deploy
    return f"{deploy.service}@{deploy.version}" if deploy else ""
