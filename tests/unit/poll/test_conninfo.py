import pytest

from batsignal.poll.conninfo import connect_parameters, redacted
from batsignal.poll.resolve import ResolveError, Resolver


class Book(Resolver):
    """A resolver that knows two names and no network."""

    def addresses(self, host: str, wait_seconds: float) -> tuple[str, ...]:
        assert wait_seconds > 0
        known = {"db1": ("10.0.0.1",), "db2": ("10.0.0.2", "fd00::2")}
        if host not in known:
            raise ResolveError(f"the name {host} does not resolve")
        return known[host]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


def places(dsn: str, turn: int = 0) -> tuple[str | None, ...]:
    parameters = connect_parameters(dsn, Book(), 1.0, turn)
    return tuple(parameters.get(key) for key in ("host", "hostaddr", "port"))


@pytest.mark.parametrize("dsn", ["postgresql://bob@db1:5433/shop", "host=db1 port=5433 user=bob dbname=shop"])
def test_host_gets_its_address_and_keeps_its_name(dsn: str) -> None:
    parameters = connect_parameters(dsn, Book(), 1.0)
    assert (parameters["host"], parameters["hostaddr"], parameters["port"]) == ("db1", "10.0.0.1", "5433")
    assert (parameters["user"], parameters["dbname"]) == ("bob", "shop")


def test_session_is_named_after_us_whatever_the_dsn_says() -> None:
    dsn = "host=db1 application_name=web client_encoding=LATIN1"
    parameters = connect_parameters(dsn, Book(), 1.0)
    assert (parameters["application_name"], parameters["client_encoding"]) == ("batsignal", "UTF8")


def test_guards_are_there_unless_the_dsn_says_otherwise() -> None:
    assert connect_parameters("host=db1", Book(), 1.0)["tcp_user_timeout"] == "10000"
    assert connect_parameters("host=db1 tcp_user_timeout=7", Book(), 1.0)["tcp_user_timeout"] == "7"


def test_every_address_of_every_host_is_a_place() -> None:
    assert places("host=db1,db2 port=1,2") == ("db1,db2,db2", "10.0.0.1,10.0.0.2,fd00::2", "1,2,2")


def test_one_port_is_for_all_hosts() -> None:
    assert places("host=db1,db2 port=7") == ("db1,db2,db2", "10.0.0.1,10.0.0.2,fd00::2", "7,7,7")


def test_each_turn_begins_with_another_address() -> None:
    assert [places("host=db1,db2 port=1,2", turn)[1] for turn in range(4)] == [
        "10.0.0.1,10.0.0.2,fd00::2",
        "10.0.0.2,fd00::2,10.0.0.1",
        "fd00::2,10.0.0.1,10.0.0.2",
        "10.0.0.1,10.0.0.2,fd00::2",
    ]


def test_host_without_an_address_is_passed_over_for_one_that_has() -> None:
    assert places("host=gone,db1 port=1,2") == ("db1", "10.0.0.1", "2")


def test_hosts_without_any_address_are_an_error() -> None:
    with pytest.raises(ResolveError, match="gone2"):
        places("host=gone1,gone2")


def test_socket_directory_needs_no_address() -> None:
    assert places("host=/var/run/postgresql port=5433") == ("/var/run/postgresql", None, "5433")


def test_socket_directory_may_stand_beside_a_host() -> None:
    assert places("host=/run/pg,db1 port=1") == ("/run/pg,db1", ",10.0.0.1", "1,1")


def test_numeric_address_that_is_given_is_left_alone() -> None:
    assert places("host=elsewhere hostaddr=10.9.9.9") == ("elsewhere", "10.9.9.9", None)


def test_environment_of_libpq_is_resolved_like_a_dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db2")
    monkeypatch.setenv("PGPORT", "5433")
    assert places("") == ("db2,db2", "10.0.0.2,fd00::2", "5433,5433")


def test_dsn_without_a_host_is_libpqs_affair() -> None:
    assert places("dbname=shop") == (None, None, None)


def test_service_file_is_libpqs_affair() -> None:
    assert places("service=shop") == (None, None, None)


def test_numbers_of_hosts_and_ports_that_differ_are_libpqs_affair() -> None:
    assert places("host=db1,db2 port=1,2,3") == ("db1,db2", None, "1,2,3")


@pytest.mark.parametrize("spelling", ["p@ss/w", "p%40ss%2Fw", "p%40ss/w"])
def test_secret_is_cut_out_in_every_spelling(spelling: str) -> None:
    assert redacted(f"no way in with {spelling}!", "p@ss/w", None, "") == "no way in with ******!"
