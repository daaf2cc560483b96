"""How it stands with history on disk, as metric families. All are absent where `store.path` is null."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.expose.families.shapes import counter, gauge
from batsignal.record.board import Board

_BY_WHAT = ("what",)


def store_families(board: Board) -> Iterator[Metric]:
    """Yield the families of the store and the flight recorders."""
    store = board.store
    if store is None:
        return
    yield gauge(
        "batsignal_store_up",
        "Whether history can be written to disk; on 0 the watch goes on without. Absent when store.path is null.",
        (),
        [((), float(store.up))],
    )
    yield gauge(
        "batsignal_recorder_up",
        "Whether the flight recorder could keep the last look. Absent when store.path is null.",
        (),
        [((), float(store.recorder_reason is None))],
    )
    yield counter(
        "batsignal_store_put_aside",
        "Files that could not be used (broken, foreign, of a newer release): they were renamed, and a new one begun.",
        (),
        [((), store.put_aside)],
    )
    yield counter(
        "batsignal_store_deleted",
        "How often somebody deleted the store, or what a flight recorder was writing: each is begun anew.",
        _BY_WHAT,
        [(("store",), store.deleted), (("recording",), store.recorder_deleted)],
    )
    yield counter(
        "batsignal_store_errors",
        "Attempts to write that failed, to the store (what failed is tried again) or to a recording (it is not).",
        _BY_WHAT,
        [(("store",), store.errors), (("recording",), store.recorder_errors)],
    )
    yield counter(
        "batsignal_store_dropped",
        "What was never written, because the disk took nothing for too long.",
        _BY_WHAT,
        [(("writes",), store.dropped_writes), (("looks",), store.dropped_looks)],
    )
    yield gauge(
        "batsignal_store_bytes",
        "What history takes on disk, looked up once a minute.",
        _BY_WHAT,
        [(("store",), store.store_bytes), (("recording",), store.recordings_bytes)],
    )
