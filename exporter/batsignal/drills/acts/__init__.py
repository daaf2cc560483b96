"""Every act there is, by the name of its row: the one table that `drill` and `demo` look up in.

Owns the sum of the tables of the modules beside it, and the search for a name. A test holds it against the catalogue.
"""

import difflib
from collections.abc import Mapping

from batsignal.drills.act import ActSpec
from batsignal.drills.acts import (
    everyday,
    jobs,
    limits,
    locks,
    lost,
    maintenance,
    outages,
    people,
    pgbouncer,
    pileups,
    releases,
    restarts,
    scaling,
    starved,
    storms,
)
from batsignal.drills.catalogue import ROWS
from batsignal.drills.truth import Row
from batsignal.errors import ConfigError

CLOSE_NAMES = 3

_MODULES = (
    *(lost, starved, outages),
    *(pileups, locks, storms, limits, pgbouncer),
    *(everyday, jobs, releases, scaling, maintenance, people, restarts),
)

_ALL = {name: spec for module in _MODULES for name, spec in module.ACTS.items()}
ACTS: Mapping[str, ActSpec] = {name: _ALL[name] for name in ROWS if name in _ALL}


def find(name: str, *, option: str) -> tuple[Row, ActSpec]:
    """Return the row and the act of a name, `_` or `-` alike. Raises ConfigError with the names that come close."""
    wanted = name.strip().casefold().replace("_", "-")
    if wanted in ACTS:
        return ROWS[wanted], ACTS[wanted]
    close = difflib.get_close_matches(wanted, ROWS, n=CLOSE_NAMES, cutoff=0.5) or [
        row for row in ROWS if wanted and wanted in row
    ]
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise ConfigError(f"{option}: no drill is called {name!r}; {hint}`batsignal drill --list` lists all")
