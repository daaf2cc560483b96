"""What `/metrics` serves stays bounded, and counters count on, whatever thousands of names come by."""

import math
import re
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families as parse

from batsignal.census import take_census
from batsignal.config import APPLICATION_PATTERN
from batsignal.expose.metrics import Exposition
from batsignal.names import ApplicationPattern
from batsignal.record.board import Board, ServerBoard
from batsignal.record.tally import Tally
from batsignal.snapshot import Session, Slots, Snapshot

T = 1_760_000_000.0
LOOKS = 50
NAMES_A_LOOK = 200
TOP = 100
STATES = ("active", "idle", "idle in transaction", None)
# Of each of the families by name K of its own and `other`; by application and version K pairs, in each state.
SERIES_MOST = 6 * TOP * len(STATES) + 400

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def looks() -> Iterator[Snapshot]:
    """Yield looks at ever new services, versions, users, databases and hosts, beside one that stays."""
    steady = Session(pid=1, backend_start=T, state="idle", application_name="steady@1", usename="u", datname="d")
    for look in range(LOOKS):
        passing = (
            Session(
                pid=n + 2,
                backend_start=T + look,
                state=STATES[n % 4],
                application_name=f"service-{n % 5000}@{n}",
                usename=f"user-{n}",
                datname=f"database-{n}",
                client_addr=f"10.0.{n // 256}.{n % 256}",
                query=f"SELECT {n}",
                query_id=str(n),
            )
            for n in range(look * NAMES_A_LOOK, (look + 1) * NAMES_A_LOOK)
        )
        yield Snapshot(
            server="db1", t=T + look, sessions=(steady, *passing), slots=Slots(max=1000, superuser_reserved=3)
        )


def scraped() -> Iterator[tuple[str, Series]]:
    tally = Tally(pattern=ApplicationPattern(re.compile(APPLICATION_PATTERN)), top_names=TOP)
    board = Board(version="1", started_at=T)
    exposition = Exposition(lambda: board)
    for snapshot in looks():
        server = ServerBoard(
            name="db1",
            interval_seconds=1.0,
            snapshot=snapshot,
            answered=snapshot,
            answered_at=snapshot.t,
            ticked_at=snapshot.t,
            signals=(),
            exhaustion_seconds=math.inf,
            tally=tally.add(snapshot, take_census(snapshot)),
            history=(),
        )
        board = Board(version="1", started_at=T, servers={"db1": server})
        exposition.refresh("db1")
        text = exposition.answer(False, False).decode()
        series = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse(text)
            for sample in family.samples
        }
        yield text, series


def test_ten_thousand_names_are_few_series_and_no_counter_falls_or_moves_into_other() -> None:
    before: Series = {}
    for text, series in scraped():
        assert len(series) < SERIES_MOST
        assert len(text) < 200 * SERIES_MOST
        for key, value in before.items():
            if key[0].endswith("_total"):
                assert series.get(key, -1.0) >= value, key
        before = series
    opened = {
        dict(labels)["application"]: value
        for (name, labels), value in before.items()
        if name == "batsignal_sessions_opened_total"
    }
    # Those of the first look were there before us. All the others are counted, once.
    assert sum(opened.values()) == (LOOKS - 1) * NAMES_A_LOOK
    assert opened["other"] > (LOOKS - 3) * NAMES_A_LOOK
    kept = {key: value for key, value in before.items() if ("application", "steady") in key[1]}
    assert any(key[0] == "batsignal_session_seconds_total" and value == LOOKS - 1 for key, value in kept.items())
