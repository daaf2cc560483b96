import re
from importlib.resources import files

import pytest

from batsignal.poll.queries import OLDEST_MAJOR, catalog, sql

FILES = sorted(entry.name for entry in files("batsignal.poll").joinpath("sql").iterdir())


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_named_by_query_and_oldest_major(name: str) -> None:
    match = re.fullmatch(r"(?P<query>[a-z_]+)\.pg(?P<major>[1-9]\d)\.sql", name)
    assert match is not None
    text = catalog()[match["query"]][int(match["major"])]
    assert text.startswith("-- ")
    assert ";" not in text.partition("SELECT")[2], "one statement a file"


def test_no_file_is_left_unread() -> None:
    assert sum(len(texts) for texts in catalog().values()) == len(FILES)


@pytest.mark.parametrize("query", sorted(catalog()))
def test_every_query_has_a_text_for_the_oldest_server(query: str) -> None:
    assert min(catalog()[query]) == OLDEST_MAJOR


@pytest.mark.parametrize(
    ("server_version_num", "major"),
    [(120022, 12), (130014, 12), (140000, 14), (150018, 14), (180006, 14), (990000, 14)],
)
def test_largest_version_that_is_not_newer_than_the_server_is_taken(server_version_num: int, major: int) -> None:
    assert sql("activity", server_version_num) == catalog()["activity"][major]


def test_server_that_is_too_old_is_an_error_that_says_so() -> None:
    with pytest.raises(KeyError, match="activity: no SQL for PostgreSQL 11; the oldest is 12"):
        sql("activity", 110022)


def test_query_that_has_no_file_is_an_error() -> None:
    with pytest.raises(KeyError, match="no_such_query"):
        sql("no_such_query", 150000)
