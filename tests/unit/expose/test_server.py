import asyncio
import gzip
import http.client
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batsignal.expose import http1
from batsignal.expose.deploys import Desk
from batsignal.expose.server import SECURITY_HEADERS, WebServer, build_app

DEADLINE_SECONDS = 20


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


class Site:
    """A real server on a free port, in a thread of its own."""

    def __init__(self, app: Any) -> None:
        sock = WebServer.bind("127.0.0.1:0")
        self.address = sock.getsockname()
        self.server = WebServer(app, sock)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self.thread.start()

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(*self.address, timeout=DEADLINE_SECONDS)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive()


def rendered(openmetrics: bool, zipped: bool) -> bytes:
    text = b"# EOF\n" if openmetrics else b"batsignal_up 1\n"
    return gzip.compress(text) if zipped else text


@pytest.fixture
def open_site(boards: Any, clock: Callable[[], float]) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def build(**options: Any) -> Site:
        board = options.pop("board", None) or boards.quiet()
        source = options.pop("source", lambda: board)
        given: dict[str, Any] = {"board": source, "metrics": rendered, "reload": None, "clock": clock}
        sites.append(Site(build_app(**(given | options))))
        return sites[-1]

    yield build
    for site in sites:
        site.stop()


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()


def test_metrics_are_text_unless_openmetrics_is_asked_for(site: Site) -> None:
    plain = site.ask("/metrics")
    assert (plain.status, plain.body) == (200, b"batsignal_up 1\n")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert plain.headers["vary"] == "Accept, Accept-Encoding"
    openmetrics = site.ask("/metrics", Accept="application/openmetrics-text;version=1.0.0,*/*;q=0.1")
    assert openmetrics.body == b"# EOF\n"
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_metrics_are_zipped_only_for_who_takes_gzip(site: Site) -> None:
    zipped = site.ask("/metrics", Accept_Encoding="gzip")
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == b"batsignal_up 1\n"
    refused = site.ask("/metrics", Accept_Encoding="gzip;q=0")
    assert "content-encoding" not in refused.headers
    assert refused.body == b"batsignal_up 1\n"


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/-/ready", "/api/v1/status", "/api/v1/signals"])
def test_head_is_answered_like_get_without_a_body(site: Site, path: str) -> None:
    head, get = site.ask(path, "HEAD"), site.ask(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(get.body)) == get.headers["content-length"]


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/-/ready", "/api/v1/status", "/api/v1/signals"])
def test_other_methods_are_refused_with_what_is_allowed(site: Site, path: str) -> None:
    answer = site.ask(path, "POST")
    assert answer.status == 405
    assert {method.strip() for method in answer.headers["allow"].split(",")} == {"GET", "HEAD"}


