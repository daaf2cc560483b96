from typing import Any

from batsignal.record.recent import RECENT_MOST, with_events

T = 1_760_000_000.0


def test_an_incident_is_one_line_from_its_raise_to_its_end(lives: Any) -> None:
    (line,) = with_events((), [lives.event("raised")])
    assert (line.id, line.kind, line.severity, line.since, line.ended) == ("a1", "leak", "warning", T - 30, None)
    (line,) = with_events((line,), [lives.event("updated", lives.signal(severity="critical", summary="more"))])
    assert (line.severity, line.summary) == ("critical", "more")
    (line,) = with_events((line,), [lives.event("cleared", t=T + 60)])
    assert (line.severity, line.ended) == ("critical", T + 60)


def test_the_newest_are_first_and_only_a_few(lives: Any) -> None:
    events = [lives.event("raised", lives.signal(f"{n}", detected=T + n)) for n in range(RECENT_MOST + 3)]
    lines = with_events((), events)
    assert [line.id for line in lines] == [f"{n}" for n in range(RECENT_MOST + 2, 2, -1)]
