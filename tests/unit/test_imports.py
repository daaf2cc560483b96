"""Who may import whom (docs/design.md), read off the syntax tree of every module; nothing is imported to find out."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import batsignal

PACKAGE = Path(batsignal.__file__).parent
LINES_MOST = 450


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What the modules of one layer may import. A name stands for the module and all below it."""

    ours: tuple[str, ...] = ()
    third_party: frozenset[str] = frozenset()
    banned: frozenset[str] = frozenset()
    """Of the standard library."""
    names: tuple[tuple[str, str], ...] = ()
    """All that may be taken from a module of ours that is allowed in part."""
    is_pure: bool = False
    """May not ask what time it is."""


EVERYTHING = ("batsignal",)
# What a judgement must not depend on: clocks, chance, the world.
WORLD = frozenset(
    {
        *("asyncio", "concurrent", "http", "importlib", "io", "logging", "multiprocessing", "os", "pathlib", "queue"),
        *("random", "sched", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl"),
        *("subprocess", "tempfile", "threading", "time", "urllib"),
    }
)
DRIVERS = frozenset({"psycopg2", "psutil", "httpx", "structlog"})

# The first that fits counts: the more special stands before the more general.
LAYERS: dict[str, Layer] = {
    "batsignal": Layer(),
    "batsignal.__main__": Layer(ours=("batsignal.cli",)),
    "batsignal.errors": Layer(),
    "batsignal.pipes": Layer(),
    "batsignal.small_file": Layer(ours=("batsignal.pipes",)),
    "batsignal.footprint": Layer(),
    "batsignal.assets": Layer(),
    "batsignal.names": Layer(banned=WORLD, is_pure=True),
    "batsignal.snapshot": Layer(ours=("batsignal.names",), banned=WORLD, is_pure=True),
    "batsignal.spelling": Layer(banned=WORLD, is_pure=True),
    "batsignal.census": Layer(ours=("batsignal.snapshot",), banned=WORLD, is_pure=True),
    "batsignal.code_path": Layer(banned=WORLD - {"urllib"}, is_pure=True),
    "batsignal.config": Layer(
        ours=(
            *("batsignal.errors", "batsignal.config.dsn", "batsignal.config.source", "batsignal.config.wording"),
            "batsignal.pattern_cost",
        ),
        third_party=frozenset({"pydantic", "pydantic_core", "yaml"}),
    ),
    "batsignal.pattern_cost": Layer(),
    "batsignal.config.dsn": Layer(third_party=frozenset({"psycopg2"})),
    "batsignal.web_config": Layer(
        ours=("batsignal.errors", "batsignal.config", "batsignal.config.written", "batsignal.config.wording"),
        third_party=frozenset({"pydantic"}),
    ),
    "batsignal.config.source": Layer(
        ours=(
            *("batsignal.errors", "batsignal.config.dsn", "batsignal.config.wording", "batsignal.config.written"),
            "batsignal.small_file",
        ),
        third_party=frozenset({"psycopg2"}),
    ),
    "batsignal.config.written": Layer(
        ours=("batsignal.errors", "batsignal.config.wording", "batsignal.small_file"), third_party=frozenset({"yaml"})
    ),
    "batsignal.config.wording": Layer(
        ours=("batsignal.errors",), third_party=frozenset({"pydantic", "pydantic_core", "yaml"})
    ),
    "batsignal.detect.signal": Layer(banned=WORLD, is_pure=True),
    "batsignal.detect.*": Layer(
        ours=("batsignal.names", "batsignal.snapshot", "batsignal.spelling", "batsignal.detect", "batsignal.config"),
        names=(("batsignal.config", "Thresholds"),),
        banned=WORLD,
        is_pure=True,
    ),
    "batsignal.record.incidents": Layer(
        ours=("batsignal.detect.signal", "batsignal.record.news"), banned=WORLD, is_pure=True
    ),
    "batsignal.record.news": Layer(ours=("batsignal.detect.signal",), banned=WORLD, is_pure=True),
    "batsignal.record.holders": Layer(ours=("batsignal.snapshot", "batsignal.census"), banned=WORLD, is_pure=True),
    "batsignal.record.histogram": Layer(banned=WORLD, is_pure=True),
    "batsignal.record.sticky_names": Layer(banned=WORLD, is_pure=True),
    "batsignal.record.endpoint_tally": Layer(
        ours=("batsignal.snapshot", "batsignal.record.histogram"), banned=WORLD, is_pure=True
    ),
    "batsignal.record.tally": Layer(
        ours=(
            *("batsignal.names", "batsignal.snapshot", "batsignal.census", "batsignal.record.holders"),
            *("batsignal.record.histogram", "batsignal.record.sticky_names"),
        ),
        banned=WORLD,
        is_pure=True,
    ),
    "batsignal.record.recent": Layer(
        ours=("batsignal.detect.signal", "batsignal.record.board"), banned=WORLD, is_pure=True
    ),
    "batsignal.record.store": Layer(
        ours=(
            *("batsignal.snapshot", "batsignal.detect.signal", "batsignal.detect.hindsight"),
            *("batsignal.record.board", "batsignal.record.kept", "batsignal.record.recent"),
        )
    ),
    "batsignal.record.*": Layer(
        ours=(
            *(
                "batsignal.names",
                "batsignal.snapshot",
                "batsignal.code_path",
                "batsignal.detect.signal",
                "batsignal.record",
            ),
            # A recording that is read may be a pipe, as a config may be.
            *("batsignal.errors", "batsignal.pattern_cost", "batsignal.pipes"),
        )
    ),
    "batsignal.deploys.find": Layer(
        ours=("batsignal.names", "batsignal.snapshot", "batsignal.census"),
        banned=WORLD,
        is_pure=True,
    ),
    "batsignal.deploys.case": Layer(
        ours=("batsignal.names", "batsignal.snapshot", "batsignal.spelling", "batsignal.deploys"),
        banned=WORLD,
        is_pure=True,
    ),
    "batsignal.deploys.checks": Layer(
        ours=("batsignal.names", "batsignal.snapshot", "batsignal.spelling", "batsignal.deploys"),
        banned=WORLD,
        is_pure=True,
    ),
    "batsignal.deploys.verify": Layer(
        ours=("batsignal.names", "batsignal.snapshot", "batsignal.spelling", "batsignal.deploys"),
        banned=WORLD,
        is_pure=True,
    ),
    "batsignal.deploys.*": Layer(
        ours=(
            "batsignal.names",
            "batsignal.snapshot",
            "batsignal.census",
            "batsignal.detect.signal",
            "batsignal.deploys",
        )
    ),
    "batsignal.releases.*": Layer(
        ours=("batsignal.names", "batsignal.snapshot", "batsignal.releases"), banned=WORLD, is_pure=True
    ),
    "batsignal.poll.*": Layer(
        ours=(
            *(
                "batsignal.names",
                "batsignal.snapshot",
                "batsignal.code_path",
                "batsignal.config",
                "batsignal.errors",
                "batsignal.poll",
            ),
            "batsignal.__version__",
        ),
        third_party=DRIVERS,
    ),
    "batsignal.expose.*": Layer(
        ours=(
            "batsignal.names",
            "batsignal.snapshot",
            "batsignal.spelling",
            "batsignal.detect.signal",
            "batsignal.record",
            "batsignal.errors",
            "batsignal.expose",
            "batsignal.web_config",
            "batsignal.small_file",
            "batsignal.releases.order",
        ),
        third_party=frozenset(
            {"bcrypt", "jinja2", "markdown_it", "markupsafe", "prometheus_client", "starlette", "structlog", "uvicorn"}
        ),
    ),
    "batsignal.tick": Layer(
        ours=(
            "batsignal.names",
            "batsignal.snapshot",
            "batsignal.census",
            "batsignal.detect",
            "batsignal.record",
            "batsignal.config",
        ),
        names=(("batsignal.config", "Thresholds"),),
        banned=WORLD,
        is_pure=True,
    ),
    # The daemon's layer. What only wires may reach everything below it, but not the commands.
    "batsignal.schedule": Layer(third_party=frozenset({"apscheduler", "structlog"})),
    "batsignal.recordings": Layer(
        ours=("batsignal.config", "batsignal.errors", "batsignal.record"), third_party=frozenset({"structlog"})
    ),
    "batsignal.chronicle": Layer(
        ours=("batsignal.snapshot", "batsignal.config", "batsignal.detect", "batsignal.record"),
        third_party=frozenset({"structlog"}),
    ),
    "batsignal.web_watch": Layer(
        ours=("batsignal.errors", "batsignal.web_config", "batsignal.expose"), third_party=frozenset({"structlog"})
    ),
    "batsignal.runner": Layer(
        ours=(
            *(
                "batsignal.names",
                "batsignal.snapshot",
                "batsignal.census",
                "batsignal.config",
                "batsignal.errors",
                "batsignal.poll",
                "batsignal.detect",
            ),
            *("batsignal.record", "batsignal.deploys", "batsignal.tick", "batsignal.schedule", "batsignal.chronicle"),
        ),
        third_party=frozenset({"structlog"}),
    ),
    "batsignal.releaser": Layer(
        ours=(
            *(
                "batsignal.names",
                "batsignal.snapshot",
                "batsignal.detect.signal",
                "batsignal.poll",
                "batsignal.releases",
            ),
            "batsignal.runner",
        ),
        third_party=frozenset({"psycopg2", "structlog"}),
    ),
    "batsignal.publication": Layer(ours=("batsignal.expose.metrics", "batsignal.record.board")),
    "batsignal.endpoints": Layer(
        ours=(
            *("batsignal.snapshot", "batsignal.config", "batsignal.poll.health", "batsignal.record"),
            *("batsignal.publication", "batsignal.runner", "batsignal.schedule"),
        ),
    ),
    "batsignal.clerk": Layer(
        ours=(
            *("batsignal.names", "batsignal.snapshot", "batsignal.deploys", "batsignal.releases.order"),
            *("batsignal.expose.exchange", "batsignal.expose.releases", "batsignal.publication"),
            *("batsignal.chronicle", "batsignal.releaser", "batsignal.runner"),
        ),
        third_party=frozenset({"structlog"}),
    ),
    "batsignal.daemon": Layer(
        ours=(
            *("batsignal.__version__", "batsignal.names", "batsignal.snapshot", "batsignal.census", "batsignal.config"),
            *("batsignal.errors", "batsignal.poll.resolve", "batsignal.record.board", "batsignal.deploys.ledger"),
            *("batsignal.expose", "batsignal.publication", "batsignal.endpoints", "batsignal.clerk"),
            *("batsignal.footprint", "batsignal.runner", "batsignal.schedule", "batsignal.chronicle"),
            *("batsignal.recordings", "batsignal.web_watch"),
        ),
        third_party=frozenset({"structlog"}),
    ),
    "batsignal.drills.*": Layer(
        ours=(
            "batsignal.snapshot",
            "batsignal.detect.signal",
            "batsignal.config",
            "batsignal.errors",
            "batsignal.poll",
            "batsignal.drills",
        ),
        third_party=frozenset({"psycopg2", "yaml", "psutil"}),
    ),
    "batsignal.cli.*": Layer(
        ours=EVERYTHING, third_party=frozenset({"jinja2", "psycopg2", "structlog", "typer", "click"})
    ),
}


def layer_of(module: str) -> Layer | None:
    for name, layer in LAYERS.items():
        if name.endswith(".*"):
            package = name.removesuffix(".*")
            if module == package or module.startswith(f"{package}."):
                return layer
        elif module == name:
            return layer
    return None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the full dotted name of everything that is imported, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def is_within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


def faults(module: str, source: str) -> list[str]:
    """Return what a module imports or calls against the rules, one line each."""
    layer = layer_of(module)
    if layer is None:
        return [f"{module}: stands in no layer"]
    tree = ast.parse(source)
    found = [f"{module}:{line}: may not import {name}" for line, name in imports(tree) if not _is_allowed(layer, name)]
    if layer.is_pure:
        found += [f"{module}:{line}: may not ask for the time" for line in _clock_calls(tree)]
    return found


def _is_allowed(layer: Layer, name: str) -> bool:
    if name.startswith("."):
        return False  # relative: nobody sees at a glance where it leads
    top = name.partition(".")[0]
    if top == "batsignal":
        partly = [f"{base}.{part}" for base, part in layer.names if is_within(name, base)]
        return name in partly if partly else any(is_within(name, allowed) for allowed in layer.ours)
    if top in sys.stdlib_module_names:
        return top not in layer.banned
    return top in layer.third_party


def _clock_calls(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
            owner = node.value
            owner_name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", None)
            if owner_name in {"datetime", "date"}:
                yield node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "__import__":
            yield node.lineno


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_layer_may(module: str) -> None:
    assert not faults(module, MODULES[module].read_text(encoding="utf-8"))


def needed(source: str) -> set[str]:
    """Return the modules of ours that one needs, for its types alone, too."""
    found = set()
    for _, name in imports(ast.parse(source)):
        parts = name.split(".")
        prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        found.update([prefix for prefix in prefixes if prefix in MODULES][:1])
    return found


def circle(sources: dict[str, str]) -> list[str]:
    """Return the modules of a circle of imports, the first once more at the end; nothing where there is none."""
    graph = {module: needed(source) - {module} for module, source in sources.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        return list(exc.args[1])
    return []


def test_no_module_needs_itself_by_way_of_others() -> None:
    assert not circle({module: path.read_text(encoding="utf-8") for module, path in MODULES.items()})


def test_a_circle_is_caught_where_a_type_closes_it() -> None:
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from batsignal.snapshot import Session"
    assert circle({"batsignal.snapshot": "import batsignal.errors", "batsignal.errors": for_types})


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short_enough_to_be_read_at_once(module: str) -> None:
    lines = MODULES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= LINES_MOST, f"{module} has {lines} lines: split it by reason to change"


def test_every_part_of_the_house_was_looked_at() -> None:
    assert {"batsignal.tick", "batsignal.detect.leaks", "batsignal.poll.postgres", "batsignal.expose.page"} <= set(
        MODULES
    )
    assert len(MODULES) > 50


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("batsignal.errors", "from batsignal.snapshot import Session"),
        ("batsignal.snapshot", "import time"),
        ("batsignal.config", "from batsignal.snapshot import Session"),
        ("batsignal.detect.leaks", "import psycopg2"),
        ("batsignal.detect.leaks", "from prometheus_client import Gauge"),
        ("batsignal.detect.leaks", "from time import monotonic"),
        ("batsignal.detect.leaks", "import threading"),
        ("batsignal.detect.leaks", "import logging.handlers"),
        ("batsignal.detect.leaks", "from datetime import datetime\ndatetime.now()"),
        ("batsignal.detect.leaks", "import datetime\nt = datetime.datetime.now(datetime.UTC)"),
        ("batsignal.detect.leaks", "from datetime import date\nday = date.today"),
        ("batsignal.detect.leaks", "t = __import__('time').time()"),
        ("batsignal.detect.leaks", "from batsignal.config import Config"),
        ("batsignal.detect.leaks", "import batsignal.config"),
        ("batsignal.detect.leaks", "from batsignal.record.incidents import Incidents"),
        ("batsignal.detect.leaks", "from batsignal import poll"),
        ("batsignal.detect.leaks", "from .window import Window"),
        ("batsignal.detect.leaks", "from .. import poll"),
        ("batsignal.detect.leaks", "def look():\n    from batsignal.poll.rows import Names"),
        ("batsignal.detect.signal", "from batsignal.snapshot import Session"),
        ("batsignal.record.incidents", "from batsignal.snapshot import Session"),
        ("batsignal.record.board", "from batsignal.detect.verdict import Judge"),
        ("batsignal.record.recording", "from batsignal.poll.rows import Names"),
        ("batsignal.deploys.log", "from batsignal.record.board import Board"),
        ("batsignal.poll.postgres", "from batsignal.detect.leaks import LeakDetector"),
        ("batsignal.poll.postgres", "from batsignal.record.board import Board"),
        ("batsignal.poll.health", "import starlette"),
        ("batsignal.expose.api", "from batsignal.poll.postgres import PostgresPoller"),
        ("batsignal.expose.api", "import batsignal.poll"),
        ("batsignal.expose.page.chart", "from batsignal.detect.leaks import LeakDetector"),
        ("batsignal.expose.metrics", "import psycopg2"),
        ("batsignal.tick", "from batsignal.poll.postgres import PostgresPoller"),
        ("batsignal.tick", "import time"),
        ("batsignal.schedule", "from batsignal.poll.postgres import PostgresPoller"),
        ("batsignal.runner", "from batsignal.daemon import Daemon"),
        ("batsignal.runner", "from batsignal.expose.metrics import Exposition"),
        ("batsignal.daemon", "from batsignal.cli.run import run"),
        ("batsignal.daemon", "from batsignal.detect.verdict import Judge"),
        ("batsignal.clerk", "from batsignal.daemon import Daemon"),
        ("batsignal.publication", "from batsignal.runner import ServerRunner"),
        ("batsignal.names", "from batsignal.snapshot import Session"),
        ("batsignal.drills.scene", "from batsignal.daemon import Daemon"),
        ("batsignal.drills.scene", "from batsignal.detect.verdict import Judge"),
        ("batsignal.poll.rows", "from batsignal.daemon import Daemon"),
        ("batsignal.releases.choice", "import psycopg2"),
        ("batsignal.releases.choice", "import time"),
        ("batsignal.expose.releases", "from batsignal.releaser import release"),
        ("batsignal.cli.run", "import numpy"),
        ("batsignal.__main__", "from batsignal.daemon import Daemon"),
        ("batsignal.utils", "x = 1"),
    ],
)
def test_forbidden_import_is_caught(module: str, source: str) -> None:
    assert faults(module, f'"""A made-up module."""\n\n{source}\n')


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("batsignal.detect.leaks", "from batsignal.config import Thresholds"),
        ("batsignal.detect.leaks", "from batsignal.detect import wording"),
        ("batsignal.detect.wording", "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)"),
        ("batsignal.poll.health", "from batsignal import __version__"),
        ("batsignal.expose.metrics", "import time"),
        ("batsignal.cli.run", "def run():\n    from batsignal.daemon import Daemon"),
        ("batsignal.daemon", "from batsignal.expose.server import WebServer"),
    ],
)
def test_allowed_import_is_let_through(module: str, source: str) -> None:
    assert not faults(module, source)
