"""The draft of a post-mortem, and where it goes."""

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batsignal.cli.report import questions, report
from batsignal.cli.report.course import Course, Endpoint
from batsignal.cli.report.draft import UPDATES_MOST, write
from batsignal.detect.signal import KINDS
from batsignal.errors import ConfigError, UnreachableError

ONSET = 1_760_000_000.0
SIGNAL: dict[str, Any] = {
    "id": "abc1",
    "kind": "leak",
    "severity": "critical",
    "server": "db1",
    "subject": {"application": "web", "version": "2.4.0", "user": "web", "database": None, "blocker": None},
    "since": ONSET,
    "detected": ONSET + 24,
    "sessions": 11,
    "exhaustion_seconds": 166.0,
    "deploy": {"service": "web", "version": "2.4.0", "at": ONSET - 20},
    "database_healthy": True,
    "evidence": ["11 sessions opened, none used again"],
    "summary": "web@2.4.0 leaks connections: 11 held",
    "action": "Roll back web to 2.3.9.",
}
RELEASE = {
    "by": "alice@bastion",
    "address": "10.0.0.9",
    "chosen": 12,
    "ended": 11,
    "gone": 11,
    "left": [],
    "order": {"application": "web", "states": ["idle"]},
}
GROWN = SIGNAL | {"summary": "web@2.4.0 leaks connections: 40 held", "sessions": 40}
OVER = GROWN | {
    "summary": "web@2.4.0 leaked connections: 40 sessions held at most; it lasted 5 min",
    "action": "Nothing is to be undone or restarted for it now: it is over.",
}
INCIDENT: dict[str, Any] = {
    "id": "abc1",
    "open": False,
    "ended": ONSET + 300,
    "reason": "ended",
    "by": None,
    "worst": "critical",
    "signal": OVER,
    "timeline": [
        {"t": ONSET + 24, "event": "raised", "signal": SIGNAL},
        {"t": ONSET + 90, "event": "updated", "signal": GROWN},
        {"t": ONSET + 200, "event": "released", "release": RELEASE, "signal": SIGNAL},
        {"t": ONSET + 300, "event": "cleared", "reason": "ended", "signal": OVER},
    ],
}
DEPLOYS = [
    {"service": "web", "version": "2.4.0", "at": ONSET - 20},
    {"service": "billing", "version": "old", "at": ONSET - 90_000},
]


def draft(incident: dict[str, Any] = INCIDENT, course: Course | None = None) -> str:
    return write(incident, deploys=DEPLOYS, course=course, now=ONSET + 900, url="http://u:s3cret@db1:9988")


def test_the_draft_tells_who_when_after_what_and_what_was_done() -> None:
    text = draft()
    for line in (
        "# Post-mortem (draft): connection leak on db1, web@2.4.0",
        "| what | connection leak (`leak`), at worst critical |",
        "| user | web |",
        "| began | 2025-10-09 08:53:20 |",
        "| told | 2025-10-09 08:53:44, 24 s after it began |",
        "| ended | 2025-10-09 08:58:20, after 5 min |",
        "| after the deploy | web 2.4.0 of 2025-10-09 08:53:00, 20 s before it began |",
        "web@2.4.0 leaked connections: 40 sessions held at most; it lasted 5 min",
        "First said: web@2.4.0 leaks connections: 11 held",
        "Last said: web@2.4.0 leaks connections: 40 held",
        "The database itself was healthy: it did not need a restart.",
        "BatSignal's advice was: Roll back web to 2.3.9.",
        "| 2025-10-09 08:53:00 | deploy | web 2.4.0 was deployed |",
        "| 2025-10-09 08:53:20 | began | what was told later began here |",
        "| 2025-10-09 08:53:44 | raised | critical: web@2.4.0 leaks connections: 11 held |",
        "| 2025-10-09 08:58:20 | cleared | it was over |",
        "There is no recording of this incident: slots, sessions and probes are not known.",
    ):
        assert line in text.splitlines()
    assert "2025-10-09 08:56:40: alice@bastion from 10.0.0.9 had 11 of 12 sessions ended, 11 were seen to leave" in text
    assert "billing" not in text
    assert "s3cret" not in text
    assert text.count("- [ ] ") == len(questions.for_kind("leak")) > len(questions.FOR_ALL)


