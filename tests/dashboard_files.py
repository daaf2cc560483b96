"""The committed dashboards as the tests read them: panels, queries, and what Grafana puts in place of variables."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[1] / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel; `instant` is asked at the end of the chosen time only."""

    where: str
    expr: str
    instant: bool


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all that draw something: no rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: Mapping[str, Any]) -> Iterator[Query]:
    for panel in panels(board):
        for target in panel["targets"]:
            yield Query(
                f"{board['title']} / {panel['title']} / {target['refId']}", target["expr"], bool(target.get("instant"))
            )
    for mark in board["annotations"]["list"]:
        yield Query(f"{board['title']} / mark {mark['name']}", mark["expr"], instant=False)


EVERY_QUERY = [query for path in FILES for query in queries(load(path))]


def filled(expr: str, *, server: str = ".+", rate_seconds: int = 60, range_seconds: int = 1800) -> str:
    """Return the query with variables as Grafana fills them in."""
    for name, value in (
        ("$server", server),
        ("$__rate_interval", f"{rate_seconds}s"),
        ("$__range", f"{range_seconds}s"),
    ):
        expr = expr.replace(name, value)
    assert "$" not in expr, f"an unknown variable in {expr}"
    return expr


def metrics(expr: str) -> set[str]:
    """Return the names of metrics in a query: what stands before braces, a window, or nothing at all."""
    without_strings = re.sub(r'"[^"]*"|`[^`]*`', '""', expr)
    names = re.findall(r"\b(?:batsignal|process|scrape)_\w+\b|\bup\b", without_strings)
    return set(names)
