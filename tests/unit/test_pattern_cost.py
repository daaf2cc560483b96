"""Patterns that one name would hold up for ever, and patterns as people need them."""

import pytest

from batsignal import pattern_cost
from batsignal.config import APPLICATION_PATTERN
from batsignal.pattern_cost import NAME_LONGEST, costly_name


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?P<service>(a+)+)@",
        r"^(?P<service>([a-z]+)*)$",
        r"^(?P<service>(\w+\s?)*)@(?P<version>.+)$",
        r"^(?P<service>(a|a)*)@",
        r"^svc-(?P<service>([^@]*-?)*)@",
        r"(?P<service>(.*)*)@(?P<version>\d+)$",
        r"^(?P<service>x(?:(?:ab)+)+)-(?P<version>.+)$",
        r"^(?P<service>.*.*.*.*.*.*)@(?P<version>.+)$",
        r"^(?P<service>(?:\d+|[0-9])+?)v$",
    ],
)
def test_pattern_that_backtracks_for_ever_is_found_by_a_name(pattern: str) -> None:
    name = costly_name(pattern)
    assert name is not None
    assert len(name) == NAME_LONGEST


@pytest.mark.parametrize(
    "pattern",
    [
        APPLICATION_PATTERN,
        "(?P<service>)",
        "(?P<service>web)",
        r"^(?P<service>[a-z]+(-[a-z]+)*)-(?P<version>\d+(\.\d+)*)$",
        r"^(?P<service>[^/]+)/(?P<version>.+)$",
        r"^(?:app:)?(?P<service>\w+)(?:[@:/](?P<version>v?\d+(?:\.\d+){0,3}(?:-[\w.]+)?))?$",
        r"(?i)^(?P<service>\S+?)\s*\((?P<version>[^)]*)\)",
        r"^(?P<service>(?>a+)+)@",
        r"^(?P<service>(?:[a-z]++-)*[a-z]+)(?=@)@(?P<version>.*?)(?P=service)?$",
    ],
)
def test_pattern_as_people_need_them_is_cheap(pattern: str) -> None:
    assert costly_name(pattern) is None


def test_plain_pattern_is_known_to_be_cheap_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern_cost.subprocess, "run", lambda *_, **__: pytest.fail("it was tried"))
    costly_name.cache_clear()
    assert costly_name(APPLICATION_PATTERN) is None
    assert costly_name(r"^(?:app:)?(?P<service>[^/]+)/(?P<version>\S+)$") is None