def test_what_the_recording_tells_stands_under_impact() -> None:
    course = Course(begins=ONSET, ends=ONSET + 300)
    course.usable, course.used_before, course.used_peak, course.used_peak_at = 97, 18, 97, ONSET + 160
    course.full_seconds, course.refused, course.held_before, course.held_peak, course.held_last = 40.0, 7, 0, 80, 0
    course.endpoints["web"] = Endpoint(probes=60, failures=9, slowest_seconds=2.0)
    course.others = (("web@2.4.0", 80), ("billing", 10))
    text = draft(course=course)
    assert "- Connection slots: 18 taken before, 97 of 97 at most, at 2025-10-09 08:56:00." in text
    assert "- No slot was free for 40 s; 7 refusals were met or told of." in text
    assert (
        "- All sessions of the culprit, also those that it still uses: 0 before, 80 at most, 0 at the last look."
        in text
    )
    assert "- Health of web: 9 of 60 probes failed, the slowest took 2.0 s." in text
    assert "- Who held sessions at the peak: web@2.4.0 80, billing 10." in text


def test_recording_that_cannot_be_read_is_said_to_be_so_and_not_to_be_missing() -> None:
    why = "the incident's recording cannot be read: /api/v1/incidents/a/recording:7: t: missing; expected Unix seconds"
    text = write(INCIDENT, deploys=DEPLOYS, course=None, unread=why, now=ONSET + 900, url="http://db1:9988")
    assert "What a recording would tell of slots, sessions and probes is not known: the incident's recording" in text
    assert "recording:7: t: missing; expected Unix seconds." in text
    assert "There is no recording" not in text


def test_where_nobody_stands_out_that_is_said_in_so_many_words() -> None:
    subject = dict.fromkeys(SIGNAL["subject"]) | {"limit": "server"}
    signal = SIGNAL | {"kind": "saturation", "subject": subject}
    text = draft(INCIDENT | {"signal": signal})
    assert text.startswith("# Post-mortem (draft): short of slots on db1\n\n> Made by")
    assert "| who | no single culprit was found |\n| limit | server |" in text


def test_one_that_is_lit_still_says_so() -> None:
    text = draft(INCIDENT | {"open": True, "ended": None, "reason": None, "timeline": INCIDENT["timeline"][:1]})
    assert "> **The incident is still lit.**" in text
    assert "| ended | not yet; it has lasted 15 min so far |" in text
    assert "- No session was ended through `batsignal release`." in text


def test_a_name_from_outside_neither_ends_its_line_nor_becomes_markup() -> None:
    incident = copy.deepcopy(INCIDENT)
    evil = "we|b\n# head <script>`x`[y](z)\u202e"
    incident["signal"]["subject"]["application"] = evil
    incident["signal"]["evidence"] = [evil]
    text = draft(incident)
    spelled = r"we\|b\u{a}\# head \<script\>\`x\`\[y\](z)\u{202e}"
    assert f"- {spelled}\n" in text
    assert "<script>" not in text
    assert "\n# head" not in text


def test_of_many_updates_the_first_and_those_that_change_the_severity_are_told() -> None:
    updates = [{"t": ONSET + 30 + n, "event": "updated", "signal": SIGNAL} for n in range(100)]
    warning = {"t": ONSET + 140, "event": "updated", "signal": SIGNAL | {"severity": "warning"}}
    timeline = [INCIDENT["timeline"][0], *updates, warning, INCIDENT["timeline"][-1]]
    text = draft(INCIDENT | {"timeline": timeline})
    assert text.count("| updated | critical") == UPDATES_MOST
    assert "| updated | warning: " in text
    assert f"{100 - UPDATES_MOST} more updates are not shown" in text


def test_every_kind_has_questions_of_its_own() -> None:
    assert set(questions.BY_KIND) == set(KINDS)
    assert all(len(ours) >= 2 for ours in questions.BY_KIND.values())


@pytest.fixture
def daemon() -> Iterator[tuple[str, dict[str, Any]]]:
    """Answer as a daemon does that keeps a few incidents, without recordings."""
    kept = {one: {**INCIDENT, "id": one, "recording": f"/api/v1/incidents/{one}/recording"} for one in ("abc1", "abd2")}
    answers: dict[str, Any] = {
        "/api/v1/incidents": {"time": 1.0, "incidents": list(kept.values())},
        "/api/v1/deploys": {"time": 1.0, "deploys": DEPLOYS},
        **{f"/api/v1/incidents/{one}": content for one, content in kept.items()},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0], {"error": "nothing is kept here"})
            self.send_response(404 if "error" in found else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("wanted", "found"), [("abc1", "abc1"), ("abd", "abd2"), ("last", "abc1")])
