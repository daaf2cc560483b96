"""An open page: fed by the stream, honest when it is not, and undisturbed where nothing changed."""

from collections.abc import Callable
from typing import Any

import pytest

from batsignal.expose import stream

LOST = "return !document.getElementById('lost').hidden"
FEED = "return document.getElementById('feed').textContent"
DRAWN_AT = "return Number(document.querySelector('main').dataset.now)"
HOUR_LATER = "const real = Date.now; Date.now = () => real() + 3600000;"


def test_a_lit_page_is_one_request_and_the_stream(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 0.3)
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    for seconds in (1, 2, 3, 4):
        site.seconds = seconds
        site.shown = boards.lit()
        wait(lambda now=boards.now + seconds: browser.run(DRAWN_AT) == now, "the next tick")
    assert site.asked == [("/", "document"), ("/api/v1/stream", "empty")]
    assert browser.run("return performance.getEntriesByType('navigation')[0].transferSize") < 60_000
    assert browser.complaints() == []


def test_what_changed_while_the_daemon_was_away_is_shown_when_it_is_back(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    browser = open_browser()
    browser.open(site.url)
    browser.run("window.sameDocument = true")
    wait(lambda: ("/api/v1/stream", "empty") in site.asked, "the stream to be opened")
    site.stop()
    site.shown = boards.lit()
    site.start()
    wait(lambda: browser.headline().startswith("web@2.4.0 leaks connections"), "the headline of the signal")
    assert browser.run("return window.sameDocument") is True
    assert not browser.run(LOST)


def test_a_machine_that_slept_sees_at_once_that_all_is_old_and_then_how_it_stands(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    site.held_back |= {"/", "/api/v1/stream"}
    site.stop()
    site.start()
    browser.run(HOUR_LATER)
    wait(lambda: browser.run(LOST), "the warning that all is old", seconds=6)  # from silence: 10 s
    assert browser.run(FEED) == "Old"
    digits = browser.run("return document.querySelector('.left .digits').textContent")
    assert digits not in {"0:00", ""}, "the clock does not run on with nothing to go by"
    site.shown = boards.quiet()
    site.held_back.clear()
    wait(lambda: browser.headline() == "All quiet", "the page to be right again")
    assert not browser.run(LOST)
    assert browser.run(FEED) == "Live"


def test_a_proxy_that_holds_the_stream_back_leaves_the_page_right_also_with_a_login_in_its_address(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.held_back.add("/api/v1/stream")
    browser = open_browser()
    browser.open(site.url.replace("//", "//anna:secret@"))
    site.shown = boards.lit()
    wait(lambda: browser.headline().startswith("web@2.4.0 leaks connections"), "the headline of the signal")
    assert ("/", "empty") in site.asked
    assert not browser.run(LOST)


def test_what_a_reader_has_marked_stays_marked_while_numbers_move(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    browser.run("getSelection().selectAllChildren(document.querySelector('.todo'))")
    site.shown = boards.board(boards.server(used=70, signals=(boards.signal(sessions=46, summary="46 held"),)))
    wait(lambda: "46 held" in browser.headline(), "the new number")
    assert browser.run("return String(getSelection())") == "Roll back web to 2.3.9."


def test_an_incident_that_goes_on_is_kept_fresh_and_one_that_is_over_is_left_alone(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.kept.view |= {"ended": None, "signal": boards.told(27)}
    browser = open_browser()
    browser.open(f"{site.url}incidents/a1")
    assert "Goes on, for 15 min." in browser.words()
    assert browser.run("return document.title").startswith("LIT: web@2.4.0 leaks")
    site.kept.view |= {"ended": boards.now - 240, "signal": boards.kept_incident()["signal"]}
    wait(lambda: "It lasted 11 min." in browser.words(), "the end")
    assert browser.run(FEED) == "Ended"
    assert browser.run("return document.title").startswith("web@2.4.0 leaked")
    assert ("/api/v1/stream", "empty") not in site.asked
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_of_an_incident_fits_its_screen(site: Any, open_browser: Callable[..., Any], width: int) -> None:
    browser = open_browser(width=width)
    for path in ("incidents/a1", "incidents/none", "incidents?before=5"):
        browser.open(site.url + path)
        assert browser.run("return document.documentElement.scrollWidth") <= width, path
    # The page that is missing is a 404, which the browser tells of too.
    assert [line for line in browser.complaints() if "404" not in line] == []


def test_from_the_page_to_an_incident_and_back(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.shown = boards.fleet()
    browser = open_browser()
    browser.open(site.url)
    browser.press("incident-a1")
    wait(lambda: "Slots around it" in browser.words(), "the page of the incident")
    browser.press("to-page")
    wait(lambda: "Recent incidents" in browser.words(), "the status page")


def test_without_scripts_all_is_there_but_what_needs_them(
    site: Any, boards: Any, open_browser: Callable[..., Any]
) -> None:
    site.shown = boards.lit()
    browser = open_browser("--blink-settings=scriptEnabled=false")
    browser.open(site.url)
    words = browser.words()
    for said in ("leaks connections", "1:49", "Roll back web to 2.3.9.", "do not restart it", "97 usable slots"):
        assert said in words, said
    assert "Copy" not in words
    assert "Drawn anew every 5 s" in words
