"""Which incidents a release is noted in."""

from typing import Any

import pytest

from batsignal.detect.signal import Finding, Signal, Subject
from batsignal.releaser import signals_of
from batsignal.releases.order import Order


def signal(name: str, **subject: Any) -> Signal:
    who = Subject(**subject)
    found = Finding(kind="leak", key=(name,), severity="critical", subject=who, since=0.0)
    return Signal(id=name, server="db1", detected=1.0, raised_as=who, finding=found)


WEB = signal("web", application="web", version="2.4.0", user="app")
BATCH = signal("batch", application="batch")
UNNAMED = signal("unnamed", user="app", client="10.0.0.4")
FULL = signal("full", limit="server")


@pytest.mark.parametrize(
    ("order", "noted"),
    [
        (Order(application="web"), ["web"]),
        (Order(application="web@2.4.0"), ["web"]),
        (Order(user="app"), ["web", "unnamed"]),
        (Order(application="web", user="app"), ["web", "unnamed"]),
        (Order(client="10.0.0.4"), ["unnamed"]),
        (Order(application="other"), ["web", "batch", "unnamed", "full"]),
        (Order(client="10.0.0.9"), ["web", "batch", "unnamed", "full"]),
    ],
)
def test_it_is_noted_in_those_of_its_culprit_else_in_all_that_are_lit(order: Order, noted: list[str]) -> None:
    assert [one.id for one in signals_of([WEB, BATCH, UNNAMED, FULL], order)] == noted


def test_where_nothing_is_lit_it_is_noted_in_none() -> None:
    assert signals_of([], Order(application="web")) == ()
