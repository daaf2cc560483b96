"""The status page: one HTML document, drawn on the server from the board, complete without scripts.

Owns templates, style, script and the Content-Security-Policy that allows exactly these two by their hashes. Inline,
because the page at 3 a.m. must come whole in one answer; no asset from outside, ever. Names from outside pass through
autoescape and `wording.printable`.
"""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from batsignal.expose.page import chart, wording
from batsignal.expose.page.story import CHARTS_SHOWN, tell
from batsignal.record.board import Board

_HERE = Path(__file__).parent
_STYLE = (_HERE / "page.css").read_text("utf-8")
_SCRIPT = (_HERE / "page.js").read_text("utf-8")


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_source(_STYLE)}",
        f"script-src {_source(_SCRIPT)}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        finalize=wording.printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        utc=wording.utc,
        iso=wording.iso,
        ago=wording.ago,
        span=wording.span,
        clock=wording.clock,
        latency=wording.latency,
    )
    environment.globals.update(
        style=Markup(_STYLE),  # noqa: S704  # our own file, and the CSP holds its hash
        script=Markup(_SCRIPT),  # noqa: S704  # likewise
        charts_shown=CHARTS_SHOWN,
        chart_width=chart.WIDTH,
        chart_height=chart.HEIGHT,
    )
    return environment


_PAGE = _environment().get_template("page.html.j2")


def render(board: Board, now: float, *, runbooks: frozenset[str] = frozenset()) -> bytes:
    """Return the page in UTF-8. `runbooks` are the names that `/runbooks/NAME` answers: only they are linked."""
    return _PAGE.render(story=tell(board, now, runbooks), now=now).encode("utf-8", "replace")
