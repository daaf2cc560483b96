"""`batsignal release`: end what a culprit holds, through a running daemon; a dry run unless told otherwise.

Owns the table of what would go, and the exit codes: 0 when all that was meant ended (or nothing was meant), 1 when
something stood in the way. Whom to end is chosen by the daemon, which looks and ends in one place.
"""

import getpass
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batsignal.cli.answers import asked, usable_token
from batsignal.detect.wording import sessions
from batsignal.names import printable
from batsignal.spelling import duration

# The daemon may have to wait for a look at a server in trouble, to end what is meant, and to see it leave.
PATIENCE_SECONDS = 40.0

_KEYS = ("server", "dry_run", "sessions", "spared", "near", "ended", "gone", "mend", "incidents")
_COLUMNS = ("PID", "APPLICATION", "USER", "DATABASE", "CLIENT", "STATE", "IDLE FOR", "")
# What --state would have to say for those that were left alone.
_USED_LATELY = "used lately"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The command line, read."""

    server: str | None
    application: str | None
    version: str | None
    user: str | None
    client: str | None
    database: str | None
    states: tuple[str, ...]
    idle_longer_seconds: float | None
    for_real: bool

    def as_json(self) -> dict[str, Any]:
        told = {
            "server": self.server,
            "application": self.application,
            "version": self.version,
            "user": self.user,
            "client": self.client,
            "database": self.database,
            "states": list(self.states) or None,
            "idle_longer_seconds": self.idle_longer_seconds,
            "for_real": self.for_real,
            "by": who_asks(),
        }
        return {key: value for key, value in told.items() if value is not None}


def release(wish: Wish, *, url: str, token: str | None, spelling: str) -> int:
    """Ask for it and print what became of it; raises ConfigError and UnreachableError."""
    shown = usable_token(token, "web.release_token_file")
    answer = asked(
        url, "POST", "/api/v1/release", keys=_KEYS, body=wish.as_json(), token=shown, timeout_seconds=PATIENCE_SECONDS
    )
    if spelling == "json":
        print(json.dumps(answer))
    else:
        for line in lines(answer):
            print(line)
    wanted = "would end" if answer["dry_run"] else "ended"
    stood_in_the_way = answer["mend"] is not None or any(
        one["outcome"] not in {wanted, "gone or in use again"} for one in answer["sessions"]
    )
    return 1 if stood_in_the_way else 0


def who_asks() -> str:
    """Return who runs this command, and where, as far as it is known."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "somebody"
    return printable(f"{user}@{socket.gethostname()}")


def lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is printed of the daemon's answer."""
    rows = answer["sessions"]
    server = answer["server"]
    if not rows:
        yield f"{server}: no session to end"
        yield from _left_alone(answer["spared"])
        yield from _near(answer["near"])
    else:
        yield from _table(rows)
        yield from _left_alone(answer["spared"])
        yield _sum(answer)
    if answer["mend"] is not None:
        yield f"BatSignal's role may not end them; as a superuser: {answer['mend']}"
    elif any(one["outcome"] == "not allowed" for one in rows):
        yield "not allowed: a superuser's session can be ended by a superuser only, BatSignal's role is none"


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    idle = row["idle_seconds"]
    return (
        str(row["pid"]),
        _called(row["application"], row["version"]),
        *(printable(str(row[name] or "-")) for name in ("user", "database", "client", "state")),
        "-" if idle is None else duration(idle),
        row["outcome"],
    )


def _called(application: str | None, version: str | None) -> str:
    name = printable(application or "(unnamed)")
    return f"{name}@{printable(version)}" if version else name


def _left_alone(spared: Mapping[str, int]) -> Iterator[str]:
    words = [
        f"{count} used a moment ago" if state == _USED_LATELY else f"{count} {printable(state)} (--state '{state}')"
        for state, count in sorted(spared.items())
    ]
    if words:
        yield f"left alone: {', '.join(words)}"


def _near(near: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in near:
        user = f", user {printable(one['user'])}" if one["user"] else ""
        yield f"  there is {_called(one['application'], one['version'])}{user}: {sessions(one['sessions'])}"


def _sum(answer: Mapping[str, Any]) -> str:
    rows, server = answer["sessions"], answer["server"]
    if answer["dry_run"]:
        would = sum(one["outcome"] == "would end" for one in rows)
        return f"{server}: {sessions(would)} would end; nothing was done, --yes ends them"
    noted = "".join(f"; noted in incident {one}" for one in answer["incidents"])
    seen = "" if answer["gone"] == answer["ended"] else f" ({answer['gone']} seen to have left so far)"
    return f"{server}: {answer['ended']} of {sessions(len(rows))} ended{seen}{noted}"
