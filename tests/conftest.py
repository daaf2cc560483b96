"""What holds for all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import turns

# How quickly examples are made says how busy the machine is, and nothing of the code. The examples are the same in each
# run, so that what fails on one machine fails on all: new ones are hunted by `--hypothesis-profile=hunt`.
settings.register_profile("hunt", deadline=None, max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("busy", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure() -> None:
    """Take signals as under a terminal: `nohup` and a shell's `&` would have all that the tests start ignore them."""
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Arrange the turns of a parallel run; without workers, the order of the files is the better one to read."""
    places: dict[pytest.Item, int] = {}
    if hasattr(config, "workerinput"):
        places = {item: place for place, item in enumerate(turns.arrange(items, Path(__file__).parent))}
    yield
    items.sort(key=lambda item: places.get(item, 0))  # after pytest has put fixtures with parameters together
    for item in places:
        name_group(item)


def name_group(item: pytest.Item) -> None:
    """Put a test's group behind its id, for pytest-xdist 3.8 writes it where pytest 9.2 does not read."""
    group = item.get_closest_marker("xdist_group")
    if group and not item.nodeid.endswith(f"@{group.args[0]}"):
        item._id = type(item._id).parse(f"{item.nodeid}@{group.args[0]}")
