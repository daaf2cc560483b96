"""What `batsignal release` prints of a daemon's answer, and what it exits with."""

from typing import Any

import pytest

from batsignal.cli import release as command
from batsignal.cli.release import Wish, lines, release, who_asks

HELD = {
    "pid": 4711,
    "application": "web",
    "version": "2.4.0",
    "user": "web",
    "database": "shop",
    "client": "10.0.0.4",
    "state": "idle",
    "idle_seconds": 130.0,
    "outcome": "would end",
}
ANSWER: dict[str, Any] = {
    "server": "db1",
    "time": 1.0,
    "dry_run": True,
    "order": {},
    "sessions": [HELD],
    "spared": {},
    "near": [],
    "ended": 0,
    "gone": 0,
    "mend": None,
    "incidents": [],
}
WISH = Wish(
    server=None,
    application="web",
    version=None,
    user=None,
    client=None,
    database=None,
    states=(),
    idle_longer_seconds=None,
    for_real=False,
)


def test_a_dry_run_is_a_table_that_says_that_nothing_was_done() -> None:
    assert list(lines(ANSWER | {"spared": {"active": 2, "used lately": 1}})) == [
        "PID   APPLICATION  USER  DATABASE  CLIENT    STATE  IDLE FOR",
        "4711  web@2.4.0    web   shop      10.0.0.4  idle   2m10s     would end",
        "left alone: 2 active (--state 'active'), 1 used a moment ago",
        "db1: 1 session would end; nothing was done, --yes ends them",
    ]


def test_what_ended_is_counted_and_the_incident_named() -> None:
    done = {"dry_run": False, "sessions": [HELD | {"outcome": "ended"}], "ended": 1, "gone": 1, "incidents": ["abc"]}
    assert list(lines(ANSWER | done))[-1] == "db1: 1 of 1 session ended; noted in incident abc"
    assert list(lines(ANSWER | done | {"gone": 0}))[-1].startswith(
        "db1: 1 of 1 session ended (0 seen to have left so far)"
    )


def test_names_from_outside_stay_on_their_line() -> None:
    rows = [
        HELD | {"application": None, "version": None, "user": "a\nb\x1b[31m", "idle_seconds": None, "database": None}
    ]
    text = "\n".join(lines(ANSWER | {"sessions": rows}))
    assert "4711  (unnamed)    a?b?[31m  -" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"sessions": []}, 0),
        ({"sessions": [HELD | {"outcome": "not allowed"}]}, 1),
        ({"mend": "GRANT pg_signal_backend TO batsignal;"}, 1),
        ({"dry_run": False, "sessions": [HELD | {"outcome": "ended"}]}, 0),
        ({"dry_run": False, "sessions": [HELD | {"outcome": "gone or in use again"}]}, 0),
        ({"dry_run": False, "sessions": [HELD | {"outcome": "not tried"}]}, 1),
        ({"dry_run": False, "sessions": [HELD | {"outcome": "would end"}]}, 1),
    ],
)
def test_the_exit_code_is_1_when_something_stood_in_the_way(
    changed: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "asked", lambda *_, **given: asked.append(given) or ANSWER | changed)
    assert release(WISH, url="http://127.0.0.1:9988", token="s3cret", spelling="text") == code
    assert asked[0]["body"] == {"application": "web", "for_real": False, "by": who_asks()}
    assert asked[0]["token"] == "s3cret"
