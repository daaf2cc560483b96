"""The daemon's own ends and mishaps: signals, a clock that is set, a store that is deleted under it."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import under_fault
from batsignal.drills.embedded import EmbeddedServer
from under_fault.faults import hung
from under_fault.stand import Daemon, Stand, daemon, new_guest, server, until, watched
from under_fault.witness import served_by

EXIT_SECONDS = 5.0
HOUR = 3600.0
GUEST = new_guest()
AT = 'batsignal_last_tick_timestamp_seconds{server="a"}'
COUNT = 'batsignal_ping_seconds_count{server="a"}'


@pytest.fixture(scope="module")
def a() -> Iterator[EmbeddedServer]:
    with server(GUEST) as started:
        yield started


def config(a: EmbeddedServer, **more: Any) -> dict[str, Any]:
    return {"servers": [watched("a", a.dsn(user=GUEST))], **more}


def more_looks(life: Daemon, number: int) -> None:
    before = life.metric(COUNT) or 0
    until(lambda: (life.metric(COUNT) or 0) >= before + number, "more looks")


def test_sigterm_while_the_server_hangs_ends_it_in_seconds_and_leaves_no_session(a: EmbeddedServer) -> None:
    with daemon(config(a)) as life:
        with hung(Stand(a, a, life, GUEST)):
            until(lambda: life.server("a")["state"] == "timeout", "A to be seen to hang")
            life.process.send_signal(signal.SIGTERM)
            assert life.process.wait(EXIT_SECONDS) == 0
        until(lambda: served_by(GUEST) == [], "the server to notice")
        assert "Traceback" not in life.log_path.read_text()


def test_sigkill_leaves_no_session_and_the_next_life_has_the_store(a: EmbeddedServer, tmp_path: Path) -> None:
    with daemon(config(a), folder=tmp_path) as first:
        until(lambda: first.metric("batsignal_store_up") == 1, "the store")
        first.process.kill()
        first.process.wait()
        until(lambda: served_by(GUEST) == [], "the server to notice")
    with daemon(config(a), folder=tmp_path) as second:
        until(lambda: second.metric("batsignal_store_up") == 1, "the store")
        assert second.metric("batsignal_store_put_aside_total") == 0
        assert len(served_by(GUEST)) == 1


def test_store_that_is_deleted_under_it_is_said_once_and_begun_anew(a: EmbeddedServer, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    with daemon(config(a, store={"path": str(kept / "batsignal.db")}), folder=tmp_path) as life:
        until(lambda: life.metric("batsignal_store_up") == 1 and list(kept.rglob("*.part")), "the store and a look")
        shutil.rmtree(kept)
        until(lambda: (kept / "batsignal.db").exists() and list(kept.rglob("*.part")), "both anew")
        until(lambda: life.metric('batsignal_store_deleted_total{what="store"}') == 1, "the metric")
        until(lambda: life.metric("batsignal_store_up") == 1, "the store to be well")
        more_looks(life, 2)
        for event in ("store was deleted while in use", "recordings were deleted while in use"):
            (line,) = re.findall(f".*{event}.*", life.log_path.read_text())
            assert str(kept) in line
        assert not [path for path in [kept, *kept.rglob("*")] if path.exists() and path.stat().st_mode & 0o077]
        assert life.metric('batsignal_tick_errors_total{server="a"}') == 0


def test_clock_that_is_set_by_an_hour_costs_a_few_looks_and_lights_nothing(a: EmbeddedServer, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    ours = str(Path(under_fault.__file__).parent / "stepped_clock")
    environment = {
        "PYTHONPATH": os.pathsep.join([ours, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
        "STEPPED_CLOCK_FILE": str(offset),
    }
    with daemon(config(a), folder=tmp_path, environment=environment) as life:
        more_looks(life, 2)
        for ahead in (HOUR, 0.0):  # forth, and back again
            before, began = life.metric(COUNT) or 0, time.monotonic()
            offset.write_text(str(ahead))
            until(lambda ahead=ahead: abs((life.metric(AT) or 0) - time.time() - ahead) < 60, "the new time")
            more_looks(life, 3)
            seconds, looks = time.monotonic() - began, (life.metric(COUNT) or 0) - before
            # The watchdog re-arms what is overdue after four intervals; nothing is made up for afterwards.
            assert seconds - 7 <= looks <= seconds + 2
            assert life.json("/api/v1/signals")["signals"] == []
            assert life.server("a")["state"] == "up"
            assert life.metric("batsignal_store_up") == 1
        assert life.metric('batsignal_tick_errors_total{server="a"}') == 0
        assert "Traceback" not in life.log_path.read_text()
        life.process.send_signal(signal.SIGTERM)
        assert life.process.wait(EXIT_SECONDS) == 0
