"""Hands out `/metrics` as bytes that the tick rendered: a scrape costs no rendering, no lock wait and no I/O.

Each server's part is rendered once a tick, in the formats asked for lately; the parts are joined into whole answers
once per change of the board. The expensive work thus happens at most once a tick, however many scrape.
"""

import gzip
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from batsignal.expose.families import families_of_no_server, families_of_server
from batsignal.record.board import Board, ServerBoard

# A variant that nobody asked for in this long is rendered no more until somebody asks again.
WANTED_SECONDS = 120.0
GZIP_LEVEL = 1

_EOF = b"# EOF\n"


class _Families:
    """The one method of a registry that the library's renderers call."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


@dataclass(frozen=True, slots=True)
class _Rendered:
    """One family of one server: its head (HELP and TYPE) and its samples."""

    head: bytes
    samples: bytes


@dataclass(slots=True)
class _Format:
    """One text format: the parts by server (None: the daemon's own), and the answers joined of them."""

    parts: dict[str | None, dict[str, _Rendered]] = field(default_factory=dict)
    plain: bytes | None = None
    zipped: bytes | None = None
    wanted_at: float = float("-inf")
    zip_wanted_at: float = float("-inf")


class Exposition:
    """The rendered answers. `refresh` is called by ticks, `answer` by scrapes, each from any thread."""

    def __init__(self, board: Callable[[], Board], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._formats = {False: _Format(), True: _Format()}
        self._process = ProcessCollector(registry=None)

    def refresh(self, changed: str | None) -> None:
        """Render anew what `changed` (a server; None: the daemon's own families) shows."""
        board = self._board()
        with self._lock:
            for openmetrics, form in self._formats.items():
                if self._monotonic() - form.wanted_at > WANTED_SECONDS:
                    form.parts.clear()
                    form.plain = form.zipped = None
                if form.plain is None:
                    continue  # the first answer makes the whole of it: a part must not be taken for that
                self._render(openmetrics, form, board, changed)
                self._join(openmetrics, form)

    def answer(self, openmetrics: bool, zipped: bool) -> bytes:
        """Return the whole exposition in one variant; ready at once when it was asked for lately."""
        form = self._formats[openmetrics]
        form.wanted_at = self._monotonic()
        if zipped:
            form.zip_wanted_at = form.wanted_at
        ready = form.zipped if zipped else form.plain
        return ready if ready is not None else self._first_answer(openmetrics, zipped)

    def _first_answer(self, openmetrics: bool, zipped: bool) -> bytes:
        board = self._board()
        form = self._formats[openmetrics]
        with self._lock:
            if form.plain is None:
                for name in (None, *board.servers):
                    self._render(openmetrics, form, board, name)
            plain = self._join(openmetrics, form)
            return form.zipped if zipped and form.zipped is not None else plain

    def _render(self, openmetrics: bool, form: _Format, board: Board, name: str | None) -> None:
        seen = {name for name, server in board.servers.items() if server is not None}
        for gone in set(form.parts) - {None, *seen}:
            del form.parts[gone]
        if None not in form.parts or name is None:
            own = [*families_of_no_server(board), *self._process.collect()]
            form.parts[None] = _rendered(own, openmetrics)
        if name is None:
            return
        server = board.servers.get(name)
        if server is not None:
            form.parts[name] = _rendered_server(server, openmetrics)

    def _join(self, openmetrics: bool, form: _Format) -> bytes:
        families: dict[str, list[bytes]] = {}
        for part in form.parts.values():
            for name, rendered in part.items():
                families.setdefault(name, [rendered.head]).append(rendered.samples)
        pieces = [piece for family in families.values() for piece in family]
        form.plain = b"".join([*pieces, _EOF] if openmetrics else pieces)
        wanted = self._monotonic() - form.zip_wanted_at <= WANTED_SECONDS
        form.zipped = gzip.compress(form.plain, GZIP_LEVEL, mtime=0) if wanted else None
        return form.plain


def _rendered_server(server: ServerBoard, openmetrics: bool) -> dict[str, _Rendered]:
    return _rendered(families_of_server(server), openmetrics)


def _rendered(families: Iterable[Metric], openmetrics: bool) -> dict[str, _Rendered]:
    """Render family by family, so that the same family of several servers can share one head."""
    generate = generate_openmetrics if openmetrics else generate_text
    rendered = {}
    for family in families:
        if not family.samples:
            continue
        lines = generate(_Families([family])).removesuffix(_EOF)
        cut = _head_length(lines)
        rendered[family.name] = _Rendered(lines[:cut], lines[cut:])
    return rendered


def _head_length(lines: bytes) -> int:
    """Return where the comment lines at the top end."""
    position = 0
    while lines.startswith(b"#", position):
        position = lines.index(b"\n", position) + 1
    return position
