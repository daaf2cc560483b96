"""What the library does not do for arguments as it should: how a usage line is spelled, and that no text is empty.

Owns that alone. It exists because the library puts an argument that must be given in braces, which elsewhere mean a
choice, and takes an empty text, as a shell makes of a variable that is not set, for a path or a connection string: of
the folder one stands in, of whatever server this host has.
"""

from typing import Any

import typer
from typer.core import TyperCommand


class PlainCommand(TyperCommand):
    """A command whose usage says `mark SERVICE VERSION`, not `mark {SERVICE} {VERSION}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line, in order; `ctx` is the library's own, whose type has no public name."""
        pieces = super().collect_usage_pieces(ctx)
        return [piece[1:-1] if piece.startswith("{") and piece.endswith("}") else piece for piece in pieces]


def not_empty(text: str | None) -> str | None:
    """Return the text of an option or an argument as it is; raises the library's usage error for an empty one."""
    if text is not None and not text.strip():
        raise typer.BadParameter("expected a text that is not empty")
    return text
