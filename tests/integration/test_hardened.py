"""A server whose catalogs PUBLIC may not read any more: what is left is seen, and what lacks is said."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from batsignal.drills.embedded import EmbeddedServer
from batsignal.poll.resolve import Resolver
from batsignal.poll.sight import Sight
from majors import EACH

Until = Callable[..., Any]
CATALOGS = "pg_database, pg_roles, pg_settings, pg_stat_database"


@pytest.fixture
def clock() -> list[float]:
    """What is added to the monotonic clock, in seconds."""
    return [0.0]


@pytest.fixture
def sight(fresh_server: Callable[..., EmbeddedServer], major: str, clock: list[float]) -> Iterator[tuple[Any, Sight]]:
    server = fresh_server(major)
    with closing(
        Sight(
            server="db1",
            dsn=server.dsn(user="watcher"),
            resolver=Resolver(),
            monotonic=lambda: time.monotonic() + clock[0],
        )
    ) as sight:
        yield server, sight


@pytest.mark.parametrize("major", EACH)
def test_names_that_may_not_be_read_are_missing_and_nothing_else_is(
    sight: tuple[EmbeddedServer, Sight], sessions: Any, clock: list[float]
) -> None:
    server, eye = sight
    sessions.run(server, f"REVOKE SELECT ON {CATALOGS} FROM PUBLIC")
    web = sessions.open(server, application_name="web@2.4.0", user="nobody_special").info.backend_pid
    for _ in range(3):
        snapshot = eye.look()
        assert snapshot.failure is None, snapshot.failure
    (session,) = [one for one in snapshot.sessions if one.pid == web]
    assert (session.application_name, session.usename, session.datname) == ("web@2.4.0", None, None)
    assert snapshot.slots is not None
    assert snapshot.privileged is True
    assert set(eye.denied) == {"roles", "databases"}
    seat = eye.process
    sessions.run(server, f"GRANT SELECT ON {CATALOGS} TO PUBLIC")
    clock[0] += 60
    snapshot = eye.look()
    (session,) = [one for one in snapshot.sessions if one.pid == web]
    assert (session.usename, session.datname) == ("nobody_special", "postgres")
    assert not eye.denied
    assert eye.process == seat


@pytest.mark.parametrize("major", EACH)
@pytest.mark.parametrize(
    ("revoke", "said"),
    [
        ("EXECUTE ON FUNCTION pg_stat_get_activity(int)", "permission denied for function pg_stat_get_activity"),
        ("USAGE ON SCHEMA pg_catalog", "permission denied for schema pg_catalog"),
    ],
)
def test_right_that_nothing_is_seen_without_is_a_fault_of_our_login(
    sight: tuple[EmbeddedServer, Sight], sessions: Any, revoke: str, said: str
) -> None:
    server, eye = sight
    sessions.run(server, f"REVOKE {revoke} FROM PUBLIC")
    snapshot = eye.look()
    assert snapshot.met is not None
    assert (snapshot.met.reason, snapshot.met.sqlstate, snapshot.met.text) == ("auth_failed", "42501", said)
