"""The ring and the recordings made of it: what is kept of an incident, and how much at most."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from batsignal.record import flight
from batsignal.record.archive import recording_path, ring_folder
from batsignal.record.flight import (
    AFTER_END_SECONDS,
    BEFORE_ONSET_SECONDS,
    RING_SECONDS,
    SEGMENT_SECONDS,
    FlightRecorder,
)
from batsignal.record.recording import read
from batsignal.record.segments import joined, segments_in, within
from batsignal.snapshot import Deploy, PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0
PATTERN = r"^(?P<service>.+)$"
DEPLOY = Deploy(service="web", version="2", at=T - 500)


def look(second: float, server: str = "db1", **facts: Any) -> Snapshot:
    sessions = tuple(
        Session(pid=n, backend_start=T - 10, state="idle", state_change=T - 5 + n, query="SELECT ?") for n in range(20)
    )
    busy = Session(pid=99, backend_start=T - 10, state="active", query_start=T + second, query="UPDATE t SET a = ?")
    given = {"sessions": (*sessions, busy), "slots": Slots(max=100, superuser_reserved=3), "own_sessions": 1}
    return Snapshot(server=server, t=T + second, **(given | facts))


class Flight:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin()

    def begin(self) -> None:
        """Begin a life of the daemon; the one before may have been killed."""
        self.recorder = FlightRecorder(self.folder, server="db1", interval_seconds=1.0, application_pattern=PATTERN)

    def fly(self, seconds: range, **events: Any) -> None:
        """Take a look a second, with the events at their seconds: `at_30=event`."""
        for second in seconds:
            event = events.get(f"at_{second}")
            self.recorder.take(look(second), (DEPLOY,), () if event is None else (event,))

    @property
    def ring(self) -> list[float]:
        """The first looks of the segments."""
        return [one.first - T for one in segments_in(ring_folder(self.folder, "db1"))]

    def path(self, incident: str = "a1") -> Path:
        return recording_path(self.folder, incident)

    def recorded(self, incident: str = "a1") -> list[float]:
        return [snapshot.t - T for snapshot in read(self.path(incident))[1]]

    def header(self, incident: str = "a1") -> dict[str, Any]:
        with gzip.open(self.path(incident), "rb") as file:
            return dict(json.loads(file.readline()))


@pytest.fixture
def flown(tmp_path: Path) -> Flight:
    return Flight(tmp_path / "batsignal.db.recordings")


def leak(lives: Any, second: float, *, since: float | None = None, incident: str = "a1") -> Any:
    onset = second - 30 if since is None else since
    return lives.event("raised", lives.signal(incident, since=T + onset), T + second)


def end(lives: Any, second: float, incident: str = "a1") -> Any:
    return lives.event("cleared", lives.signal(incident, since=T + second), T + second)


def test_an_incident_is_recorded_from_before_its_onset_until_after_its_end(flown: Flight, lives: Any) -> None:
    flown.fly(range(900), at_600=leak(lives, 600), at_700=end(lives, 700))
    recorded = flown.recorded()
    assert 570 - BEFORE_ONSET_SECONDS - SEGMENT_SECONDS < recorded[0] <= 570 - BEFORE_ONSET_SECONDS
    assert 700 + AFTER_END_SECONDS <= recorded[-1] <= 701 + AFTER_END_SECONDS
    assert recorded == [recorded[0] + n for n in range(len(recorded))]


def test_its_recording_is_one_valid_recording_that_says_whose_it_is(flown: Flight, lives: Any) -> None:
    flown.fly(range(400), at_200=leak(lives, 200), at_300=end(lives, 300))
    header, snapshots = read(flown.path())
    first, *rest = snapshots
    assert (header.server, header.application_pattern, header.started_at) == ("db1", PATTERN, T)
    assert flown.header()["incident"] == "a1"
    assert flown.header()["whole"] is True
    assert first.sessions == look(0).sessions
    assert first.slots == Slots(max=100, superuser_reserved=3)
    assert first.deploys == (DEPLOY,)
    assert rest[-1].sessions == look(rest[-1].t - T).sessions
    assert len(gzip.decompress(flown.path().read_bytes()).splitlines()) == 2 + len(rest)


def test_several_incidents_at_once_each_have_a_recording_and_the_looks_are_written_once(
    flown: Flight, lives: Any
) -> None:
    flown.fly(
        range(500),
        at_100=leak(lives, 100, incident="a1"),
        at_160=leak(lives, 160, incident="b2"),
        at_300=end(lives, 300, "a1"),
        at_400=end(lives, 400, "b2"),
    )
    assert (flown.recorded("a1")[-1], flown.recorded("b2")[-1]) == (360, 460)


def test_the_ring_holds_the_last_minutes_and_no_more(flown: Flight) -> None:
    flown.fly(range(int(RING_SECONDS) + 600))
    assert flown.ring[0] <= 600
    assert len(flown.ring) <= RING_SECONDS / SEGMENT_SECONDS + 2
    assert not list(flown.folder.glob("*.gz"))


def test_what_an_incident_needs_stays_in_the_ring_while_it_lasts(flown: Flight, lives: Any) -> None:
    flown.fly(range(2000), at_400=leak(lives, 400))
    assert flown.ring[0] <= 400 - 30 - BEFORE_ONSET_SECONDS
    flown.fly(range(2000, 2100), at_2001=end(lives, 2001))
    assert flown.ring[0] > 1000
    assert flown.recorded()[0] <= 70
    assert flown.recorded()[-1] == 2061


def test_of_a_long_incident_the_first_hour_is_kept_and_the_file_says_so(
    flown: Flight, lives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "INCIDENT_SECONDS_MOST", 1200.0)
    flown.fly(range(2500), at_400=leak(lives, 400), at_2400=end(lives, 2400))
    assert flown.recorded()[0] <= 70
    assert 1250 <= flown.recorded()[-1] <= 1400
    assert flown.header()["whole"] is False
    assert flown.ring[0] > 1000


def test_an_incident_is_kept_up_to_a_number_of_bytes(
    flown: Flight, lives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "INCIDENT_BYTES_MOST", 15_000)
    flown.fly(range(1500), at_100=leak(lives, 100))
    assert 10_000 < flown.path().stat().st_size < 25_000
    assert flown.header()["whole"] is False


def test_an_onset_of_long_ago_is_kept_as_far_back_as_there_is_anything(flown: Flight, lives: Any) -> None:
    flown.fly(range(500), at_300=leak(lives, 300, since=-20_000), at_400=end(lives, 400))
    assert (flown.recorded()[0], flown.recorded()[-1]) == (0, 460)
    assert flown.header()["whole"] is True


def test_the_ring_stays_within_its_bytes_even_when_an_incident_would_keep_more(
    flown: Flight, lives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "RING_BYTES_MOST", 15_000)
    flown.fly(range(1500), at_100=leak(lives, 100))
    sizes = [one.size_bytes for one in segments_in(ring_folder(flown.folder, "db1"))]
    assert sum(sizes) < 25_000
    assert flown.ring[0] > 500


def test_a_killed_life_loses_no_look_and_the_next_goes_on_with_its_incidents(flown: Flight, lives: Any) -> None:
    flown.fly(range(330), at_300=leak(lives, 300))
    flown.begin()
    flown.recorder.resume([(lives.signal(since=T + 270), None)])
    flown.fly(range(340, 500), at_400=end(lives, 400))
    assert flown.recorded() == [*range(330), *range(340, 461)]


def test_an_incident_that_had_just_ended_at_a_kill_has_its_recording_all_the_same(flown: Flight, lives: Any) -> None:
    flown.fly(range(330), at_200=leak(lives, 200), at_320=end(lives, 320))
    assert not flown.path().exists()
    flown.begin()
    flown.recorder.resume([(lives.signal(since=T + 170), T + 320)])
    flown.fly(range(335, 400))
    assert (flown.recorded()[0], flown.recorded()[-1]) == (0, 380)


def test_a_clean_end_makes_the_recordings_of_what_is_over_at_once(flown: Flight, lives: Any) -> None:
    flown.fly(range(330), at_200=leak(lives, 200), at_320=end(lives, 320))
    flown.recorder.close()
    assert flown.recorded()[-1] == 329


def torn(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.99])
def test_a_segment_that_a_crash_has_torn_is_read_as_far_as_it_goes(flown: Flight, lives: Any, keep: float) -> None:
    flown.fly(range(90))
    (part,) = ring_folder(flown.folder, "db1").glob("*.part")
    torn(part, keep)
    flown.begin()
    flown.fly(range(95, 300), at_120=leak(lives, 120), at_200=end(lives, 200))
    recorded = flown.recorded()
    assert recorded[:60] == list(range(60))
    assert recorded == sorted(set(recorded))
    assert recorded[-166:] == list(range(95, 261))


def test_a_look_of_before_the_clock_was_set_is_never_before_a_later_one(flown: Flight, lives: Any) -> None:
    flown.fly(range(200))
    flown.fly(range(-1000, -700), **{"at_-800": leak(lives, -800), "at_-780": end(lives, -780)})
    assert (flown.recorded()[0], flown.recorded()[-1]) == (-1000, -720)


def test_a_clock_that_is_set_back_ends_the_recording_of_what_was_lit(flown: Flight, lives: Any) -> None:
    flown.fly(range(200), at_100=leak(lives, 100))
    flown.fly(range(-1000, -990))
    assert flown.recorded() == list(range(200))


def test_a_jitter_of_the_clock_leaves_one_look_out(flown: Flight, lives: Any) -> None:
    flown.fly(range(100), at_50=leak(lives, 50))
    flown.recorder.take(look(98.5), (), ())
    flown.fly(range(100, 200), at_110=end(lives, 110))
    assert flown.recorded() == list(range(171))


def test_a_look_that_failed_is_recorded_as_one(flown: Flight, lives: Any) -> None:
    flown.fly(range(60), at_30=leak(lives, 30))
    failure = PollFailure(reason="refused", text="no way in")
    for second in range(60, 130):  # also as the first of a segment
        flown.recorder.take(look(second, sessions=(), slots=None, failure=failure, view="none"), (), ())
    flown.fly(range(130, 220), at_140=end(lives, 140))
    failed = [snapshot.t - T for snapshot in read(flown.path())[1] if snapshot.failure is not None]
    assert failed == list(range(60, 130))


def test_a_folder_that_was_deleted_is_made_again(flown: Flight, lives: Any) -> None:
    flown.fly(range(100), at_50=leak(lives, 50))
    for path in sorted(flown.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    flown.folder.rmdir()
    flown.fly(range(100, 400), at_300=end(lives, 300))
    assert flown.recorded() == list(range(100, 361))


class FullDisk:
    """Refuses every byte while it is full; sees to files through the functions that the recorder calls."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        real = flight.RecordingWriter.write

        def write(writer: Any, *arguments: Any, **more: Any) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            real(writer, *arguments, **more)

        patch.setattr(flight.RecordingWriter, "write", write)


