"""The turns of a parallel run, asked of items like pytest's."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from turns import TESTS_SENT_TOGETHER, arrange

TESTS = Path("/repository/tests")


@dataclass(eq=False)
class Item:
    file: str
    name: str = "test_it"
    seconds: float | None = None
    shares: str = ""
    given: dict[str, int] = field(default_factory=dict)
    group: str | None = None
    named: str = ""

    def __post_init__(self) -> None:
        self.path = TESTS / self.file
        self.nodeid = f"{self.file}::{self.name}"
        self._fixtureinfo = SimpleNamespace(
            name2fixturedefs={self.shares: [SimpleNamespace(scope="module")]} if self.shares else {}
        )
        self.callspec = SimpleNamespace(indices=self.given)

    def get_closest_marker(self, name: str) -> Any:
        if name == "xdist_group":
            return SimpleNamespace(args=(self.named,)) if self.named else None
        return SimpleNamespace(kwargs={"seconds": self.seconds}) if self.seconds is not None else None

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.group = mark.args[0]


def arranged(*items: Item) -> list[Any]:
    return list(arrange(items, TESTS))  # type: ignore[arg-type]  # all that is asked of an item


def test_the_longest_wait_comes_first() -> None:
    short, long, longer = Item("integration/a.py"), Item("browser/b.py", seconds=30), Item("alerts/c.py", seconds=60)
    assert arranged(short, long, longer) == [longer, long, short]


def test_what_computes_goes_on_beside_what_waits_from_the_first_to_the_last() -> None:
    waiting = [Item(f"integration/{n}.py", seconds=10) for n in range(4)]
    computing = [Item(f"unit/{n}.py") for n in range(8)]
    order = arranged(*computing, *waiting)
    assert [place for place, item in enumerate(order) if item in waiting] == [0, 3, 6, 9]


def test_those_that_share_a_fixture_of_their_module_stay_on_one_worker_for_each_of_its_parameters() -> None:
    alone = Item("integration/a.py", "test_alone")
    on_15 = [Item("integration/a.py", name, shares="server", given={"server": 0, "other": 1}) for name in "xy"]
    on_18 = [Item("integration/a.py", name, shares="server", given={"server": 1, "other": 0}) for name in "xy"]
    order = arranged(on_15[0], alone, on_18[0], on_15[1], on_18[1])
    assert order == [*on_15, *on_18, alone]
    assert [item.group for item in order] == ["0", "0", "1", "1", None]


def test_a_file_that_names_its_group_stays_whole_under_that_name() -> None:
    items = [Item("unit/a.py", f"test_{n}", named="plays") for n in range(TESTS_SENT_TOGETHER + 2)]
    other = Item("unit/b.py", seconds=0.1)
    assert arranged(items[0], other, *items[1:]) == [*items, other]
    assert {item.group for item in items} == {None}, "the name that it has is enough"


def test_a_large_file_that_shares_nothing_is_sent_in_parts() -> None:
    items = [Item("unit/a.py", f"test_{n}") for n in range(TESTS_SENT_TOGETHER + 2)]
    order = arranged(*items)
    assert order == items
    assert [item.group for item in order] == ["0"] * TESTS_SENT_TOGETHER + ["1"] * 2
