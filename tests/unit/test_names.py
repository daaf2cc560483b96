import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batsignal.config import APPLICATION_PATTERN
from batsignal.names import UNNAMED, Application, ApplicationPattern

PATTERN = ApplicationPattern(re.compile(APPLICATION_PATTERN))


@pytest.mark.parametrize(
    ("name", "service", "version"),
    [
        ("web@2.4.0", "web", "2.4.0"),
        ("web", "web", None),
        ("  web@2.4.0  ", "web", "2.4.0"),
        ("web@", "web@", None),
        ("@2.4.0", "@2.4.0", None),
        ("web@2@4", "web", "2@4"),
        ("Überweisung@läuft", "Überweisung", "läuft"),
    ],
)
def test_application_name_is_split_into_service_and_version(name: str, service: str, version: str | None) -> None:
    assert PATTERN.split(name) == Application(service=service, version=version)


@pytest.mark.parametrize("name", [None, "", "  ", *sorted(UNNAMED), "PSQL", "postgresql jdbc driver"])
def test_default_name_of_a_driver_names_nobody(name: str | None) -> None:
    assert PATTERN.split(name) == Application(service=None, version=None)


@pytest.mark.parametrize(
    "address", ["10.0.0.3:4711", "[2001:db8::7]:4711", "2001:db8::7:4711", "unix:6432", "unix(42@db1):6432"]
)
def test_address_that_pgbouncer_appends_is_no_part_of_the_name(address: str) -> None:
    assert PATTERN.split(f"web@2.4.0 - {address}") == Application(service="web", version="2.4.0")
    assert PATTERN.split(f"billing - {address}") == Application(service="billing", version=None)
    assert PATTERN.split(f"psql - {address}") == Application(service=None, version=None)


@pytest.mark.parametrize(
    "name", ["DBeaver 23.1.0 - Main", "pgAdmin 4 - CONN:123", "web - 2", "job - ab:12", "10.0.0.3:4711"]
)
def test_other_dashes_and_colons_stay_in_the_name(name: str) -> None:
    assert PATTERN.split(name) == Application(service=name, version=None)


@pytest.mark.parametrize(
    ("name", "service", "version"),
    [
        ("orders-7d9f8b6c5-x2x4q", "orders", None),
        ("order-events-5d4f8c7b9d-zz2qk", "order-events", None),
        ("nightly-report-29384756-kq9xw@2.4.0", "nightly-report", "2.4.0"),
        ("orders-eu-west", "orders-eu-west", None),
        ("web@2.4.0", "web", "2.4.0"),
    ],
)
def test_pattern_that_the_example_has_for_names_of_pods(name: str, service: str, version: str | None) -> None:
    example = (Path(__file__).parents[2] / "exporter" / "batsignal.example.yml").read_text()
    (text,) = re.findall(r"^# application_pattern: '(.+)'$", example, re.MULTILINE)
    assert ApplicationPattern(re.compile(text)).split(name) == Application(service=service, version=version)


def test_pattern_without_a_version_group_gives_services_only() -> None:
    pattern = ApplicationPattern(re.compile(r"^svc-(?P<service>\w+)"))
    assert pattern.split("svc-web-17") == Application(service="web", version=None)
    assert pattern.split("other") == Application(service="other", version=None)


@pytest.mark.parametrize(
    ("name", "service", "version"),
    [
        ("web\n@2.4.0", "web?", "2.4.0"),
        ("web@2.4.0\x00\x1b[31m", "web", "2.4.0??[31m"),
        ("web\u202egnp", "web?gnp", None),
        ("web\ud800", "web?", None),
        ("caf\u00e9@1\ufffd", "caf\u00e9", "1"),
        ("web @ 2.4.0", "web", "2.4.0"),
        ("<b>{web}</b>@1", "<b>{web}</b>", "1"),
        ("x" * 63 + "@2.4.0", "x" * 63, None),
        ("web@" + "9" * 100, "web", "9" * 59),
        ("\n\t ", None, None),
    ],
)
def test_name_of_anything_gives_a_label_of_one_line(name: str, service: str | None, version: str | None) -> None:
    assert PATTERN.split(name) == Application(service=service, version=version)


@pytest.mark.parametrize(
    "regex", ["(?P<service>)", "(?P<service>x*)(?P<version>y*)", "(?P<service> *)@", "^(?P<service>)$"]
)
def test_pattern_that_matches_nothing_of_a_name_leaves_the_name(regex: str) -> None:
    assert ApplicationPattern(re.compile(regex)).split("web@2") == Application(service="web@2", version=None)


@settings(max_examples=200)
@given(
    name=st.none() | st.text(max_size=100) | st.binary(max_size=63).map(lambda raw: raw.decode("utf-8", "replace")),
    regex=st.sampled_from(
        [APPLICATION_PATTERN, "(?P<service>)", "(?P<service>.?)(?P<version>.*)", "(?s)(?P<service>.+)"]
    ),
)
def test_every_name_can_be_split(name: str | None, regex: str) -> None:
    who = ApplicationPattern(re.compile(regex)).split(name)
    for label in (who.service, who.version):
        assert label is None or (label.isprintable() and label == label.strip() and 0 < len(label) <= 63)


@pytest.mark.parametrize(
    ("pattern", "service", "can"),
    [
        (r"^(?P<service>[^@]+)@(?P<version>.+)$", "web", True),
        (r"^(?P<service>[^@]+)@(?P<version>.+)$", "web@x", False),
        (r"^(?P<service>.+)-(?P<version>[^-]+)$", "shop-api", True),
        (r"^v(?P<version>[0-9.]+) (?P<service>.+)$", "web", True),
        (r"^(?P<version>[0-9.]+)/(?P<service>.+)$", "web", True),
    ],
)
def test_a_service_that_no_session_can_be_of_is_told_by_the_pattern(pattern: str, service: str, can: bool) -> None:
    assert ApplicationPattern(re.compile(pattern)).can_name(service) is can
