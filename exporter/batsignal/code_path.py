"""Where in an application a statement comes from, as its framework writes it into a comment (sqlcommenter, marginalia).

`/*action='show',controller='users',traceparent='...'*/` at the end of a statement, or at its start, names the code
that sent it: of a session that was never given back, the code that forgot to. Comments are free text and may carry
people's data, so only keys that are known to name code are read, and of their values only what looks like a name; what
looks like an id within a route is masked. Pure: no clock, no I/O. Whether a comment is one and not part of a literal is
for the caller to know. Source: https://google.github.io/sqlcommenter/spec/
"""

import re
from functools import lru_cache
from urllib.parse import unquote

# In the order in which they are told: from the application down to the line of thought.
KEYS = (
    *("application", "app_name", "framework", "controller", "namespaced_controller", "action"),
    *("route", "path_template", "job", "task"),
)
ROUTES = frozenset({"route", "path_template"})
VALUE_LONGEST = 80
# Of what a value is before it is cleaned: what goes on longer names no code.
RAW_LONGEST = 400
LONGEST = 200
MASK = "?"

_PAIR = re.compile(r"(?<![\w.%-])([\w.%-]+)\s*=\s*'((?:[^'\\]|\\.)*)'")
_MARGINALIA = re.compile(r"\s*[A-Za-z_]\w*:[^,:=']+(?:::[^,:=']+)*(?:,\s*[A-Za-z_]\w*:[^,:=']+(?:::[^,:=']+)*)*\s*")
_NAME = re.compile(r"[^\W\d][\w.:#<>/\\$-]*")
_SEGMENT = re.compile(r"[\w.:<>{}()\[\]*+?^$|\\~!,-]*")
_QUERY_STRING = re.compile(r"(?<!\()\?[^/<>()]*=.*|#.*", re.DOTALL)
# A number, a UUID, a hash, a token: who or which, not where.
_DATA = re.compile(r".*\d{4,}.*|(?=.*\d)[0-9a-f-]{8,}", re.IGNORECASE | re.DOTALL)


def split(text: str) -> tuple[str, str, str] | None:
    """Return what stands before, inside and after the comment that opens or ends a statement; None without one.

    Of a comment that was cut off in its middle, the last pair is left out.

    >>> split("SELECT 1 /*action='show'*/;")
    ('SELECT 1 ', "action='show'", ';')
    >>> split("/*action='show'*/ SELECT 1")
    ('', "action='show'", ' SELECT 1')
    >>> split("SELECT 1 /*action='show',route='/us")
    ('SELECT 1 ', "action='show'", '')
    >>> split("SELECT /* why */ 1")
    """
    begin = text.find("/*")
    if begin < 0:
        return None
    leads = not text[:begin].strip()
    if not leads:
        begin = text.rfind("/*")
    end = text.find("*/", begin + 2)
    if end < 0:
        return None if leads else (text[:begin], text[begin + 2 :].rpartition(",")[0], "")
    inside, after = text[begin + 2 : end], text[end + 2 :]
    if "/*" in inside or (not leads and after.strip(" \t\r\n;")):
        return None
    return text[:begin] if not leads else "", inside, after


def has_tags(comment: str) -> bool:
    """Return whether a comment's inside is tags, of whatever key.

    >>> has_tags("traceparent='00-1'"), has_tags("controller:users,action:show"), has_tags("sorry about that")
    (True, True, False)
    """
    return _PAIR.search(comment) is not None or _MARGINALIA.fullmatch(comment) is not None


def spell(comment: str) -> str | None:
    """Return the code path in a comment's inside; None when it names none.

    >>> spell("action='show',controller='users',traceparent='00-5bd66ef5095369c7-01'")
    'controller=users action=show'
    >>> spell("application:Shop,controller:Api::V1::Carts,action:index")
    'application=Shop controller=Api::V1::Carts action=index'
    >>> spell("route='%2Fusers%2F4711%2Forders%2F%3Cint%3Aid%3E'")
    'route=/users/?/orders/<int:id>'
    """
    pairs = _PAIR.findall(comment)
    if not pairs and _MARGINALIA.fullmatch(comment):
        pairs = [one.strip().split(":", 1) for one in comment.split(",")]
    known = {key: value for key, value in pairs if key in KEYS}
    return _spell(tuple(sorted(known.items()))) if known else None


@lru_cache(maxsize=1024)
def _spell(pairs: tuple[tuple[str, str], ...]) -> str | None:
    clean = {key: _route(value) if key in ROUTES else _name(value) for key, value in pairs}
    told = [f"{key}={clean[key]}" for key in KEYS if clean.get(key)]
    return " ".join(told)[:LONGEST].rstrip() or None


def _name(value: str) -> str | None:
    """Return a value that looks like the name of code; None otherwise."""
    name = _decoded(value)
    if len(name) > VALUE_LONGEST or not _NAME.fullmatch(name):
        return None
    return None if any(_DATA.fullmatch(part) for part in re.split(r"[.:#/\\]", name)) else name


def _route(value: str) -> str:
    """Return a route with each segment masked that is somebody's or something's id, and without its query string."""
    route = _QUERY_STRING.sub("", _decoded(value))
    segments = [segment if _is_pattern(segment) else MASK for segment in route.split("/")]
    return "/".join(segments)[:VALUE_LONGEST]


def _is_pattern(segment: str) -> bool:
    return bool(_SEGMENT.fullmatch(segment)) and not segment.isdigit() and not _DATA.fullmatch(segment)


def _decoded(value: str) -> str:
    return unquote(value[:RAW_LONGEST].replace("\\'", "'"), errors="replace").strip()
