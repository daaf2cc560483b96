"""What a daemon remembers, with real kills, real disks and a real server: nothing is lost but the last look."""

import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from batsignal.drills.embedded import EmbeddedServer
from batsignal.record.recording import read
from batsignal.record.segments import last_look, segments_in
from daemon_home import TOKEN, Home, Life, Until

# Slow and few enough to go on through both lives of a daemon on a busy machine, before the server's slots run short.
LOST_EVERY_SECONDS = 3.5
LOST_MOST = 28


@pytest.fixture
def home(tmp_path: Path, postgres15: EmbeddedServer, until: Until) -> Iterator[Home]:
    with ExitStack() as stack:
        yield Home(tmp_path, postgres15, until, stack)
    for log in sorted(tmp_path.glob("life*.log")):  # shown when the test fails
        print(log.name, log.read_text(), sep="\n")  # noqa: T201


@pytest.mark.takes(seconds=40)
def test_a_daemon_that_is_killed_in_the_middle_of_a_leak_goes_on_with_the_same_incident(
    home: Home, sessions: Any, until: Until
) -> None:
    first = home.begin()
    lost = []

    def leak_until(lit: Callable[[], Any], what: str) -> Any:
        def one_more() -> Any:
            if len(lost) < LOST_MOST and (not lost or time.monotonic() - lost[-1][0] > LOST_EVERY_SECONDS):
                lost.append((time.monotonic(), sessions.open(home.server, application_name="web@2.4.0")))
            return lit()

        return until(one_more, what, 90)

    (before,) = leak_until(first.lit, "the leak to be told")
    assert (before["kind"], before["subject"]["application"]) == ("leak", "web")
    # A kill in the very tick that tells of it may lose that tick, and it alone.
    until(lambda: first.json("/api/v1/incidents")["incidents"], "the store to have it")
    first.kill()
    second = home.begin()
    (after,) = leak_until(second.lit, "the leak to be told again")
    same = ("id", "detected", "kind")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert after["since"] <= before["since"] + 0.01
    for _, session in lost:
        session.close()
    until(lambda: not second.lit(), "the end of it")
    # The thread that writes is a moment behind the tick that tells.
    until(
        lambda: not any(one["open"] for one in second.json("/api/v1/incidents")["incidents"]), "the same in the store"
    )
    (incident,) = second.json("/api/v1/incidents")["incidents"]
    assert (incident["id"], incident["open"], incident["reason"]) == (before["id"], False, "ended")
    timeline = [event["event"] for event in second.json(f"/api/v1/incidents/{before['id']}")["timeline"]]
    assert (timeline[0], timeline[-1], timeline.count("raised"), timeline.count("cleared")) == (
        "raised",
        "cleared",
        1,
        1,
    )
    status, recording = second.get(incident["recording"])
    assert status == 200
    status, shown = second.get(f"/incidents/{before['id']}")
    assert status == 200
    for said in (
        b"web@2.4.0 leaks connections",
        b"Ended <time",
        b">It began<",
        b'class="culprit" d="M',
        b">named</text>",
    ):
        assert said in shown, said
    looked_at = [look["servers"][0]["last_poll"] for look in streamed(second, 4)]
    assert all(0 < later - earlier < 5 for earlier, later in pairwise(looked_at)), "a tick an event"
    second.stop()
    kept = home.folder / "batsignal.db.recordings" / f"{before['id']}.jsonl.gz"
    assert kept.is_file()
    downloaded = home.folder / "downloaded.jsonl.gz"
    downloaded.write_bytes(recording)
    for path in (kept, downloaded):
        replayed = home.command("replay", str(path), "--format", "json")
        assert replayed.returncode == 0, replayed.stderr
        told = [json.loads(line) for line in replayed.stdout.splitlines()]
        assert [event["signal"]["kind"] for event in told if event["event"] == "raised"] == ["leak"]


def streamed(life: Life, count: int) -> list[dict[str, Any]]:
    """Return the data of the next events of the stream."""
    events: list[dict[str, Any]] = []
    with urlopen(f"{life.url}/api/v1/stream", timeout=20) as stream:  # noqa: S310 - our own daemon
        while len(events) < count:
            line = stream.readline()
            assert line, "the stream has ended"
            if line.startswith(b"data: "):
                events.append(json.loads(line.removeprefix(b"data: ")))
    return events


WRITES_AND_IS_KILLED = """
import itertools, sys, time
from dataclasses import replace
from pathlib import Path
from batsignal.detect.signal import Event, Finding, Signal, Subject
from batsignal.record.flight import FlightRecorder
from batsignal.record.keeper import Keeper
from batsignal.record.kept import Left
from batsignal.snapshot import Session, Snapshot

folder = Path(sys.argv[1])
keeper = Keeper(folder / "batsignal.db", keep_days=1)
keeper.start(5)
keeper.record("db1", FlightRecorder(folder / "rec", server="db1", interval_seconds=0.01), Left())
finding = Finding(kind="leak", key=("web",), severity="warning", subject=Subject(application="web"), since=0.0)
for n in itertools.count():
    t = time.time()
    signal = Signal(id=f"{n:x}", server="db1", detected=t, raised_as=finding.subject, finding=replace(finding, since=t))
    events = tuple(Event(t=t, event=what, signal=signal) for what in ("raised", "cleared"))
    rows = tuple(Session(pid=pid, backend_start=1.0, state="idle", state_change=t) for pid in range(30))
    for event in events:
        keeper.write(lambda store, event=event: store.tell(event, now=t))
    keeper.write(lambda store: store.looked("db1", t, now=t))
    keeper.look("db1", Snapshot(server="db1", t=t, sessions=rows), (), ())
    print(t, flush=True)
    time.sleep(0.02)
"""


