"""The table of incidents that can be made to happen: what is deployed before, what is deployed then.

Owns only the table; a later incident is one more row. `batsignal demo --incident` looks up here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from batsignal.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident, told by the deploy that causes it. `kind` is the signal that must light."""

    kind: str
    version_before: str
    version_after: str
    story: str


_ALL = (
    Incident(
        kind="leak",
        version_before="2.3.9",
        version_after="2.4.0",
        story="its new audit trail opens sessions of its own and never gives one back",
    ),
)

INCIDENTS: Mapping[str, Incident] = {incident.kind: incident for incident in _ALL}


def find(kind: str) -> Incident:
    """Return an incident by its kind. Raises ConfigError that lists the known ones."""
    if kind not in INCIDENTS:
        raise ConfigError(f"--incident: expected one of {', '.join(INCIDENTS)}, got {kind!r}")
    return INCIDENTS[kind]
