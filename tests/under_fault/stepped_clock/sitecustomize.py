"""A wall clock that can be stepped: put on PYTHONPATH, it adds the seconds in $STEPPED_CLOCK_FILE to every reading.

Python imports a module of this name by itself at its start, before anybody has taken `time.time` or `datetime` away.
The monotonic clock is left alone, as it is when a system's clock is set.
"""

import datetime as dt
import os
import time

_FILE = os.environ["STEPPED_CLOCK_FILE"]
_read = time.time


def _stepped() -> float:
    with open(_FILE, encoding="ascii") as file:  # noqa: PTH123  pathlib is not loaded for this alone
        return _read() + float(file.read() or 0)


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "_Datetime":
        return cls.fromtimestamp(_stepped(), tz)


time.time = _stepped
dt.datetime = _Datetime  # type: ignore[misc]
