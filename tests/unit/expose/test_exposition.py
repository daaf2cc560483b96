"""What a scrape is handed while ticks go on."""

from typing import Any

from batsignal.expose.metrics import Exposition


def test_a_tick_in_the_middle_of_the_first_scrape_leaves_no_server_out(boards: Any) -> None:
    board = boards.board(boards.server("db1"), boards.server("db2"))
    expositions: list[Exposition] = []
    asked: list[bool] = []

    def board_amid_a_tick() -> Any:
        if not asked:
            asked.append(True)
            expositions[0].refresh("db1")
        return board

    expositions.append(Exposition(board_amid_a_tick))
    text = expositions[0].answer(False, False).decode()
    assert asked
    assert 'batsignal_up{server="db1"} 1' in text
    assert 'batsignal_up{server="db2"} 1' in text


def test_a_tick_is_seen_by_the_next_scrape(boards: Any) -> None:
    shown = [boards.board(boards.server("db1"))]
    exposition = Exposition(lambda: shown[-1])
    assert "batsignal_connection_slots_used{" in exposition.answer(False, False).decode()
    shown.append(boards.board(boards.server("db1", used=50)))
    exposition.refresh("db1")
    assert 'batsignal_connection_slots_used{server="db1"} 50' in exposition.answer(False, False).decode()
