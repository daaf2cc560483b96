"""One hop of a health probe: name to address, address to connection, request out, answer's head back.

Owns the phases and their clock, the look-up of names and the words for what failed on the way. It must not follow
redirects, read bodies or know what an endpoint is: that is `health.py`. It exists because httpx resolves and connects
in one step and in threads that are joined at exit, while a probe has to time the two apart and to leave a resolver
that hangs behind.
"""

import asyncio
import functools
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal

import httpx

LOOKUPS_MAX = 32
"""Names looked up at once. A redirect may name any host, so threads that hang need an upper bound of their own."""

REASON_CHARACTERS_MAX = 200

Phase = Literal["resolve", "connect", "tls", "first_byte", "body"]
Lookup = Callable[..., list[tuple[Any, ...]]]

DOING: Mapping[Phase, str] = MappingProxyType(
    {
        "resolve": "while resolving the name",
        "connect": "while connecting",
        "tls": "in the TLS handshake",
        "first_byte": "while waiting for the first byte",
        "body": "while reading the body",
    }
)


class ProbeError(Exception):
    """A probe failed; the text is one line for a person, without secrets. It never leaves `probe()`."""


def timeout_reason(timeout_seconds: float, phase: Phase | None) -> str:
    """Say what took too long.

    >>> timeout_reason(2.0, "first_byte")
    'timed out after 2 s while waiting for the first byte'
    """
    return f"timed out after {timeout_seconds:g} s {DOING[phase] if phase else ''}".rstrip()


def transport_reason(error: httpx.TransportError, phase: Phase | None) -> str:
    """Say in one line why a request broke. Nothing that the server sent is repeated, for it may hold anything."""
    for cause in _causes(error):
        reason = _system_reason(cause)
        if reason is not None:
            return reason
    if isinstance(error, httpx.LocalProtocolError):
        return "the request is not valid HTTP: look at its URL and headers"
    if phase == "tls":
        return "TLS: the server closed the connection in the handshake"
    if phase == "body":
        return "the body broke off"
    if isinstance(error, httpx.RemoteProtocolError) and not str(error).startswith("Server disconnected"):
        return "the answer is not valid HTTP"
    return "the server closed the connection without an answer"


def _system_reason(error: BaseException) -> str | None:
    """Return what the system or the TLS library says, None when it says nothing."""
    match error:
        case ssl.SSLCertVerificationError():
            return _one_line(f"TLS: {error.verify_message.rstrip('.')}")
        case ssl.SSLWantReadError() | ssl.SSLWantWriteError() | ssl.SSLError(reason="UNEXPECTED_EOF_WHILE_READING"):
            return None  # how asyncio's TLS waits, no error; or the other side went away, which the phase says better
        case ssl.SSLError():
            return _one_line(f"TLS: {(error.reason or 'handshake failed').replace('_', ' ').lower()}")
        case OSError(errno=int(number)) if number:
            text = os.strerror(number)
            return text[:1].lower() + text[1:]
        case _:
            return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # httpcore raises `from None` on its way up: the cause is then left in the context only.
        error = error.__cause__ or error.__context__


def _one_line(text: str) -> str:
    return " ".join(text.split())[:REASON_CHARACTERS_MAX]


class Course:
    """What is known of a probe under way: which phase it is in, how long each took, what was learnt."""

    PHASE_AFTER: Mapping[str, Phase] = MappingProxyType(
        {
            "connection.connect_tcp.started": "connect",
            "connection.start_tls.started": "tls",
            "http11.send_request_headers.started": "first_byte",
            "http11.receive_response_headers.complete": "body",
        }
    )

    def __init__(self, timeout_seconds: float) -> None:
        self.phase: Phase | None = None
        self.seconds: dict[str, float] = {}
        self.status: int | None = None
        self.verdict: str | None = None
        self.tls_expiry: float | None = None
        self._stream: Any = None
        self._since = time.perf_counter()
        self._deadline = self._since + timeout_seconds

    @property
    def seconds_left(self) -> float:
        return max(self._deadline - time.perf_counter(), 0.0)

    def enter(self, phase: Phase | None) -> None:
        """End the phase before and begin `phase`; phases of several hops add up."""
        now = time.perf_counter()
        if self.phase is not None:
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self.phase, self._since = phase, now

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Follow httpx's trace extension."""
        if event in self.PHASE_AFTER:
            self.enter(self.PHASE_AFTER[event])
        elif event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.complete":
            # Read here, not from the response: a server that shakes hands and then hangs still shows its certificate.
            certificate = info["return_value"].get_extra_info("ssl_object").getpeercert()
            if certificate:
                self.tls_expiry = float(ssl.cert_time_to_seconds(certificate["notAfter"]))

    async def hang_up(self) -> None:
        """Close the last connection. httpcore 1.0 leaves it open for ever when a TLS handshake is cancelled."""
        if self._stream is not None:
            await self._stream.aclose()


