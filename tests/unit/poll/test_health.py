"""Health probes against real local servers: kind ones, broken ones and hostile ones."""

import asyncio
import base64
import gc
import http.server
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import structlog

from batsignal.poll.dial import LOOKUPS_MAX, Dialer
from batsignal.poll.health import BODY_BYTES_MAX, USER_AGENT, Prober, Target, probe
from batsignal.snapshot import ProbeResult

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENCE_SECONDS = 30.0
TIMEOUT_SECONDS = 0.5


@dataclass
class Site:
    """A server whose every connection is handed to `answer` once the request's head was read."""

    answer: Answer
    ssl_context: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    heads: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[Any]"] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self.ssl_context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
            self.asked.set()
            await self.answer(reader, writer)
            await writer.drain()
        writer.close()

    def url(self, path: str = "/healthz", *, login: str = "", host: str | None = None) -> str:
        scheme = "http" if self.ssl_context is None else "https"
        return f"{scheme}://{login}{host or self.host}:{self.port}{path}"


def saying(text: str | bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode() if isinstance(text, str) else text)

    return answer


def then_hanging(text: bytes = b"") -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        await reader.read()

    return answer


def dripping(head: bytes, drop: bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)

    return answer


def redirect(location: str, status: int = 302) -> str:
    return f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"


OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def looking_up(*addresses: str) -> Callable[..., list[tuple[Any, ...]]]:
    def lookup(_host: str, _port: None, **_: object) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, 0)) for address in addresses]

    return lookup


def target(url: str, *, timeout_seconds: float = PATIENCE_SECONDS, **more: Any) -> Target:
    return Target(name="web", url=url, service="shop", timeout_seconds=timeout_seconds, **more)


def probe_site(site: Site, *, dialer: Dialer | None = None, **url: Any) -> ProbeResult:
    async def run() -> ProbeResult:
        async with site:
            return await probe(target(site.url(**url)), dialer=dialer, clock=lambda: 1760000000.0)

    return asyncio.run(run())


def probe_hanging(answer: Answer) -> ProbeResult:
    async def run() -> ProbeResult:
        async with Site(answer) as site:
            return await probe(target(site.url(), timeout_seconds=TIMEOUT_SECONDS))

    result = asyncio.run(run())
    assert not result.up
    assert result.seconds < PATIENCE_SECONDS / 2
    return result


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


# A plain answer


def test_an_endpoint_that_says_200_is_up_with_its_phases() -> None:
    result = probe_site(Site(saying(OK)))
    assert (result.endpoint, result.service, result.at) == ("web", "shop", 1760000000.0)
    assert (result.up, result.status, result.reason, result.tls_expiry) == (True, 200, None, None)
    assert list(result.phases) == ["connect", "first_byte", "body"]
    assert sum(result.phases.values()) <= result.seconds


def test_a_name_is_resolved_as_a_phase_of_its_own_and_stays_in_the_host_header() -> None:
    site = Site(saying(OK))
    result = probe_site(site, dialer=Dialer(lookup=looking_up("127.0.0.1")), host="shop.example")
    assert result.up
    assert list(result.phases) == ["resolve", "connect", "first_byte", "body"]
    assert f"Host: shop.example:{site.port}\r\n" in site.heads[0]


def test_localhost_resolves_through_the_system() -> None:
    assert probe_site(Site(saying(OK)), host="localhost").up


def test_an_ipv6_literal_needs_no_resolving() -> None:
    result = probe_site(Site(saying(OK), host="::1"), host="[::1]")
    assert result.up
    assert "resolve" not in result.phases


