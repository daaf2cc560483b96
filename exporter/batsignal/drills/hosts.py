"""Client hosts on one machine: a small relay that makes a session come from 127.0.0.N.

Owns the listening ports, one a host, and one thread that moves the bytes. It must not look into them. It exists because
libpq cannot choose the address it connects from, and a leak spread over pods, or a storm of many clients, is told by
that address. Only for a server on this machine's loopback.
"""

import asyncio
import contextlib
import threading
from typing import cast

HOST = "127.0.0.1"
HOSTS_MOST = 250
START_SECONDS = 5.0


class _Side(asyncio.Protocol):
    """One end of a relayed stream: what it receives goes to its peer, end of stream and back-pressure included."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Side | None = None
        self._early: list[bytes] = []
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def join(self, peer: "_Side") -> None:
        """Send to `peer` from now on, first what came before it was there."""
        self.peer = peer
        for data in self._early:
            self._send(data)
        self._early.clear()
        if self._has_ended:
            self.eof_received()

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self._early.append(data)
        else:
            self._send(data)

    def eof_received(self) -> bool:
        self._has_ended = True
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                self.peer.transport.write_eof()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def abort(self) -> None:
        """Cut both ends."""
        for side in (self, self.peer):
            if side is not None and side.transport is not None:
                side.transport.abort()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def _send(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.write(data)


class _FromServer(_Side):
    """The server's end: when the server is done, so is the client's session."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class _FromClient(_Side):
    def __init__(self, relay: "Hosts", number: int) -> None:
        super().__init__()
        self._relay = relay
        self._number = number

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._relay.reach_server(self, self._number)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._relay.forget(self)


class Hosts:
    """Hands out, for host N, a port of 127.0.0.1 whose sessions reach the server's port from 127.0.0.N."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._ports: dict[int, int] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[_FromClient] = set()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="drill-hosts", daemon=True)
        self._thread.start()

    def port(self, number: int) -> int:
        """Return the port to connect to as host `number` (1 to 250); host 1 needs no relay."""
        if not 1 <= number <= HOSTS_MOST:
            raise ValueError(f"host: expected a number from 1 to {HOSTS_MOST}, got {number}")
        if number == 1:
            return self._server_port
        with self._lock:
            if number not in self._ports:
                self._ports[number] = asyncio.run_coroutine_threadsafe(self._listen(number), self._loop).result(
                    START_SECONDS
                )
            return self._ports[number]

    def close(self) -> None:
        """Stop; every session that is left is cut."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)

    def reach_server(self, client: _FromClient, number: int) -> None:
        """Connect a client's stream to the server. Called in the relay's own thread, as is `forget`."""
        self._clients.add(client)
        task = self._loop.create_task(self._reach_server(client, number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, client: _FromClient) -> None:
        """Drop a client whose stream has ended."""
        self._clients.discard(client)

    async def _reach_server(self, client: _FromClient, number: int) -> None:
        try:
            _, server = await self._loop.create_connection(
                _FromServer, HOST, self._server_port, local_addr=(f"127.0.0.{number}", 0)
            )
        except OSError:
            if client.transport is not None:
                client.transport.abort()
            return
        server.join(client)
        client.join(server)
        if client.transport is None or client.transport.is_closing():
            cast("asyncio.Transport", server.transport).close()

    async def _listen(self, number: int) -> int:
        server = await self._loop.create_server(lambda: _FromClient(self, number), HOST, 0, backlog=512)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for server in self._servers:
            server.close()
        for client in list(self._clients):
            client.abort()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, asyncio.sleep(0), return_exceptions=True))
        self._loop.close()
