from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from batsignal.expose.metrics import Exposition
from batsignal.record.holders import LimitUse, Oldest
from batsignal.record.tally import ServerTally

OLDEST = (Oldest(application="web", session_at=100.0, idle_since=150.0), Oldest(application="", session_at=None))
LIMITS = (LimitUse(name="role:app", used=7, most=20),)


def series(board: Any) -> dict[tuple[str, str], float]:
    text = Exposition(lambda: board).answer(False, False).decode()
    return {
        (sample.name.removeprefix("batsignal_"), sample.labels.get("application") or sample.labels.get("limit", "")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(("batsignal_oldest", "batsignal_longest", "batsignal_connection_limit"))
    }


def test_ages_and_limits_are_told_as_far_as_they_are_known(boards: Any) -> None:
    server = boards.server(tally=ServerTally(usage=(), oldest=OLDEST, limits=LIMITS))
    assert series(boards.board(server)) == {
        ("oldest_session_timestamp_seconds", "web"): 100.0,
        ("longest_idle_since_timestamp_seconds", "web"): 150.0,
        ("connection_limit", "role:app"): 20,
        ("connection_limit_used", "role:app"): 7,
    }


def test_of_a_server_that_does_not_answer_neither_is_told(boards: Any) -> None:
    server = boards.failing("refused", "no")
    assert not series(boards.board(replace(server, tally=ServerTally(oldest=OLDEST, limits=LIMITS))))
