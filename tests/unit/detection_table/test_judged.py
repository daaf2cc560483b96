"""Whose memory it is: a restarted daemon knows nothing of what the one before it saw."""

from batsignal.snapshot import Slots, Snapshot
from detection.judged import Watches

START = 1_760_000_000.0


def look(second: int, used: int) -> Snapshot:
    return Snapshot(server="db1", t=START + second, own_sessions=used, slots=Slots(max=100, superuser_reserved=3))


def play(watches: Watches, seconds: int, used: int) -> None:
    for second in range(seconds):
        watches.look(look(second, used))


def test_new_judge_begins_at_each_start_and_says_again_what_it_finds() -> None:
    watches = Watches([START, START + 60])
    play(watches, 120, used=95)
    first, second = watches.events()
    assert [event.event for event in first if event.event != "updated"] == ["raised"]
    assert [event.event for event in second if event.event != "updated"] == ["raised"]
    assert second[0].t >= START + 60
    assert second[0].t - (START + 60) == first[0].t - START


def test_nobody_looks_before_the_first_start() -> None:
    watches = Watches([START + 60])
    play(watches, 60, used=95)
    assert watches.events() == ()
