"""Titles of PostgreSQL's processes as 12 to 18 write them, read one by one; the real ones are in test_sight.py."""

import pytest

from batsignal.poll.titles import prefix_of, read_title, split_names

PLAIN = "postgres: "
NAMED = "postgres: 15/main: "


@pytest.mark.parametrize(
    ("titles", "prefix"),
    [
        (["postgres: checkpointer "], PLAIN),
        (["postgres: checkpointer"], PLAIN),
        (["postgres: walwriter ", "postgres: 15/main: checkpointer "], NAMED),
        (["postgres: a: b: checkpointer "], "postgres: a: b: "),
        (["postgres: checkpointer shop 10.0.0.4(4711) idle"], None),
        (["/usr/lib/postgresql/15/bin/postgres -D /data"], None),
        ([], None),
    ],
)
def test_prefix_is_read_off_the_checkpointer_and_off_nobody_else(titles: list[str], prefix: str | None) -> None:
    assert prefix_of(titles) == prefix


@pytest.mark.parametrize(
    "title",
    [
        "checkpointer ",
        "background writer ",
        "walwriter ",
        "autovacuum launcher ",
        "autovacuum worker shop",
        "autovacuum worker 10.0.0.4(4711)",
        "logical replication launcher ",
        "logical replication apply worker for subscription 16389 ",
        "parallel worker for PID 4711 ",
        "walreceiver streaming 0/3000148",
        "walsender standby 10.0.0.5(4711) streaming 0/3000148",
        "walsender emergency shop 10.0.0.5(4711) idle",
        "startup recovering 000000010000000000000003",
        "io worker 0",
        "pg_cron launcher ",
        "archiver last was 000000010000000000000003",
    ],
)
@pytest.mark.parametrize("prefix", [PLAIN, NAMED])
def test_what_is_no_client_is_no_session(title: str, prefix: str) -> None:
    assert read_title(prefix + title, prefix).kind == "other"


@pytest.mark.parametrize(
    ("doing", "state", "wait_event_type", "wait_event"),
    [
        ("idle", "idle", None, None),
        ("idle in transaction", "idle in transaction", None, None),
        ("idle in transaction (aborted)", "idle in transaction (aborted)", None, None),
        ("SELECT", "active", None, None),
        ("CREATE TABLE AS waiting", "active", "Lock", None),
        ("COMMIT waiting for 0/3000148", "active", "IPC", "SyncRep"),
        ("", None, None, None),
    ],
)
@pytest.mark.parametrize("client", ["[local]", "10.0.0.4(4711)", "fe80::1%eth0(4711)", "web-1.example.com(4711)"])
def test_client_is_told_with_what_it_does(
    client: str, doing: str, state: str | None, wait_event_type: str | None, wait_event: str | None
) -> None:
    title = read_title(f"{NAMED}web shop {client} {doing}", NAMED)
    assert (title.kind, title.names) == ("client", "web shop")
    assert title.client_addr == (None if client == "[local]" else client.partition("(")[0])
    assert (title.state, title.wait_event_type, title.wait_event) == (state, wait_event_type, wait_event)


def test_title_that_is_not_kept_up_to_date_still_tells_whose_it_is() -> None:
    title = read_title("postgres: web shop 10.0.0.4(4711) ", PLAIN)
    assert (title.kind, title.names, title.client_addr, title.state) == ("client", "web shop", "10.0.0.4", None)


@pytest.mark.parametrize("doing", ["authentication", "startup"])
def test_session_that_is_not_logged_in_holds_a_slot_and_is_none_of_the_clients(doing: str) -> None:
    assert read_title(f"postgres: web shop 10.0.0.4(4711) {doing}", PLAIN).kind == "authenticating"


@pytest.mark.parametrize("title", ["/usr/bin/postgres\0-D\0/data", "postgres: web shop 10.0.0.4(4711) initializing"])
def test_connection_that_has_no_slot_yet_is_unborn(title: str) -> None:
    assert read_title(title, PLAIN).kind == "unborn"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("1.2.3.4(5) idle shop", (None, None)),
        ("web 1.2.3.4(5)", ("web", "1.2.3.4(5)")),
    ],
)
def test_names_that_look_like_an_address_are_names(names: str, told: tuple[str | None, str | None]) -> None:
    title = read_title(f"postgres: {names} 10.0.0.4(4711) idle", PLAIN)
    assert (title.names, title.client_addr, title.state) == (names, "10.0.0.4", "idle")
    assert split_names(names, (), ()) == told


def test_two_readings_that_are_both_known_are_none() -> None:
    assert split_names("a b c", {"a", "a b"}, {"b c", "c"}) == (None, None)
