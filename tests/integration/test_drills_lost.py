"""Every act of a leak, of a starved pool and of an outage, seen from outside: what the row says is really there."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from batsignal.drills import acts, ground
from batsignal.drills.act import Pace, Tell
from batsignal.drills.actors.background import going_on
from batsignal.drills.actors.health_endpoint import HealthEndpoint
from batsignal.drills.ground import Ground

Until = Callable[..., Any]


class Stage:
    """An act at work on a ground of its own, and a session that looks at the server from outside."""

    def __init__(self, place: Ground, name: str, pace: Pace) -> None:
        self.place = place
        self.tell = Tell()
        self.spec = acts.ACTS[name]
        self.pace = self.spec.paced(pace, calm_seconds=0.0)
        self.failure: BaseException | None = None
        self._looker = self._connect()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.spec.run(self.place, self.pace, self.tell)
        except BaseException as exc:
            self.failure = exc
            raise

    def _connect(self) -> psycopg2.extensions.connection:
        server = self.place.embedded
        assert server is not None
        connection = psycopg2.connect(server.dsn(user="batsignal", application_name="looker"))
        connection.autocommit = True
        return connection

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self._looker.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def count(self, where: str) -> int:
        return int(self.ask(f"SELECT count(*) FROM pg_stat_activity WHERE {where}")[0][0])

    def close(self) -> None:
        self._looker.close()


@contextmanager
def playing(name: str, *, bindir: Path | None = None, background: bool = True, **pace: Any) -> Iterator[Stage]:
    with ground.on_embedded(bindir=bindir) as place:
        if acts.ACTS[name].endpoint:
            place.endpoint = HealthEndpoint()
        with going_on(place) if background else nullcontext():
            stage = Stage(place, name, Pace(**pace))
            stage.thread.start()
            try:
                yield stage
                assert stage.failure is None
            finally:
                stage.close()


STILL = "application_name = 'web@2.4.0' AND state_change < now() - interval '1.5 s'"


@pytest.mark.parametrize("bindir", [None, Path("/usr/lib/postgresql/15/bin")], ids=["18", "15"])
@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("leak", "state = 'idle'"),
        ("leak-in-transaction", "state = 'idle in transaction' AND xact_start IS NOT NULL"),
        ("leak-client-read", "state = 'active' AND wait_event = 'ClientRead' AND query !~* '^copy'"),
    ],
)
def test_a_lost_session_stays_in_its_state_and_more_of_the_same_follow(
    name: str, lost: str, bindir: Path | None, until: Until
) -> None:
    with playing(name, bindir=bindir, background=False, rate_per_second=10) as stage:
        until(lambda: stage.count(f"{STILL} AND {lost}") >= 10, "ten lost sessions")
        pids = {row[0] for row in stage.ask(f"SELECT pid FROM pg_stat_activity WHERE {STILL} AND {lost}")}
        until(lambda: stage.count(f"{STILL} AND {lost}") >= len(pids) + 5, "more of the same")
        later = {row[0] for row in stage.ask(f"SELECT pid FROM pg_stat_activity WHERE {STILL} AND {lost}")}
        assert pids < later
        facts = stage.tell.onsets["leak"]
        assert (facts.subject.application, facts.subject.version, facts.subject.user) == ("web", "2.4.0", "web")
        assert facts.at == pytest.approx(stage.tell.lost_at[0], abs=0.5)


def test_the_new_version_replaces_the_old_one_before_it_leaks(until: Until) -> None:
    with playing("leak", rate_per_second=5) as stage:
        until(lambda: stage.count("application_name = 'web@2.3.9'") == 0, "the old version to go")
        until(lambda: stage.count("application_name = 'web@2.4.0'") >= 10, "the new version and its first losses")
        assert stage.count("application_name = 'billing@1.7.2'") >= 2
        deploy = stage.tell.onsets["leak"].deploy
        assert deploy is not None
        assert (deploy.service, deploy.version, deploy.previous) == ("web", "2.4.0", "2.3.9")


def test_an_unnamed_leak_has_a_user_and_an_address_and_no_name(until: Until) -> None:
    with playing("leak-unnamed", rate_per_second=10) as stage:
        until(lambda: stage.count("usename = 'reports'") >= 8, "eight lost sessions")
        assert stage.ask(
            "SELECT DISTINCT application_name, host(client_addr) FROM pg_stat_activity WHERE usename = 'reports'"
        ) == [("", "127.0.0.5")]
        subject = stage.tell.onsets["leak"].subject
        assert (subject.application, subject.user, subject.client) == (None, "reports", "127.0.0.5")


def test_a_leak_over_many_pods_loses_a_little_on_each(until: Until) -> None:
    with playing("leak-many-pods", rate_per_second=10, size=6) as stage:
        until(lambda: len(stage.tell.lost_at) >= 18, "three lost sessions a pod", 40.0)
        rows = stage.ask(
            "SELECT host(client_addr), count(*) FROM pg_stat_activity WHERE application_name = 'web@2.4.0' GROUP BY 1"
        )
        assert len(rows) == 6
        assert all(3 <= sessions <= 8 for _, sessions in rows)


def test_a_crawl_goes_on_while_traffic_goes_up_and_down(until: Until) -> None:
    with playing("leak-crawl", rate_per_second=1, duration_seconds=40.0) as stage:
        held: set[int] = set()

        def waved() -> bool:
            held.add(stage.count("application_name = 'web@2.4.0' AND state = 'active'"))
            return len(stage.tell.lost_at) >= 12 and max(held) - min(held) >= 3

        until(waved, "twelve lost sessions, and a wave of busy ones", 40.0)
        assert stage.count("application_name = 'web@2.3.9'") == 0


def test_a_leak_ends_at_its_size_and_keeps_what_it_took(until: Until) -> None:
    with playing("leak", background=False, rate_per_second=50, size=7) as stage:
        until(lambda: stage.count(f"{STILL} AND state = 'idle'") == 7, "seven lost sessions")
        assert len(stage.tell.lost_at) == 7
        assert stage.place.held == 2 + 7


def test_a_leak_that_the_server_refuses_tries_again_and_takes_the_next_slot(until: Until) -> None:
    with playing("leak", background=False, rate_per_second=100) as stage:
        until(lambda: stage.place.refusals > 5, "refusals")
        full = stage.count("backend_type = 'client backend'")
        victim = stage.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'web@2.4.0' LIMIT 1")[0][0]
        stage.place.execute("SELECT pg_terminate_backend(%s)", (victim,))
        until(
            lambda: stage.count(f"pid = {victim}") == 0 and stage.count("backend_type = 'client backend'") >= full,
            "the slot to be taken again",
        )


def test_a_starved_pool_lets_its_health_check_wait_in_vain_while_the_server_has_slots(until: Until) -> None:
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    with playing("pool-starvation", rate_per_second=20, size=8) as stage:
        endpoint = stage.place.endpoint
        assert endpoint is not None

        def probe() -> bool:
            try:
                with urllib.request.urlopen(endpoint.url, timeout=2.0):  # noqa: S310 - our own address
                    return True
            except OSError:
                return False

        until(lambda: not probe(), "a probe that fails", 30.0)
        until(lambda: "pool_starvation" in stage.tell.onsets, "the onset")
        assert stage.count("application_name = 'web@2.4.0'") == 8
        assert stage.count("backend_type = 'client backend'") < stage.place.slots.usable / 2
        assert stage.tell.onsets["pool_starvation"].subject.application == "web"
        assert stage.tell.onsets["endpoint_down"].optional


def test_a_stopped_server_comes_back_before_the_drill_ends(until: Until) -> None:
    with playing("database-unreachable", duration_seconds=5.0) as stage:
        until(lambda: "database_unreachable" in stage.tell.onsets, "the onset")
        with pytest.raises(psycopg2.OperationalError):
            stage._connect()
        assert stage.place.is_away
        stage.thread.join(20)
        assert not stage.place.is_away
        assert stage.place.used() >= 1


def test_seats_are_counted_back_when_sessions_close_and_the_end_leaves_none(until: Until) -> None:
    with ground.on_embedded() as place:
        sessions = [place.connect("web@1", host=number) for number in (1, 2, 3)]
        assert place.held == 2 + 3
        sessions[0].close()
        sessions[0].close()
        del sessions[1]
        until(lambda: place.held == 2 + 1, "two seats to come back")
        assert place.used() >= 2
    began = time.monotonic()
    with pytest.raises(ground.BudgetSpentError):
        place.connect("web@1")
    assert time.monotonic() - began < 5
