"""How a command's usage line is spelled: an argument that must be given stands in it as it is.

Owns that line alone. It exists because the library puts such an argument in braces, which elsewhere mean a choice.
"""

from typing import Any

from typer.core import TyperCommand


class PlainCommand(TyperCommand):
    """A command whose usage says `mark SERVICE VERSION`, not `mark {SERVICE} {VERSION}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line, in order; `ctx` is the library's own, whose type has no public name."""
        pieces = super().collect_usage_pieces(ctx)
        return [piece[1:-1] if piece.startswith("{") and piece.endswith("}") else piece for piece in pieces]
