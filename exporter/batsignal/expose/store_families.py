"""How it stands with history on disk, as metric families. All are absent where `store.path` is null."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from batsignal.record.board import Board


def store_families(board: Board) -> Iterator[Metric]:
    """Yield the families of the store and the flight recorders."""
    store = board.store
    if store is None:
        return
    yield GaugeMetricFamily(
        "batsignal_store_up",
        "Whether history can be written to disk; on 0 the watch goes on without. Absent when store.path is null.",
        value=float(store.up),
    )
    yield GaugeMetricFamily(
        "batsignal_recorder_up",
        "Whether the flight recorder could keep the last look. Absent when store.path is null.",
        value=float(store.recorder_reason is None),
    )
    yield CounterMetricFamily(
        "batsignal_store_put_aside",
        "Files that could not be used (broken, foreign, of a newer release): they were renamed, and a new one begun.",
        value=store.put_aside,
    )
    yield _by(
        CounterMetricFamily(
            "batsignal_store_deleted",
            "How often somebody deleted the store, or what a flight recorder was writing: each is begun anew.",
            labels=("what",),
        ),
        {"store": store.deleted, "recording": store.recorder_deleted},
    )
    yield _by(
        CounterMetricFamily(
            "batsignal_store_errors",
            "Attempts to write that failed, to the store (what failed is tried again) or to a recording (it is not).",
            labels=("what",),
        ),
        {"store": store.errors, "recording": store.recorder_errors},
    )
    yield _by(
        CounterMetricFamily(
            "batsignal_store_dropped",
            "What was never written, because the disk took nothing for too long.",
            labels=("what",),
        ),
        {"writes": store.dropped_writes, "looks": store.dropped_looks},
    )
    yield _by(
        GaugeMetricFamily(
            "batsignal_store_bytes", "What history takes on disk, looked up once a minute.", labels=("what",)
        ),
        {"store": store.store_bytes, "recording": store.recordings_bytes},
    )


def _by(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]) -> Metric:
    for what, value in values.items():
        family.add_metric((what,), value)
    return family
