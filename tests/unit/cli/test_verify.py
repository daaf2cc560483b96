"""How `batsignal deploy verify` waits, and what it exits with."""

import errno
import io
import os
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from batsignal.cli import verify as command
from batsignal.cli.verify import gate, verify
from batsignal.errors import ConfigError, UnreachableError

FOUND: dict[str, Any] = {
    "time": 1_760_000_030.0,
    "deploy": {"service": "web", "version": "2", "at": 1_760_000_000.0, "previous": "1"},
    "window_seconds": 60.0,
    "over": False,
    "verdict": "ok",
    "checks": [{"name": "signals", "status": "ok", "text": "none lit by it"}],
}


class Waiting:
    def __init__(self, patch: pytest.MonkeyPatch, answers: Iterable[Any]) -> None:
        self.now = 0.0
        self._answers = iter(answers)
        patch.setattr(command, "asked", self.asked)

    def asked(self, _url: str, _method: str, path: str, **_: Any) -> dict[str, Any]:
        assert path == "/api/v1/deploys/verify?service=web%2Fa&version=2+b&window_seconds=60.0"
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return FOUND | answer

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> int:
        return verify(
            "web/a",
            "2 b",
            window_seconds=60.0,
            url="http://db1",
            spelling="text",
            monotonic=lambda: self.now,
            sleep=self.sleep,
        )


@pytest.mark.parametrize(
    ("answers", "code", "seconds", "last"),
    [
        ([{}, {}, {"over": True}], 0, 2, "ok: nothing speaks against it"),
        ([{}, {"verdict": "bad"}], 1, 1, "bad: roll it back to 1"),
        ([{"verdict": "bad"}], 1, 0, "bad: roll it back to 1"),
        ([{"verdict": "unknown"}, {"over": True}], 0, 1, "ok: nothing speaks against it"),
        ([{"verdict": "unknown", "over": True}], 3, 0, "unknown: it could not be seen: judge by other means"),
    ],
)
def test_it_waits_for_the_end_of_the_window_or_something_bad(  # noqa: PLR0917 - pytest gives them by name
    answers: Any, code: int, seconds: float, last: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    waiting = Waiting(monkeypatch, answers)
    assert waiting.run() == code
    assert waiting.now == seconds
    said = capsys.readouterr()
    assert said.out.splitlines() == ["web 2, deployed at 08:53:20 UTC", "ok      signals  none lit by it", last]
    assert said.err == ("waiting up to 30 s, until its window is over\n" if seconds else "")


def test_a_daemon_that_restarts_is_waited_for_and_one_that_stays_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    away = UnreachableError("no answer")
    assert Waiting(monkeypatch, [{}, away, away, {"over": True}]).run() == 0
    with pytest.raises(UnreachableError):
        Waiting(monkeypatch, [{}, *[away] * 30]).run()
    with pytest.raises(UnreachableError):
        Waiting(monkeypatch, [away, {"over": True}]).run()


def test_what_is_unknown_is_said_beside_what_is_well() -> None:
    checks = [{"name": name, "status": "unknown", "text": ""} for name in ("version", "sessions")]
    last = command.lines(FOUND | {"verdict": "ok", "checks": [*FOUND["checks"], *checks]})[-1]
    assert last == "ok: nothing speaks against it; unknown: version, sessions"


def test_a_name_that_is_no_text_is_a_usage_error_and_no_reason_to_roll_back() -> None:
    for service, version, named in (("caf\udce9", "1", "SERVICE"), ("web", "\udcff", "VERSION")):
        with pytest.raises(ConfigError, match=f"^{named}: expected a text in UTF-8, got "):
            gate(service, version, window_seconds=60.0, url="http://127.0.0.1:9", spelling="text")


def test_an_answer_that_nobody_expected_is_not_judged_rather_than_rolled_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "asked", lambda *_, **__: FOUND | {"over": True, "verdict": "bad", "checks": [{}]})
    assert gate("web", "2", window_seconds=60.0, url="http://db1", spelling="text") == 3
    assert "KeyError: 'name'" in capsys.readouterr().err


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_checklist_that_nobody_reads_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "asked", lambda *_, **__: FOUND | {"over": True})
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(UnreachableError, match="the checklist could not be told: No space left on device"):
        gate("web", "2", window_seconds=60.0, url="http://db1", spelling="text")