class Dialer:
    """What all probes of one event loop share: look-ups under way and the transports, which pool no connection."""

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, lookup: Lookup = socket.getaddrinfo) -> None:
        self._ssl_context = ssl_context
        self._lookup = lookup
        self._under_way: dict[str, asyncio.Future[tuple[str, ...] | Exception]] = {}

    @functools.cached_property
    def plain(self) -> httpx.AsyncHTTPTransport:
        # A context without a single authority: free to make, and nothing could pass it.
        return self._transport(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    @functools.cached_property
    def secure(self) -> httpx.AsyncHTTPTransport:
        # Loading the authorities takes 40 ms and 3 MB: once, and only when there is an https endpoint.
        context = self._ssl_context
        if context is None:
            context = httpx.create_ssl_context()
            context.load_default_certs()  # an authority that only this machine trusts counts too
        return self._transport(context)

    def _transport(self, context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Return the numeric addresses of `host` in the resolver's order.

        `getaddrinfo` knows no timeout, and threads of an executor are joined at exit: each look-up gets a daemon
        thread that may be left behind, one per name at a time, and a caller that gives up leaves it running.
        """
        found = self._under_way.get(host)
        if found is None:
            if len(self._under_way) >= LOOKUPS_MAX:
                raise ProbeError("too many name look-ups hang")
            loop = asyncio.get_running_loop()
            found = loop.create_future()
            thread = threading.Thread(
                target=self._look_up, args=(host, loop, found), name=f"resolve-{host}", daemon=True
            )
            thread.start()
            self._under_way[host] = found
            found.add_done_callback(lambda _: self._under_way.pop(host, None))
        answer = await asyncio.shield(found)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _look_up(
        self,
        host: str,
        loop: asyncio.AbstractEventLoop,
        found: "asyncio.Future[tuple[str, ...] | Exception]",
    ) -> None:
        answer: tuple[str, ...] | Exception
        try:
            answers = self._lookup(host, None, type=socket.SOCK_STREAM)
            answer = tuple(dict.fromkeys(str(address[4][0]) for address in answers))
        except socket.gaierror as exc:
            again = ": the resolver gives no answer for now" if exc.errno == socket.EAI_AGAIN else ""
            answer = ProbeError(f"name does not resolve{again}")
        except (OSError, ValueError):  # ValueError: a label that IDNA cannot encode
            answer = ProbeError("name does not resolve")
        except Exception as exc:  # noqa: BLE001  raised again by the probe that waits for it
            answer = exc
        with suppress(RuntimeError):  # the loop was closed while the look-up hung: nobody waits any more
            loop.call_soon_threadsafe(found.set_result, answer)

    async def send(self, url: httpx.URL, headers: httpx.Headers, course: Course) -> httpx.Response:
        """Send one GET to the first address of the URL's host that takes a connection."""
        host = url.raw_host.decode("ascii")
        addresses: tuple[str, ...] = (host,)
        if not _is_numeric(host):
            course.enter("resolve")
            addresses = await self.addresses(host)
            course.enter(None)
        for following in range(len(addresses) - 1, -1, -1):
            # An address that swallows packets must leave the others their share of the time.
            share = course.seconds_left / (following + 1) if following else None
            request = httpx.Request(
                "GET",
                url.copy_with(host=addresses[-following - 1]),
                headers=headers,
                extensions={
                    "trace": course.trace,
                    "sni_hostname": host.rstrip("."),
                    "timeout": {"connect": share},
                },
            )
            try:
                transport = self.secure if url.scheme == "https" else self.plain
                return await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if not following or course.phase != "connect":
                    raise
        raise ProbeError("name does not resolve")


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
