"""Pile-ups, lock queues, storms and limits made for real, seen from outside by SQL; stopped midway, nothing stays."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from batsignal.detect.signal import Kind, Subject
from batsignal.drills.act import OnsetFacts, Pace, Tell
from batsignal.drills.actors.clients import Clients, run
from batsignal.drills.acts import limits, locks, pileups, storms
from batsignal.drills.ground import Ground, on_embedded
from batsignal.poll.postgres import PostgresPoller
from batsignal.poll.resolve import Resolver
from seen_outside import ACTORS, Outside, outside

ACTS = {**pileups.ACTS, **locks.ACTS, **storms.ACTS, **limits.ACTS}
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
END_SECONDS = 10.0
STRAGGLERS_SECONDS = 5.0
OWN_THREADS = ("drill-reaper", "drill-hosts")
WAITS = "wait_event_type = 'Lock'"
# Who blocks whom, up to those who wait for nobody.
ROOTS = """
    WITH RECURSIVE chain AS (
        SELECT pid AS blocked, unnest(pg_blocking_pids(pid)) AS blocker
        FROM pg_stat_activity WHERE wait_event_type = 'Lock'
        UNION
        SELECT chain.blocked, unnest(pg_blocking_pids(chain.blocker)) FROM chain
    )
    SELECT DISTINCT blocker FROM chain WHERE cardinality(pg_blocking_pids(blocker)) = 0
