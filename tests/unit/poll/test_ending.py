"""What the server's answers mean for a session that was to end; that it really ends is tested with a real server."""

from collections.abc import Mapping
from typing import Any

import psycopg2
import pytest

from batsignal.poll import ending
from batsignal.poll.guarded import DeadlineError
from batsignal.poll.rows import Row
from batsignal.snapshot import Session


class Coded(psycopg2.OperationalError):
    """An error with a SQLSTATE, which only the server can give to psycopg2's own."""

    def __init__(self, pgcode: str | None) -> None:
        super().__init__("made up")
        self._code = pgcode

    @property
    def pgcode(self) -> str | None:
        return self._code


DENIED, CANCELED, BROKEN = Coded("42501"), Coded("57014"), Coded(None)


def session(pid: int, user: str | None = "app") -> Session:
    return Session(pid=pid, backend_start=1.5, state="idle", state_change=2.5, usename=user)


def end(*answers: Any, until: int = 99) -> tuple[str, ...]:
    asked: list[Mapping[str, Any]] = []

    def ask(query: str, arguments: Mapping[str, Any]) -> list[Row]:
        assert query == "end_session"
        answer = answers[len(asked)]
        asked.append(arguments)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    outcomes = ending.end(ask, map(session, range(len(answers))), may_go_on=lambda: len(asked) < until)
    assert asked == [
        {"pid": pid, "backend_start": 1.5, "state": "idle", "state_change": 2.5} for pid in range(len(asked))
    ]
    return outcomes


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ([(True,)], "ended"),
        ([(False,)], "gone or in use again"),
        ([], "gone or in use again"),
        (DENIED, "not allowed"),
        (CANCELED, "not tried"),
        (BROKEN, "not known"),
        (DeadlineError(), "not known"),
    ],
)
def test_each_answer_means_one_thing(answer: Any, outcome: str) -> None:
    assert end(answer) == (outcome,)


@pytest.mark.parametrize("fault", [BROKEN, DeadlineError()])
def test_after_silence_nothing_more_is_asked(fault: Exception) -> None:
    assert end([(True,)], fault, [(True,)]) == ("ended", "not known", "not tried")


def test_what_one_session_is_denied_says_nothing_of_the_next() -> None:
    assert end(DENIED, [(True,)]) == ("not allowed", "ended")


def test_when_its_time_is_up_the_rest_is_left() -> None:
    assert end([(True,)], [(True,)], [(True,)], until=2) == ("ended", "ended", "not tried")


def rights(*rows: Row) -> ending.Rights | None:
    return ending.rights(lambda *_: list(rows), ["app", None, "app", "root"])


def test_a_superuser_s_sessions_are_not_ours_to_end_and_of_unknown_roles_it_is_as_for_most() -> None:
    known = rights((None, True, "batsignal"), ("app", True, None), ("root", False, None))
    assert known is not None
    assert [known.may_end(session(1, user)) for user in ("app", "root", None, "new")] == [True, False, True, True]
    assert known.grant == "GRANT pg_signal_backend TO batsignal;"


def test_the_grant_to_paste_is_safe_for_any_role() -> None:
    known = rights((None, False, 'Bat"signal'))
    assert known is not None
    assert known.grant == 'GRANT pg_signal_backend TO "Bat""signal";'
    assert not known.may_end(session(1, None))


def test_a_locked_catalog_leaves_it_open() -> None:
    def ask(*_: Any) -> list[Row]:
        raise CANCELED

    assert ending.rights(ask, ["app"]) is None
    assert rights() is None
