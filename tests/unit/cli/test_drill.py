import json
from pathlib import Path
from typing import Any

import pytest

from batsignal.cli.drill import Wish, run
from batsignal.cli.drill_timeline import DrillTimeline, as_json
from batsignal.drills.act import Pace
from batsignal.drills.catalogue import ROWS
from batsignal.drills.drill_event import DrillEvent
from batsignal.errors import ConfigError

T0 = 1_760_000_000.0
DSN = "postgresql://me@127.0.0.1:1/x"

BAD = {
    "a name that is none": (Wish(name="leek"), r"no drill is called 'leek'; did you mean leak.*--list"),
    "no name": (Wish(), r"expected the NAME of a drill; `batsignal drill --list` lists all"),
    "a rate of 0": (Wish(name="leak", pace=Pace(rate_per_second=0)), r"--rate: expected a number .* above 0, got 0"),
    "a rate below 0": (Wish(name="leak", pace=Pace(rate_per_second=-1)), r"--rate: expected .*, got -1"),
    "a rate that is no number": (Wish(name="leak", pace=Pace(rate_per_second=float("nan"))), r"--rate: .*, got nan"),
    "a rate without end": (Wish(name="leak", pace=Pace(rate_per_second=float("inf"))), r"--rate: .*, got inf"),
    "a size of 0": (Wish(name="leak", pace=Pace(size=0)), r"--size: expected a whole number from 1, got 0"),
    "no time": (Wish(name="leak", pace=Pace(duration_seconds=0.5)), r"--duration-seconds: .* from 1, got 0.5"),
    "a rate below any": (Wish(name="leak", pace=Pace(rate_per_second=1e-300)), r"--rate: .* at least .*, got 1e-300"),
    "a time beyond any": (
        Wish(name="leak", pace=Pace(duration_seconds=1e300)),
        r"--duration-seconds: expected at most 2592000 \(30 days\), got 1e\+300",
    ),
    "a calm beyond any": (
        Wish(name="leak", pace=Pace(calm_seconds=1e300)),
        r"--calm-seconds: expected at most 2592000",
    ),
    "an endless time": (Wish(name="leak", pace=Pace(duration_seconds=float("inf"))), r"--duration-seconds: .*got inf"),
    "a calm below 0": (Wish(name="leak", pace=Pace(calm_seconds=-1)), r"--calm-seconds: .* from 0, got -1"),
    "a share of 0": (Wish(name="leak", slots_share=0.0), r"--slots-share: .* above 0 and at most 1, got 0"),
    "a share above 1": (Wish(name="leak", slots_share=1.01), r"--slots-share: .* at most 1, got 1.01"),
    "a page of the embedded server": (
        Wish(name="leak", url="http://127.0.0.1:9988"),
        r"--url: expected --dsn beside it",
    ),
    "a page and no page": (Wish(name="leak", dsn=DSN, url="http://x:1", with_daemon=False), r"--url: expected without"),
    "a page that is none": (Wish(name="leak", dsn=DSN, url="x:1"), r"--url: expected the address .*, got 'x:1'"),
    "a page with a bad port": (Wish(name="leak", dsn=DSN, url="http://x:99999"), r"--url: expected the address"),
    "a recording by nobody": (
        Wish(name="leak", record=Path("r.jsonl"), with_daemon=False),
        r"--record: expected without",
    ),
    "a recording nowhere": (
        Wish(name="leak", record=Path("/nowhere/at/all.jsonl")),
        r"--record .*: expected a file in",
    ),
    "a recording in the place of a directory": (
        Wish(name="leak", record=Path("/")),
        r"--record /: expected a file in",
    ),
    "somebody's server, to be stopped": (
        Wish(name="database-unreachable", dsn=DSN),
        r"--dsn: database-unreachable stops",
    ),
    "somebody's server, to be restarted": (Wish(name="server_restart", dsn=DSN), r"--dsn: server-restart stops"),
    "a string that is no DSN": (Wish(name="leak", dsn="host=x port"), r"--dsn: expected a libpq connection string"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_argument_is_an_error_that_names_it_and_what_was_expected(case: str) -> None:
    wish, message = BAD[case]
    with pytest.raises(ConfigError, match=message) as caught:
        run(wish)
    assert caught.value.exit_code == 2


def test_the_list_names_every_row_and_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Wish(), wants_list=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ROWS)
    told = next(line for line in lines if "cron-batch" in line)
    assert "everyday  22m15s  a batch of 30 sessions every 10 min" in told


def test_the_list_can_be_read_by_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Wish(spelling="json"), wants_list=True) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["name"]: (row["group"], tuple(row["kinds"]), row["story"]) for row in rows} == {
        row.name: (row.group, row.kinds, row.story) for row in ROWS.values()
    }
    assert next(row["seconds"] for row in rows if row["name"] == "storm-reconnect") == 310 + 85


