r"""Takes the literals out of a statement, so that it can be shown, stored and compared.

Statements carry people's data; only their shape may leave the poller. The scanner is no SQL parser: it knows
PostgreSQL's lexical rules for strings, comments, numbers and identifiers, and it errs on the side of hiding. A text
that `track_activity_query_size` cut in the middle of a literal hides everything from there on, and so does a plain
string with `\'` in it: it ends there or goes on, by `standard_conforming_strings`, which nobody tells us.
Source: "Lexical Structure" in PostgreSQL's manual.
"""

import re
from functools import lru_cache

from batsignal import code_path
from batsignal.poll.same import SameTexts

# Raw texts differ by their literals; what is left of them does not.
_SHAPES = SameTexts()

# Runs of what is shown as it is: words that are no prefix of a string, spaces, operators that begin no comment. A word
# is taken whole, so that a digit, a quote or a $ inside or behind it is told from the beginning of a literal.
_SHOWN = re.compile(
    r"""
    (?:
        (?!(?:[eEbBxXnN]|[uU]&)')[^\W\d][\w$]*
      | [\s(),=<>*+;:|&^!~@\#?\[\]{}%\\`]+
      | \.(?!\d)
      | /(?!\*)
      | -(?!-)
    )+
    """,
    re.VERBOSE,
)
# Every alternative ends at the end of the text if nothing else ends it; none can match the same text in two ways, so
# that no text makes it slow.
_TOKEN = re.compile(
    r"""
      (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<string>(?:[nN]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
    | (?P<comment>--[^\n]*|/\*)
    | [bBxX]'(?:[^']|'')*(?:'|\Z)
    | [eE]'(?:[^'\\]|''|\\.)*(?:'|\\?\Z)
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | \$\d+
    # More than a number can be, 1.2.3.4 for one: what is not SQL is somebody's data, too.
    | \.?\d[\w.]*(?:(?<=[eE])[+-]\d[\w.]*)?
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED_QUOTE = re.compile(r"(?<!\\)(?:\\\\)*\\'")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_LIST = re.compile(r"\?(?: ?, ?\?)+")
_ROWS = re.compile(r"\(\?\)(?: ?, ?\(\?\))+")

_LONGEST = 1000
# Behind a text that is whole this is shown so; within a literal, a name or a comment it is not.
_PROBE, _PROBE_SHOWN = " |1;", "|?;"


def read(text: str) -> tuple[str, str | None]:
    """Return the statement as `normalise` does, and the code path that its comment names.

    The comment differs from request to request (it carries a trace), the statement before it does not: it is what is
    cached.

    >>> read("SELECT 'x' /*action='show',traceparent='00-17-01'*/")
    ('SELECT ?', 'action=show')
    """
    parts = code_path.split(text)
    if parts is None:
        return normalise(text), None
    before, comment, after = parts
    shown, is_whole = _outside(before)
    if not is_whole:
        return normalise(text), None  # no comment, it is part of a literal
    if after and not after.isspace():
        shown = normalise(f"{before} {after}")
    return shown, code_path.spell(comment)


@lru_cache(maxsize=1024)
def _outside(text: str) -> tuple[str, bool]:
    """Return the beginning of a statement, normalised, and whether it ends outside of every literal and comment."""
    flat = _flat(text + _PROBE)
    if not flat.endswith(_PROBE_SHOWN):
        return "", False
    return _cut(flat.removesuffix(_PROBE_SHOWN)), True


# Raw texts are held here, up to a few kB each; of an application that writes its literals into them none comes again.
@lru_cache(maxsize=512)
def normalise(text: str) -> str:
    r"""Return the statement with every literal as `?`, without comments, on one line, cut at 1,000 characters.

    >>> normalise("SELECT *  FROM t WHERE a = 'x''y' AND b IN (1, 2,3) -- bob")
    'SELECT * FROM t WHERE a = ? AND b IN (?)'
    >>> normalise("INSERT INTO t VALUES (1, E'a\\'b'), (2, $q$it's$q$), ($1, $2)")
    'INSERT INTO t VALUES (?)'
    >>> normalise("SELECT 'cut in the mid")
    'SELECT ?'
    """
    return _cut(_flat(text))


def _cut(flat: str) -> str:
    return _SHAPES.of(flat[:_LONGEST].strip())


def _flat(text: str) -> str:
    parts: list[str] = []
    position = 0
    while position < len(text):
        shown = _SHOWN.match(text, position)
        if shown is not None:
            parts.append(shown[0])
            position = shown.end()
        token = _TOKEN.match(text, position)
        if token is not None:
            replacement, position = _replacement(text, token)
            parts.append(replacement)
        else:
            parts.append(text[position : position + 1])
            position += 1
    flat = " ".join("".join(parts).split())
    return _ROWS.sub("(?)", _LIST.sub("?", flat))


def _replacement(text: str, token: re.Match[str]) -> tuple[str, int]:
    """Return what a token is shown as and where the text after it begins."""
    kind, end = token.lastgroup, token.end()
    if kind == "name":
        return token[0], end
    if kind == "comment":
        return " ", _comment_end(text, end) if token[0] == "/*" else end
    if kind == "dollar":
        close = text.find(token[0], end)
        return "?", len(text) if close < 0 else close + len(token[0])
    if kind == "string" and _ESCAPED_QUOTE.search(token[0]):
        return "?", len(text)
    return "?", end


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
