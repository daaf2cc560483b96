"""The page of one incident, as it is told."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from batsignal.expose import page
from batsignal.expose.page.incident import tell_incident

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(1)</script>\u202e'


class Text(HTMLParser):
    """The words of a page, and the tags in it."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self._skipped = 0
        self.feed(html.decode("utf-8"))

    def handle_starttag(self, tag: str, _attrs: Any) -> None:
        self.tags.append(tag)
        self._skipped += tag in {"style", "script"}

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in {"style", "script"}

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(boards: Any, view: Any, slots: Any = None) -> str:
    return Text(page.draw_incident(view, slots, boards.now).document()).text


def test_an_incident_that_is_over_says_what_it_was_and_how_long_it_lasted(boards: Any) -> None:
    text = read(boards, boards.kept_incident())
    assert "critical connection leak on db1" in text
    assert "Ended 09:01:00 UTC , 4 min ago. It lasted 11 min." in text
    assert "Named 08:50:30 UTC , 30 s after it began" in text
    assert "After deploy web 2.4.0 at 08:49:40 UTC , 20 s before it began" in text
    assert "Held at most 28 sessions" in text
    assert "batsignal report a1" in text
    assert "LIT" not in text


def test_an_incident_that_is_over_is_told_in_the_past_and_asks_for_nothing(boards: Any) -> None:
    html = page.draw_incident(boards.kept_incident(), None, boards.now).document()
    text = Text(html).text
    assert "web@2.4.0 leaked connections : 28 sessions held at most; it lasted 11 min" in text
    assert "Shortly before, alice had 26 of 28 sessions ended (batsignal release)" in text
    assert (
        "What to do now Nothing is to be undone or restarted for it now: it is over. While it was lit, it said: Roll"
        in text
    )
    assert "The database was healthy: it needed no restart." in text
    assert "do not restart it" not in text
    assert "Do this" not in text
    assert b'id="copy-a1"' not in html
    assert "What was seen while it was lit" in text
    going_on = boards.kept_incident() | {"ended": None, "open": True, "signal": boards.told(27)}
    assert "What was seen while" not in read(boards, going_on)


def test_one_that_an_earlier_release_left_in_the_present_is_no_advice_either(boards: Any) -> None:
    view = boards.kept_incident()
    view["signal"] = view["timeline"][-1]["signal"] = boards.told(27)
    assert (
        "What to do now Nothing is to be undone for it now: it is over. While it was lit, it said: Roll back"
        in read(boards, view)
    )


def test_an_incident_that_goes_on_says_so_and_draws_itself_anew(boards: Any) -> None:
    view = boards.kept_incident() | {"ended": None, "open": True, "signal": boards.told(27)}
    view["timeline"].pop()
    html = page.draw_incident(view, None, boards.now).document()
    assert "Goes on, for 15 min." in Text(html).text
    assert b'data-every="5"' in html
    assert b'<noscript><meta http-equiv="refresh" content="5"></noscript>' in html
    over = page.draw_incident(boards.kept_incident(), None, boards.now).document()
    assert b"data-every=" not in over
    assert b"http-equiv" not in over


def test_the_timeline_tells_what_changed_and_drops_most_of_what_only_counts(boards: Any) -> None:
    story = tell_incident(boards.kept_incident(), None, frozenset())
    assert [(round(boards.now - step.t), step.what) for step in story.steps] == [
        (920, "Deploy of web 2.4.0"),
        (900, "It began"),
        (870, "Named, 30 s after it began: warning"),
        (860, "Came after the deploy of web 2.4.0"),
        (700, "Turned critical"),
        (679, "New numbers"),
        (672, "New numbers, 6 times in between"),
        (250, "alice had 26 of 28 sessions ended (batsignal release)"),
        (240, "Ended"),
    ]
    assert story.steps[5].lines == ("web@2.4.0 leaks connections: 21 held",)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"subject": {"version": None}}, {"subject": {"version": "2.4.0"}}, "Version known: 2.4.0"),
        ({"subject": {"client": "10.0.0.4"}}, {"subject": {"client": None}}, "Client differs by now"),
        ({"database_healthy": True}, {"database_healthy": False}, "The database itself is not well"),
        ({"database_healthy": True}, {"database_healthy": None}, "Nothing is known of the database's health"),
        ({"since": 5.0}, {"since": 4.0}, "Its beginning was corrected"),
        ({"severity": "critical"}, {"severity": "warning"}, "Turned warning"),
    ],
)
def test_each_fact_that_changed_has_words(boards: Any, before: Any, after: Any, said: str) -> None:
    view = boards.kept_incident()
    view["timeline"] = [
        {"t": boards.now - 800, "event": "raised", "signal": boards.told() | before},
        {"t": boards.now - 700, "event": "updated", "signal": boards.told() | after},
    ]
    assert said in [step.what for step in tell_incident(view, None, frozenset()).steps]


