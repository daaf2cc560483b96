"""The admin console of a real PgBouncer: read by name, kept open, and never in the way when it is gone or hangs."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import psutil
import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from batsignal.drills.actors.pooler import PgBouncer
from batsignal.drills.embedded import HOST, EmbeddedServer, reserve_port
from batsignal.drills.ground import on_embedded
from batsignal.poll.pgbouncer import PgBouncerPoller, PoolerLook
from batsignal.poll.resolve import Resolver
from batsignal.snapshot import PoolerPool
from poolers import READER, Pooler, in_front_of

Until = Callable[..., Any]


@pytest.fixture(scope="module")
def pooler() -> Iterator[PgBouncer]:
    with on_embedded() as ground:
        pooler = PgBouncer(ground, pool_size=2)
        yield pooler
        pooler.stop()


@pytest.fixture
def poller(pooler: PgBouncer) -> Iterator[PgBouncerPoller]:
    poller = poller_of(pooler.console_dsn)
    yield poller
    poller.close()


def poller_of(dsn: str) -> PgBouncerPoller:
    return PgBouncerPoller(server="db1", dsn=dsn, resolver=Resolver())


def seen(look: PoolerLook, database: str = "shop") -> PoolerPool | None:
    assert look.failure is None, look.failure
    return next((pool for pool in look.pools or () if pool.database == database), None)


def test_clients_that_wait_and_sessions_that_are_lent_are_seen(
    pooler: PgBouncer, poller: PgBouncerPoller, until: Until
) -> None:
    with closing(pooler.connect("a")) as one, closing(pooler.connect("b")) as two:
        for session in (one, two):
            session.cursor().execute("SELECT 1")

        def wait() -> None:
            with closing(pooler.connect("c")) as third:
                third.cursor().execute("SELECT 1")

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        until(lambda: (pool := seen(poller.look())) is not None and pool.cl_waiting == 1, "a client that waits")
        time.sleep(0.3)
        pool = seen(poller.look())
        assert pool is not None
        assert (pool.user, pool.sv_active, pool.sv_idle, pool.pool_mode) == (pooler.user, 2, 0, "transaction")
        assert pool.maxwait_seconds is not None
        assert 0.2 < pool.maxwait_seconds < 30
        one.commit()
        waiting.join(5)
    until(lambda: (pool := seen(poller.look())) is not None and pool.cl_waiting == 0, "nobody to wait")


def test_all_looks_go_through_one_connection(pooler: PgBouncer, poller: PgBouncerPoller) -> None:
    for _ in range(5):
        assert seen(poller.look(), "pgbouncer") is not None
    port = int(parse_dsn(pooler.console_dsn)["port"])
    ours = [
        one
        for one in psutil.Process().net_connections("tcp4")
        if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED
    ]
    assert len(ours) == 1


def test_pgbouncer_that_restarts_is_seen_again(pooler: PgBouncer, poller: PgBouncerPoller, until: Until) -> None:
    assert poller.look().failure is None
    pooler.restart(3)
    first = poller.look()
    assert first.pools is None
    assert first.failure
    until(lambda: poller.look().failure is None, "the console")


def test_nobody_there_is_a_reason_and_no_exception() -> None:
    with reserve_port() as reserved:
        poller = poller_of(f"host={HOST} port={reserved.getsockname()[1]} user=web")
    look = poller.look()
    assert look.pools is None
    assert look.failure is not None
    assert "refused" in look.failure
    assert poller.look().seconds < 3, "it backs off"


def test_name_without_an_address_is_a_reason_and_the_password_is_none_of_it() -> None:
    nowhere = poller_of("host=no-such-host.invalid port=1 user=x password=s3cret").look()
    assert nowhere.failure is not None
    assert "no-such-host.invalid" in nowhere.failure
    assert "s3cret" not in nowhere.failure


def test_pgbouncer_that_hangs_is_left_alone_and_seen_again_when_it_goes_on(
    pooler: PgBouncer, poller: PgBouncerPoller, until: Until
) -> None:
    poller.run()
    assert poller.latest().failure is None
    process = psutil.Process(pooler._process.pid)
    process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        poller.run()
        assert time.monotonic() - began < 5
        assert poller.latest().failure == "no answer within 1 s"
        assert poller.latest().pools is None
    finally:
        process.send_signal(signal.SIGCONT)
    until(lambda: poller.look().failure is None, "an answer")


def test_what_was_seen_long_ago_is_not_what_is(pooler: PgBouncer) -> None:
    now = [100.0]
    poller = PgBouncerPoller(
        server="db1", dsn=pooler.console_dsn, resolver=Resolver(), monotonic=lambda: now[0] + time.monotonic()
    )
    assert poller.latest().failure == "not asked yet"
    poller.run()
    assert poller.latest().pools is not None
    now[0] += 10
    assert poller.latest().pools is None
    poller.close()
    poller.run()
    assert poller.latest().pools is None, "a closed one looks no more"


@pytest.fixture(scope="module")
def strict(servers: Callable[[str], EmbeddedServer]) -> Iterator[Pooler]:
    """A PgBouncer that wants passwords, and takes three clients."""
    users = {"users": '"poolstats" "right"\n"watcher" "right"\n'}
    with in_front_of(servers("15"), files=users, auth_type="scram-sha-256", max_client_conn="3") as started:
        yield started


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ({"user": READER, "password": "wrong"}, "SASL authentication failed"),
        ({"user": "ghost", "password": "wrong"}, "SASL authentication failed"),
        ({"user": READER}, "password"),
        ({"user": "watcher", "password": "right"}, "not allowed"),
    ],
)
def test_console_that_refuses_us_says_why_and_no_password(strict: Pooler, login: dict[str, str], said: str) -> None:
    with closing(poller_of(strict.dsn(dbname="pgbouncer", **login))) as refused:
        look = refused.look()
    assert look.pools is None
    assert look.failure is not None
    assert said in look.failure
    assert "wrong" not in look.failure


def test_console_lets_a_reader_of_statistics_in_while_pgbouncer_takes_no_more_clients(strict: Pooler) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(psycopg2.connect(strict.dsn(password="right"))))
        with pytest.raises(psycopg2.OperationalError, match="max_client_conn"):
            psycopg2.connect(strict.dsn(password="right"))
        console = strict.dsn(dbname="pgbouncer", user=READER, password="right")
        with closing(poller_of(console)) as reader:
            pool = seen(reader.look(), "postgres")
    assert pool is not None
    assert pool.cl_active == 3


def test_paused_or_suspended_pgbouncer_goes_on_answering_on_the_kept_console(
    pooler: PgBouncer, poller: PgBouncerPoller
) -> None:
    assert poller.look().failure is None
    with closing(psycopg2.connect(pooler.console_dsn)) as console:
        console.autocommit = True
        for words in ("PAUSE", "SUSPEND"):  # while it is suspended it takes no new connection
            console.cursor().execute(words)
            try:
                assert poller.look().failure is None, words
            finally:
                console.cursor().execute("RESUME")
