"""Recordings: how quickly one is read and judged, as a multiple of real time, and how large a day of one gets.

The sessions are made by a model of pools under load, written by the recorder itself: three services behind pools on
eight hosts, whose sessions are used by transactions of a few statements. Three loads: every session used 5 times a
second, which changes nearly every row from one look to the next; all used in turn so that 30 % change; and pools that
lend what came back last, so that the same 30 % change and the others rest. Times are the processor's, one core.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from batsignal.cli.replay import events_of
from batsignal.record.recording import RecordingWriter, read
from batsignal.snapshot import Counters, HostLoad, ProbeResult, Session, Slots, Snapshot
from report import Line, bounded, run

T = 1_760_000_000.0
DAY_SECONDS = 86_400
DAY_MEGABYTES_AT_MOST = 60.0
READ_AT_LEAST = 3000.0
JUDGED_AT_LEAST = 2000.0
READ_SESSIONS = 50
SIZE_SESSIONS = 100
ROUNDS = 3

SLOTS = Slots(max=200, superuser_reserved=3)
MAX_LIFETIME_SECONDS = 1800.0
AT_WORK_RATIO = 0.1
STATEMENT_SECONDS = 0.0006
STATEMENTS = {
    "web": (
        "COMMIT",
        "ROLLBACK",
        "SELECT id, name, price FROM products WHERE category_id = ? ORDER BY name LIMIT ?",
        "SELECT id, product_id, quantity FROM cart_items WHERE cart_id = ?",
        "UPDATE carts SET updated_at = ? WHERE id = ?",
        "INSERT INTO orders (user_id, total, created_at) VALUES (?)",
    ),
    "billing": (
        "COMMIT",
        "SELECT id, amount, state FROM invoices WHERE due_at < ? AND state = ? LIMIT ?",
        "UPDATE invoices SET state = ? WHERE id = ?",
    ),
    "search": (
        "SELECT id, ts_rank(words, ?) AS rank FROM documents WHERE words @@ to_tsquery(?) ORDER BY rank LIMIT ?",
    ),
}
SERVICES = ("web", "web", "web", "billing", "search")


@dataclass(frozen=True, slots=True)
class Load:
    """How often sessions are used, and how many of them."""

    name: str
    uses_per_second: float
    used_ratio: float = 1.0
    """The share of the sessions that are used at all."""


LOADS = (
    Load("all changing each second", 5.0),
    Load("30 % changing, all in turn", -math.log(0.7)),
    Load("30 % changing, always the same", 5.0, 0.3),
)


def looks(load: Load, sessions: int, seconds: int, seed: int = 1) -> Iterator[Snapshot]:
    """Yield what a look a second sees of sessions that live half an hour each and are used as the load says."""
    chance = random.Random(seed)  # noqa: S311 - a model, not a secret
    pool = [_opened(chance, T - chance.uniform(0, MAX_LIFETIME_SECONDS), index) for index in range(sessions)]
    query_ids = {text: str(chance.getrandbits(63)) for texts in STATEMENTS.values() for text in texts}
    host = None
    for second in range(seconds):
        t = round(T + second + chance.uniform(0, 0.003), 6)
        for index, session in enumerate(pool):
            if t - (session.backend_start or t) > MAX_LIFETIME_SECONDS:
                pool[index] = _opened(chance, t - chance.uniform(0.1, 0.9), index)
            age_seconds = chance.expovariate(load.uses_per_second)
            if age_seconds < 1 and index < load.used_ratio * sessions:
                pool[index] = _used(chance, pool[index], t - age_seconds, query_ids)
        if second % 5 == 0:
            host = _host(chance, sessions)
        yield Snapshot(
            server="db1",
            t=t,
            sessions=tuple(pool),
            own_sessions=1,
            slots=SLOTS,
            counters=Counters(sessions=1000 + second // 18, xact_commit=second * sessions),
            refused=0,
            ping_seconds=round(chance.lognormvariate(-8, 0.3), 6),
            probes=(_probe(chance, t),) if second % 5 == 0 else (),
            privileged=True,
            role="batsignal",
            host=host,
            server_version_num=150018,
        )


def _opened(chance: random.Random, at: float, index: int) -> Session:
    service = SERVICES[index % len(SERVICES)]
    return Session(
        pid=chance.randrange(2, 4_194_304),
        backend_start=round(at, 6),
        state="idle",
        datname="catalog" if service == "search" else "shop",
        usename=service,
        application_name=f"{service}@2.4.0",
        client_addr=f"10.0.{index % 8}.4",
        state_change=round(at + 0.01, 6),
        wait_event_type="Client",
        wait_event="ClientRead",
    )


def _used(chance: random.Random, session: Session, at: float, query_ids: dict[str, str]) -> Session:
    statements = STATEMENTS[session.usename or ""]
    text = statements[0] if chance.random() < 0.5 else chance.choice(statements)  # transactions end with the first
    at_work = chance.random() < AT_WORK_RATIO
    begin = round(at, 6)
    return replace(
        session,
        state="active" if at_work else "idle",
        xact_start=begin if at_work else None,
        query_start=begin,
        state_change=begin if at_work else round(at + chance.lognormvariate(math.log(STATEMENT_SECONDS), 1), 6),
        wait_event_type=None if at_work else "Client",
        wait_event=None if at_work else "ClientRead",
        query_id=query_ids[text],
        query=text,
        backend_xmin=str(700_000 + int(at - T)) if at_work else None,
    )


def _host(chance: random.Random, sessions: int) -> HostLoad:
    return HostLoad(
        cpu_ratio=round(chance.random(), 4),
        memory_used_ratio=round(chance.random(), 4),
        load1=round(chance.uniform(0, 8), 2),
        cpu_count=8,
        server_processes=sessions + 7,
        server_rss_bytes=chance.randrange(10**8, 10**9),
        tcp={"ESTABLISHED": sessions + 1, "LISTEN": 2, "TIME_WAIT": chance.randrange(5)},
    )


def _probe(chance: random.Random, t: float) -> ProbeResult:
    phases = {phase: round(chance.lognormvariate(-7, 0.5), 6) for phase in ("resolve", "connect", "first_byte", "body")}
    seconds = round(sum(phases.values()), 6)
    return ProbeResult(endpoint="web", service="web", at=t - 0.5, up=True, seconds=seconds, status=200, phases=phases)


def write(path: Path, load: Load, sessions: int, seconds: int) -> float:
    """Record so many seconds and return what of the processor's time the recorder took, in seconds."""
    writer = RecordingWriter(path, server="db1", interval_seconds=1.0)
    spent = 0.0
    for snapshot in looks(load, sessions, seconds):
        began = time.process_time()
        writer.write(snapshot)
        spent += time.process_time() - began
    writer.close()
    return spent


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Return the speed of reading and judging, and the size of a day."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="batsignal-recording-") as scratch:
        path = Path(scratch) / "recording.jsonl.gz"
        for load in LOADS:
            seconds = round(arguments.read_minutes * 60)
            write(path, load, READ_SESSIONS, seconds)
            what = f"{READ_SESSIONS} sessions, {load.name}"
            lines.append(_at_least(f"read: {what}", _multiple(path, seconds, judged=False), READ_AT_LEAST))
            lines.append(_at_least(f"read and judged: {what}", _multiple(path, seconds, judged=True), JUDGED_AT_LEAST))
        for load in LOADS:
            seconds = round(arguments.size_hours * 3600)
            spent = write(path, load, SIZE_SESSIONS, seconds)
            megabytes = path.stat().st_size / 1e6 * DAY_SECONDS / seconds
            what = f"{SIZE_SESSIONS} sessions, {load.name}"
            lines.append(bounded(f"a day gzipped: {what}", megabytes, "MB", DAY_MEGABYTES_AT_MOST))
            lines.append(Line(what=f"writing one tick: {what}", ours=spent / seconds * 1000, unit="ms"))
    return lines


def _multiple(path: Path, seconds: int, *, judged: bool) -> float:
    """Return how many times as fast as it was recorded a recording is gone through, the best of some rounds."""
    best = math.inf
    for _ in range(ROUNDS):
        began = time.process_time()
        count = sum(1 for _ in (events_of(path) if judged else read(path)[1]))
        best = min(best, time.process_time() - began)
        if not judged and count != seconds:
            raise RuntimeError(f"{count} of {seconds} ticks were read")
    return seconds / best


def _at_least(what: str, ours: float, bar: float) -> Line:
    return Line(what=what, ours=ours, unit="x", bar=f">= {bar:g} x", met=ours >= bar)


def options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--read-minutes", type=float, default=20, help="how long a recording is read")
    parser.add_argument("--size-hours", type=float, default=0.5, help="how much of a day is written and scaled up")


if __name__ == "__main__":
    run(__doc__, measure, options)
