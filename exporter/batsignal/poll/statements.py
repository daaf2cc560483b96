"""Takes the literals out of a statement, so that it can be shown, stored and compared.

Statements carry people's data; only their shape may leave the poller. The scanner is no SQL parser: it knows
PostgreSQL's lexical rules for strings, comments, numbers and identifiers, and it errs on the side of hiding. A text
that `track_activity_query_size` cut in the middle of a literal hides everything from there on.
Source: "Lexical Structure" in PostgreSQL's manual.
"""

import re
from functools import lru_cache

_TOKEN = re.compile(
    r"""
      (?P<line_comment>--[^\n]*)
    | (?P<block_comment>/\*)
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<escape>(?<![\w$])[eE]'(?:[^'\\]|''|\\.)*(?:'|\\?\Z))
    | (?P<string>(?:(?<![\w$])(?:[bBxXnN]|[uU]&))?'(?:[^']|'')*(?:'|\Z))
    | (?P<dollar>(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$)
    | (?P<number>(?<![\w$])(?:\$\d+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?\w*))
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_LIST = re.compile(r"\?(?: ?, ?\?)+")
_ROWS = re.compile(r"\(\?\)(?: ?, ?\(\?\))+")

_LONGEST = 1000


@lru_cache(maxsize=4096)
def normalise(text: str) -> str:
    r"""Return the statement with every literal as `?`, without comments, on one line, cut at 1,000 characters.

    >>> normalise("SELECT *  FROM t WHERE a = 'x''y' AND b IN (1, 2,3) -- bob")
    'SELECT * FROM t WHERE a = ? AND b IN (?)'
    >>> normalise("INSERT INTO t VALUES (1, E'a\\'b'), (2, $q$it's$q$), ($1, $2)")
    'INSERT INTO t VALUES (?)'
    >>> normalise("SELECT 'cut in the mid")
    'SELECT ?'
    """
    parts: list[str] = []
    position = 0
    while (match := _TOKEN.search(text, position)) is not None:
        parts.append(text[position : match.start()])
        shown, position = _replacement(text, match)
        parts.append(shown)
    parts.append(text[position:])
    flat = " ".join("".join(parts).split())
    return _ROWS.sub("(?)", _LIST.sub("?", flat))[:_LONGEST].strip()


def _replacement(text: str, match: re.Match[str]) -> tuple[str, int]:
    """Return what a token is shown as and where the text after it begins."""
    if match["name"]:
        return match["name"], match.end()
    if match["line_comment"]:
        return " ", match.end()
    if match["block_comment"]:
        return " ", _comment_end(text, match.end())
    if match["dollar"]:
        end = text.find(match["dollar"], match.end())
        return "?", len(text) if end < 0 else end + len(match["dollar"])
    return "?", match.end()


def _comment_end(text: str, position: int) -> int:
    """Return where a block comment that began before `position` ends; they nest in PostgreSQL."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, position)
        if edge is None:
            return len(text)
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position