def test_the_request_says_who_asks_and_that_the_connection_ends() -> None:
    site = Site(saying(OK))
    probe_site(site, path="/healthz?deep=1#part")
    assert site.heads[0].startswith("GET /healthz?deep=1 HTTP/1.1\r\n")
    assert f"User-Agent: {USER_AGENT}\r\n" in site.heads[0]
    assert "Connection: close\r\n" in site.heads[0]


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_status_outside_2xx_is_the_reason(status: int) -> None:
    result = probe_site(Site(saying(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n")))
    assert (result.up, result.status, result.reason) == (False, status, f"HTTP {status}")


def test_a_204_without_a_body_is_up() -> None:
    assert probe_site(Site(saying("HTTP/1.1 204 No Content\r\n\r\n"))).up


def test_a_bad_status_stays_the_reason_when_the_body_hangs() -> None:
    result = probe_hanging(then_hanging(b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\n"))
    assert (result.status, result.reason) == (503, "HTTP 503")


def test_every_probe_makes_a_connection_of_its_own_and_keeps_no_cookie() -> None:
    async def run() -> Site:
        answer = "HTTP/1.1 200 OK\r\nSet-Cookie: seen=1; Path=/\r\nContent-Length: 0\r\n\r\n"
        async with Site(saying(answer)) as site:
            dialer = Dialer()
            for _ in range(3):
                assert (await probe(target(site.url()), dialer=dialer)).up
            return site

    site = asyncio.run(run())
    assert site.connections == 3
    assert not any("cookie" in head.lower() for head in site.heads)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert probe_site(Site(saying(OK))).up


# Secrets


def test_userinfo_is_sent_as_basic_auth_unquoted() -> None:
    site = Site(saying(OK))
    probe_site(site, login="watch:p%40ss@")
    expected = base64.b64encode(b"watch:p@ss").decode()
    assert f"Authorization: Basic {expected}\r\n" in site.heads[0]


def test_no_reason_repr_or_log_shows_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for url in (
        f"http://watch:hunter2@127.0.0.1:{free_port()}/?token=hunter2",
        "http://watch:hunter2@:x/",
        "ftp://watch:hunter2@h/",
    ):
        made = target(url, headers={"Authorization": "Bearer hunter2"})
        result = asyncio.run(probe(made))
        assert not result.up
        shown += [repr(made), repr(result)]
    captured = capsys.readouterr()
    assert "hunter2" not in "".join(shown) + captured.out + captured.err


def test_configured_headers_go_to_the_first_origin_but_not_where_it_redirects_to() -> None:
    async def run() -> tuple[Site, Site]:
        async with Site(saying(OK)) as second, Site(saying(redirect(second.url()))) as first:
            made = target(first.url(login="watch:secret@"), headers={"X-Key": "secret"})
            assert (await probe(made)).up
            return first, second

    first, second = asyncio.run(run())
    assert "X-Key: secret" in first.heads[0]
    assert "Authorization:" in first.heads[0]
    assert "X-Key" not in second.heads[0]
    assert "Authorization" not in second.heads[0]


def test_a_redirect_within_the_origin_keeps_the_credentials() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((redirect(site.url("/next")) if len(site.heads) == 1 else OK).encode())

    site = Site(answer)
    assert probe_site(site, login="watch:secret@").up
    assert "Authorization:" in site.heads[1]


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_the_last_status_counts(status: int) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((redirect("/next", status) if len(site.heads) == 1 else OK).encode())

    site = Site(answer)
    result = probe_site(site)
    assert (result.up, result.status) == (True, 200)
    assert site.heads[1].startswith("GET /next ")


def redirecting(times: int) -> Site:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((redirect("/again") if len(site.heads) <= times else OK).encode())

    site = Site(answer)
    return site


def test_five_redirects_are_followed() -> None:
    assert probe_site(redirecting(5)).up


def test_six_redirects_are_too_many() -> None:
    result = probe_site(redirecting(6))
    assert (result.up, result.status, result.reason) == (False, 302, "redirects more than 5 times")


def test_a_redirect_loop_ends_after_six_requests() -> None:
    site = Site(saying(redirect("/healthz")))
    result = probe_site(site)
    assert result.reason == "redirects more than 5 times"
    assert len(site.heads) == 6


def test_every_hop_of_a_redirect_is_resolved() -> None:
    asked = []

    def lookup(host: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        return looking_up("127.0.0.1")(host, None)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = redirect(site.url(host="two.example"))
        writer.write((onward if len(site.heads) == 1 else OK).encode())

    site = Site(answer)
    assert probe_site(site, dialer=Dialer(lookup=lookup), host="one.example").up
    assert asked == ["one.example", "two.example"]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "file:///etc/passwd"])
def test_a_redirect_away_from_http_is_a_failure(location: str) -> None:
    result = probe_site(Site(saying(redirect(location))))
    assert (result.up, result.reason) == (False, "it redirects to a URL that is neither http:// nor https://")


def test_a_redirect_to_nonsense_is_a_failure() -> None:
    result = probe_site(Site(saying(redirect("http://127.0.0.1:nope/"))))
    assert result.reason == "it redirects to a URL that is not valid"


def test_a_3xx_without_a_location_is_its_status() -> None:
    result = probe_site(Site(saying("HTTP/1.1 304 Not Modified\r\n\r\n")))
    assert result.reason == "HTTP 304"


# What hangs


def test_a_server_that_never_answers_times_out_while_waiting_for_the_first_byte() -> None:
    result = probe_hanging(then_hanging())
    assert result.reason == "timed out after 0.5 s while waiting for the first byte"
    assert list(result.phases) == ["connect", "first_byte"]
    assert result.phases["first_byte"] > TIMEOUT_SECONDS / 2


def test_headers_that_drip_are_bounded_by_the_whole_timeout() -> None:
    result = probe_hanging(dripping(b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n"))
    assert result.reason == "timed out after 0.5 s while waiting for the first byte"


def test_informational_answers_without_end_are_bounded_by_the_whole_timeout() -> None:
    result = probe_hanging(dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    assert result.reason == "timed out after 0.5 s while waiting for the first byte"


def test_a_body_that_drips_is_bounded_by_the_whole_timeout() -> None:
    result = probe_hanging(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"))
    assert result.reason == "timed out after 0.5 s while reading the body"
    assert result.status == 200


def test_a_server_that_never_shakes_hands_times_out_in_the_tls_handshake() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        result = asyncio.run(probe(target(url, timeout_seconds=3)))  # connecting alone can take 0.5 s on a busy machine
    assert result.reason == "timed out after 3 s in the TLS handshake"
    assert list(result.phases) == ["connect", "tls"]


def test_a_handshake_that_is_given_up_leaves_no_connection_behind() -> None:
    async def run() -> None:
        hung_up = asyncio.Event()

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            hung_up.set()
            writer.close()

        async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await probe(target(f"https://127.0.0.1:{port}/", timeout_seconds=TIMEOUT_SECONDS))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await hung_up.wait()

    asyncio.run(run())


def test_a_connection_that_nobody_takes_times_out_while_connecting() -> None:
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        made = target(f"http://127.0.0.1:{address[1]}/", timeout_seconds=TIMEOUT_SECONDS)
        result = asyncio.run(probe(made))
        for filler in fillers:
            filler.close()
    assert result.reason == "timed out after 0.5 s while connecting"


def test_a_resolver_that_hangs_times_out_and_blocks_no_other_name() -> None:
    release = threading.Event()

    def lookup(host: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
        if host == "stuck.example":
            release.wait(PATIENCE_SECONDS)
        return looking_up("127.0.0.1")(host, None)

    async def run() -> tuple[ProbeResult, ProbeResult, int]:
        dialer = Dialer(lookup=lookup)
        async with Site(saying(OK)) as site:
            stuck = target(site.url(host="stuck.example"), timeout_seconds=TIMEOUT_SECONDS)
            for _ in range(3):
                hung = await probe(stuck, dialer=dialer)
            threads = [thread for thread in threading.enumerate() if thread.name == "resolve-stuck.example"]
            assert all(thread.daemon for thread in threads)
            return hung, await probe(target(site.url(host="fine.example")), dialer=dialer), len(threads)

    started = time.monotonic()
    hung, fine, threads = asyncio.run(run())
    assert time.monotonic() - started < PATIENCE_SECONDS / 2
    release.set()
    assert hung.reason == "timed out after 0.5 s while resolving the name"
    assert list(hung.phases) == ["resolve"]
    assert fine.up
    assert threads == 1


def test_a_resolver_that_hangs_does_not_hold_up_the_exit_of_the_process() -> None:
    script = """
import threading
from batsignal.poll.health import Prober, Target
asked = threading.Event()
def lookup(*_, **__):
    asked.set()
    threading.Event().wait()
prober = Prober(deliver=print, lookup=lookup)
prober.start()
prober.submit(Target(name="stuck", url="http://a.example/", service="s", timeout_seconds=60))
assert asked.wait(30)
prober.stop()
print("stopped")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("stopped\n", "")


def test_look_ups_that_hang_are_bounded_in_number() -> None:
    release = threading.Event()

    def lookup(*_: object, **__: object) -> list[tuple[Any, ...]]:
        release.wait(PATIENCE_SECONDS)
        return []

    async def run() -> ProbeResult:
        dialer = Dialer(lookup=lookup)
        stuck = [target(f"http://h{number}.example/", timeout_seconds=TIMEOUT_SECONDS) for number in range(LOOKUPS_MAX)]
        await asyncio.gather(*(probe(one, dialer=dialer) for one in stuck))
        return await probe(target("http://one-more.example/"), dialer=dialer)

    result = asyncio.run(run())
    release.set()
    assert result.reason == "too many name look-ups hang"


# What breaks


def test_a_closed_port_is_a_refused_connection() -> None:
    result = asyncio.run(probe(target(f"http://127.0.0.1:{free_port()}/")))
    assert (result.up, result.status, result.reason) == (False, None, "connection refused")
    assert list(result.phases) == ["connect"]


def test_the_next_address_is_tried_when_one_refuses() -> None:
    result = probe_site(Site(saying(OK)), dialer=Dialer(lookup=looking_up("::1", "127.0.0.1")), host="two.example")
    assert result.up


def test_the_reason_is_the_last_one_when_every_address_refuses() -> None:
    dialer = Dialer(lookup=looking_up("127.0.0.2", "127.0.0.1"))
    result = asyncio.run(probe(target(f"http://two.example:{free_port()}/"), dialer=dialer))
    assert result.reason == "connection refused"


def failing(error: Exception) -> Callable[..., list[tuple[Any, ...]]]:
    def lookup(*_: object, **__: object) -> list[tuple[Any, ...]]:
        raise error

    return lookup


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name does not resolve"),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure"),
            "name does not resolve: the resolver gives no answer for now",
        ),
        (UnicodeError("label too long"), "name does not resolve"),
    ],
)
def test_a_name_that_does_not_resolve_is_said_so(error: Exception, reason: str) -> None:
    result = asyncio.run(probe(target("http://nowhere.example/"), dialer=Dialer(lookup=failing(error))))
    assert (result.reason, list(result.phases)) == (reason, ["resolve"])


def test_a_name_without_an_address_does_not_resolve() -> None:
    result = asyncio.run(probe(target("http://nowhere.example/"), dialer=Dialer(lookup=looking_up())))
    assert result.reason == "name does not resolve"


def test_a_server_that_closes_without_a_word_is_said_so() -> None:
    result = probe_site(Site(saying("")))
    assert result.reason == "the server closed the connection without an answer"


def test_a_connection_that_is_reset_is_said_so() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    assert probe_site(Site(answer)).reason == "connection reset by peer"


@pytest.mark.parametrize("text", ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "\x00\x01\x02\r\n\r\n"])
def test_an_answer_that_is_not_http_is_said_so_without_being_repeated(text: str) -> None:
    assert probe_site(Site(saying(text))).reason == "the answer is not valid HTTP"


def test_headers_without_end_are_not_kept() -> None:
    result = probe_site(Site(saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000_000)))
    assert result.reason == "the answer is not valid HTTP"


def test_a_body_that_ends_early_is_a_failure() -> None:
    result = probe_site(Site(saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")))
    assert (result.up, result.status, result.reason) == (False, 200, "the body broke off")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:99999999/", "the URL is not valid"),
        ("/healthz", "the URL is neither http:// nor https://"),
        ("ftp://127.0.0.1/", "the URL is neither http:// nor https://"),
        ("http://", "the URL is neither http:// nor https://"),
    ],
)
def test_a_url_that_cannot_be_requested_is_a_failed_probe(url: str, reason: str) -> None:
    assert asyncio.run(probe(target(url))).reason == reason


def test_a_header_that_http_forbids_is_a_failed_probe() -> None:
    async def run() -> ProbeResult:
        async with Site(saying(OK)) as site:
            return await probe(target(site.url(), headers={"X-Key": "a\r\nb"}))

    assert asyncio.run(run()).reason == "the request is not valid HTTP: look at its URL and headers"


def test_a_bug_of_ours_is_a_failed_probe_and_a_traceback() -> None:
    with structlog.testing.capture_logs() as logs:
        result = asyncio.run(probe(target("http://a.example/"), dialer=Dialer(lookup=failing(ZeroDivisionError()))))
    assert (result.up, result.reason) == (False, "internal error: ZeroDivisionError")
    assert [(entry["event"], entry["endpoint"], entry["exc_info"]) for entry in logs] == [("probe broke", "web", True)]


# Bodies


def body_site(size_bytes: int, *, announced: bool) -> tuple[Site, list[int]]:
    sent = [0]

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = f"Content-Length: {size_bytes}\r\n" if announced else ""
        writer.write(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        while sent[0] < size_bytes:
            piece = min(65536, size_bytes - sent[0])
            writer.write(b"x" * piece)
            await writer.drain()
            sent[0] += piece

    return Site(answer), sent


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_one_mebibyte_is_read(announced: bool) -> None:
    site, _ = body_site(BODY_BYTES_MAX, announced=announced)
    assert probe_site(site).up


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size_bytes", [BODY_BYTES_MAX + 1, 50_000_000])
def test_a_larger_body_is_a_failure_and_is_not_read_to_its_end(size_bytes: int, announced: bool) -> None:
    site, sent = body_site(size_bytes, announced=announced)
    result = probe_site(site)
    assert (result.up, result.status, result.reason) == (False, 200, "body larger than 1 MiB")
    # What fits into the sockets' buffers is on its way already.
    assert sent[0] < 20_000_000


# TLS


@dataclass(frozen=True)
class Authority:
    """A certificate authority of these tests, and servers' contexts signed by it."""

    directory: Path

    def run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def create(self) -> None:
        self.run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2"),
            # Python 3.13 asks of an authority what RFC 5280 does.
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def serve(self, names: str, *, begins: str = "20200101000000Z", ends: str = "20380101000000Z") -> ssl.SSLContext:
        (self.directory / "index.txt").write_text("")
        (self.directory / "serial").write_text("01")
        (self.directory / "ca.cnf").write_text(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
            f"policy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName={names}\n"
            "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        self.run(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=leaf"),
        )
        self.run(
            *("ca", "-batch", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key"),
            *("-in", "leaf.csr", "-out", "leaf.pem", "-notext", "-startdate", begins, "-enddate", ends),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "leaf.pem", self.directory / "leaf.key")
        return context

    def trusting(self) -> Dialer:
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        return Dialer(ssl_context=context, lookup=looking_up("127.0.0.1"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.create()
    return made


def test_https_shows_its_phase_and_when_the_certificate_expires(authority: Authority) -> None:
    site = Site(saying(OK), ssl_context=authority.serve("DNS:shop.example", ends="20360102030405Z"))
    result = probe_site(site, dialer=authority.trusting(), host="shop.example")
    assert (result.up, result.reason) == (True, None)
    assert list(result.phases) == ["resolve", "connect", "tls", "first_byte", "body"]
    assert result.tls_expiry == ssl.cert_time_to_seconds("Jan  2 03:04:05 2036 GMT")


def test_the_name_of_the_url_is_sent_in_the_handshake(authority: Authority) -> None:
    context = authority.serve("DNS:shop.example")
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    assert probe_site(Site(saying(OK), ssl_context=context), dialer=authority.trusting(), host="shop.example").up
    assert names == ["shop.example"]


def test_a_certificate_for_a_numeric_address_is_accepted(authority: Authority) -> None:
    site = Site(saying(OK), ssl_context=authority.serve("IP:127.0.0.1"))
    assert probe_site(site, dialer=authority.trusting()).up


def test_an_expired_certificate_is_said_so(authority: Authority) -> None:
    site = Site(saying(OK), ssl_context=authority.serve("DNS:shop.example", ends="20210101000000Z"))
    result = probe_site(site, dialer=authority.trusting(), host="shop.example")
    assert (result.up, result.reason) == (False, "TLS: certificate has expired")
    assert site.heads == []


def test_a_certificate_of_another_name_is_said_so(authority: Authority) -> None:
    site = Site(saying(OK), ssl_context=authority.serve("DNS:other.example"))
    result = probe_site(site, dialer=authority.trusting(), host="shop.example")
    assert result.reason == "TLS: Hostname mismatch, certificate is not valid for 'shop.example'"


def test_an_authority_that_nobody_trusts_is_said_so(authority: Authority) -> None:
    site = Site(saying(OK), ssl_context=authority.serve("DNS:shop.example"))
    result = probe_site(site, dialer=Dialer(lookup=looking_up("127.0.0.1")), host="shop.example")
    assert result.reason == "TLS: unable to get local issuer certificate"


def test_a_certificate_shows_even_when_the_server_then_hangs(authority: Authority) -> None:
    async def run() -> ProbeResult:
        async with Site(then_hanging(), ssl_context=authority.serve("DNS:shop.example")) as site:
            made = target(site.url(host="shop.example"), timeout_seconds=TIMEOUT_SECONDS)
            return await probe(made, dialer=authority.trusting())

    result = asyncio.run(run())
    assert result.reason == "timed out after 0.5 s while waiting for the first byte"
    assert result.tls_expiry is not None


def raw_server(reply: bytes) -> tuple[socket.socket, threading.Thread]:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(4096)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return server, thread


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", "TLS: the server closed the connection in the handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS: wrong version number"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "TLS: sslv3 alert handshake failure"),
    ],
)
def test_a_broken_handshake_is_said_so_and_no_other_address_is_tried(reply: bytes, reason: str) -> None:
    server, thread = raw_server(reply)
    with closing(server):
        dialer = Dialer(lookup=looking_up("127.0.0.1", "127.0.0.2"))
        url = f"https://shop.example:{server.getsockname()[1]}/"
        result = asyncio.run(probe(target(url), dialer=dialer))
        thread.join(PATIENCE_SECONDS)
    assert (result.up, result.reason) == (False, reason)


# The prober


class Inbox:
    """Takes results from the prober's thread."""

    def __init__(self) -> None:
        self.results: list[ProbeResult] = []
        self._changed = threading.Condition()

    def take(self, result: ProbeResult) -> None:
        with self._changed:
            self.results.append(result)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[ProbeResult]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.results) >= count, PATIENCE_SECONDS)
            return list(self.results)


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/hang":
            self.server.asked.release()  # type: ignore[attr-defined]  # set where the server is made
            self.server.resume.wait(PATIENCE_SECONDS)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.asked = threading.Semaphore(0)  # type: ignore[attr-defined]
    server.resume = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.resume.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE_SECONDS)


def shop_target(shop: http.server.ThreadingHTTPServer, path: str, name: str = "web") -> Target:
    url = f"http://127.0.0.1:{shop.server_port}{path}"
    return Target(name=name, url=url, service="shop", timeout_seconds=PATIENCE_SECONDS)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def prober(inbox: Inbox) -> Iterator[Prober]:
    made = Prober(deliver=inbox.take, clock=lambda: 1760000000.0)
    made.start()
    yield made
    made.stop()


def test_many_endpoints_are_probed_at_once(shop: http.server.ThreadingHTTPServer, prober: Prober, inbox: Inbox) -> None:
    for number in range(40):
        prober.submit(shop_target(shop, "/hang", f"web{number}"))
    for _ in range(40):
        assert shop.asked.acquire(timeout=PATIENCE_SECONDS)  # type: ignore[attr-defined]
    shop.resume.set()  # type: ignore[attr-defined]
    results = inbox.wait_for(40)
    assert all(result.up for result in results)
    assert {result.endpoint for result in results} == {f"web{number}" for number in range(40)}
    assert results[0].at == 1760000000.0


def test_an_endpoint_whose_probe_still_runs_is_not_probed_twice(
    shop: http.server.ThreadingHTTPServer, prober: Prober, inbox: Inbox
) -> None:
    for _ in range(3):
        prober.submit(shop_target(shop, "/hang"))
    assert shop.asked.acquire(timeout=PATIENCE_SECONDS)  # type: ignore[attr-defined]
    prober.submit(shop_target(shop, "/other", "other"))
    assert [result.endpoint for result in inbox.wait_for(1)] == ["other"]
    shop.resume.set()  # type: ignore[attr-defined]
    assert [result.endpoint for result in inbox.wait_for(2)] == ["other", "web"]
    prober.submit(shop_target(shop, "/"))
    assert [result.endpoint for result in inbox.wait_for(3)] == ["other", "web", "web"]
    assert not shop.asked.acquire(blocking=False)  # type: ignore[attr-defined]


def test_a_receiver_that_fails_does_not_end_the_prober(shop: http.server.ThreadingHTTPServer) -> None:
    inbox = Inbox()

    def deliver(result: ProbeResult) -> None:
        inbox.take(result)
        raise ZeroDivisionError

    prober = Prober(deliver=deliver)
    prober.start()
    with structlog.testing.capture_logs() as logs:
        for count in (1, 2):
            prober.submit(shop_target(shop, "/", f"web{count}"))
            inbox.wait_for(count)
        prober.stop()
    assert [entry["event"] for entry in logs] == ["probe result was not taken"] * 2


def test_stop_ends_in_time_and_without_noise_while_probes_hang(
    shop: http.server.ThreadingHTTPServer,
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    gc.collect()  # what other tests have left open is not ours
    recwarn.clear()
    release = threading.Event()

    def lookup(*_: object, **__: object) -> list[tuple[Any, ...]]:
        release.wait(PATIENCE_SECONDS)
        return []

    async def run() -> float:
        drip = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x")
        async with Site(drip) as site:
            prober = Prober(deliver=inbox.take, lookup=lookup)
            prober.start()
            prober.submit(shop_target(shop, "/hang"))
            prober.submit(Target(name="drip", url=site.url(), service="s", timeout_seconds=PATIENCE_SECONDS))
            prober.submit(Target(name="stuck", url="http://a.example", service="s", timeout_seconds=PATIENCE_SECONDS))
            assert await asyncio.to_thread(shop.asked.acquire, timeout=PATIENCE_SECONDS)  # type: ignore[attr-defined]
            async with asyncio.timeout(PATIENCE_SECONDS):
                await site.asked.wait()
            started = time.monotonic()
            await asyncio.to_thread(prober.stop, 5.0)
            assert not prober._thread.is_alive()
            return time.monotonic() - started

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        seconds = asyncio.run(run())
        release.set()
        gc.collect()
    assert seconds < 5
    assert inbox.results == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [str(warning.message) for warning in recwarn]


def test_after_stop_a_late_submit_does_nothing(prober: Prober, inbox: Inbox) -> None:
    prober.stop()
    prober.submit(target(f"http://127.0.0.1:{free_port()}/"))
    prober.stop()
    assert inbox.results == []


def test_a_prober_that_was_never_started_stops() -> None:
    Prober(deliver=Inbox().take).stop()