def told(timeline: DrillTimeline, t: float, event: str, **facts: Any) -> list[str]:
    return [line.text for line in timeline.lines(DrillEvent(t=t, event=event, facts=facts))]


AS_USUAL = {"then_seconds": 70.0}


def whole_server_timeline() -> DrillTimeline:
    """A timeline of a drill that may take every slot."""
    timeline = DrillTimeline(draws=False)
    told(timeline, T0, "calm", drill="leak", story="a deploy", seconds=15.0, **AS_USUAL, slots=97, budget=97)
    return timeline


def calm_timeline() -> DrillTimeline:
    timeline = DrillTimeline(draws=False)
    told(timeline, T0, "calm", drill="leak", story="a deploy", seconds=15.0, **AS_USUAL, slots=97, budget=48)
    return timeline


def test_the_calm_says_how_long_all_of_it_takes() -> None:
    facts = {"drill": "storm", "story": "a storm", "slots": 97, "budget": 97}
    lines = told(DrillTimeline(draws=False), T0, "calm", seconds=15.0, then_seconds=70.0, **facts)
    assert lines[-1].endswith("calm, for 15 s, then 1m10s; Ctrl-C ends it sooner")


def test_before_the_onset_time_counts_from_the_calm_and_then_from_the_onset() -> None:
    timeline = calm_timeline()
    [before] = told(timeline, T0 + 3, "slots", used=12, usable=97, held=11)
    told(timeline, T0 + 15, "onset", kind="leak", subject={"application": "web"})
    [after] = told(timeline, T0 + 27, "slots", used=20, usable=97, held=19)
    assert before[10:].split()[:3] == ["0:03", "slots", "12/97"]
    assert after[10:].split()[:4] == ["onset", "+0:12", "slots", "20/97"]


def test_slots_that_read_as_before_are_not_told_again() -> None:
    timeline = whole_server_timeline()
    assert told(timeline, T0 + 1, "slots", used=12, usable=97, held=11)
    assert not told(timeline, T0 + 2, "slots", used=12, usable=97, held=12)
    told(timeline, T0 + 3, "lost", sessions=1)
    assert told(timeline, T0 + 4, "slots", used=12, usable=97, held=12)
    told(timeline, T0 + 5, "slots", used=None, usable=97, held=12)
    assert told(timeline, T0 + 6, "slots", used=12, usable=97, held=12)


def test_slots_that_come_and_go_a_little_are_told_now_and_then_and_a_move_at_once() -> None:
    timeline = DrillTimeline(draws=False)
    told(timeline, T0, "calm", drill="saturation", story="growth", seconds=15.0, **AS_USUAL, slots=97, budget=97)
    noise = [told(timeline, T0 + n, "slots", used=90 + n % 3, usable=97, held=90) for n in range(60)]
    assert len([lines for lines in noise if lines]) <= 12
    assert told(timeline, T0 + 60.1, "slots", used=97, usable=97, held=97)


def test_reserved_slots_that_are_taken_are_told_apart() -> None:
    timeline = whole_server_timeline()
    [line] = told(timeline, T0 + 1, "slots", used=98, usable=97, held=97)
    assert line.endswith("slots  97/97  #################### +1 reserved")


def test_refusals_in_the_same_words_are_told_again_when_there_are_twice_as_many() -> None:
    timeline = calm_timeline()
    lines = [told(timeline, T0 + n, "refused", count=n, text="FATAL:  too many clients") for n in range(1, 101)]
    assert len([one for one in lines if one]) == 7


def test_an_update_that_goes_to_and_fro_is_told_once_and_a_turn_of_severity_each_time() -> None:
    timeline = calm_timeline()
    facts = {"id": "a", "kind": "saturation", "summary": "slots", "evidence": [], "action": "", "deploy": None}
    told(timeline, T0, "raised", **facts, severity="critical", subject={"limit": "server"})
    seen = []
    for n in range(10):
        subject = {"limit": "server"} | ({"user": "app"} if n % 2 else {})
        seen += told(timeline, T0 + n, "updated", **facts, severity="critical", subject=subject)
    assert len(seen) == 1
    for severity in ("warning", "critical", "warning"):
        assert told(timeline, T0 + 20, "updated", **facts, severity=severity, subject={"limit": "server"})


