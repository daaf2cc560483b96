import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batsignal import code_path
from batsignal.code_path import has_tags, spell, split

TRACE = "traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01'"


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        (f"action='show',controller='users',{TRACE}", "controller=users action=show"),
        (f"{TRACE},controller='users'", "controller=users"),
        (
            "controller='polls.views.vote',framework='django%3A4.2',route='%5Epolls%2F%24'",
            "framework=django:4.2 controller=polls.views.vote route=^polls/$",
        ),
        (
            "db_driver='psycopg2',framework='flask%3A3.0.0',route='%2Fcarts%2F%3Cint%3Aid%3E'",
            "framework=flask:3.0.0 route=/carts/<int:id>",
        ),
        ("job='Mailers%3A%3ADaily'", "job=Mailers::Daily"),
        ("application='Shop', controller='carts' , action='index'", "application=Shop controller=carts action=index"),
        ("application:Shop,controller:carts,action:index", "application=Shop controller=carts action=index"),
        ("application:Shop,controller:Api::V2::Carts", "application=Shop controller=Api::V2::Carts"),
        ("route='/users/{id}/orders'", "route=/users/{id}/orders"),
        ("route='^articles/(?P<year>[0-9]{4})/$'", "route=^articles/(?P<year>[0-9]{4})/$"),
        ("task='shop.tasks.send_mail'", "task=shop.tasks.send_mail"),
        ("action='it\\'s'", None),
        ("", None),
        ("why not", None),
        ("user_id='17',email='bob@example.com'", None),
    ],
)
def test_code_path_is_told_in_one_order_whatever_the_order_of_the_keys(comment: str, told: str | None) -> None:
    assert spell(comment) == told


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ("/users/4711", "/users/?"),
        ("/users/4711/orders/9", "/users/?/orders/?"),
        ("/u/3f2504e0-4f89-11d3-9a0c-0305e82c3301", "/u/?"),
        ("/reset/9f86d081884c7d65", "/reset/?"),
        ("/orders/A-20240115-7", "/orders/?"),
        ("/mail/bob@example.com", "/mail/?"),
        ("/search?q=hunter2", "/search"),
        ("/api/v2/s3/oauth2", "/api/v2/s3/oauth2"),
        ("/naïve/ü", "/naïve/ü"),
        ("/x y/z", "/?/z"),
    ],
)
def test_id_in_a_route_is_data_and_masked(route: str, told: str) -> None:
    assert spell(f"route='{route}'") == f"route={told}"


@pytest.mark.parametrize(
    "value",
    ["bob@example.com", "Mail(17)", "17", "a b", "<script>", "x" * 81, "user-123456", "a.4711.b", "%00", "%0A", ""],
)
def test_value_that_is_no_name_of_code_is_not_told(value: str) -> None:
    assert spell(f"controller='{value}'") is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("SELECT 1", None),
        ("SELECT /* why */ 1", None),
        ("SELECT 1 /* a /* b */ */", None),
        ("/* a /* b */ */ SELECT 1", None),
        ("/* never ends", None),
        ("SELECT 1 /*a='b'*/", ("SELECT 1 ", "a='b'", "")),
        ("SELECT 1 /*a='b'*/ ; \n", ("SELECT 1 ", "a='b'", " ; \n")),
        ("\n/*a='b'*/ SELECT 1", ("", "a='b'", " SELECT 1")),
        ("SELECT 1 /*a='b',c='cut", ("SELECT 1 ", "a='b'", "")),
        ("SELECT 1 /*a='cut", ("SELECT 1 ", "", "")),
        ("SELECT /* why */ 1 /*a='b'*/", ("SELECT /* why */ 1 ", "a='b'", "")),
    ],
)
def test_comment_at_either_end_is_told_from_the_statement(text: str, parts: object) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    "piece", ["a", "a=", "'", "a='", "\\'", "%", "a:", "a:b,", "?", "?=", "/", "1", "f", "::", ","]
)
def test_no_comment_of_four_kilobytes_takes_long(piece: str) -> None:
    for comment in (piece * (4096 // len(piece)), f"route='{piece * (4000 // len(piece))}'"):
        began = time.process_time()
        has_tags(comment)
        spell(comment)
        assert time.process_time() - began < 1


@given(st.text(max_size=300), st.sampled_from(code_path.KEYS))
def test_no_comment_is_an_error_and_what_is_told_is_short(value: str, key: str) -> None:
    for told in (spell(value), spell(f"{key}='{value}'")):
        assert told is None or (len(told) <= code_path.LONGEST and told.isprintable())
