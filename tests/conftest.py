"""What holds for all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import turns


def pytest_configure() -> None:
    """Take SIGHUP as under a terminal: `nohup` would hand its being ignored on to all that the tests start."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Arrange the turns of a parallel run; without workers, the order of the files is the better one to read."""
    places: dict[pytest.Item, int] = {}
    if hasattr(config, "workerinput"):
        places = {item: place for place, item in enumerate(turns.arrange(items, Path(__file__).parent))}
    yield
    items.sort(key=lambda item: places.get(item, 0))  # after pytest has put fixtures with parameters together