def test_a_full_disk_is_said_each_time_and_the_recording_has_a_gap(
    flown: Flight, lives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    flown.fly(range(100), at_50=leak(lives, 50))
    disk.full = True
    for second in range(100, 150):
        with pytest.raises(OSError, match="No space"):
            flown.recorder.take(look(second), (), ())
    disk.full = False
    flown.fly(range(150, 300), at_200=end(lives, 200))
    assert flown.recorded() == [*range(100), *range(150, 261)]


def test_a_full_disk_gets_the_room_of_what_is_too_old(flown: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    flown.fly(range(300))
    disk.full = True
    for second in (2000, 2001):
        with pytest.raises(OSError, match="No space"):
            flown.recorder.take(look(second), (), ())
    assert not flown.ring


def test_looks_that_were_lost_on_the_way_still_tell_of_incidents(flown: Flight, lives: Any) -> None:
    flown.fly(range(100))
    flown.recorder.take(None, (), (leak(lives, 100),))
    flown.fly(range(110, 300), at_200=end(lives, 200))
    assert flown.recorded()[-1] == 260


def test_segments_are_found_between_two_instants_and_read_while_they_are_deleted(flown: Flight) -> None:
    flown.fly(range(200))
    segments = segments_in(ring_folder(flown.folder, "db1"))
    chosen = within(segments, epoch=0, begins=T + 70, ends=T + 130)
    assert [one.first - T for one in chosen] == [60, 120]
    pieces = joined(chosen, {})
    whole = next(pieces)
    for one in segments:
        one.path.unlink()
    ticks = gzip.decompress(whole + b"".join(pieces)).splitlines()[1:]
    assert [json.loads(line)["t"] - T for line in ticks] == list(range(60, 180))


def test_what_is_being_written_can_be_read_up_to_the_last_look(flown: Flight) -> None:
    flown.fly(range(75))
    segments = segments_in(ring_folder(flown.folder, "db1"))
    ticks = gzip.decompress(b"".join(joined(segments, {}))).splitlines()[1:]
    assert [json.loads(line)["t"] - T for line in ticks] == list(range(75))


def test_nothing_is_joined_of_no_segments(flown: Flight) -> None:
    assert b"".join(joined([], {})) == b""
    assert segments_in(flown.folder / "nowhere") == []


def test_a_cut_gzip_member_is_no_valid_end(flown: Flight) -> None:
    """What the tests above rest on: without mending, a torn segment could not be read."""
    flown.fly(range(30))
    (part,) = ring_folder(flown.folder, "db1").glob("*.part")
    with pytest.raises((EOFError, zlib.error)):
        gzip.decompress(part.read_bytes())
