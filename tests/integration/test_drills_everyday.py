"""Everyday life made for real, seen from outside by SQL: it is there as its row says, ends, and leaves nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from batsignal.drills.act import Pace, Tell
from batsignal.drills.acts import everyday, jobs, maintenance, people, releases, restarts, scaling
from batsignal.drills.embedded import EmbeddedServer
from batsignal.drills.ground import Ground, on_embedded, on_given
from seen_outside import ACTORS, Outside, outside

ACTS = {
    **everyday.ACTS,
    **jobs.ACTS,
    **maintenance.ACTS,
    **people.ACTS,
    **releases.ACTS,
    **restarts.ACTS,
    **scaling.ACTS,
}
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
END_SECONDS = 8.0
STRAGGLERS_SECONDS = 5.0

Until = Callable[..., Any]


@contextmanager
def playing(ground: Ground, name: str, **asked: Any) -> Iterator[Tell]:
    """Play an act in the block and stop it at its end, wherever it is; afterwards no session of it is left."""
    spec, tell = ACTS[name], Tell()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            spec.run(ground, spec.paced(Pace(**asked), calm_seconds=0), tell)
        except BaseException as exc:
            failures.append(exc)
            raise

    held_before = ground.held
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield tell
    ground.stopped.set()
    thread.join(END_SECONDS)
    assert not thread.is_alive(), "the act did not end"
    assert failures == []
    assert tell.onsets == {}, "everyday life has no onset"
    deadline = time.monotonic() + STRAGGLERS_SECONDS
    with outside(ground) as after:
        while (left := after.sessions()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == 0
    while ground.held != held_before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ground.held == held_before


@pytest.fixture
def ground() -> Iterator[Ground]:
    with on_embedded() as ground:
        yield ground


@pytest.fixture
def seen(ground: Ground) -> Iterator[Outside]:
    with outside(ground) as seen:
        yield seen


def test_batch_of_thirty_sessions_comes_goes_and_comes_again(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "cron-batch", rate_per_second=0.4, duration_seconds=15.0) as tell:
        for _ in range(2):
            until(
                lambda: seen.sessions("application_name = 'invoicing' AND query LIKE '%%pg_sleep%%'") == 30, "a batch"
            )
            until(lambda: seen.sessions() == 0, "its end")
        assert not tell.is_done


def test_batch_is_only_as_large_as_the_share_allows() -> None:
    with on_embedded(share=0.3, max_connections=53) as ground, outside(ground) as seen:
        room = ground.budget - ground.held
        assert room < 15
        with playing(ground, "cron-batch", rate_per_second=0.5, duration_seconds=20.0):
            deadline = time.monotonic() + 3
            most = 0
            while time.monotonic() < deadline:
                most = max(most, seen.sessions())
                assert ground.held <= ground.budget
            assert most == room


def test_rolling_deploy_doubles_the_pods_and_then_only_the_new_version_is_left(
    ground: Ground, seen: Outside, until: Until
) -> None:
    hosts = "SELECT count(DISTINCT client_addr) FROM pg_stat_activity WHERE application_name LIKE 'checkout@%%'"
    with playing(ground, "rolling-deploy", size=3, duration_seconds=6.0) as tell:
        until(lambda: seen.sessions("application_name = 'checkout@2.3.9'") >= 15, "the old version")
        assert seen.sessions("application_name = 'checkout@2.4.0'") == 0
        until(lambda: seen.one(hosts) == 6, "both versions on a host for each pod")
        until(lambda: seen.sessions() >= 30, "all their sessions")
        until(lambda: seen.sessions("application_name = 'checkout@2.3.9'") == 0, "the end of the old version")
        assert seen.one(hosts) == 3
        until(lambda: tell.is_done, "the end")
        assert [told.facts["version"] for told in tell.told if told.event == "deployed"] == ["2.4.0"]


def test_old_side_of_a_blue_green_deploy_rests_and_then_goes(ground: Ground, seen: Outside, until: Until) -> None:
    resting = "application_name = 'checkout@2.3.9' AND state = 'idle' AND now() - state_change > interval '2 s'"
    with playing(ground, "blue-green", size=2, duration_seconds=5.5) as tell:
        until(lambda: seen.sessions(resting) == 10, "the blue side at rest")
        assert seen.sessions("application_name = 'checkout@2.4.0' AND now() - state_change < interval '1 s'") > 0
        until(lambda: seen.sessions("application_name = 'checkout@2.3.9'") == 0, "the end of blue")
        until(lambda: tell.is_done, "the end")


def test_cold_pools_fill_to_their_minimum_and_stay_there(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "pool-warm-up", size=4, duration_seconds=3.0) as tell:
        until(lambda: seen.sessions() == 32, "four pools of eight")
        assert seen.one(f"SELECT count(DISTINCT client_addr) FROM pg_stat_activity WHERE {ACTORS}") == 4
        until(lambda: tell.is_done, "the end")
        assert seen.sessions() <= 36


def test_traffic_that_doubles_at_once_makes_the_pools_grow_by_what_they_need(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "traffic-step", rate_per_second=15.0, duration_seconds=9.0) as tell:
        until(lambda: seen.sessions("state = 'active'") >= 3, "work")
        until(lambda: any("doubles" in str(told.facts) for told in tell.told), "the step")
        before = seen.sessions()
        assert 9 <= before < 36
        until(lambda: seen.sessions() > before, "more sessions")


def test_traffic_that_rises_bit_by_bit_is_twice_as_much_in_the_end(ground: Ground, seen: Outside, until: Until) -> None:
    def active(seconds: float) -> float:
        """Return the mean number of sessions at work."""
        deadline, looks = time.monotonic() + seconds, []
        while time.monotonic() < deadline:
            looks.append(seen.sessions("state = 'active'"))
            time.sleep(0.02)
        return sum(looks) / len(looks)

    with playing(ground, "traffic-ramp", rate_per_second=20.0, duration_seconds=8.0) as tell:
        until(lambda: seen.sessions() >= 9, "the pods")
        before = active(1.5)
        until(lambda: time.time() - tell.told[0].t > 6.4, "the end of the ramp")
        assert active(1.5) > 1.3 * before


def test_autoscaling_adds_hosts_and_they_stay(ground: Ground, seen: Outside, until: Until) -> None:
    hosts = f"SELECT count(DISTINCT client_addr) FROM pg_stat_activity WHERE {ACTORS}"
    with playing(ground, "autoscaling", size=5, duration_seconds=10.0) as tell:
        for count in (2, 3, 4, 5):
            until(lambda count=count: seen.one(hosts) == count, f"host {count}")
        until(lambda: seen.sessions() >= 20, "the last one's sessions")
        assert not tell.is_done


def test_autoscaling_behind_one_address_looks_like_sessions_that_pile_up_and_rest(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "autoscaling-one-address", size=8, duration_seconds=20.0):
        until(lambda: seen.sessions() >= 16, "eight pods of two sessions")
        assert seen.one(f"SELECT count(DISTINCT client_addr) FROM pg_stat_activity WHERE {ACTORS}") == 1
        assert seen.sessions("state = 'idle'") >= 14
        [(spread,)] = seen.ask(
            f"SELECT extract(epoch FROM max(backend_start) - min(backend_start)) FROM pg_stat_activity WHERE {ACTORS}"
        )
        assert spread > 2, "one pod after the other"


def test_at_night_every_session_stays_and_rests_and_in_the_morning_they_work_again(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "quiet-night", rate_per_second=30.0, duration_seconds=40.0) as tell:
        until(lambda: seen.sessions("state = 'active'") > 0, "the evening's traffic")
        until(lambda: any("night" in str(told.facts) for told in tell.told), "the night")
        until(lambda: seen.sessions("state <> 'idle'") == 0, "the last request")
        pids = seen.ask(f"SELECT pid FROM pg_stat_activity WHERE {ACTORS} ORDER BY pid")
        until(lambda: seen.sessions("now() - state_change < interval '3 s'") == 0, "rest")
        assert seen.ask(f"SELECT pid FROM pg_stat_activity WHERE {ACTORS} ORDER BY pid") == pids


def test_pods_whose_traffic_comes_back_serve_again_soon(ground: Ground, seen: Outside, until: Until) -> None:
    with everyday.begin_shop(ground) as fleet:
        fleet.work(0.0)
        until(lambda: seen.sessions("now() - state_change < interval '2 s'") == 0, "silence")
        fleet.work(20.0)
        until(lambda: seen.sessions("state = 'active'") > 0, "work")


def test_application_without_a_pool_opens_a_session_for_each_request(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "no-pool-steady", rate_per_second=10.0, size=4, duration_seconds=20.0):
        pids: set[int] = set()
        until(lambda: pids.update(row[0] for row in _pids(seen)) or len(pids) > 15, "many sessions")
        assert seen.sessions() <= 4
        assert seen.sessions("now() - backend_start > interval '2 s'") == 0


def _pids(seen: Outside) -> list[tuple[Any, ...]]:
    return seen.ask(f"SELECT pid FROM pg_stat_activity WHERE {ACTORS}")


def test_pools_that_recycle_replace_their_sessions_and_do_not_grow(
    ground: Ground, seen: Outside, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everyday, "SESSION_LIFETIME_SECONDS", 1.0)
    with playing(ground, "pool-recycling", size=2, rate_per_second=30.0, duration_seconds=20.0):
        until(lambda: seen.sessions() >= 10, "the pools")
        first = set(_pids(seen))
        until(lambda: not first & set(_pids(seen)), "that every session has been replaced")
        assert seen.sessions() <= 16


def test_dump_copies_a_table_with_each_of_its_jobs_in_one_transaction_each(
    ground: Ground, seen: Outside, until: Until
) -> None:
    copying = "application_name = 'pg_dump' AND state = 'active' AND query LIKE 'COPY %%'"
    held_before = ground.held
    with playing(ground, "pg-dump", size=8, duration_seconds=6.0) as tell:
        began = until(lambda: seen.sessions(copying) == 8 and time.monotonic(), "eight jobs")
        assert seen.sessions("application_name = 'pg_dump'") == 9
        assert ground.held == held_before + 9
        until(lambda: tell.is_done, "the end")
        assert time.monotonic() - began > 2, "slowly"
        assert len(list((ground.directory / "dump").glob("*.dat"))) >= 8
        assert seen.sessions() == 0


def test_dump_that_is_stopped_in_the_middle_ends_at_once(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "pg-dump", size=3, duration_seconds=600.0):
        until(lambda: seen.sessions("application_name = 'pg_dump' AND query LIKE 'COPY %%'") == 3, "three jobs")


def test_analytics_query_is_one_statement_for_as_long_as_it_was_told(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "analytics-query", duration_seconds=4.0) as tell:
        running = "application_name = 'notebook' AND state = 'active' AND query LIKE '%%RECURSIVE%%'"
        until(lambda: seen.sessions(running) == 1, "the query")
        until(lambda: seen.sessions(f"{running} AND now() - query_start > interval '2 s'") == 1, "the same for long")
        until(lambda: tell.is_done, "the end")


def test_analytics_query_that_is_stopped_in_the_middle_is_called_off(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "analytics-query", size=2):
        until(lambda: seen.sessions("state = 'active'") == 2, "two queries")


def test_analysts_sit_idle_under_their_tools_names_or_none(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "analysts-idle", size=6, duration_seconds=20.0):
        until(lambda: seen.sessions("usename = 'analyst' AND state = 'idle'") == 6, "six analysts")
        until(lambda: seen.sessions("now() - state_change > interval '2 s'") == 6, "rest")
        names = seen.ask(f"SELECT application_name FROM pg_stat_activity WHERE {ACTORS}")
        assert {"psql", ""} < {name for (name,) in names}


def test_analysts_arrive_one_after_the_other_and_stay(ground: Ground, seen: Outside, until: Until) -> None:
    with playing(ground, "analysts-arriving", size=6, rate_per_second=2.0, duration_seconds=20.0):
        until(lambda: seen.sessions() == 6, "six analysts")
        gaps = seen.ask(
            "SELECT extract(epoch FROM backend_start - lag(backend_start) OVER (ORDER BY backend_start))"
            f" FROM pg_stat_activity WHERE {ACTORS} OFFSET 1"
        )
        assert all(0.3 < float(gap) < 3 for (gap,) in gaps)
        until(lambda: seen.sessions("state = 'idle'") == 6, "rest")


def test_staggered_batch_runs_one_statement_in_sessions_that_start_bit_by_bit(
    ground: Ground, seen: Outside, until: Until
) -> None:
    with playing(ground, "staggered-batch", size=10, rate_per_second=8.0, duration_seconds=12.0) as tell:
        until(lambda: seen.sessions("state = 'active'") == 10, "ten workers")
        rows = seen.ask(f"SELECT query_id, query_start FROM pg_stat_activity WHERE {ACTORS}")
        assert len({query_id for query_id, _ in rows}) == 1
        starts = sorted(started for _, started in rows)
        assert (starts[-1] - starts[0]).total_seconds() > 0.8
        until(lambda: seen.sessions() == 0, "that all of them are through")
        assert not tell.is_done, "it ends with its duration"


def test_maintenance_shows_vacuum_a_walsender_and_an_index_that_waits_for_a_report(until: Until) -> None:
    blocker = (
        "SELECT b.application_name FROM pg_stat_activity AS w JOIN pg_stat_activity AS b ON b.pid = ANY"
        " (pg_blocking_pids(w.pid)) WHERE w.query LIKE 'CREATE INDEX CONCURRENTLY%%' AND w.wait_event = 'virtualxid'"
    )
    kinds = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = %s AND query LIKE %s"
    with (
        on_embedded(settings={"autovacuum_naptime": 1}) as ground,
        outside(ground) as seen,
        playing(ground, "maintenance", duration_seconds=40.0),
    ):
        until(lambda: seen.ask(blocker) == [("month-end report",)], "the index behind the report")
        until(lambda: seen.one(kinds, "walsender", "START_REPLICATION%"), "a walsender")
        until(lambda: seen.one(kinds, "client backend", "VACUUM%"), "a vacuum")
        until(lambda: seen.one(kinds, "autovacuum worker", "autovacuum: VACUUM%queue%"), "autovacuum")
        until(lambda: seen.one("SELECT count(*) FROM pg_index WHERE indexrelid::regclass::text ~ 'by_body_1'"), "it")


def test_waits_for_a_row_lock_take_four_seconds_and_end(ground: Ground, seen: Outside, until: Until) -> None:
    waiting = "wait_event_type = 'Lock' AND cardinality(pg_blocking_pids(pid)) > 0"
    with playing(ground, "short-lock-waits", size=5, rate_per_second=0.2, duration_seconds=20.0):
        until(lambda: seen.sessions(waiting) == 5, "five that wait")
        began = time.monotonic()
        assert seen.sessions("state = 'idle in transaction'") == 1
        until(lambda: seen.sessions(waiting) == 0, "the end of the wait")
        assert 2 < time.monotonic() - began < 8
        until(lambda: seen.sessions(waiting) == 5, "the next round")


def test_after_a_restart_of_the_server_everybody_comes_back(ground: Ground, until: Until) -> None:
    with outside(ground) as before:
        started = before.one("SELECT pg_postmaster_start_time()")
    with playing(ground, "server-restart", size=12, duration_seconds=9.0) as tell:
        until(lambda: any("is back" in str(told.facts) for told in tell.told), "the restart")
        with outside(ground) as seen:
            assert seen.one("SELECT pg_postmaster_start_time()") > started
            until(lambda: seen.sessions("application_name LIKE 'support@%%'") == 12, "all clients")


class DaemonThatCounts:
    """Stands for the daemon under drill, and counts how often it is restarted."""

    def __init__(self) -> None:
        self.restarts = 0

    def restart(self) -> None:
        self.restarts += 1


def test_our_own_restart_happens_once_in_the_middle_of_work(ground: Ground, seen: Outside, until: Until) -> None:
    daemon = DaemonThatCounts()
    ground.daemon = daemon  # type: ignore[assignment]
    with playing(ground, "own-restart", duration_seconds=4.0) as tell:
        until(lambda: seen.sessions("application_name LIKE 'support@%%'") == 10, "clients")
        assert daemon.restarts == 0
        until(lambda: daemon.restarts, "the restart")
        assert seen.sessions("application_name LIKE 'orders@%%'") >= 9
        until(lambda: tell.is_done, "the end")
    assert daemon.restarts == 1


def test_on_a_given_server_of_version_15_a_dump_keeps_its_share_and_leaves_nothing(
    until: Until,
) -> None:
    with EmbeddedServer(POSTGRES_15, max_connections=40) as server:
        with (
            on_given(server.dsn(), share=0.4, may_be_unmarked=True) as ground,
            closing(psycopg2.connect(server.dsn(application_name="outside"))) as connection,
        ):
            connection.autocommit = True
            seen = Outside(connection)
            spec, tell = ACTS["pg-dump"], Tell()
            pace = spec.paced(Pace(size=30, duration_seconds=5.0), calm_seconds=0)
            thread = threading.Thread(target=spec.run, args=(ground, pace, tell), daemon=True)
            thread.start()
            until(lambda: seen.sessions("query LIKE 'COPY %%'") > 5, "jobs")
            assert ground.held <= ground.budget
            until(lambda: tell.is_done, "the end")
            thread.join(END_SECONDS)
        with closing(psycopg2.connect(server.dsn(application_name="outside"))) as connection:
            after = Outside(connection)
            assert after.one("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'batsignal%%'") == 0
            assert after.one("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'batsignal%%'") == 0
            assert after.sessions() == 0
