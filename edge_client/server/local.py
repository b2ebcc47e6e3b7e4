"""The local server: its thread, its start and its stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from importlib import metadata

from edge_client.batching import Batcher
from edge_client.errors import EdgeError
from edge_client.server.addresses import Address, TcpAddress
from edge_client.server.connection import Connection, Held
from edge_client.server.desk import Desk, Inferrer
from edge_client.server.limits import Limits
from edge_client.server.listening import BACKLOG, bound, listening
from edge_client.server.routes import Routes

_BUFFER = 64 * 1024
_SWEEP_SECONDS = 0.5

log = logging.getLogger(__name__)


class LocalServer:
    """Serves a runtime's models by the Open Inference Protocol v2, once.

    bound: where it listens, with the ports that the system chose; grpc_bound likewise.
    """

    def __init__(
        self,
        runtime: Inferrer,
        batcher: Batcher,
        addresses: Sequence[Address],
        *,
        grpc: Sequence[Address] = (),
        limits: Limits | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            runtime: whose models are served.
            batcher: runs what is not run at once; by ``time.perf_counter``.
            addresses: for HTTP.
            grpc: for gRPC; needs the extra ``grpc``.
            limits: on requests and connections.
        """
        self.limits = limits or Limits()
        self.held = Held(self.limits.held)
        self.buffer = bytearray(_BUFFER)
        self.bound: tuple[Address, ...] = ()
        self.grpc_bound: tuple[Address, ...] = ()
        self.desk = Desk(
            runtime,
            batcher,
            version=metadata.version("argosy"),
            limits=self.limits,
        )
        self.routes = Routes(self.desk, body_limit=self.limits.body)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._connections: set[Connection] = set()
        self._addresses, self._grpc = tuple(addresses), tuple(grpc)
        self._stop = asyncio.Event()
        self._sweeping = self._stopping = False
        self._empty = asyncio.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, in a thread of its own.

        Raises:
            ServeError: an address cannot be taken, or gRPC is not installed.
        """
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="local-server", daemon=True
        )
        self._thread.start()
        started.result()

    def stop(self) -> None:
        """Answer what was asked, for some seconds at most, and end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self.loop.call_soon_threadsafe(self._stop.set)
        thread.join()

    def call_soon(self, what: partial[None]) -> None:
        """Do something in the server's thread; nothing when it has ended."""
        loop = self.loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(what)
        except RuntimeError:
            log.debug("an inference ended after the local server")

    def join(self, connection: Connection) -> bool:
        """Take a connection in; False where there are enough."""
        if self._stopping or len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        if not self._sweeping and self.loop is not None:
            self._sweeping = True
            self.loop.call_later(_SWEEP_SECONDS, self._sweep)
        return True

    def leave(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        if self._stopping and not self._connections:
            self._empty.set()

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                log.exception("the local server ended")
            else:
                started.set_exception(error)
            if not isinstance(error, EdgeError | OSError):
                raise

    async def _serve(self, started: Future[None]) -> None:
        self.loop = loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            places = [(a, stack.enter_context(listening(a))) for a in self._addresses]
            servers = [
                await loop.create_server(
                    partial(Connection, self, check_host=isinstance(address, TcpAddress)),
                    sock=sock,
                    backlog=BACKLOG,
                )
                for address, sock in places
            ]
            self.bound = tuple(bound(address, sock) for address, sock in places)
            if self._grpc:
                from edge_client.server.grpc_server import serving  # noqa: PLC0415 - an extra

                self.grpc_bound = await stack.enter_async_context(
                    serving(self.desk, self._grpc, self.limits)
                )
            started.set_result(None)
            await self._stop.wait()
            for server in servers:
                server.close()
            await self._drain()
            self.desk.close()

    def _sweep(self) -> None:
        """End connections whose client takes too long. Without connections nothing wakes up."""
        now = time.monotonic()
        for connection in tuple(self._connections):
            connection.overdue(now)
        self._sweeping = bool(self._connections)
        if self._sweeping and self.loop is not None:
            self.loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def _drain(self) -> None:
        self._stopping = True
        for connection in tuple(self._connections):
            connection.end_when_done()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self.limits.drain_seconds)
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)