def test_a_symptom_leads_to_the_incident_behind_it(boards: Any) -> None:
    view = boards.kept_incident()
    view["timeline"][-1] |= {"reason": "superseded", "by": "b2"}
    html = page.draw_incident(view, None, boards.now).document()
    assert "Found to be a symptom of another incident : b2" in Text(html).text
    assert b'href="b2"' in html


def test_the_picture_marks_deploys_the_naming_and_the_end(boards: Any) -> None:
    story = tell_incident(boards.kept_incident(), boards.past_slots(), frozenset())
    assert story.chart is not None
    assert [mark.label for mark in story.chart.marks] == ["web 2.4.0", "named", "billing 7", "ended"]
    assert story.chart.bands[0].style == "culprit"
    assert story.chart.gap_columns > 0
    assert story.chart.ended_at - story.chart.started_at == 1000.0
    text = read(boards, boards.kept_incident(), boards.past_slots())
    assert "97 usable slots" in text
    assert "gaps: nothing could be seen" in text
    assert "batsignal replay incident-a1.jsonl.gz" in text


def test_a_picture_that_ends_before_its_recording_says_so(boards: Any) -> None:
    text = read(boards, boards.kept_incident(), boards.past_slots(is_whole=False))
    assert "The picture ends before the recording does" in text


def test_without_a_recording_that_is_said_and_none_is_offered(boards: Any) -> None:
    text = read(boards, boards.kept_incident())
    assert "No recording of it is kept, or it cannot be read now." in text
    assert "batsignal replay" not in text


def test_hostile_names_in_what_is_kept_stay_text(boards: Any) -> None:
    view = boards.kept_incident()
    names = dict.fromkeys(("application", "version", "user", "client"), HOSTILE)
    signal = boards.told() | {"subject": names, "summary": HOSTILE, "action": HOSTILE, "evidence": [HOSTILE]}
    view |= {"signal": signal, "worst": "critical"}
    view["timeline"] = [
        {"t": boards.now - 800, "event": "raised", "signal": boards.told()},
        {"t": boards.now - 700, "event": "updated", "signal": signal},
        {"t": boards.now - 600, "event": "released", "release": {"by": HOSTILE}, "signal": signal},
    ]
    html = page.draw_incident(view, boards.past_slots(), boards.now).document()
    assert Text(html).tags.count("script") == 1
    assert "img" not in Text(html).tags
    assert "\u202e" not in html.decode("utf-8")


def test_what_another_release_kept_with_less_in_it_is_still_told(boards: Any) -> None:
    told = {
        "kind": "flood",
        "severity": "warning",
        "server": "db1",
        "since": boards.now - 60,
        "detected": boards.now - 50,
    }
    signal = told | {"sessions": 3, "subject": {"galaxy": "far"}}
    event = {"t": boards.now - 50, "event": "pondered", "signal": signal}
    view = {"id": "a1", "ended": None, "worst": "warning", "signal": signal, "timeline": [event]}
    text = read(boards, view)
    assert "flood on db1" in text
    assert "pondered" in text


def test_everything_is_linked_from_one_folder_down(boards: Any) -> None:
    html = page.draw_incident(
        boards.kept_incident(), boards.past_slots(), boards.now, runbooks=frozenset({"BatSignalLeak"})
    ).document()
    links = re.findall(r'href="([^"]+)"', html.decode("utf-8"))
    assert {link for link in links if not link.startswith("data:")} == {
        "../",
        "../api/v1/incidents/a1",
        "../api/v1/incidents/a1/recording",
        "../runbooks/BatSignalLeak",
    }