"""

Until = Callable[..., Any]


@contextmanager
def playing(ground: Ground, name: str, *, is_prepared: bool = True, **asked: Any) -> Iterator[Tell]:
    """Play an act in the block and stop it at its end, wherever it is: no thread and no session of it may be left."""
    spec, tell = ACTS[name], Tell()
    threads_before = set(threading.enumerate())
    failures: list[BaseException] = []

    def run() -> None:
        try:
            spec.run(ground, spec.paced(Pace(**asked), calm_seconds=0), tell)
        except BaseException as exc:
            failures.append(exc)
            raise

    if spec.prepare is not None and is_prepared:
        assert spec.prepare(ground) == {}
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield tell
    ground.stopped.set()
    thread.join(END_SECONDS)
    assert not thread.is_alive(), "the act did not end"
    assert failures == []
    deadline = time.monotonic() + STRAGGLERS_SECONDS

    def threads_left() -> set[threading.Thread]:
        return {one for one in set(threading.enumerate()) - threads_before if one.name not in OWN_THREADS}

    while threads_left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threads_left() == set()
    with outside(ground) as after:
        while (left := after.sessions()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == 0


def onset_of(tell: Tell, kind: Kind, until: Until) -> OnsetFacts:
    until(lambda: kind in tell.onsets, f"the onset of {kind}")
    return tell.onsets[kind]


def rate_of(tell: Tell) -> float:
    lost_at = tell.lost_at
    return (len(lost_at) - 1) / (lost_at[-1] - lost_at[0])


@pytest.fixture
def ground() -> Iterator[Ground]:
    with on_embedded() as ground:
        yield ground


@pytest.fixture
def seen(ground: Ground) -> Iterator[Outside]:
    with outside(ground) as seen:
        yield seen


@pytest.mark.parametrize(("bindir", "computes_query_id"), [(None, "off"), (POSTGRES_15, "on")], ids=["18", "15"])
def test_pile_up_of_a_new_statement_carries_the_name_that_the_daemon_gives_it(
    bindir: Path | None, computes_query_id: str, until: Until
) -> None:
    with (
        on_embedded(bindir=bindir, settings={"compute_query_id": computes_query_id}) as ground,
        outside(ground) as seen,
    ):
        assert ground.embedded is not None
        poller = PostgresPoller(server="db1", dsn=ground.embedded.dsn(user="batsignal"), resolver=Resolver())
        with closing(poller), playing(ground, "query-pileup", rate_per_second=8.0, size=12) as tell:
            stuck = "application_name = 'search@3.2.0' AND wait_event = 'PgSleep' AND query LIKE '%ORDER BY s.body%'"
            until(lambda: seen.sessions(stuck) == 12, "a dozen stuck statements")
            onset = onset_of(tell, "query_pileup", until)
            piled_up = [one for one in poller.look().sessions if one.query and "ORDER BY s.body" in one.query]
            assert {one.statement_id for one in piled_up} == {onset.subject.query_id}
            assert {one.query_id is None for one in piled_up} == {computes_query_id == "off"}
            assert onset.deploy is not None
            assert (onset.deploy.service, onset.deploy.version, onset.deploy.previous) == ("search", "3.2.0", "3.1.0")
            assert seen.sessions("application_name = 'search@3.1.0'") == 0
            assert len(tell.lost_at) == 12


def test_pile_up_of_an_old_statement_keeps_its_text_and_loses_its_index(until: Until) -> None:
    with on_embedded(settings={"compute_query_id": "on"}) as ground, outside(ground) as seen:
        assert pileups.ACTS["query-pileup-old"].prepare is not None
        pileups.ACTS["query-pileup-old"].prepare(ground)
        known = (
            "SELECT DISTINCT query_id::text FROM pg_stat_activity"
            " WHERE application_name = 'search@3.1.0' AND query_id IS NOT NULL"
        )
        indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'order_lines'"
        in_the_calm = until(lambda: seen.ask(known), "the statement in the calm")
        assert seen.one(indexes) == 1
        slow = "application_name = 'search@3.1.0' AND state = 'active' AND now() - query_start > interval '1 s'"
        assert seen.sessions(slow) == 0
        with playing(ground, "query-pileup-old", is_prepared=False, rate_per_second=4.0, size=6) as tell:
            until(lambda: seen.sessions(slow) >= 6, "slow statements")
            assert seen.one(indexes) == 0
            onset = onset_of(tell, "query_pileup", until)
            assert [(onset.subject.query_id,)] == in_the_calm == seen.ask(known)
            assert onset.deploy is None


def test_pile_up_behind_a_storm_tells_both_and_the_storm_first(
    ground: Ground, seen: Outside, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pileups, "BEHIND_SECONDS", 2.0)
    with playing(ground, "pileup-behind-storm", rate_per_second=20.0, size=5) as tell:
        until(lambda: seen.sessions("query LIKE '%ORDER BY s.body%' AND state = 'active'") == 5, "the pile-up")
        storm, pileup = onset_of(tell, "storm", until), onset_of(tell, "query_pileup", until)
        assert storm.at is not None
        assert pileup.at is not None
        assert pileup.at - storm.at >= 2.0
        assert (storm.subject.application, pileup.subject.application) == ("gateway", "search")


@pytest.mark.parametrize("bindir", [None, POSTGRES_15], ids=["18", "15"])
def test_queue_behind_ddl_has_the_long_reader_at_its_root(
    bindir: Path | None, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEFORE_SECONDS", 0.5)
    with (
        on_embedded(bindir=bindir) as ground,
        outside(ground) as seen,
        playing(ground, "lock-pileup", rate_per_second=10.0, size=12) as tell,
    ):
        onset = onset_of(tell, "lock_pileup", until)
        until(lambda: seen.sessions(f"application_name = 'checkout@3.1.0' AND {WAITS}") >= 12, "a queue")
        [(migration, blocks_it)] = seen.ask(
            "SELECT pid, pg_blocking_pids(pid) FROM pg_stat_activity WHERE application_name = 'migrate'"
        )
        assert blocks_it == [onset.subject.blocker]
        behind = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
        assert seen.one(behind, migration) >= 12
        assert seen.ask(ROOTS) == [(onset.subject.blocker,)]
        assert (
            seen.one("SELECT application_name FROM pg_stat_activity WHERE pid = %s", onset.subject.blocker) == "reports"
        )


def test_queue_behind_a_forgotten_transaction_has_it_at_its_root(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "lock-pileup-transaction", rate_per_second=10.0, size=12) as tell:
        onset = onset_of(tell, "lock_pileup", until)
        until(lambda: seen.sessions(f"application_name = 'checkout@3.1.0' AND {WAITS}") >= 12, "a queue")
        assert seen.ask(ROOTS) == [(onset.subject.blocker,)]
        assert seen.ask(
            "SELECT application_name, state FROM pg_stat_activity WHERE pid = %s", onset.subject.blocker
        ) == [("backoffice", "idle in transaction")]
        assert onset_of(tell, "idle_in_transaction", until).optional


def test_transaction_left_open_blocks_nobody_at_first_and_then_somebody(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "idle-in-transaction", duration_seconds=4.0) as tell:
        onset = onset_of(tell, "idle_in_transaction", until)
        assert onset.bound_seconds == 2.0 + 15.0
        assert seen.sessions("application_name = 'backoffice' AND state = 'idle in transaction'") == 1
        assert seen.one(
            "SELECT count(*) FROM pg_locks WHERE mode = 'RowExclusiveLock' AND relation::regclass::text ~ 'stock'"
        )
        assert seen.sessions(WAITS) == 0
        until(lambda: seen.sessions(f"application_name = 'checkout@3.1.0' AND {WAITS}") == 1, "one who waits")
        assert seen.one(f"SELECT application_name FROM pg_stat_activity WHERE pid IN ({ROOTS})") == "backoffice"


def test_storm_opens_as_many_sessions_as_it_says_and_keeps_none(ground: Ground, seen: Outside, until: Until) -> None:
    before = seen.established()
    with playing(ground, "storm", rate_per_second=25.0) as tell:
        onset = onset_of(tell, "storm", until)
        most = 0
        deadline = time.monotonic() + 4.0
        while time.monotonic() < deadline:
            most = max(most, seen.sessions("application_name = 'gateway@3.2.0'"))
        assert 1 <= most <= 20
        assert len(tell.lost_at) >= 20
        # The server counts a session when it ends; the calm's pools and the administrator have a few of their own.
        until(lambda: seen.established() - before >= len(tell.lost_at) - 20, "the server's own count")
    assert seen.established() - before <= len(tell.lost_at) + 20
    assert onset.subject.application == "gateway"
    assert onset.deploy is not None
    assert rate_of(tell) <= 26.0


def test_rate_that_the_machine_cannot_make_shows_in_what_is_told(ground: Ground, seen: Outside, until: Until) -> None:
    before = seen.established()
    with playing(ground, "storm", rate_per_second=20_000.0, size=4) as tell:
        until(lambda: len(tell.lost_at) > 200, "some sessions")
    assert rate_of(tell) < 5000
    assert abs(seen.established() - before - len(tell.lost_at)) <= 20


def test_clients_that_a_full_server_refuses_try_again_and_again(until: Until) -> None:
    with on_embedded(max_connections=25) as ground, outside(ground) as seen:
        with playing(ground, "storm-refused", rate_per_second=40.0, size=30) as tell:
            until(lambda: ground.refusals >= 60, "refusals")
            assert "too many clients" in ground.last_refusal or "remaining connection slots" in ground.last_refusal
            until(lambda: ground.used() >= ground.slots.usable, "a full server")
            assert onset_of(tell, "storm", until).subject == Subject(application="gateway", version="3.2.0")
            hosts = "SELECT count(DISTINCT client_addr) FROM pg_stat_activity WHERE application_name = 'gateway@3.2.0'"
            assert seen.one(hosts) == 3
        assert len(tell.lost_at) >= 60


def test_storm_of_refused_says_that_its_share_keeps_the_server_from_refusing(until: Until) -> None:
    with on_embedded(max_connections=50, share=0.5) as ground, outside(ground) as seen:
        with playing(ground, "storm-refused", size=40) as tell:
            until(lambda: ground.held >= ground.budget, "the whole share")
            assert any("share" in told.facts.get("text", "") for told in tell.told)
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                assert seen.sessions() <= ground.budget
        assert ground.refusals == 0


def test_after_a_crash_every_client_connects_again_and_again(ground: Ground, until: Until) -> None:
    assert ground.embedded is not None
    born = ground.embedded.pid
    with playing(ground, "storm-reconnect", rate_per_second=40.0, size=12) as tell:
        onset = onset_of(tell, "storm", until)
        assert ground.embedded.pid != born
        with outside(ground) as seen:
            assert seen.one(f'SELECT count(*) FROM "{ground.schema}".leases') == 0, "a crash empties an unlogged table"
            names: set[str] = set()
            until(
                lambda: (
                    names.update(
                        row[0] for row in seen.ask(f"SELECT application_name FROM pg_stat_activity WHERE {ACTORS}")
                    )
                    or len(names - {""}) == 4
                ),
                "all four services",
            )
            until(lambda: len(tell.lost_at) >= 60, "sessions opened again and again")
            assert seen.sessions() <= 12
        assert onset.subject == Subject()


def test_services_grow_honestly_until_the_slots_are_taken(until: Until) -> None:
    with (
        on_embedded(max_connections=36) as ground,
        outside(ground) as seen,
        playing(ground, "saturation", rate_per_second=6.0) as tell,
    ):
        onset = onset_of(tell, "saturation", until)
        assert onset.subject == Subject(limit="server")
        assert ground.used() >= 0.9 * ground.slots.usable
        until(lambda: ground.used() >= ground.slots.usable and ground.refusals, "a full server that refuses")
        assert seen.one(f"SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE {ACTORS}") == 6
        # Honest: a session that rests for long is one too many.
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            assert seen.sessions("state = 'idle' AND clock_timestamp() - state_change > interval '5 s'") == 0
        until(lambda: tell.exhausted_at is not None, "the exhaustion")


@pytest.mark.parametrize(
    ("name", "limit", "where"),
    [
        ("saturation-role", "role:ledger", {"user": "ledger"}),
        ("saturation-database", "database:support", {"database": "support"}),
    ],
)
def test_limit_of_its_own_is_reached_while_the_server_has_slots(
    ground: Ground, until: Until, name: str, limit: str, where: Mapping[str, str]
) -> None:
    with playing(ground, name, rate_per_second=8.0, size=10) as tell:
        assert onset_of(tell, "saturation", until).subject == Subject(limit=limit)
        until(lambda: tell.exhausted_at is not None, "the exhaustion")
        with outside(ground) as seen:
            of_it = "usename = 'ledger'" if "user" in where else "datname = 'support'"
            assert seen.sessions(of_it) == 10 == len(tell.lost_at)
            assert ground.used() < ground.slots.usable / 2
        with pytest.raises(psycopg2.OperationalError, match="too many connections for"):
            ground.connect("one more", **where)
    assert len(tell.lost_at) == 10, "what the drill's end frees is not taken anew"


def test_leak_goes_on_while_a_batch_of_thirty_works(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "leak-during-batch", rate_per_second=4.0) as tell:
        until(lambda: seen.sessions("application_name = 'figures' AND wait_event = 'PgSleep'") == 30, "the batch")
        assert onset_of(tell, "leak", until).subject.application == "web"
        until(lambda: seen.sessions("application_name = 'web@2.4.0' AND state = 'idle'") >= 8, "lost sessions")
        assert set(tell.onsets) == {"leak"}


def test_act_that_is_stopped_before_it_began_leaves_nothing(ground: Ground) -> None:
    ground.stopped.set()
    with playing(ground, "idle-in-transaction", is_prepared=False):
        pass


def test_client_whose_server_process_hangs_ends_with_the_drill(ground: Ground, until: Until) -> None:
    threads_before = set(threading.enumerate())
    with outside(ground) as seen, Clients(ground) as clients:
        session = clients.connect("sleeper")
        clients.start(lambda: run(session, "SELECT pg_sleep(600)"))
        until(lambda: seen.sessions("wait_event = 'PgSleep'") == 1, "the statement")
        # No request to cancel reaches it any more, nor does the end of its client.
        os.kill(session.server_pid, signal.SIGSTOP)
        until(lambda: set(threading.enumerate()) - threads_before, "the client's thread")
    try:
        assert set(threading.enumerate()) - threads_before <= {
            one for one in threading.enumerate() if one.name in OWN_THREADS
        }
    finally:
        os.kill(session.server_pid, signal.SIGCONT)


def test_drill_s_end_adds_nothing_to_what_is_told(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "query-pileup", rate_per_second=20.0, size=6) as tell:
        until(lambda: seen.sessions("wait_event = 'PgSleep' AND query LIKE '%ORDER BY s.body%'") == 6, "the pile-up")
    assert len(tell.lost_at) == 6
