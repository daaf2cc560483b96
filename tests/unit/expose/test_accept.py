import pytest

from batsignal.expose.accept import wants_gzip, wants_openmetrics

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Q=0.2", True),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=rubbish", False),
        ("application/openmetrics-text-not", False),
        ("text/html,*/*;q=0.8", False),
        ("*/*", False),
        ("", False),
        (";;,,;q=1,=", False),
    ],
)
def test_openmetrics_is_given_only_to_who_asks_for_it(accept: str, openmetrics: bool) -> None:
    assert wants_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("accept_encoding", "zipped"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("x-gzip", True),
        ("*", True),
        ("*;q=0.5, identity;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("identity, gzip;q=0.3", False),
        ("identity", False),
        ("br", False),
        ("", False),
    ],
)
def test_gzip_is_given_only_where_the_weights_allow_it(accept_encoding: str, zipped: bool) -> None:
    assert wants_gzip(accept_encoding) is zipped
