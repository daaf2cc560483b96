from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from batsignal.expose.metrics import Exposition
from batsignal.record.board import StoreHealth


def series(board: Any) -> dict[tuple[str, str], float]:
    text = Exposition(lambda: board).answer(False, False).decode()
    return {
        (sample.name, sample.labels.get("what", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(("batsignal_store", "batsignal_recorder"))
    }


def test_how_it_stands_with_the_disk_is_told(boards: Any) -> None:
    health = StoreHealth(
        up=True,
        recorder_reason="No space left on device",
        errors=1,
        recorder_errors=2,
        dropped_writes=3,
        dropped_looks=4,
        put_aside=5,
        deleted=8,
        recorder_deleted=9,
        store_bytes=6,
        recordings_bytes=7,
    )
    assert series(replace(boards.quiet(), store=health)) == {
        ("batsignal_store_up", ""): 1,
        ("batsignal_recorder_up", ""): 0,
        ("batsignal_store_errors_total", "store"): 1,
        ("batsignal_store_errors_total", "recording"): 2,
        ("batsignal_store_dropped_total", "writes"): 3,
        ("batsignal_store_dropped_total", "looks"): 4,
        ("batsignal_store_put_aside_total", ""): 5,
        ("batsignal_store_deleted_total", "store"): 8,
        ("batsignal_store_deleted_total", "recording"): 9,
        ("batsignal_store_bytes", "store"): 6,
        ("batsignal_store_bytes", "recording"): 7,
    }


def test_where_nothing_is_kept_there_is_nothing_to_tell(boards: Any) -> None:
    assert series(boards.quiet()) == {}
