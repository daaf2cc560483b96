"""The log of the daemon: one line an event, whatever stands in its fields."""

import json
import subprocess
import sys

import pytest

SCRIPT = r"""
import structlog
from batsignal.cli.run import _log_to_stderr
_log_to_stderr("debug", "{spelling}")
log = structlog.get_logger("x")
evil = "a\n\r\x1b[31m\u202e\x9b\u2028\ud800 level=error \"b"
log.warning("signal raised", summary=evil, name=evil)
try:
    raise ValueError(evil)
except ValueError:
    log.exception("broken")
import logging
logging.getLogger("foreign").error("%s", evil)
"""


@pytest.mark.parametrize("spelling", ["logfmt", "json"])
def test_what_stands_in_a_field_cannot_begin_a_line_or_move_the_cursor(spelling: str) -> None:
    script = SCRIPT.replace("{spelling}", spelling)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    lines = ended.stderr.decode("utf-8").split("\n")
    assert (ended.returncode, lines.pop()) == (0, "")
    assert len(lines) == 3, lines
    assert all(line.isprintable() for line in lines), lines
    if spelling == "json":
        assert [json.loads(line)["level"] for line in lines] == ["warning", "error", "error"]
    else:
        assert all(line.startswith("time=") for line in lines)
