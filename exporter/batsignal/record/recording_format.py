"""What a recording is called, its first line as a value, and the error when it cannot be read.

Owns the names and bounds that reader and writer must agree on (version 1). It reads and writes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from batsignal.errors import ConfigError
from batsignal.snapshot import Slots

FORMAT = "batsignal-recording"
VERSION = 1

# The columns of a row that are texts and instants; beside them `pid`, `leader_pid` and the list `blocked_by`.
ROW_TEXTS = (
    "state",
    "datname",
    "usename",
    "application_name",
    "client_addr",
    "wait_event_type",
    "wait_event",
    "query_id",
    "query",
    "backend_type",
    "backend_xid",
    "backend_xmin",
    "code",
)
ROW_INSTANTS = ("backend_start", "xact_start", "query_start", "state_change")


class RecordingError(ConfigError):
    """A recording cannot be read; names the file and the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What holds from tick to tick until a line says otherwise: limits, version, and what our role may see."""

    slots: Slots | None = None
    role_limits: Mapping[str, int] = field(default_factory=dict)
    database_limits: Mapping[str, int] = field(default_factory=dict)
    server_version_num: int | None = None
    privileged: bool | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line: whose recording it is, and the facts that hold until a tick brings others.

    `application_pattern` is how the recording daemon split `application_name`; None when the recording does not say.
    """

    server: str
    started_at: float
    interval_seconds: float
    facts: ServerFacts
    application_pattern: str | None = None
