"""Ten thousand applications, hostile ones among them, on a real server: what is served stays small, and whole."""

import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from batsignal.drills.embedded import EmbeddedServer
from under_fault.stand import ask, daemon, watched

Until = Callable[..., Any]
SESSIONS = 200
ROUNDS = 50
TOP_NAMES = 100
HOSTILE = '</script>"\\{}\n\t%s'
# PostgreSQL itself spells control characters out; quotes and backslashes are the exposition's affair.
FIRST_AS_A_LABEL = r"0</script>\"\\{}\\x0a\\x09%s"
# Measured: 30 KB each.
METRICS_BYTES_MOST = 100_000
PAGE_BYTES_MOST = 100_000


@pytest.mark.takes(seconds=15)
def test_ten_thousand_applications_leave_metrics_page_and_status_small(sessions: Any, until: Until) -> None:
    settings: dict[str, str | int] = {"autovacuum": "off", "track_activity_query_size": 1024}
    with EmbeddedServer(max_connections=SESSIONS * 2, settings=settings) as server:
        ask(server, "CREATE ROLE watcher LOGIN IN ROLE pg_monitor")
        dsn = server.dsn(user="watcher")
        config = {"servers": [watched("a", dsn, poll_interval_seconds=0.2)], "store": {"path": None}}
        cursors = [sessions.open(server).cursor() for _ in range(SESSIONS)]
        with daemon(config) as watching:
            for number in range(ROUNDS):
                for n, cursor in enumerate(cursors):
                    cursor.execute("SET application_name = %s", (f"{number * SESSIONS + n}{HOSTILE}@{number}",))
                # A look takes some milliseconds: one that has ended by then has begun after the last of them.
                ended = time.time() + 0.05
                until(lambda ended=ended: watching.server("a")["last_poll"] >= ended, "a look at these names")
            metrics = watching.text("/metrics")
            answers = {path: len(watching.text(path)) for path in ("/", "/api/v1/status", "/api/v1/signals")}
            assert not watching.said("tick failed")
            assert watching.json("/api/v1/signals")["signals"] == []
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr + checked.stdout) == (0, "")
    assert len(metrics) < METRICS_BYTES_MOST, len(metrics)
    assert max(answers.values()) < PAGE_BYTES_MOST, answers
    named = set(re.findall(r'application="(.*?)",', metrics))
    assert {"other", FIRST_AS_A_LABEL} <= named, "the first ones keep their series, and the rest has one"
    assert len(named) <= TOP_NAMES + 2, len(named)
