"""The whole path: real sessions on a real PostgreSQL go in, a page that names who eats them comes out.

Nothing is faked but the pager: PostgreSQL, the daemon as a process, Prometheus and Alertmanager run with the very
files that ship in alerts/; only their addresses are put in place.
"""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg2
import pytest

from batsignal.drills.embedded import EmbeddedServer
from paging import ALERTS, Pager, alerting, answers, free_port, process, served, wait_for

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
# Served where there is a pooler, where a statement is known by its id, and once somebody was refused: test_pages.py and
# test_plain_pages.py look there.
ELSEWHERE = {
    "batsignal_pgbouncer_pool_wait_seconds",
    "batsignal_query_info",
    "batsignal_connection_refusals_total",
}
SLOTS_GONE_SECONDS = 158.0  # (97 usable - 17 others - our own) / 0.5


def named_in_rules() -> set[str]:
    rules = "".join(file.read_text() for file in ALERTS.glob("*.rules.yml"))
    return set(re.findall(r"\bbatsignal_[a-z_]+", rules))


@contextmanager
def stack(folder: Path, database_port: int) -> Iterator[tuple[Pager, str]]:
    """Run the daemon and all that stands behind it; yields the pager and the daemon's URL."""
    port = free_port()
    config = folder / "batsignal.yml"
    config.write_text(
        f"servers:\n  - {{name: db1, dsn: 'postgresql://batsignal@127.0.0.1:{database_port}/postgres'}}\n"
        f"endpoints:\n  - {{name: itself, url: 'http://127.0.0.1:{port}/-/healthy'}}\n"
        f"store: {{path: '{folder}/batsignal.db'}}\n"
    )
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "batsignal", "run", f"--config.file={config}"]
    with process([*command, f"--web.listen-address=127.0.0.1:{port}"], folder / "daemon.log"):
        wait_for(lambda: answers(f"{url}/-/ready"), 20, "the daemon is ready")
        with alerting(folder, port) as record:
            yield record, url


class Leak:
    """Opens one session after the other and never gives one back."""

    def __init__(self, dsn: str, per_second: float) -> None:
        self._dsn = dsn
        self._per_second = per_second
        self._stop = threading.Event()
        self._sessions: list[Any] = []
        self.onset = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.onset = time.time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        for session in self._sessions:
            session.close()

    def _run(self) -> None:
        for number in range(1, 1000):
            session = psycopg2.connect(self._dsn)
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute("SELECT id FROM orders WHERE id = 42")
            self._sessions.append(session)
            if self._stop.wait(max(self.onset + number / self._per_second - time.time(), 0)):
                return


@pytest.mark.takes(seconds=90)
@pytest.mark.timeout(300)
def test_a_leak_pages_once_with_culprit_and_version_before_the_slots_run_out(tmp_path: Path) -> None:
    with ExitStack() as running:
        database = running.enter_context(EmbeddedServer(DEBIAN_15, max_connections=100))
        admin = psycopg2.connect(database.dsn())
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("CREATE ROLE batsignal LOGIN; GRANT pg_monitor TO batsignal; CREATE ROLE web LOGIN")
            cursor.execute("CREATE TABLE orders AS SELECT 42 AS id; GRANT SELECT ON orders TO web")
        admin.close()
        for name in ("web@2.3.9", *["billing@1.0.0"] * 16):
            running.callback(psycopg2.connect(database.dsn(application_name=name)).close)
        record, url = running.enter_context(stack(tmp_path, database.port))
        assert not record.pages("pager"), "calm pages nobody"
        leak = running.enter_context(Leak(database.dsn(user="web", application_name="web@2.4.0"), 0.5))
        wait_for(lambda: bool(record.pages("pager")), 60, "a page")
        arrived, alert = record.pages("pager")[0]
        took = arrived - leak.onset
        assert took < SLOTS_GONE_SECONDS
        assert alert["labels"]["alertname"] == "BatSignalLeak"
        assert alert["labels"]["severity"] == "critical"
        assert alert["labels"]["application"] == "web"
        assert alert["labels"]["user"] == "web"
        assert alert["labels"]["server"] == "db1"
        assert not {"version", "client", "deploy", "instance", "job"} & alert["labels"].keys()
        text = " ".join(alert["annotations"].values())
        assert "web@2.4.0 leaks connections" in text
        assert "slots run out in" in text
        assert "Deploy before it: web@2.4.0" in text
        assert "Do not restart the database: it is healthy." in text
        assert named_in_rules() - ELSEWHERE <= served(url), "every metric of a rule is served while it is lit"
        # The runbook and the status page that the page names are there, on the daemon.
        for link in ("runbook_url", "page_url"):
            address = alert["annotations"][link]
            assert address.startswith("http://localhost:9988")
            assert answers(address.replace("http://localhost:9988", url)), address
        wait_for(lambda: bool(record.pages("deadman")), 70, "the watchdog's sign of life")
        # One incident is one page: nothing else wakes anybody while it grows, and it is not said twice.
        wait_for(lambda: time.time() - leak.onset > 75, 75, "the incident has gone on for a while")
        assert {page["labels"]["alertname"] for _, page in record.pages("pager")} == {"BatSignalLeak"}
        assert len({page["fingerprint"] for _, page in record.pages("pager")}) == 1
