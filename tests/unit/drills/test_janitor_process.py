import json
import time
from typing import NoReturn

import psycopg2
import pytest

from batsignal.drills import janitor_process
from batsignal.drills.embedded import HOST, reserve_port
from batsignal.drills.janitor_process import NAME_PATTERN, read


def thing(kind: str, name: str) -> str:
    return json.dumps({"kind": kind, "name": name})


def test_sessions_that_ended_are_none_of_the_janitors_business() -> None:
    assert read(["+11", "+12", "-11", "+13"]).sessions == {12, 13}


def test_databases_go_before_schemas_and_schemas_before_roles() -> None:
    estate = read([thing("role", "r"), thing("schema", "s"), thing("database", "d"), thing("role", 'a "b"\n')])
    assert estate.things() == [("database", "d"), ("schema", "s"), ("role", "r"), ("role", 'a "b"\n')]


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("batsignal_drill_0123abcd", "0123abcd"),
        ("batsignal_drill_0123abcd_web", "0123abcd"),
        ("batsignal_drill_0123abcd_a\nb", "0123abcd"),
        ("batsignal_drill_0123abcdef", None),
        ("batsignal_drill_mine", None),
        ("batsignal_drill_0123ABCD", None),
        ("my_batsignal_drill_0123abcd", None),
        ("batsignal", None),
    ],
)
def test_only_names_with_a_token_are_a_drills(name: str, token: str | None) -> None:
    match = NAME_PATTERN.match(name)
    assert (match and match["token"]) == token


def test_a_token_fits_into_a_lock() -> None:
    assert 0 < janitor_process.LOCK_CLASS < 2**31


def test_server_that_is_gone_for_good_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor_process, "GONE_SECONDS", 0.5)
    monkeypatch.setattr(janitor_process, "GIVE_UP_SECONDS", 60.0)
    estate = read([thing("role", "batsignal_drill_0123abcd")])
    with reserve_port() as reserved:
        (left,) = janitor_process.clean(f"host={HOST} port={reserved.getsockname()[1]}", estate)
    assert left.startswith("role batsignal_drill_0123abcd: ")
    assert "refused" in left


def test_server_that_says_something_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"GONE_SECONDS": 0.5, "GIVE_UP_SECONDS": 1.0, "RETRY_SECONDS": 0.01}.items():
        monkeypatch.setattr(janitor_process, name, seconds)

    def starting(_dsn: str) -> NoReturn:
        raise psycopg2.OperationalError("FATAL:  the database system is starting up")

    monkeypatch.setattr(janitor_process, "connect", starting)
    began = time.monotonic()
    assert janitor_process.clean("host=db1", read([])) == []
    assert time.monotonic() - began >= 1.0
