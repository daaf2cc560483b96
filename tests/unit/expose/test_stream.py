"""The stream of events, from a real server over real connections."""

import asyncio
import http.client
import json
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import pytest

from batsignal.expose import stream
from batsignal.expose.server import WebServer, build_app

DEADLINE_SECONDS = 20


class Reader:
    """One who listens; `next` waits for an event and returns its data."""

    def __init__(self, address: tuple[str, int], path: str = "/api/v1/stream", **headers: str) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=DEADLINE_SECONDS)
        self._connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        self.answer = self._connection.getresponse()
        zipped = self.answer.getheader("content-encoding") == "gzip"
        self._unzip = zlib.decompressobj(31) if zipped else None
        self._text = ""
        self.received_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def event(self) -> str:
        while "\n\n" not in self._text:
            piece = self.answer.read1()
            assert piece, "the stream has ended"
            self.received_bytes += len(piece)
            self._text += (piece if self._unzip is None else self._unzip.decompress(piece)).decode("utf-8")
        event, _, self._text = self._text.partition("\n\n")
        return event

    def next(self) -> dict[str, Any]:
        lines = dict(line.split(": ", 1) for line in self.event().splitlines())
        assert lines["event"] == "status"
        told: dict[str, Any] = json.loads(lines["data"])
        return told


class Site:
    """The server over a board that a test moves on tick by tick."""

    def __init__(self, boards: Any) -> None:
        self.boards = boards
        self.shown = boards.quiet()
        app = build_app(board=lambda: self.shown, metrics=lambda _o, _z: b"", reload=None, clock=lambda: boards.now)
        sock = WebServer.bind("127.0.0.1:0")
        self.address = sock.getsockname()
        self.server = WebServer(app, sock)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self.thread.start()

    def tick(self, board: Any) -> None:
        """Show a board as it is after one more tick."""
        before = self.shown.servers["db1"].ticked_at
        server = replace(board.servers["db1"], ticked_at=before + 1)
        self.shown = replace(board, servers={**board.servers, "db1": server})

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def site(boards: Any) -> Iterator[Site]:
    live = Site(boards)
    yield live
    live.stop()


def test_the_state_is_told_at_once_and_after_each_tick_as_the_api_tells_it(site: Site, boards: Any) -> None:
    with Reader(site.address) as reader:
        assert reader.answer.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert reader.answer.getheader("cache-control") == "no-store"
        first = reader.next()
        assert first["servers"][0]["state"] == "up"
        assert (first["signals"], "page" in first) == ([], False)
        site.tick(boards.lit())
        second = reader.next()
        assert second["servers"][0]["signals"] == ["db1-leak"]
        assert second["signals"][0]["subject"]["application"] == "web"
        site.tick(boards.quiet())
        assert reader.next()["servers"][0]["last_poll"] == first["servers"][0]["last_poll"] + 2


def test_a_change_that_is_no_tick_waits_for_the_next_tick(
    site: Site, boards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 60.0)
    with Reader(site.address) as reader:
        reader.next()
        site.shown = replace(site.shown, deploys=())
        site.tick(site.shown)
        assert reader.next()["servers"][0]["last_poll"] == boards.now


def test_while_nothing_ticks_the_page_is_told_that_the_daemon_lives_and_others_get_a_comment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 0.3)
    with Reader(site.address) as reader, Reader(site.address, "/api/v1/stream?page=1") as page:
        reader.next()
        assert page.next() == page.next()
        assert reader.event().startswith(": ")


def test_who_asks_for_the_page_gets_it_drawn_and_nearly_nothing_when_nearly_nothing_changed(
    site: Site, boards: Any
) -> None:
    with Reader(site.address, "/api/v1/stream?page=1", Accept_Encoding="gzip") as reader:
        page = reader.next()["page"]
        assert page["title"].startswith("All quiet")
        assert page["main"].startswith('<main class="quiet none"')
        whole_bytes = reader.received_bytes
        site.tick(boards.quiet())
        assert reader.next()["page"]["build"] == page["build"]
        assert reader.received_bytes - whole_bytes < whole_bytes / 10
        site.tick(boards.lit())
        assert "leaks connections" in reader.next()["page"]["main"]


def test_more_listeners_than_there_are_seats_are_turned_away_with_a_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LISTENERS_MOST", 1)
    with Reader(site.address) as reader:
        reader.next()
        with Reader(site.address) as second:
            assert second.answer.status == 503
            assert b"1 streams are open" in second.answer.read()


def test_a_seat_is_free_again_when_its_listener_has_gone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LISTENERS_MOST", 1)
    with Reader(site.address) as reader:
        reader.next()
    deadline = threading.Event()
    for _ in range(100):
        with Reader(site.address) as again:
            if again.answer.status == 200:
                assert again.next()["servers"]
                return
        deadline.wait(0.05)
    raise AssertionError("the seat of a listener that has gone is still taken")


def test_one_that_reads_slowly_gets_the_newest_and_is_not_waited_for() -> None:
    async def run() -> list[bytes]:
        listener = stream._Listener(with_page=False)
        for event in (b"one", b"two", b"three"):
            listener.offer(event)
        got = [await listener.next()]
        listener.offer(b"four")
        return [*got, await listener.next()]

    assert asyncio.run(run()) == [b"three", b"four"]


def test_one_that_never_reads_loses_its_seat(boards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SEND_SECONDS", 0.2)
    handler = stream.Stream(boards.quiet, lambda: boards.now, lambda _b, _n: {})
    scope = {"type": "http", "method": "GET", "path": "/api/v1/stream", "query_string": b"", "headers": []}

    async def run() -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        await asyncio.wait_for(handler(scope, receive, send), DEADLINE_SECONDS)
        assert not handler._listeners

    asyncio.run(run())


def test_an_open_stream_does_not_hold_up_the_end(boards: Any) -> None:
    site = Site(boards)
    with Reader(site.address) as reader:
        reader.next()
        site.stop()


@pytest.mark.parametrize("path", ["/api/v1/stream", "/api/v1/stream?page=1"])
def test_head_is_answered_without_a_stream_and_other_methods_are_refused(site: Site, path: str) -> None:
    def ask(method: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(*site.address, timeout=DEADLINE_SECONDS)
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    assert ask("HEAD").status == 200
    refused = ask("POST")
    assert (refused.status, refused.getheader("allow")) == (405, "GET, HEAD")
