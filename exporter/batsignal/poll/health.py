"""Health endpoints: one HTTP request each, timed phase by phase, never longer than its timeout.

Owns the request and the words for why it failed. It must not judge (three failures in a row are a detector's affair),
never raises for what a server, a resolver or a network does, and keeps nothing between two probes: a fresh connection
each time (a health check has to see a new client's way in), no cookies, no proxies, at most 1 MiB of body.

It uses httpx's transport below `httpx.AsyncClient`: a client would keep cookies, log every URL with its secrets, and
cost 10 % more, while redirects must be followed by hand anyway, so that every hop is resolved and timed by us.
"""

import asyncio
import base64
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

import httpx
import structlog

from batsignal import __version__
from batsignal.poll.dial import Course, Dialer, Lookup, ProbeError, timeout_reason, transport_reason
from batsignal.snapshot import ProbeResult

USER_AGENT = f"batsignal/{__version__}"
BODY_BYTES_MAX = 1024 * 1024
REDIRECTS_MAX = 5
PORT_MAX = 65535
# No clock here is better than a microsecond; further digits would only fill recordings.
SECONDS_DIGITS = 6
STOP_SECONDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An endpoint to probe. `url` and `headers` may hold secrets and are left out of the repr."""

    name: str
    url: str = field(repr=False)
    service: str
    timeout_seconds: float
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


def _parsed(url: str | httpx.URL, base: httpx.URL | None = None) -> httpx.URL:
    whose = "the URL is" if base is None else "it redirects to a URL that is"
    try:
        parsed = httpx.URL(url) if base is None else base.join(url)
    except httpx.InvalidURL:
        raise ProbeError(f"{whose} not valid") from None
    if not 0 <= (parsed.port or 0) <= PORT_MAX:
        raise ProbeError(f"{whose} not valid")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ProbeError(f"{whose} neither http:// nor https://")
    return parsed


def _headers(target: Target, first: httpx.URL, url: httpx.URL) -> httpx.Headers:
    """Return the request's headers; what the config added, credentials above all, goes to the first origin only."""
    headers = httpx.Headers(
        {"Host": url.netloc.decode("ascii"), "User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
    )
    at_home = (url.scheme, url.netloc) == (first.scheme, first.netloc)
    login = url.userinfo or (first.userinfo if at_home else b"")
    if login:
        named = first if not url.userinfo else url
        pair = f"{named.username}:{named.password}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
    if at_home:
        headers.update(target.headers)
    return headers


async def _read(response: httpx.Response) -> None:
    """Read the body and drop it; as sent, not unpacked, so that the limit holds for what crosses the wire."""
    received_bytes = int(response.headers.get("content-length", "0"))
    if received_bytes <= BODY_BYTES_MAX:
        received_bytes = 0
        # httpx calls its generator an iterator; closed here, it leaves no work for the loop's end.
        async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as chunks:
            async for chunk in chunks:
                received_bytes += len(chunk)
                if received_bytes > BODY_BYTES_MAX:
                    break
    if received_bytes > BODY_BYTES_MAX:
        raise ProbeError("body larger than 1 MiB")


async def _follow(target: Target, dialer: Dialer, course: Course) -> None:
    """Request the URL and what it redirects to; returns when a final answer was read to its end."""
    url = first = _parsed(target.url)
    for _ in range(REDIRECTS_MAX + 1):
        course.status = None
        response = await dialer.send(url, _headers(target, first, url), course)
        try:
            course.status = response.status_code
            if not response.has_redirect_location:
                # A bad status is the reason, whatever becomes of the body.
                course.verdict = None if response.is_success else f"HTTP {response.status_code}"
                await _read(response)
                return
            url = _parsed(response.headers["location"], url)
        finally:
            await response.aclose()
    raise ProbeError(f"redirects more than {REDIRECTS_MAX} times")


async def probe(target: Target, *, clock: Callable[[], float] = time.time, dialer: Dialer | None = None) -> ProbeResult:
    """Probe an endpoint once; everything that goes wrong is in the result, within the target's timeout.

    `phases` are seconds summed over redirects and addresses tried; a phase that failed counts until its failure, and
    one that was not reached (or not needed: `resolve` of a numeric address, `tls` of http) is absent.
    """
    at, started = clock(), time.perf_counter()
    course = Course(target.timeout_seconds)
    reason: str | None = None
    try:
        async with asyncio.timeout(target.timeout_seconds):
            await _follow(target, dialer or Dialer(), course)
    except TimeoutError:
        reason = timeout_reason(target.timeout_seconds, course.phase)
    except ProbeError as exc:
        reason = str(exc)
    except httpx.TransportError as exc:
        reason = transport_reason(exc, course.phase)
    except Exception as exc:  # a bug of ours must not silence an endpoint: it is a failed probe and a traceback
        log.exception("probe broke", endpoint=target.name)
        reason = f"internal error: {type(exc).__name__}"
    finally:
        await course.hang_up()
    course.enter(None)
    reason = course.verdict or reason
    return ProbeResult(
        endpoint=target.name,
        service=target.service,
        at=at,
        up=reason is None,
        seconds=round(time.perf_counter() - started, SECONDS_DIGITS),
        status=course.status,
        reason=reason,
        phases=MappingProxyType({name: round(s, SECONDS_DIGITS) for name, s in course.seconds.items()}),
        tls_expiry=course.tls_expiry,
    )


class Prober:
    """Runs probes on an asyncio loop in one daemon thread of its own."""

    def __init__(
        self,
        *,
        deliver: Callable[[ProbeResult], None],
        clock: Callable[[], float] = time.time,
        ssl_context: ssl.SSLContext | None = None,
        lookup: Lookup = socket.getaddrinfo,
    ) -> None:
        self._deliver = deliver
        self._clock = clock
        self._dialer = Dialer(ssl_context=ssl_context, lookup=lookup)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, target: Target) -> None:
        """Start a probe and return at once; nothing happens while the last one of that endpoint still runs.

        `deliver` gets the result from the loop's thread, unless `stop` comes first.
        """
        with suppress(RuntimeError):  # the loop is closed: a job of the scheduler came after stop()
            self._loop.call_soon_threadsafe(self._begin, target)

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Give up the probes under way and end the thread; returns within the timeout, whatever hangs."""
        if self._thread.ident is None:  # never started
            self._loop.close()
            return
        with suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout_seconds)

    def _begin(self, target: Target) -> None:
        if target.name in self._under_way or self._stopping.is_set():
            return
        task = self._loop.create_task(self._probe(target), name=f"probe-{target.name}")
        self._under_way[target.name] = task
        task.add_done_callback(lambda done: self._end(target.name, done))

    async def _probe(self, target: Target) -> None:
        self._deliver(await probe(target, dialer=self._dialer, clock=self._clock))

    def _end(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._under_way[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("probe result was not taken", endpoint=name, exc_info=error)

    def _run(self) -> None:
        # The runner cancels what still runs, closes async generators and then the loop.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stopping.wait())
