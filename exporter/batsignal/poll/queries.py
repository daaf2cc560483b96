"""The SQL the package asks, one file a query and major version: `sql/<query>.pg<min major>.sql`.

A query's text for a server is the file with the largest version that is not newer than the server. Nothing is
dispatched by `if`: a file that exists is found, a file that does not exist cannot be named.
"""

import re
from functools import cache
from importlib.resources import files

OLDEST_MAJOR = 12

_FILE_NAME = re.compile(r"^(?P<query>[a-z_]+)\.pg(?P<major>\d+)\.sql$")


@cache
def catalog() -> dict[str, dict[int, str]]:
    """Return every query's texts by the lowest major version they are for."""
    texts: dict[str, dict[int, str]] = {}
    for entry in files("batsignal.poll").joinpath("sql").iterdir():
        match = _FILE_NAME.match(entry.name)
        if match is not None:
            texts.setdefault(match["query"], {})[int(match["major"])] = entry.read_text(encoding="utf-8")
    return texts


@cache
def sql(query: str, server_version_num: int) -> str:
    """Return the text of `query` for a server, given `server_version_num` (150018, say).

    Raises KeyError for a query that has no file, or none for a server this old.
    """
    major = server_version_num // 10000
    by_major = catalog()[query]
    fitting = [candidate for candidate in by_major if candidate <= major]
    if not fitting:
        raise KeyError(f"{query}: no SQL for PostgreSQL {major}; the oldest is {min(by_major)}")
    return by_major[max(fitting)]
