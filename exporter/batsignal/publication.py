"""The board and what is rendered of it, changed together: whoever changes the one has not forgotten the other.

Owns no fact. Safe to call from any thread.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from batsignal.expose.metrics import Exposition
from batsignal.record.board import Board, BoardCell, ServerBoard


class Publication:
    """What page, API and metrics show."""

    def __init__(self, board: Board) -> None:
        self._cell = BoardCell(board)
        self._exposition = Exposition(lambda: self._cell.board)

    @property
    def board(self) -> Board:
        """All that is shown now."""
        return self._cell.board

    @property
    def metrics(self) -> Callable[[bool, bool], bytes]:
        """What a scrape is answered by: called with whether it wants OpenMetrics, and gzip."""
        return self._exposition.answer

    def put(self, server: ServerBoard) -> None:
        """Show a server's tick, unless a reload has taken that server away."""
        self._cell.put_server(server)
        self._exposition.refresh(server.name)

    def show(self, **facts: Any) -> None:
        """Show facts, by their names in `Board`, where they differ from what is shown."""
        board = self._cell.board
        if any(getattr(board, name) != fact for name, fact in facts.items()):
            self.change(lambda board: replace(board, **facts))

    def change(self, change: Callable[[Board], Board]) -> None:
        """Show what a change makes of the board, which no other change comes in between of."""
        self._cell.swap(change)
        self._exposition.refresh(None)
