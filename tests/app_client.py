"""Asks an ASGI application as a client would, without a socket: all on one event loop, as in the daemon."""

import asyncio
import threading
from functools import cache
from typing import Any

import httpx


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="app-client").start()
    return loop


class AppClient:
    """Sends requests to an application, from any thread; an exception of the application comes out here."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request; options are those of `httpx`."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://daemon") as client:
                return await client.request(method, path, **options)

        return asyncio.run_coroutine_threadsafe(ask(), _loop()).result(60)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> httpx.Response:
        return self.request("PUT", path, **options)
