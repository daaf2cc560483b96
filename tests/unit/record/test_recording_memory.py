"""However long the recording, reading and writing it take the memory of a tick."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batsignal.cli.replay import events_of
from batsignal.record.recording import RecordingWriter, read
from batsignal.snapshot import Deploy, HostLoad, ProbeResult, Session, Slots, Snapshot

T = 1_760_000_000.0
HOUR = 3600
GROWTH_RATIO_MOST = 1.2


def busy_hours(hours: int) -> Iterator[Snapshot]:
    """Yield looks at sessions that are all used every second and live a minute each, each under a new pid."""
    for second in range(hours * HOUR):
        t = T + second
        sessions = tuple(
            Session(
                pid=10 * (second // 60) + place,
                backend_start=t - second % 60,
                state="idle",
                application_name="web@2.4.0",
                usename="web",
                state_change=t - 0.25,
                query=f"SELECT ? AS number_{second}",
            )
            for place in range(4)
        )
        yield Snapshot(
            server="db1",
            t=t,
            sessions=sessions,
            slots=Slots(max=100, superuser_reserved=3),
            probes=(ProbeResult(endpoint="web", service="web", at=t, up=True, seconds=0.01, phases={"body": 0.01}),),
            host=HostLoad(cpu_ratio=second % 7 / 7, memory_used_ratio=0.5, load1=1, cpu_count=2),
        )


def write_hours(path: Path, hours: int) -> None:
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0)
    for number, snapshot in enumerate(busy_hours(hours)):
        writer.write(snapshot, known_deploys=(Deploy(service="web", version=str(number // 600), at=T),))
    writer.close()


def peak_bytes(work: Callable[[Path, int], object], path: Path, hours: int) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        work(path, hours)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("hours")
    paths = {hours: folder / f"{hours}.jsonl.gz" for hours in (1, 2, 4)}
    for hours, path in paths.items():
        write_hours(path, hours)
    # What is kept once for all (caches of names, modules imported late) is not what is measured.
    assert list(events_of(paths[1])) == []
    return paths


@pytest.mark.long
@pytest.mark.takes(seconds=15)
@pytest.mark.timeout(500)
def test_four_hours_are_read_in_the_memory_of_one(recordings: dict[int, Path]) -> None:
    def read_all(path: Path, hours: int) -> None:
        assert sum(1 for _ in read(path)[1]) == hours * HOUR

    peaks = [peak_bytes(read_all, recordings[hours], hours) for hours in (1, 4)]
    assert peaks[1] <= GROWTH_RATIO_MOST * peaks[0]


@pytest.mark.takes(seconds=15)
@pytest.mark.timeout(500)
def test_two_hours_are_judged_in_the_memory_of_one(recordings: dict[int, Path]) -> None:
    peaks = [peak_bytes(lambda path, _: list(events_of(path)), recordings[hours], hours) for hours in (1, 2)]
    assert peaks[1] <= GROWTH_RATIO_MOST * peaks[0]


@pytest.mark.long
@pytest.mark.takes(seconds=12)
@pytest.mark.timeout(500)
@pytest.mark.usefixtures("recordings")
def test_four_hours_are_written_in_the_memory_of_one(tmp_path: Path) -> None:
    peaks = [peak_bytes(write_hours, tmp_path / "a.jsonl.gz", hours) for hours in (1, 4)]
    assert peaks[1] <= GROWTH_RATIO_MOST * peaks[0]