def test_a_kill_at_any_moment_breaks_nothing_and_loses_the_last_look_at_most(tmp_path: Path) -> None:
    chance = random.Random(4)  # noqa: S311 - not a secret
    for _ in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_AND_IS_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(3, 40)):
                writer.stdout.readline()
            time.sleep(chance.random() * 0.02)
            writer.kill()
            ticks = [float(line) for line in writer.stdout if line.endswith("\n")]
        with contextlib.closing(sqlite3.connect(tmp_path / "batsignal.db")) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            ((looked_at,),) = store.execute("SELECT t FROM watch").fetchall()
            assert (
                store.execute("SELECT count(*) FROM event WHERE incident NOT IN (SELECT id FROM incident)").fetchone()[
                    0
                ]
                == 0
            )
        recorded_at = last_look(segments_in(next((tmp_path / "rec").glob("ring-*")))[-1].path)
        if len(ticks) > 1:
            assert looked_at >= ticks[-2]
            assert recorded_at is not None
            assert recorded_at >= ticks[-2] - 0.001
    assert not list(tmp_path.glob("*.aside-*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.fail(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_or_read_only_disk_never_stops_the_watch(home: Home, disk: Path, until: Until) -> None:
    life = home.begin(store={"path": str(disk / "batsignal.db")})
    until(lambda: life.metric("batsignal_store_up") == 1, "the store")
    with contextlib.suppress(OSError), (disk / "other").open("wb") as other:
        while True:
            other.write(b"\0" * 4096)
            other.flush()
    until(lambda: life.metric("batsignal_store_up") == 0, "the full disk to be noticed")
    looks = life.metric('batsignal_ping_seconds_count{server="db1"}') or 0
    until(lambda: (life.metric('batsignal_ping_seconds_count{server="db1"}') or 0) > looks + 5, "the watch to go on")
    assert life.metric('batsignal_tick_errors_total{server="db1"}') == 0
    assert life.json("/api/v1/incidents")["incidents"] == []
    (disk / "other").unlink()
    until(lambda: life.metric("batsignal_store_up") == 1, "the store to be written again", 60)
    assert len(life.said("history is not kept, the watch goes on")) == 1
    life.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    checked = home.command("check", "--config.file", "batsignal.yml")
    assert checked.returncode == 1
    assert f"FAIL store: {disk / 'batsignal.db'}: Read-only file system" in checked.stdout
    life = home.begin(store={"path": str(disk / "batsignal.db")})
    until(lambda: life.said("history is not kept, the watch goes on"), "the read-only disk to be noticed")
    assert life.metric("batsignal_store_up") == 0
    assert life.json("/api/v1/status")["servers"][0]["state"] == "up"
    life.stop()


def test_a_second_daemon_on_the_same_store_says_so_and_takes_over(home: Home, until: Until) -> None:
    first = home.begin()
    second = home.begin()
    (said,) = until(lambda: second.said("history is not kept, the watch goes on"), "the second to say so")
    assert said["reason"] == f"another daemon (pid {first.process.pid}) keeps its history there"
    checked = home.command("check", "--config.file", "batsignal.yml")
    assert "a daemon keeps its history there now" in checked.stdout
    first.stop()
    until(lambda: second.metric("batsignal_store_up") == 1, "the second to take over", 60)


def test_a_deploy_is_marked_with_the_token_and_known_to_the_next_life(home: Home, until: Until) -> None:
    life = home.begin()
    mark = ("deploy", "mark", "web", "2.4.0", "--url", life.url)
    refused = home.command(*mark, BATSIGNAL_TOKEN="wrong")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the token is not the right one" in refused.stderr
    marked = home.command(*mark, BATSIGNAL_TOKEN=TOKEN)
    assert (marked.returncode, marked.stderr) == (0, "")
    assert marked.stdout.startswith("web 2.4.0 is marked, at ")
    (deploy,) = life.json("/api/v1/deploys")["deploys"]
    assert (deploy["service"], deploy["version"]) == ("web", "2.4.0")
    assert life.metric('batsignal_deploy_timestamp_seconds{service="web",version="2.4.0"}') == deploy["at"]
    (home.folder / "token").write_text("another\n")
    life.process.send_signal(signal.SIGHUP)
    until(lambda: life.said("config reloaded"), "the reload")
    assert home.command(*mark, BATSIGNAL_TOKEN=TOKEN).returncode == 2
    assert home.command(*mark, BATSIGNAL_TOKEN="another").returncode == 0
    until(lambda: _deploys_kept(home.folder) == 1, "the store to have it")
    life.kill()
    life = home.begin()
    assert life.json("/api/v1/deploys")["deploys"] == [deploy]
    life.stop()
    with contextlib.closing(sqlite3.connect(home.folder / "batsignal.db")) as store:
        ((usual,),) = store.execute("SELECT usual FROM watch").fetchall()
    assert "health" in json.loads(usual)
    # What it saw is on disk, whole, and tells of the deploy.
    for ring in (home.folder / "batsignal.db.recordings").glob("ring-*"):
        told = [one for segment in segments_in(ring) if segment.is_whole for one in read(segment.path)[1]]
        assert any(one.version == "2.4.0" for snapshot in told for one in snapshot.deploys)


def _deploys_kept(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "batsignal.db")) as store:
        return int(store.execute("SELECT count(*) FROM deploy").fetchone()[0])
