"""What the alert of a signal says once the signal has gone out: in the past, and of the next one its own numbers.

Prometheus keeps the texts of the last time a rule's expression held: so the rules go on for some seconds after the
signal, long enough to be told as over. By promtool, of the rules and of those for rulers without `keep_firing_for`.
"""

import subprocess
from pathlib import Path

import pytest
import yaml

from batsignal.spelling import duration

ALERTS = Path(__file__).parents[2] / "alerts"
FOLDERS = (ALERTS, ALERTS / "vmalert")
WHO = {"application": "web", "user": "app", "database": "shop"}
NOTHING = "Nothing is to be undone or restarted for it now; `batsignal report last` drafts the post-mortem."
CASES: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("leaks", "leak", WHO, "web leaked connections on db1, for 1m09s. It is over."),
    ("leaks", "leak", {"user": "app"}, "An unnamed application (user app) leaked connections on db1, for 1m09s."),
    ("storms", "storm", WHO, "web asked for sessions on db1 far faster than usual, for 1m09s. It is over."),
    ("storms", "storm", {"user": "app"}, "Whoever logs in as app asked for sessions on db1 far faster than usual,"),
    ("storms", "storm", {}, "Everybody at once asked for sessions on db1 far faster than usual, for 1m09s."),
    ("pileups", "query_pileup", WHO | {"query_id": "7"}, "web piled up on db1 in one statement, for 1m09s."),
    ("locks", "lock_pileup", WHO, "web blocked others on db1, for 1m09s. It is over."),
    ("locks", "lock_pileup", {}, "A transaction of no known application blocked others on db1, for 1m09s."),
    ("transactions", "idle_in_transaction", WHO, "web had left a transaction open on db1, for 1m09s. It is over."),
    ("saturation", "saturation", {"limit": "server"}, "db1 was running out of connection slots, for 1m09s."),
    (
        *("saturation", "saturation", {"limit": "role:app"}),
        "The connection limit of role app on db1 was nearly reached, for 1m09s.",
    ),
    ("starvation", "pool_starvation", WHO, "web had an empty pool of its own on db1, for 1m09s. It is over."),
    (
        *("starvation", "pool_starvation", {"pool": "shop/app"}),
        "PgBouncer's pool shop/app on db1 had nothing left to lend, for 1m09s.",
    ),
    (
        *("endpoints", "endpoint_down", {"application": "web", "endpoint": "shop"}),
        "web was down: health endpoint shop failed, for 1m09s. It is over.",
    ),
    (
        *("endpoints", "endpoint_slow", {"application": "web", "endpoint": "shop"}),
        "web was slow: health endpoint shop took several times as long as usual, for 1m09s.",
    ),
    ("reachability", "database_unreachable", {}, "There was no way into db1, for 1m09s. It is over."),
)

NEVER_ROLLED_BACK = {"saturation", "database_unreachable"}


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    spelled = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{spelled}}}", "values": values}


def told(rules: Path, kind: str, inputs: list[dict[str, str]], at: str, tmp_path: Path) -> str:
    """Return what promtool got at an instant: a case that expects none fails with all of it."""
    alert = "BatSignal" + kind.title().replace("_", "")
    test = {
        "interval": "5s",
        "input_series": inputs,
        "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": []}],
    }
    case = {"rule_files": [str(rules)], "evaluation_interval": "5s", "tests": [test]}
    (tmp_path / "over.test.yml").write_text(yaml.safe_dump(case))
    ended = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "over.test.yml"], capture_output=True, text=True, check=False
    )
    return ended.stderr + ended.stdout


def lit(kind: str, who: dict[str, str], values: str, since: str, healthy: bool = True) -> list[dict[str, str]]:
    """Return the series of a signal; `values` is when it is lit, `since` its onset as series of the same length."""
    labels = {"kind": kind, "server": "db1", "severity": "critical", **who}
    return [
        series("batsignal_signal", values, **labels),
        series("batsignal_signal_since_timestamp_seconds", since, **labels),
        *([series("batsignal_signal_healthy", values, **labels)] if healthy else []),
    ]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[1])
def test_a_signal_that_has_gone_out_is_told_as_over(
    folder: Path, case: tuple[str, str, dict[str, str], str], tmp_path: Path
) -> None:
    """It lights at 30 s, began at 21 s and is seen for the last time at 90 s."""
    file, kind, who, said = case
    dark = series("batsignal_signals", "0x6 1x12 0x20", kind=kind, server="db1", severity="critical")
    inputs = [*lit(kind, who, "_x6 1x12 stale", "_x6 21x12 stale"), dark]
    for at in ("100s", "115s"):  # while the rule goes on, and when it is only kept
        got = told(folder / f"{file}.rules.yml", kind, inputs, at, tmp_path)
        assert f'summary="{said}' in got
        assert f'action="{NOTHING}"' in got
        if file != "reachability":
            assert "It began at 00:00:21 UTC. Nothing is lit on db1 any more." in got


def test_what_goes_out_for_something_else_says_that_it_is_lit(tmp_path: Path) -> None:
    dark = series("batsignal_signals", "1x18 0x20", kind="saturation", server="db1", severity="critical")
    other = series("batsignal_signals", "0x18 1x20", kind="leak", server="db1", severity="critical")
    inputs = [*lit("saturation", {"limit": "server"}, "1x18 stale", "0x18 stale"), dark, other]
    got = told(ALERTS / "saturation.rules.yml", "saturation", inputs, "100s", tmp_path)
    assert "Something else is lit on db1: the status page has it." in got


