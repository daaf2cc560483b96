"""`batsignal release` against a real daemon and a real server: what ends, what never does, and what is kept of it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from batsignal.drills.embedded import EmbeddedServer
from batsignal.releases.order import IDLE_LONGER_SECONDS
from daemon_home import RELEASE_TOKEN, TOKEN, Home, Until

MAY_END = "CREATE ROLE releaser LOGIN IN ROLE pg_monitor, pg_signal_backend; CREATE ROLE app LOGIN"
# What does not depend on the server's version.
ON_ONE = pytest.mark.parametrize("postgres", ["15"], indirect=True)
NO_MORE = "DROP ROLE releaser, app"


@pytest.fixture
def home(tmp_path: Path, postgres: EmbeddedServer, sessions: Any, until: Until) -> Iterator[Home]:
    """Return a home whose daemons may end sessions; `app` is whose sessions they are."""
    sessions.run(postgres, MAY_END)
    with ExitStack() as stack:
        yield Home(tmp_path, postgres, until, stack, role="releaser")
    sessions.close()
    left = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('releaser', 'app')"
    until(lambda: not sessions.run(postgres, left), "the last of them to end")
    sessions.run(postgres, NO_MORE)


def leak(sessions: Any, server: EmbeddedServer, count: int, name: str = "web@2.4.0", **parameters: Any) -> list[Any]:
    return [sessions.open(server, application_name=name, **{"user": "app", **parameters}) for _ in range(count)]


def fill(open_one: Callable[[], Any]) -> list[Any]:
    """Open sessions until the server refuses one."""
    opened = []
    try:
        while True:
            opened.append(open_one())
    except psycopg2.OperationalError as exc:
        assert "slots" in str(exc) or "too many clients" in str(exc)  # noqa: PT017 - when they are taken
    return opened


def is_alive(connection: Any) -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error:
        return False
    return True


def release(home: Home, url: str, *arguments: str) -> tuple[int, str, str]:
    done = home.command("release", "--url", url, *arguments, BATSIGNAL_TOKEN=RELEASE_TOKEN)
    return done.returncode, done.stdout, done.stderr


def all_would_end(home: Home, url: str, count: int, rested_at: float, *arguments: str) -> bool:
    """Whether a look from after `rested_at`, by the clock, finds so many that would end.

    An order is answered by the last look while that is fresh: one from before the sessions were used passes them all.
    """
    code, out, _ = release(home, url, *arguments, "--format", "json")
    if code != 0:
        return False
    answer = json.loads(out)
    outcomes = [session["outcome"] for session in answer["sessions"]]
    return bool(answer["time"] >= rested_at) and outcomes == ["would end"] * count


def test_what_a_culprit_holds_ends_and_nothing_else_and_the_incident_keeps_who_did_it(
    home: Home, sessions: Any, until: Until
) -> None:
    server = home.server
    life = home.begin()
    lost = leak(sessions, server, 28)  # nearly all slots: something lights
    in_transaction = leak(sessions, server, 1)
    in_transaction[0].autocommit = False
    in_transaction[0].cursor().execute("SELECT 1")
    superuser = leak(sessions, server, 1, user=server.superuser)
    others = leak(sessions, server, 1, "web@2.3.9") + leak(sessions, server, 1, "billing@1")
    busy = psycopg2.connect(server.dsn(user="app", application_name="web@2.4.0"), async_=True)  # type: ignore[call-overload]
    until(lambda: busy.poll() == psycopg2.extensions.POLL_OK, "the busy session")
    busy.cursor().execute("SELECT pg_sleep(60)")
    lit = until(life.lit, "a signal", 60)

    everyones = ("--application", "web", "--version", "2.4.0")
    until(
        lambda: "29 sessions would end" in release(home, life.url, *everyones)[1], "all of them to be idle for a second"
    )
    code, out, error = release(home, life.url, *everyones)
    assert (code, error) == (1, "")  # the superuser's stands in the way
    assert out.splitlines()[0].split() == ["PID", "APPLICATION", "USER", "DATABASE", "CLIENT", "STATE", "IDLE", "FOR"]
    assert out.count("would end") == 29 + 1
    assert "left alone: 1 active (--state 'active')" in out
    assert "db1: 29 sessions would end; nothing was done, --yes ends them" in out
    assert all(map(is_alive, [*lost, *superuser, *others]))

    in_transaction[0].rollback()
    in_transaction[0].cursor().execute("SELECT 1")
    chosen = ("--application", "web", "--version", "2.4.0", "--user", "app", "--database", "postgres")
    rested_at = time.time() + IDLE_LONGER_SECONDS
    until(lambda: all_would_end(home, life.url, 29, rested_at, *chosen), "all of them to be idle for a second")
    code, out, error = release(home, life.url, *chosen, "--client", "127.0.0.1", "--yes")
    assert (code, error) == (0, "")
    assert "db1: 29 of 29 sessions ended; noted in incident " in out
    assert not any(map(is_alive, lost + in_transaction))
    assert all(map(is_alive, superuser + others))
    assert sessions.run(server, "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'") == [(1,)]
    busy.close()

    def noted() -> list[dict[str, Any]]:
        timeline = life.json(f"/api/v1/incidents/{lit[0]['id']}")["timeline"]
        return [event for event in timeline if event["event"] == "released"]

    (event,) = until(noted, "the incident to have it")
    audit = event["release"]
    assert audit["order"] == {
        "application": "web",
        "version": "2.4.0",
        "user": "app",
        "client": "127.0.0.1",
        "database": "postgres",
        "states": ["idle", "idle in transaction", "idle in transaction (aborted)"],
        "idle_longer_seconds": 1.0,
    }
    assert (audit["chosen"], audit["ended"], audit["gone"], audit["left"]) == (29, 29, 29, [])
    assert "@" in audit["by"]
    assert audit["address"] == "127.0.0.1"
    drafted = home.command("report", lit[0]["id"], "--output", "draft.md", "--url", life.url)
    assert (drafted.returncode, drafted.stdout, drafted.stderr) == (0, "wrote draft.md\n", "")
    draft = (home.folder / "draft.md").read_text()
    assert f"{audit['by']} from 127.0.0.1 had 29 of 29 sessions ended, 29 were seen to leave" in draft
    assert "- Connection slots: " in draft  # from its recording
    (line,) = life.said("sessions released")
    assert (line["ended"], line["by"], line["of_application"]) == (29, audit["by"], "web")
    life.stop()


def test_with_every_slot_taken_it_works_through_the_session_that_the_watch_keeps(
    home: Home, sessions: Any, until: Until
) -> None:
    server = home.server
    life = home.begin()
    lost = fill(lambda: sessions.open(server, user="app", application_name="web@2.4.0"))
    fill(lambda: sessions.open(server, application_name="admin"))  # the superuser's reserved ones, too
    until(lambda: life.metric('batsignal_slots_full{server="db1"}') == 1, "no slot to be left")
    command = ("--application", "web", "--yes")
    until(lambda: f"{len(lost)} sessions would end" in release(home, life.url, *command[:-1])[1], "all to be idle", 30)
    assert release(home, life.url, *command)[0] == 0
    assert not any(map(is_alive, lost))
    until(lambda: life.metric('batsignal_slots_full{server="db1"}') == 0, "slots to be free again")
    life.stop()


def test_a_daemon_that_came_when_no_slot_was_left_ends_them_through_its_replication_session(
    home: Home, sessions: Any, until: Until
) -> None:
    server = home.server
    sessions.run(server, "CREATE ROLE rescue LOGIN REPLICATION IN ROLE pg_monitor, pg_signal_backend")
    lost = fill(lambda: sessions.open(server, user="app", application_name="web@2.4.0"))
    fill(lambda: sessions.open(server, application_name="admin"))
    dsn = {"dsn": server.dsn(user="releaser"), "emergency_dsn": server.dsn(user="rescue")}
    life = home.begin(servers=[{"name": "db1", **dsn, "poll_interval_seconds": 0.2}])
    until(lambda: life.metric('batsignal_view{server="db1",view="walsender"}') == 1, "the other way in")
    chosen = ("--application", "web")
    until(lambda: f"{len(lost)} sessions would end" in release(home, life.url, *chosen)[1], "all to be idle", 30)
    code, out, _ = release(home, life.url, *chosen, "--yes")
    assert (code, f"{len(lost)} of {len(lost)} sessions ended" in out) == (0, True), out
    until(lambda: life.metric('batsignal_view{server="db1",view="session"}') == 1, "the ordinary way to be taken again")
    life.stop()
    until(lambda: not sessions.run(server, "SELECT 1 FROM pg_stat_activity WHERE usename = 'rescue'"), "it to leave")
    sessions.run(server, "DROP ROLE rescue")


@ON_ONE
def test_without_the_privilege_it_says_what_to_grant_and_ends_nothing(home: Home, sessions: Any, until: Until) -> None:
    home.role = "watcher"
    life = home.begin()
    checked = home.command("check", "--config.file", "batsignal.yml")
    assert checked.returncode == 1
    mend = "FAIL server db1: `batsignal release` may not end other roles' sessions; GRANT pg_signal_backend TO watcher;"
    assert mend in checked.stdout
    (held,) = leak(sessions, home.server, 1)
    wanted = "BatSignal's role may not end them; as a superuser: GRANT pg_signal_backend TO watcher;"
    chosen = ("--application", "web", "--idle-longer-seconds", "0.3")
    until(lambda: "PID" in release(home, life.url, *chosen)[1], "the session to be seen")
    for arguments in (chosen, (*chosen, "--yes")):
        code, out, error = release(home, life.url, *arguments)
        assert (code, error) == (1, "")
        assert wanted in out
        assert "not allowed" in out
    assert is_alive(held)
    life.stop()


@ON_ONE
def test_nobody_who_is_meant_is_no_error_and_who_is_called_alike_is_named(
    home: Home, sessions: Any, until: Until
) -> None:
    life = home.begin()
    leak(sessions, home.server, 2)
    named = "db1: no session to end\n  there is web@2.4.0, user app: 2 sessions\n"
    wrong = ("--application", "wbe", "--yes")
    until(lambda: release(home, life.url, *wrong)[1].startswith(named), "them to be seen, and by name")
    assert release(home, life.url, *wrong)[::2] == (0, "")
    code, out, _ = release(home, life.url, "--application", "web", "--idle-longer-seconds", "3600", "--format", "json")
    assert code == 0
    assert json.loads(out)["spared"] == {"used lately": 2}
    life.stop()


@ON_ONE
def test_only_its_own_token_opens_the_door(home: Home) -> None:
    life = home.begin()
    ask = ("release", "--application", "web", "--url", life.url)
    assert (
        "ok   server db1: `batsignal release` may end other"
        in home.command("check", "--config.file", "batsignal.yml").stdout
    )
    for token, error in ((TOKEN, "the token is not the right one"), ("", "no token: expected --token")):
        done = home.command(*ask, BATSIGNAL_TOKEN=token)
        assert (done.returncode, done.stdout) == (2, "")
        assert error in done.stderr
    assert home.command(*ask, "--server", "db2", BATSIGNAL_TOKEN=RELEASE_TOKEN).stderr.endswith(
        'refuses: server: expected one of db1, got "db2"\n'
    )
    life.stop()
    done = home.command(*ask, BATSIGNAL_TOKEN=RELEASE_TOKEN)
    assert done.returncode == 3
    assert "no answer from the daemon" in done.stderr
    life = home.begin(web={"listen_address": "127.0.0.1:0"})
    done = home.command("release", "--application", "web", "--url", life.url, BATSIGNAL_TOKEN=RELEASE_TOKEN)
    assert done.returncode == 2
    assert "expected web.release_token_file in the daemon's config" in done.stderr
    life.stop()
