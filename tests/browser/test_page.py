from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batsignal.detect.signal import DeployRef, Subject
from batsignal.record.endpoint_tally import EndpointTally
from batsignal.snapshot import Deploy, ProbeResult

STATES = ["quiet", "lit", "unreachable", "unprivileged", "two_signals", "starting", "fleet"]

HOSTILE = '\u202e<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>' + "W" * 63

OVERFLOWING = """
const wide = document.documentElement.clientWidth;
return [...document.querySelectorAll('main *')]
  .filter((e) => !e.closest('svg') && e.getBoundingClientRect().right > wide + 1)
  .map((e) => e.tagName + ' ' + e.className);
"""
SHOWN = "return getComputedStyle(document.querySelector('%s')).display !== 'none'"


@pytest.mark.parametrize("width", [360, 1280])
def test_every_state_fits_its_screen_and_the_browser_complains_of_nothing(
    site: Any, boards: Any, open_browser: Callable[..., Any], width: int
) -> None:
    browser = open_browser(width=width)
    for state in STATES:
        site.shown = getattr(boards, state)()
        browser.open(site.url)
        assert browser.run("return window.innerWidth") == width
        assert browser.run("return document.documentElement.scrollWidth") <= width, state
        assert browser.run(OVERFLOWING) == [], state
    assert browser.complaints() == []


def test_style_is_applied_under_the_policy(site: Any, boards: Any, open_browser: Callable[..., Any]) -> None:
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    assert browser.run("return getComputedStyle(document.documentElement).backgroundColor") == "rgb(7, 11, 25)"
    assert browser.run("return parseFloat(getComputedStyle(document.querySelector('h1 .lead')).fontSize)") >= 48


def test_open_page_lights_up_and_goes_dark_again_without_a_reload(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    browser = open_browser()
    browser.open(site.url)
    assert browser.headline() == "All quiet"
    assert browser.run(SHOWN % ".moon")
    assert not browser.run(SHOWN % ".beam")
    browser.run("window.sameDocument = true")

    site.shown = boards.lit()
    wait(lambda: browser.headline().startswith("web@2.4.0 leaks connections"), "the headline of the signal")
    assert browser.run("return document.title").startswith("LIT: web@2.4.0 leaks")
    assert browser.run(SHOWN % ".beam")
    assert "Roll back web to 2.3.9." in browser.words()
    assert "web@2.4.0 leaks" in browser.run("return document.querySelector('[aria-live]').textContent")

    site.shown = boards.quiet()
    wait(lambda: browser.headline() == "All quiet", "the quiet headline")
    assert browser.run("return document.title").startswith("All quiet")
    assert not browser.run(SHOWN % ".beam")
    assert browser.run("return window.sameDocument") is True
    assert browser.complaints() == []


def test_clock_runs_down_between_two_looks(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    digits = "return document.querySelector('.left .digits').textContent"
    wait(lambda: browser.run(digits) in {"1:48", "1:47"}, "the clock to run on from 1:49")


def test_page_says_when_batsignal_itself_is_gone_and_when_it_is_back(
    site: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    browser = open_browser()
    browser.open(site.url)
    assert not browser.run(SHOWN % "#lost")
    site.stop()
    wait(lambda: browser.run(SHOWN % "#lost"), "the warning that nothing answers")
    assert "BatSignal itself has not answered since" in browser.words()
    site.start()
    wait(lambda: not browser.run(SHOWN % "#lost"), "the warning to go")
    assert browser.headline() == "All quiet"


def test_page_without_scripts_keeps_itself_fresh(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.shown = boards.lit()
    browser = open_browser("--blink-settings=scriptEnabled=false")
    browser.open(site.url)
    wait(lambda: site.asked.count(("/", "document")) >= 2, "the page to be asked for again")
    assert ("/", "empty") not in site.asked


def test_keyboard_reaches_every_link_and_the_focus_outlives_a_fresh_look(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.shown = boards.two_signals()
    browser = open_browser()
    browser.open(site.url)
    assert browser.run("return [...document.links].every((link) => link.id && link.tabIndex === 0)")
    browser.run("document.getElementById('to-metrics').focus()")
    site.shown = boards.lit()
    wait(lambda: "more signal lit" not in browser.words(), "the second signal to go")
    assert browser.run("return document.activeElement.id") == "to-metrics"


def test_times_are_in_utc_with_the_readers_own_on_hover(
    site: Any, boards: Any, open_browser: Callable[..., Any]
) -> None:
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    assert browser.run(
        "return [...document.querySelectorAll('time')].every((t) => t.title && / UTC$/.test(t.innerText))"
    )


def test_hostile_names_run_nothing_and_break_no_layout(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    name = HOSTILE
    who = Subject(application=name, version=name, user=name, database=name, client=name, endpoint=name, pool=name)
    deploy = DeployRef(service=name, version=name, at=boards.now - 60, previous=name)
    signal = boards.signal(
        summary=f"{name} leaks", action=name, evidence=(name,), subject=who, deploy=deploy, server=name
    )
    usage = (boards.count(name, name, 50), boards.count("web", name, 3))
    history = tuple(replace(one, by_application=((name, 20),)) for one in boards.history(60))
    probe = ProbeResult(endpoint=name, service=name, at=boards.now, up=False, seconds=1.0, reason=name)
    browser = open_browser(width=360)
    browser.open(site.url)
    site.shown = boards.board(
        boards.server(name, signals=(signal,), answered_usage=usage, history=history),
        boards.failing("unreachable", name, name=f"{name}2"),
        endpoints={name: EndpointTally(endpoint=name, service=name, last=probe)},
        deploys=(Deploy(service=name, version=name, at=boards.now - 60, previous=name),),
        config_reload_ok=False,
        config_reload_error=name,
    )
    wait(lambda: "leaks" in browser.headline(), "the headline of the signal")
    assert browser.run("return window.pwned === undefined && document.images.length === 0")
    assert browser.words().count("<img src=x") > 5, "they are there, as text"
    assert browser.run(OVERFLOWING) == []
    assert browser.complaints() == []


def test_hostile_names_in_a_kept_incident_run_nothing(site: Any, boards: Any, open_browser: Callable[..., Any]) -> None:
    signal = boards.told() | {"summary": HOSTILE, "action": HOSTILE, "evidence": [HOSTILE], "server": HOSTILE}
    signal["subject"] |= {"application": HOSTILE, "user": HOSTILE}
    site.kept.view |= {"signal": signal}
    site.kept.view["timeline"] = [{"t": boards.now - 800, "event": "raised", "signal": signal}]
    browser = open_browser(width=360)
    browser.open(f"{site.url}incidents/a1")
    assert browser.run("return window.pwned === undefined && document.images.length === 0")
    assert browser.run(OVERFLOWING) == []
    assert browser.complaints() == []
