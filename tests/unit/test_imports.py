"""Who may import whom (docs/design.md), held by the syntax tree: data moves one way, and judgement knows no world."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "exporter" / "batsignal"
LINES_MOST = 450

# A module or package, and what of this package it may import besides its own folder. The longest prefix rules.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "__main__": {"cli"},
    "errors": set(),
    "snapshot": set(),
    "config_wording": set(),
    "config_source": {"config_wording", "errors"},
    "config": {"config_source", "config_wording", "errors"},
    "detect": {"snapshot", "config"},
    "detect.signal": set(),
    "detect.wording": {"detect.signal"},
    "detect.window": {"snapshot"},
    "deploys": {"snapshot"},
    "poll": {"", "snapshot", "config", "errors"},
    "record": {"snapshot", "detect.signal", "errors"},
    "tick": {"snapshot", "config", "detect", "record"},
    "expose": {"snapshot", "detect.signal", "record", "errors"},
    "schedule": set(),
    "runner": {"config", "detect.signal", "poll", "record", "schedule", "snapshot", "tick"},
    "daemon": {"", "config", "deploys", "errors", "expose", "poll", "record", "runner", "schedule", "snapshot"},
    "drills": {"snapshot", "config", "errors", "poll"},
    "cli": {
        "",
        "config",
        "daemon",
        "deploys",
        "detect",
        "drills",
        "errors",
        "expose",
        "poll",
        "record",
        "snapshot",
    },
}
# What judges may not reach for: the world, a clock, other people's code.
PURE = ("detect", "deploys", "snapshot", "tick", "record.incidents", "record.tally")
PURE_MAY_IMPORT = {
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "functools",
    "hashlib",
    "itertools",
    "math",
    "re",
    "statistics",
    "threading",
    "typing",
}
CLOCKS = {"now", "utcnow", "today", "time", "monotonic"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append((".".join(part for part in parts if part != "__init__"), path))
    return found


def imported(source: str) -> Iterator[str]:
    """Yield the dotted names a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            name = node.module or ""
            if name == "batsignal" or name.startswith("batsignal."):
                yield from (_module_or_name(name, alias.name) for alias in node.names)
            else:
                yield name


def _module_or_name(module: str, name: str) -> str:
    """Tell `from batsignal.poll import health` (a module) from `from batsignal import __version__` (a name)."""
    folder = PACKAGE.joinpath(*module.split(".")[1:])
    is_module = (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()
    return f"{module}.{name}" if is_module else module


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or (prefix != "" and name.startswith(f"{prefix}."))


def broken_rules(module: str, source: str) -> list[str]:
    rule = max((prefix for prefix in MAY_IMPORT if is_within(module, prefix)), key=len, default=None)
    if rule is None:
        return [f"{module}: no rule says what it may import"]
    own = module.split(".", 1)[0] if "." in module or (PACKAGE / module / "__init__.py").exists() else module
    allowed = MAY_IMPORT[rule] | ({own} if rule == own and own else set())
    broken = []
    for name in imported(source):
        if name != "batsignal" and not name.startswith("batsignal."):
            if any(is_within(module, pure) for pure in PURE) and name.split(".", 1)[0] not in PURE_MAY_IMPORT:
                broken.append(f"{module} imports {name}: judgement knows no world")
            continue
        inside = name.removeprefix("batsignal").removeprefix(".")
        if not any(inside == one if one == "" else is_within(inside, one) for one in allowed):
            broken.append(f"{module} imports {name}: not its floor")
    return broken


def clocks_read(source: str) -> list[str]:
    """Return the clocks that a module reads by itself, as `datetime.now`."""
    return [
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"datetime", "date", "time"}
        and node.func.attr in CLOCKS
    ]


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name or "batsignal" for name, _ in modules()])
def test_module_imports_only_what_its_floor_may(module: str, path: Path) -> None:
    assert broken_rules(module, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "path"),
    [(name, path) for name, path in modules() if any(is_within(name, pure) for pure in PURE)],
)
def test_judgement_reads_no_clock(module: str, path: Path) -> None:
    assert clocks_read(path.read_text()) == [], module


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name or "batsignal" for name, _ in modules()])
def test_module_is_short_enough_to_have_one_reason_to_change(module: str, path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MOST, module


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("detect.leaks", "import psycopg2"),
        ("detect.leaks", "import time"),
        ("detect.leaks", "def f():\n    from batsignal.poll import postgres"),
        ("detect.signal", "from batsignal.snapshot import Session"),
        ("expose.api", "from batsignal.poll.health import Prober"),
        ("expose.api", "from batsignal import daemon"),
        ("runner", "from batsignal.daemon import Daemon"),
        ("poll.health", "from batsignal.detect.verdict import Judge"),
        ("record.board", "from batsignal.expose import api"),
        ("errors", "from batsignal.snapshot import Snapshot"),
        ("tick", "from batsignal.poll.postgres import PostgresPoller"),
        ("unheard_of", ""),
    ],
)
def test_a_broken_rule_is_seen(module: str, source: str) -> None:
    assert broken_rules(module, source) != []


def test_a_clock_that_is_read_is_seen() -> None:
    assert clocks_read("from datetime import datetime\nx = datetime.now()") == ["datetime.now"]
