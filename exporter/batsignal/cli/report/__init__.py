"""`batsignal report`: the draft of a post-mortem, from what a running daemon has kept of an incident.

Owns which incident is meant, where the draft goes, and that no file is lost to it. What stands in it: `draft`.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batsignal.cli.answers import asked
from batsignal.cli.report.course import Course, course
from batsignal.cli.report.draft import write
from batsignal.drills.daemon_api import api_at
from batsignal.errors import ConfigError, UnreachableError
from batsignal.expose.page.wording import utc
from batsignal.names import printable
from batsignal.record.kept import checked_view, is_deploy, is_instant
from batsignal.record.recording import RecordingError

_INCIDENTS = "/api/v1/incidents"
LAST = "last"
RECENT_MOST = 10
SEARCHED_MOST = 500


def report(wanted: str, *, output: str | None, force: bool, url: str) -> int:
    """Print the draft, or write it to `output`; `wanted` is an incident's id, the beginning of one, or `last`.

    Raises ConfigError for an incident that nobody knows and for a file that is there already, unless `force`.
    """
    target = None if output is None else Path(output)
    if target is not None and not force and (target.exists() or target.is_symlink()):
        raise ConfigError(f"{target}: expected no such file yet; --force overwrites it")
    incident = _incident(wanted, url)
    known = asked(
        url,
        "GET",
        "/api/v1/deploys",
        keys=("deploys",),
        fits=lambda content: _is_list_of(content["deploys"], is_deploy),
    )
    try:
        course, unread = _course(incident, url), None
    except RecordingError as exc:
        course, unread = None, str(exc)
        print(f"batsignal: {unread}; the draft is without it", file=sys.stderr)
    text = write(incident, deploys=known["deploys"], course=course, unread=unread, now=time.time(), url=url)
    if target is None:
        print(text, end="")
        return 0
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{target}: expected to write there: {exc.strerror or exc}") from exc
    print(f"wrote {target}")
    return 0


def _incident(wanted: str, url: str) -> Mapping[str, Any]:
    """Return one incident with its timeline."""
    recent = asked(
        url,
        "GET",
        f"{_INCIDENTS}?limit={SEARCHED_MOST}",
        keys=("incidents",),
        fits=lambda content: _is_list_of(content["incidents"], _is_incident),
    )["incidents"]
    meant = [one["id"] for one in recent if wanted and one["id"].startswith(wanted)]
    if wanted == LAST and recent:
        meant = [recent[0]["id"]]
    if wanted in meant:
        meant = [wanted]
    if len(meant) > 1:
        raise ConfigError(f"{wanted}: expected the id of one incident, it is how {len(meant)} begin")
    # One that is older than those searched may still be kept, under its whole id.
    old = len(recent) == SEARCHED_MOST and wanted.isalnum() and wanted.isascii()
    if not recent:
        raise ConfigError("no incident is kept yet: expected one to report on")
    if not meant and not old:
        raise ConfigError(
            f"{printable(wanted)!r}: expected the id of an incident that is kept, or {LAST}; {_listed(recent)}"
        )
    incident: str = meant[0] if meant else wanted
    return asked(
        url,
        "GET",
        f"{_INCIDENTS}/{quote(incident, safe='')}",
        keys=("id", "open", "ended", "signal", "timeline"),
        fits=lambda content: _is_incident(content) and _is_list_of(content["timeline"], _is_event),
    )


def _is_list_of(value: object, holds: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _is_incident(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("id"), str)
        and (value.get("ended") is None or is_instant(value["ended"]))
        and _is_signal(value.get("signal"))
    )


def _is_event(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("event"), str)
        and is_instant(value.get("t"))
        and _is_signal(value.get("signal"))
    )


def _is_signal(value: object) -> bool:
    try:
        checked_view(value)
    except ValueError:
        return False
    return True


def _listed(recent: list[Mapping[str, Any]]) -> str:
    now = time.time()
    lines = []
    for one in recent[:RECENT_MOST]:
        signal = one["signal"]
        lines.append(f"  {one['id']}  {utc(signal['since'], now)}  {signal['kind']} on {printable(signal['server'])}")
    return "the last are\n" + "\n".join(lines)


def _course(incident: Mapping[str, Any], url: str) -> Course | None:
    """Return how it went by its recording, None where there is none; raises RecordingError for one that is damaged."""
    path = incident.get("recording")
    if not isinstance(path, str):
        return None
    body = api_at(url).get(path)
    if body is None:
        raise RecordingError("the incident's recording cannot be read: the daemon did not hand it out")
    signal = incident["signal"]
    descriptor, name = tempfile.mkstemp(suffix=".jsonl.gz")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
        ends = incident["ended"] if incident["ended"] is not None else float("inf")
        return course(Path(name), subject=signal["subject"], begins=signal["since"], ends=ends)
    except RecordingError as exc:
        raise RecordingError(f"the incident's recording cannot be read: {str(exc).replace(name, path, 1)}") from exc
    except OSError as exc:
        raise UnreachableError(
            f"no room for the incident's recording in a temporary file: {exc.strerror or exc}"
        ) from exc
    finally:
        Path(name).unlink(missing_ok=True)
