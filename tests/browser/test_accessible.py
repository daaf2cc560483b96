"""Every state for those who cannot see it, hear it rather, or have but a keyboard: judged by axe-core."""

from collections.abc import Callable
from typing import Any

import pytest

JUDGE = """
axe.run(document, {resultTypes: ['violations']}).then(
  (found) => done(found.violations.flatMap(
    (rule) => rule.nodes.map((node) => rule.id + ': ' + node.target.join(' ') + ': ' + node.failureSummary))));
"""


def faults(browser: Any, axe: str) -> list[str]:
    browser.run(axe)
    found: list[str] = browser.run_to_its_end(JUDGE)
    return found


# Each state once, to save time: both widths are judged, and all that there is to show.
STATES = {1280: ("lit", "fleet", "unreachable", "starting"), 360: ("quiet", "two_signals", "unprivileged")}


@pytest.mark.parametrize("width", STATES)
def test_no_state_of_the_page_violates_a_rule(
    site: Any, boards: Any, axe: str, open_browser: Callable[..., Any], width: int
) -> None:
    browser = open_browser(width=width)
    for state in STATES[width]:
        site.shown = getattr(boards, state)()
        browser.open(site.url)
        assert faults(browser, axe) == [], state


def test_the_page_of_an_incident_violates_no_rule(site: Any, axe: str, open_browser: Callable[..., Any]) -> None:
    browser = open_browser(width=360)
    for path in ("incidents/a1", "incidents/none", "incidents?before=5"):
        browser.open(site.url + path)
        assert faults(browser, axe) == [], path


def test_a_runbook_violates_no_rule_and_leads_back_to_the_page(
    site: Any, axe: str, open_browser: Callable[..., Any]
) -> None:
    browser = open_browser(width=360)
    for name in ("BatSignalLeak", "BatSignalDatabaseUnreachable"):
        browser.open(f"{site.url}runbooks/{name}")
        assert faults(browser, axe) == [], name
    assert browser.run("return document.getElementById('to-page').href") == site.url


def test_the_judge_finds_fault_where_there_is_one(site: Any, axe: str, open_browser: Callable[..., Any]) -> None:
    browser = open_browser()
    browser.open(site.url)
    browser.run("document.body.append(document.createElement('button'))")
    assert any(fault.startswith("button-name: ") for fault in faults(browser, axe))


def test_a_change_of_state_is_told_once_and_numbers_are_not(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    browser = open_browser()
    browser.open(site.url)
    browser.run(
        "window.told = []; new MutationObserver(() => told.push(document.getElementById('said').textContent))"
        ".observe(document.getElementById('said'), {childList: true, characterData: true, subtree: true})"
    )
    assert browser.run("return document.getElementById('said').getAttribute('aria-live')") == "polite"
    for sessions in (38, 41, 44):
        signal = boards.signal(sessions=sessions, summary=f"web@2.4.0 leaks connections: {sessions} held")
        site.shown = boards.board(boards.server(used=62, signals=(signal,)))
        wait(lambda sessions=sessions: f"{sessions} held" in browser.headline(), "the new number")
    site.shown = boards.quiet()
    wait(lambda: browser.headline() == "All quiet", "the quiet headline")
    assert browser.run("return told") == ["LIT: web@2.4.0 leaks connections: 38 held", "All quiet"]


def test_who_wants_no_motion_gets_none(site: Any, boards: Any, open_browser: Callable[..., Any]) -> None:
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    assert browser.run("return getComputedStyle(document.querySelector('.beam')).animationName") == "none"


def test_the_action_is_copied_by_keyboard_and_it_is_said(
    site: Any, boards: Any, open_browser: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    site.shown = boards.lit()
    browser = open_browser()
    browser.open(site.url)
    for permission in ("clipboard-read", "clipboard-write"):
        browser.grant(permission)
    browser.press("copy-db1-leak")
    wait(lambda: "Copied" in browser.words(), "that it says so")
    assert (
        browser.run_to_its_end("navigator.clipboard.readText().then(done)")
        == "Roll back web to 2.3.9. Do not restart the database: it is healthy."
    )
    assert browser.run("return document.getElementById('said').textContent") == "Copied"
    wait(lambda: "Copied" not in browser.run("return document.querySelector('main').innerText"), "the label as before")
