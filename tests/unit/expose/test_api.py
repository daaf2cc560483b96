import json
import math
from dataclasses import replace
from typing import Any

import pytest

from batsignal.expose import api
from batsignal.record.endpoint_tally import EndpointTally
from batsignal.record.tally import ServerTally


def status(board: Any, now: float) -> Any:
    return json.loads(api.encode(api.status_view(board, now)))


def test_status_tells_all_of_a_server_that_is_well(boards: Any) -> None:
    answer = status(boards.quiet(), boards.now)
    assert answer["time"] == boards.now
    assert answer["version"] == "0.1.0"
    assert answer["servers"] == [
        {
            "name": "db1",
            "state": "up",
            "up": True,
            "view": "session",
            "privileged": True,
            "slots_full": False,
            "slots": {"max": 100, "usable": 97, "used": 24},
            "server_version_num": 150018,
            "last_poll": boards.now - 1,
            "last_answer": boards.now - 1,
            "failure": None,
            "ping_seconds": 0.0004,
            "exhaustion_seconds": None,
            "applications": [
                {"application": "web", "version": "2.4.0", "sessions": 12},
                {"application": "billing", "version": "", "sessions": 8},
                {"application": "", "version": "", "sessions": 3},
            ],
            "signals": [],
        }
    ]
    assert answer["endpoints"] == [
        {
            "endpoint": "web",
            "service": "web",
            "up": True,
            "seconds": 0.051,
            "status": 200,
            "reason": None,
            "at": boards.now - 2,
        }
    ]
    assert answer["deploys"] == [{"service": "web", "version": "2.4.0", "at": boards.now - 96}]
    assert answer["config"] == {"reload_ok": True, "reloaded_at": boards.now - 3600, "error": None, "web_error": None}


def test_server_before_its_first_poll_is_starting_and_knows_nothing(boards: Any) -> None:
    (server,) = status(boards.board("db1"), boards.now)["servers"]
    assert server["state"] == "starting"
    assert server["up"] is False
    assert server["slots"] is server["last_poll"] is server["last_answer"] is server["failure"] is None


def test_both_server_shapes_have_the_same_keys(boards: Any) -> None:
    waiting, seen = status(boards.board("db0", boards.server()), boards.now)["servers"]
    assert list(waiting) == list(seen)


def test_failed_look_shows_the_last_good_numbers_and_their_age(boards: Any) -> None:
    (server,) = status(boards.board(boards.failing("slots_full", "no slot left")), boards.now)["servers"]
    assert server["state"] == "slots_full"
    assert server["slots_full"] is True
    assert server["view"] == "none"
    assert server["failure"] == {"reason": "slots_full", "sqlstate": "53300", "text": "no slot left"}
    assert server["last_poll"] == boards.now - 1
    assert server["last_answer"] == boards.now - 41
    assert server["slots"] == {"max": 100, "usable": 97, "used": 24}
    assert server["applications"][0] == {"application": "web", "version": "2.4.0", "sessions": 12}
    assert server["ping_seconds"] is None


def test_server_that_never_answered_has_no_numbers(boards: Any) -> None:
    (server,) = status(boards.board(boards.failing("refused", "refused", answered=False)), boards.now)["servers"]
    assert server["slots"] is None
    assert server["last_answer"] is None
    assert server["applications"] == []


def test_stale_board_is_a_timeout(boards: Any) -> None:
    (server,) = status(boards.board(boards.server(stale=True)), boards.now)["servers"]
    assert (server["state"], server["up"], server["view"]) == ("timeout", False, "none")


def test_signals_are_listed_whole_and_by_id_at_their_server(boards: Any) -> None:
    board = boards.two_signals()
    listed = json.loads(api.encode(api.signals_view(board, boards.now)))
    assert [signal["kind"] for signal in listed["signals"]] == ["leak", "endpoint_down"]
    assert listed["signals"] == [signal.as_json() for signal in board.signals]
    assert listed["time"] == boards.now
    by_name = {server["name"]: server["signals"] for server in status(board, boards.now)["servers"]}
    assert by_name == {"db1": ["db1-leak", "db1-endpoint_down"], "db2": [], "db3": []}


def test_only_the_twenty_largest_applications_are_listed(boards: Any) -> None:
    usage = tuple(boards.count(f"app{n:02}", "", n + 1) for n in range(25))
    board = boards.board(boards.server(tally=ServerTally(usage=usage)))
    (server,) = status(board, boards.now)["servers"]
    assert [entry["sessions"] for entry in server["applications"]] == list(range(25, 5, -1))


def test_endpoint_that_was_not_probed_yet_is_neither_up_nor_down(boards: Any) -> None:
    board = boards.board(endpoints={"web": EndpointTally(endpoint="web", service="shop")})
    (endpoint,) = status(board, boards.now)["endpoints"]
    assert endpoint["up"] is None
    assert endpoint["service"] == "shop"


def test_config_that_would_not_load_says_why(boards: Any) -> None:
    board = replace(boards.quiet(), config_reload_ok=False, config_reload_error="servers: expected a list")
    assert status(board, boards.now)["config"]["error"] == "servers: expected a list"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_does_not_know_become_null(boards: Any, value: float) -> None:
    server = boards.server(exhaustion_seconds=value, snapshot=boards.snapshot(ping_seconds=value))
    (answer,) = status(boards.board(server), boards.now)["servers"]
    assert answer["exhaustion_seconds"] is None
    assert answer["ping_seconds"] is None


def test_time_left_is_a_number_while_slots_run_out(boards: Any) -> None:
    (server,) = status(boards.lit(), boards.now)["servers"]
    assert server["exhaustion_seconds"] == 110.0


def test_json_that_would_not_be_strict_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        api.encode({"seconds": math.nan})


def test_hostile_names_stay_plain_ascii_json(boards: Any) -> None:
    name = "<script>\u202e\x00\ud800"
    board = boards.board(boards.server(tally=ServerTally(usage=(boards.count(name, "", 1),))))
    text = api.encode(api.status_view(board, boards.now))
    assert text.isascii()
    assert json.loads(text)["servers"][0]["applications"][0]["application"] == name