def test_slots_of_a_server_that_is_all_ours_are_told_without_seats() -> None:
    timeline = whole_server_timeline()
    [line] = told(timeline, T0 + 1, "slots", used=8, usable=97, held=17)
    assert line.endswith("slots   8/97  ##..................")


def test_seats_of_a_share_are_told_beside_the_share_and_sessions_as_a_sum() -> None:
    timeline = calm_timeline()
    told(timeline, T0 + 15, "lost", sessions=1)
    [one] = told(timeline, T0 + 16, "slots", used=8, usable=97, held=17)
    told(timeline, T0 + 17, "lost", sessions=450)
    [many] = told(timeline, T0 + 18, "slots", used=8, usable=97, held=17)
    assert one.endswith("  drill's seats 17/48  incident: 1 session so far")
    assert many.endswith("  incident: 450 sessions so far")


def test_a_refusal_is_told_in_the_servers_words_and_in_full_once() -> None:
    timeline = calm_timeline()
    first, second, other = (
        told(
            timeline, T0 + 20, "refused", count=count, text=f'connection to server at "::1", port {count} failed: {why}'
        )
        for count, why in ((3, "FATAL:  too many clients"), (9, "FATAL:  too many clients"), (12, "FATAL:  go away"))
    )
    assert first[0].endswith("refused 3 times so far: FATAL:  too many clients")
    assert second[0].endswith("refused 9 times so far")
    assert other[0].endswith("refused 12 times so far: FATAL:  go away")


def test_a_signal_is_told_with_the_seconds_since_the_onset_its_evidence_and_its_action() -> None:
    timeline = calm_timeline()
    told(timeline, T0 + 15, "onset", kind="leak", subject={"application": "web"})
    facts = {
        "kind": "leak",
        "severity": "critical",
        "summary": "web leaks",
        "evidence": ["11 opened"],
        "action": "Undo.",
    }
    lines = told(timeline, T0 + 45, "raised", **facts)
    assert lines[0].endswith("*** SIGNAL LIT: leak (critical), 30 s after the onset")
    assert lines[1:] == ["    web leaks", "    - 11 opened", "    => Undo."]


def test_the_truth_shows_the_rate_that_was_made_beside_the_one_asked_for() -> None:
    truth = {
        "kind": "leak",
        "subject": {"application": "web"},
        "onset": T0,
        "bound_seconds": 45.0,
        "exhaustion": T0 + 166,
        "deploy": {"service": "web", "version": "2.4.0", "at": T0},
        "optional": False,
    }
    lines = told(calm_timeline(), T0 + 60, "truth", **truth, rate_asked=1000.0, rate_achieved=212.34, predicted=True)
    assert lines[0] == "What really happened: leak: application=web"
    assert lines[2] == "  bound       45 s after the onset"
    assert lines[3] == "  rate        212/s achieved, 1e+03/s asked"
    assert lines[4].startswith("  exhaustion  would come at ")
    assert lines[4].endswith(", 2:46 after the onset")


def test_a_truth_without_exhaustion_or_with_too_few_sessions_for_a_rate_says_so() -> None:
    truth = {"kind": "leak", "subject": {}, "onset": T0, "bound_seconds": 420.0, "deploy": None, "optional": False}
    facts = {**truth, "exhaustion": None, "predicted": False, "rate_asked": 0.25, "rate_achieved": None}
    assert told(calm_timeline(), T0 + 60, "truth", **facts)[3:] == [
        "  rate        too few to tell, 0.25/s asked",
        "  exhaustion  none",
    ]


def test_verdicts_come_last_and_what_was_left_behind_is_named() -> None:
    timeline = calm_timeline()
    assert told(timeline, T0, "verdict", outcome="named", finding=False, text="leak: named after 30 s") == []
    assert told(timeline, T0, "clean", left=["role x: in use"], by=None) == [
        "leak: named after 30 s",
        "left behind: role x: in use",
    ]


def test_a_clean_up_that_goes_on_names_its_process() -> None:
    assert told(calm_timeline(), T0, "clean", left=[], by=4711) == ["The clean-up goes on in process 4711."]


def test_an_event_that_no_person_needs_makes_no_line() -> None:
    assert told(calm_timeline(), T0, "lost", sessions=3) == []


def test_a_line_of_json_has_the_time_and_the_event_first() -> None:
    event = DrillEvent(t=T0 + 0.125, event="lost", facts={"sessions": 3})
    assert as_json(event) == '{"t": 1760000000.125, "event": "lost", "sessions": 3}'