def test_an_incident_is_found_by_its_id_or_how_it_begins(daemon: Any, capsys: Any, wanted: str, found: str) -> None:
    assert report(wanted, output=None, force=False, url=daemon[0]) == 0
    assert f"from incident `{found}` of {daemon[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/api/v1/incidents", {"incidents": 5}),
        ("/api/v1/incidents", {"incidents": [{}]}),
        ("/api/v1/incidents", {"incidents": [INCIDENT | {"id": 5}]}),
        ("/api/v1/incidents", {"incidents": [INCIDENT | {"signal": SIGNAL | {"since": 1e300}}]}),
        ("/api/v1/incidents/abc1", INCIDENT | {"signal": {}}),
        ("/api/v1/incidents/abc1", INCIDENT | {"ended": "soon"}),
        ("/api/v1/incidents/abc1", INCIDENT | {"timeline": [{"t": ONSET, "event": "raised"}]}),
        ("/api/v1/deploys", {"deploys": [{"service": "web", "version": "2", "at": "now"}]}),
    ],
)
def test_what_answers_in_another_shape_is_no_daemon(daemon: Any, path: str, content: dict[str, Any]) -> None:
    url, answers = daemon
    answers[path] = content
    with pytest.raises(UnreachableError, match=f"is no daemon that knows {path}: it answered with status 200"):
        report("abc1", output=None, force=False, url=url)


def test_damaged_recording_is_told_with_its_line_and_leaves_a_draft(daemon: Any, capsys: Any) -> None:
    url, answers = daemon
    answers["/api/v1/incidents/abc1/recording"] = {"format": "other"}
    assert report("abc1", output=None, force=False, url=url) == 0
    said = "the incident's recording cannot be read: /api/v1/incidents/abc1/recording:1: expected"
    told = capsys.readouterr()
    assert told.err.startswith(f"batsignal: {said}")
    assert f"of slots, sessions and probes is not known: {said}" in told.out
    assert "tmp" not in told.out + told.err


@pytest.mark.parametrize("wanted", ["xyz", "", "../status", "a b\n"])
def test_one_that_nobody_knows_is_an_error_that_lists_the_last(daemon: Any, wanted: str) -> None:
    with pytest.raises(ConfigError, match="expected the id of an incident that is kept") as caught:
        report(wanted, output=None, force=False, url=daemon[0])
    assert "\n  abc1  2025-10-09 08:53:20 UTC  leak on db1\n  abd2  " in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("wanted", ["last", "abc1"])
def test_where_none_is_kept_yet_that_is_said(daemon: Any, wanted: str) -> None:
    url, answers = daemon
    answers["/api/v1/incidents"] = {"time": 1.0, "incidents": []}
    with pytest.raises(ConfigError, match=r"^no incident is kept yet"):
        report(wanted, output=None, force=False, url=url)


def test_the_beginning_of_two_is_none(daemon: Any) -> None:
    with pytest.raises(ConfigError, match="ab: expected the id of one incident, it is how 2 begin"):
        report("ab", output=None, force=False, url=daemon[0])


def test_a_file_is_written_once_and_never_over_another(daemon: Any, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "draft.md"
    assert report("abc1", output=str(target), force=False, url=daemon[0]) == 0
    assert capsys.readouterr().out == f"wrote {target}\n"
    assert target.read_text().startswith("# Post-mortem (draft)")
    target.write_text("mine")
    with pytest.raises(ConfigError, match="expected no such file yet; --force overwrites it"):
        report("abc1", output=str(target), force=False, url=daemon[0])
    assert target.read_text() == "mine"
    assert report("abc1", output=str(target), force=True, url=daemon[0]) == 0
    with pytest.raises(ConfigError, match="expected to write there: No such file or directory"):
        report("abc1", output=str(tmp_path / "none" / "draft.md"), force=False, url=daemon[0])


def test_a_daemon_that_keeps_nothing_says_so(daemon: Any) -> None:
    url, answers = daemon
    answers.clear()
    with pytest.raises(ConfigError, match="refuses: nothing is kept here"):
        report("last", output=None, force=False, url=url)
    with pytest.raises(UnreachableError):
        report("last", output=None, force=False, url="http://127.0.0.1:1")
