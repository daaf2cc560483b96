"""How samples become a metric family: gauges, counters and histograms, from tuples of label values and a value.

Knows no metric by name. Whatever a label is made of can be encoded.
"""

import math
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from batsignal.record.board import ServerBoard
from batsignal.record.histogram import Histogram

Samples = Iterable[tuple[tuple[str, ...], float]]
"""The values of the labels, and the sample's."""


def gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """Return a gauge with its samples."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric([label(one) for one in values], value)
    return family


def counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """Return a counter with its samples."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric([label(one) for one in values], value)
    return family


def histogram(name: str, text: str, server: ServerBoard, observed: Histogram) -> Metric:
    """Return a histogram of one server."""
    family = HistogramMetricFamily(name, text, labels=("server",))
    observe(family, (server.name,), observed)
    return family


def observe(family: HistogramMetricFamily, labels: tuple[str, ...], observed: Histogram) -> None:
    """Add a histogram that is not accumulated to a family whose buckets are."""
    buckets, running = [], 0
    for bound, count in zip((*observed.bounds, math.inf), observed.counts, strict=True):
        running += count
        buckets.append(("+Inf" if math.isinf(bound) else repr(float(bound)), running))
    family.add_metric([label(one) for one in labels], buckets, observed.total)


def label(value: str) -> str:
    """Return a label value that can be encoded, whatever a name is made of."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
