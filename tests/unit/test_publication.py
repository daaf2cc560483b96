from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batsignal.publication import Publication
from batsignal.record.board import Board, ServerBoard
from batsignal.record.tally import ServerTally
from batsignal.snapshot import Deploy, Snapshot

T = 1_760_000_000.0


def board_of(name: str) -> ServerBoard:
    look = Snapshot(server=name, t=T)
    return ServerBoard(
        name=name,
        interval_seconds=1.0,
        snapshot=look,
        answered=look,
        answered_at=T,
        ticked_at=T,
        signals=(),
        exhaustion_seconds=None,
        tally=ServerTally(),
        history=(),
    )


@pytest.fixture
def publication() -> Publication:
    return Publication(Board(version="1", started_at=T, servers={"db1": None}))


def series(publication: Publication, name: str) -> list[dict[str, str]]:
    text = publication.metrics(False, False).decode()
    families = text_string_to_metric_families(text)
    return [sample.labels for family in families for sample in family.samples if sample.name == name]


def test_what_is_shown_on_the_board_is_what_a_scrape_gets(publication: Publication) -> None:
    assert not series(publication, "batsignal_deploy_timestamp_seconds")
    publication.show(deploys=(Deploy(service="web", version="2", at=T),))
    publication.put(board_of("db1"))
    assert series(publication, "batsignal_deploy_timestamp_seconds") == [{"service": "web", "version": "2"}]
    assert series(publication, "batsignal_up") == [{"server": "db1"}]


def test_facts_that_are_shown_already_change_nothing(publication: Publication) -> None:
    before = publication.board
    publication.show(deploys=(), config_reload_ok=True)
    assert publication.board is before
    publication.show(deploys=(), config_reload_ok=False)
    assert publication.board == replace(before, config_reload_ok=False)


def test_a_server_that_was_taken_away_is_not_brought_back_by_its_last_tick(publication: Publication) -> None:
    publication.put(board_of("db1"))
    publication.change(lambda board: replace(board, servers={}))
    publication.put(board_of("db1"))
    assert (publication.board.servers, series(publication, "batsignal_up")) == ({}, [])


@pytest.mark.parametrize("facts", [{"no_such_fact": 1}, {"server": None}])
def test_a_fact_that_no_board_has_is_a_bug(publication: Publication, facts: dict[str, Any]) -> None:
    with pytest.raises(AttributeError):
        publication.show(**facts)