def test_a_daemon_that_is_gone_has_ended_nothing(tmp_path: Path) -> None:
    dark = series("batsignal_signals", "1x18 stale", kind="leak", server="db1", severity="critical")
    inputs = [*lit("leak", WHO, "1x18 stale", "0x18 stale"), dark]
    got = told(ALERTS / "leaks.rules.yml", "leak", inputs, "100s", tmp_path)
    assert "web leaks connections on db1: how many is not known" in got
    assert "It is over" not in got


def test_one_that_turns_critical_is_not_told_as_over_by_its_warning(tmp_path: Path) -> None:
    labels = {"kind": "leak", "server": "db1", **WHO}
    inputs = [
        series("batsignal_signal", "1x18 stale", severity="warning", **labels),
        series("batsignal_signal", "_x18 1x20", severity="critical", **labels),
        series("batsignal_signals", "0x18 1x20", kind="leak", server="db1", severity="critical"),
        series("batsignal_signals", "1x18 0x20", kind="leak", server="db1", severity="warning"),
    ]
    got = told(ALERTS / "leaks.rules.yml", "leak", inputs, "100s", tmp_path)
    assert "It is over" not in got


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_next_one_while_the_last_is_kept_tells_its_own_numbers(folder: Path, tmp_path: Path) -> None:
    """The first ends at 60 s; the second lights at 95 s, of another version, and began at 88 s."""
    old = {"kind": "leak", "server": "db1", "severity": "critical", **WHO, "version": "2.4.0"}
    new = old | {"version": "2.5.0", "client": "10.0.0.9"}
    inputs = [
        series("batsignal_signal", "1x12 stale", **old),
        series("batsignal_signal", "_x19 1x20", **new, deploy="web@2.5.0"),
        series("batsignal_signal_sessions", "40x12 stale", **old),
        series("batsignal_signal_sessions", "_x19 7x20", **new),
        series("batsignal_signal_since_timestamp_seconds", "0x12 stale", **old),
        series("batsignal_signal_since_timestamp_seconds", "_x19 88x20", **new),
        series("batsignal_signals", "1x12 0x6 1x20", kind="leak", server="db1", severity="critical"),
    ]
    got = told(folder / "leaks.rules.yml", "leak", inputs, "110s", tmp_path)
    assert "web@2.5.0 leaks connections on db1: 7 held" in got
    assert "since 00:01:28 UTC" in got
    assert "Roll back web@2.5.0." in got
    assert "40 held" not in got


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [
        *((46, "46 s"), (69, "1m09s"), (166, "2m46s"), (300, "5 min"), (3725, "1h02m"), (7200, "2 h"), (7201, "2 h")),
        *((90_000, "1d01h"), (86_400, "1 d")),
    ],
)
def test_an_alert_spells_a_duration_as_the_page_does(seconds: int, spelled: str, tmp_path: Path) -> None:
    left = series("batsignal_exhaustion_seconds", f"{seconds}x20", server="db1")
    got = told(ALERTS / "leaks.rules.yml", "leak", [*lit("leak", WHO, "1x20", "0x20"), left], "50s", tmp_path)
    assert f"slots run out in {spelled}." in got
    assert duration(seconds) == spelled


@pytest.mark.parametrize("case", [case for case in CASES if case[1] not in NEVER_ROLLED_BACK], ids=lambda case: case[1])
def test_the_version_to_go_back_to_is_named_where_it_is_known(
    case: tuple[str, str, dict[str, str], str], tmp_path: Path
) -> None:
    file, kind, who, _ = case
    labels = {"kind": kind, "server": "db1", "severity": "critical", **who}
    inputs = [
        series("batsignal_signal", "1x20", **labels, version="2.4.0", deploy="web@2.4.0"),
        series("batsignal_signal_previous_info", "1x20", **labels, version="2.4.0", previous="2.3.9"),
    ]
    assert "oll back web@2.4.0 to 2.3.9." in told(ALERTS / f"{file}.rules.yml", kind, inputs, "50s", tmp_path)


@pytest.mark.parametrize(
    ("used", "said"),
    [(50, "50 of 97 slots on db1 are used."), (97, "97 of 97 slots"), (98, "97 of 97 (+1 reserved) slots on db1")],
)
def test_an_alert_tells_reserved_slots_apart_from_the_usable_ones(used: int, said: str, tmp_path: Path) -> None:
    slots = [
        series("batsignal_connection_slots_used", f"{used}x20", server="db1"),
        series("batsignal_connection_slots_usable", "97x20", server="db1"),
    ]
    got = told(ALERTS / "leaks.rules.yml", "leak", [*lit("leak", WHO, "1x20", "0x20"), *slots], "50s", tmp_path)
    assert said in got


def test_every_duration_in_a_rule_is_spelled_in_the_one_way() -> None:
    spelled = {
        line.partition("humanizeDuration")[2].partition("}}")[0]
        for path in ALERTS.glob("*.rules.yml")
        for line in path.read_text().splitlines()
        if "humanizeDuration" in line
    }
    assert len(spelled) == 1
