"""One thing that happened in a drill: what the play tells, and timelines and pages show.

Owns the shape alone, apart from who makes it and who prints it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillEvent:
    """Something that happened at `t`, in order; `facts` can be written as JSON."""

    t: float
    event: str
    facts: Mapping[str, Any] = field(default_factory=dict)
