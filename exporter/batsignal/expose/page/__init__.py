"""The pages for people: HTML documents drawn on the server, complete without scripts.

Owns templates, style, script and the Content-Security-Policy that allows exactly these two by their hashes. Inline,
because the page at 3 a.m. must come whole in one answer; no asset from outside, ever. Names from outside pass through
autoescape and `wording.printable`. What a page says is drawn once (`Drawn`), and goes out as a document or, to pages
that are open, as the part of it that changes.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from batsignal import spelling
from batsignal.expose.page import chart, prose, wording
from batsignal.expose.page.incident import View, line_of, tell_incident
from batsignal.expose.page.story import CARDS_SHOWN, Mood, tell
from batsignal.record.board import Board
from batsignal.record.past_slots import PastSlots

# Without scripts the page asks for itself anew.
REFRESH_SECONDS = 5

_HERE = Path(__file__).parent
_STYLE = (_HERE / "page.css").read_text("utf-8")
_SCRIPT = (_HERE / "page.js").read_text("utf-8")
BUILD = sha256((_STYLE + _SCRIPT).encode("utf-8")).hexdigest()[:12]
"""What style and script a page was sent with: an open page with others loads itself anew."""


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

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32'"
    " rx='7' fill='%230b1124'/%3E%3Ccircle cx='16' cy='16' r='12' fill='%23{colour}'/%3E%3Cpath fill='%230b1124' d='M16"
    " 12l-1-2-1 2c-3 0-3-2-3-3-3 0-6 3-7 6 2-1 4 0 4 2 1-1 3-1 4 1 1-1 3 0 4 2 1-2 3-3 4-2 1-2 3-2 4-1 0-2 2-3 4-2-1-3"
    "-4-6-7-6 0 1 0 3-3 3l-1-2z'/%3E%3C/svg%3E"
)
_ICON_COLOURS: Mapping[Mood, str] = {"lit": "ffd84d", "quiet": "39456b", "blind": "c9d0e4", "starting": "c9d0e4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A page, drawn: its title, its icon and all that can change, the `main` element.

    `stream` is where the open page hears of changes, None for one that is not told; `refresh_seconds` is how often it
    asks for itself where scripts do not run, None for never.
    """

    title: str
    icon: str
    main: Markup
    stream: str | None = None
    refresh_seconds: int | None = None

    def as_json(self) -> Mapping[str, str]:
        """Return what an open page puts in place of what it shows."""
        return {"build": BUILD, "title": self.title, "icon": self.icon, "main": self.main}

    def document(self) -> bytes:
        """Return the whole document in UTF-8."""
        return _SHELL.render(drawn=self, build=BUILD).encode("utf-8", "replace")


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
        duration=spelling.duration,
        clock=wording.clock,
        latency=spelling.latency,
        short=wording.short,
        taken=spelling.taken,
    )
    environment.globals.update(
        style=Markup(_STYLE),  # noqa: S704  # our own file, and the CSP holds its hash
        script=Markup(_SCRIPT),  # noqa: S704  # likewise
        kinds=wording.KINDS,
        cards_shown=CARDS_SHOWN,
        chart_width=chart.WIDTH,
        chart_height=chart.HEIGHT,
    )
    return environment


_TEMPLATES = _environment()
_SHELL = _TEMPLATES.get_template("shell.html.j2")
_STATUS = _TEMPLATES.get_template("status.html.j2")
_INCIDENT = _TEMPLATES.get_template("incident.html.j2")
_INCIDENTS = _TEMPLATES.get_template("incidents.html.j2")
_MISSING = _TEMPLATES.get_template("missing.html.j2")
_RUNBOOK = _TEMPLATES.get_template("runbook.html.j2")


def draw_status(board: Board, now: float, *, runbooks: frozenset[str] = frozenset()) -> Drawn:
    """Return the status page. `runbooks` are the names that `/runbooks/NAME` answers: only they are linked."""
    story = tell(board, now, runbooks)
    return Drawn(
        title=story.title,
        icon=_ICON.format(colour=_ICON_COLOURS[story.mood]),
        main=Markup(_STATUS.render(story=story, now=now)),  # noqa: S704  # escaped by its template
        stream="api/v1/stream?page=1",
        refresh_seconds=REFRESH_SECONDS,
    )


def draw_incident(view: View, slots: PastSlots | None, now: float, *, runbooks: frozenset[str] = frozenset()) -> Drawn:
    """Return the page of a kept incident, which stands one folder down; `slots` are those around it, if known."""
    story = tell_incident(view, slots, runbooks)
    goes_on = story.ended is None
    return Drawn(
        title=f"{'LIT: ' if goes_on else ''}{story.summary} \N{MIDDLE DOT} BatSignal",
        icon=_ICON.format(colour=_ICON_COLOURS["lit" if goes_on else "quiet"]),
        main=Markup(_INCIDENT.render(story=story, now=now)),  # noqa: S704  # as above
        refresh_seconds=REFRESH_SECONDS if goes_on else None,
    )


def draw_incidents(views: Sequence[View], now: float, *, is_later_page: bool, has_more: bool) -> Drawn:
    """Return a page of kept incidents, the newest first. `has_more` says that there are older ones."""
    lines = [line_of(view) for view in views]
    older = f"{lines[-1].detected!r}" if has_more else None
    main = _INCIDENTS.render(lines=lines, now=now, is_later_page=is_later_page, older=older)
    return Drawn(
        title="Incidents \N{MIDDLE DOT} BatSignal",
        icon=_ICON.format(colour=_ICON_COLOURS["quiet"]),
        main=Markup(main),  # noqa: S704  # as above
    )


def draw_missing(text: str, *, root: str = "../") -> Drawn:
    """Return the page that says why there is none; `root` leads from where it stands to the status page."""
    return Drawn(
        title="Not here \N{MIDDLE DOT} BatSignal",
        icon=_ICON.format(colour=_ICON_COLOURS["quiet"]),
        main=Markup(_MISSING.render(text=text, root=root)),  # noqa: S704  # as above
    )


def draw_runbook(text: str) -> Drawn:
    """Return the page of a shipped runbook in Markdown, which stands one folder down."""
    return Drawn(
        title=f"{prose.title_of(text) or 'Runbook'} \N{MIDDLE DOT} BatSignal",
        icon=_ICON.format(colour=_ICON_COLOURS["quiet"]),
        main=Markup(_RUNBOOK.render(prose=prose.as_html(text))),  # noqa: S704  # as above
    )


def render(board: Board, now: float, *, runbooks: frozenset[str] = frozenset()) -> bytes:
    """Return the status page as a document in UTF-8."""
    return draw_status(board, now, runbooks=runbooks).document()