def test_page_is_html_and_zipped_on_request(site: Site) -> None:
    answer = site.ask("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "All quiet" in answer.text
    assert gzip.decompress(site.ask("/", Accept_Encoding="gzip").body) == answer.body


def test_page_follows_the_board_at_once(boards: Any, open_site: Callable[..., Site]) -> None:
    shown = [boards.quiet()]
    site = open_site(source=lambda: shown[0])
    assert "All quiet" in site.ask("/").text
    shown[0] = boards.lit()
    assert "leaks connections" in site.ask("/").text


def test_api_answers_json_of_the_board(boards: Any, open_site: Callable[..., Site]) -> None:
    site = open_site(board=boards.lit())
    status, signals = site.ask("/api/v1/status"), site.ask("/api/v1/signals")
    assert status.headers["content-type"] == signals.headers["content-type"] == "application/json"
    assert json.loads(status.body)["servers"][0]["signals"] == ["db1-leak"]
    assert json.loads(signals.body)["signals"][0]["subject"]["application"] == "web"


def test_healthy_while_the_process_lives(site: Site) -> None:
    answer = site.ask("/-/healthy")
    assert (answer.status, answer.text) == (200, "BatSignal is healthy.\n")


def test_not_ready_names_the_servers_that_still_wait(boards: Any, open_site: Callable[..., Site]) -> None:
    answer = open_site(board=boards.board(boards.server(), "db2", "db3")).ask("/-/ready")
    assert (answer.status, answer.text) == (503, "Waiting for the first poll of: db2, db3.\n")


def test_ready_once_every_first_poll_ended_even_in_failure(boards: Any, open_site: Callable[..., Site]) -> None:
    answer = open_site(board=boards.unreachable()).ask("/-/ready")
    assert (answer.status, answer.text) == (200, "BatSignal is ready.\n")


def test_reload_is_forbidden_unless_enabled(site: Site) -> None:
    answer = site.ask("/-/reload", "POST")
    assert answer.status == 403
    assert answer.text.startswith("Lifecycle API is not enabled: expected the option --web.enable-lifecycle.")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload_calls_once_and_answers_ok(open_site: Callable[..., Site], method: str) -> None:
    calls: list[str] = []
    answer = open_site(reload=lambda: calls.append("reloaded")).ask("/-/reload", method)
    assert (answer.status, calls) == (200, ["reloaded"])


def test_reload_of_a_bad_file_answers_with_the_reason(open_site: Callable[..., Site]) -> None:
    answer = open_site(reload=lambda: "servers: expected a list").ask("/-/reload", "POST")
    assert (answer.status, answer.text) == (500, "failed to reload config: servers: expected a list\n")


def test_reload_by_get_or_head_is_refused_and_does_nothing(open_site: Callable[..., Site]) -> None:
    calls: list[str] = []
    site = open_site(reload=lambda: calls.append("reloaded"))
    for method in ("GET", "HEAD"):
        answer = site.ask("/-/reload", method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST, PUT")
    assert calls == []


@pytest.mark.parametrize(
    "path", ["/nothing", "/metrics/", "/api/v1/", "/-/", "//metrics", "/%2e%2e/etc/passwd", "/<b>"]
)
def test_unknown_paths_are_not_found_and_not_repeated(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status == 404
    assert answer.text == "Nothing is served here. The status page is at /, the metrics are at /metrics.\n"


def test_runbook_is_served_as_plain_text(tmp_path: Path, open_site: Callable[..., Site]) -> None:
    (tmp_path / "BatSignalLeak.md").write_text("# Leak\n\nMeaning …\n", "utf-8")
    answer = open_site(runbooks=tmp_path).ask("/runbooks/BatSignalLeak")
    assert (answer.status, answer.text) == (200, "# Leak\n\nMeaning …\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_runbook_is_a_page_to_a_browser_and_html_in_it_stays_text(
    tmp_path: Path, open_site: Callable[..., Site]
) -> None:
    (tmp_path / "BatSignalLeak.md").write_text(
        "# BatSignalLeak\n\n## Meaning\n\n<b>`web`</b>\n\n| a |\n| - |\n| b |\n", "utf-8"
    )
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = open_site(runbooks=tmp_path).ask("/runbooks/BatSignalLeak", accept=browser)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<title>BatSignalLeak · BatSignal</title>" in answer.text
    assert "<h2>Meaning</h2>\n<p>&lt;b&gt;<code>web</code>&lt;/b&gt;</p>\n<table>" in answer.text


@pytest.mark.parametrize(
    "name", ["Other", "BatSignalLeak.md", "..%2fsecret", "%2e%2e%2fsecret", "..%5csecret", "secret%00", "a%0a", "é"]
)
def test_runbook_names_cannot_leave_the_folder(tmp_path: Path, open_site: Callable[..., Site], name: str) -> None:
    (tmp_path / "secret.md").write_text("secret", "utf-8")
    (tmp_path / "runbooks").mkdir()
    answer = open_site(runbooks=tmp_path / "runbooks").ask(f"/runbooks/{name.replace('é', '%C3%A9')}")
    assert answer.status == 404
    assert "secret" not in answer.text


def test_runbooks_that_were_not_installed_are_missing_in_a_sentence(site: Site) -> None:
    answer = site.ask("/runbooks/BatSignalLeak")
    assert (answer.status, answer.text) == (404, "No such runbook here; they ship under alerts/runbooks.\n")


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", "GET"),
        ("/metrics", "GET"),
        ("/metrics", "POST"),
        ("/api/v1/status", "GET"),
        ("/-/ready", "GET"),
        ("/-/reload", "POST"),
        ("/nothing", "GET"),
        ("/api/v1/status", "DELETE"),
    ],
)
def test_every_answer_carries_the_security_headers(site: Site, path: str, method: str) -> None:
    assert SECURITY_HEADERS.items() <= site.ask(path, method).headers.items()


def test_bug_is_a_500_without_its_text_and_the_server_lives_on(open_site: Callable[..., Site]) -> None:
    def broken(_openmetrics: bool, _zipped: bool) -> bytes:
        raise RuntimeError("password=hunter2")

    site = open_site(metrics=broken)
    answer = site.ask("/metrics")
    assert (answer.status, answer.text) == (500, "Internal error; the log says more.\n")
    assert SECURITY_HEADERS.items() <= answer.headers.items()
    assert site.ask("/-/healthy").status == 200


def test_answers_do_not_name_the_server_software(site: Site) -> None:
    assert "server" not in site.ask("/").headers


def test_stop_ends_the_server_although_a_connection_is_kept_open(site: Site) -> None:
    with socket.create_connection(site.address, timeout=DEADLINE_SECONDS) as idle:
        idle.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        site.stop()


def test_stopped_server_gives_its_port_back(site: Site) -> None:
    site.stop()
    WebServer.bind(f"127.0.0.1:{site.address[1]}").close()


def test_connection_that_asks_nothing_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "REQUEST_SECONDS", 0.2)
    with socket.create_connection(site.address, timeout=DEADLINE_SECONDS) as silent:
        silent.sendall(b"GET / HT")
        assert silent.recv(1) == b""


def test_who_sends_a_body_far_too_long_and_only_reads_then_sees_why_it_is_refused(
    open_site: Callable[..., Site],
) -> None:
    site = open_site(desk=Desk(mark=lambda deploy: (deploy, True), token=lambda: "s3cret"))
    body = b"x" * 10_000_000
    head = "POST /api/v1/deploys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n"
    with socket.create_connection(site.address, timeout=DEADLINE_SECONDS) as sender:
        sender.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: sender.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"expected a body of at most 16384 bytes" in answer


def test_signals_stay_the_daemons_own(boards: Any) -> None:
    app = build_app(board=boards.quiet, metrics=rendered, reload=None, clock=lambda: boards.now)
    server = WebServer(app, WebServer.bind("127.0.0.1:0"))

    def handlers() -> tuple[Any, Any]:
        return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def healthy() -> int:
        connection = http.client.HTTPConnection(server.address, timeout=DEADLINE_SECONDS)
        connection.request("GET", "/-/healthy")
        return connection.getresponse().status

    async def scene() -> None:
        before = handlers()
        serving = asyncio.create_task(server.serve())
        assert await asyncio.to_thread(healthy) == 200
        assert handlers() == before
        server.stop()
        await asyncio.wait_for(serving, DEADLINE_SECONDS)

    asyncio.run(scene())
