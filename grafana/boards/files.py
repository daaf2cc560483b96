"""The dashboards as files: which there are, and how their JSON is spelled. It knows nothing of what is on them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from boards import connections, fleet, itself, overview, statements
from boards.board import Board

BOARDS = (overview.board, connections.board, statements.board, fleet.board, itself.board)


def rendered() -> Mapping[str, str]:
    """Return the text of every file by its name: the dashboard's uid."""
    return {f"{board.uid}.json": text(board) for board in (make() for make in BOARDS)}


def text(board: Board) -> str:
    """Return a dashboard as JSON, keys in order, so that a change reads as one in a diff."""
    content: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(folder: Path) -> None:
    """Write every dashboard into `folder`."""
    folder.mkdir(exist_ok=True)
    for name, content in rendered().items():
        (folder / name).write_text(content, encoding="utf-8")
