"""Connections as the server keeps them: none is held open by doing nothing.

Uvicorn times out only connections between two requests. One that never sends a request's
head, or never reads its answer, would keep its place for ever.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import ssl
from collections import Counter
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For the head of a request, from the connection's or the request's first byte on."""

WRITE_SECONDS = 60.0
"""An answer of which nothing is read for so long is given up."""

HANDSHAKE_SECONDS = 10.0
MAX_CONNECTIONS = 2000
MAX_OF_ADDRESS = 500
"""Of one address. Programs on this machine and trusted proxies stand for many clients."""

_SPARE_FILES = 256
"""For the database, the broker and files that are read."""

_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"x-content-type-options: nosniff\r\ncontent-length: 34\r\n\r\n"
    b"the request's head came too slowly"
)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class GuardedProtocol(H11Protocol):
    """Uvicorn's connection, with a watch on both directions."""

    max_connections: ClassVar[int] = MAX_CONNECTIONS
    exempt: ClassVar[tuple[Network, ...]] = ()
    _open: ClassVar[Counter[str]] = Counter()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self._address = str((self.client or ("",))[0])
        self._open[self._address] += 1
        crowded = self._open[self._address] > MAX_OF_ADDRESS and not self._stands_for_many()
        if crowded or len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._head = self.loop.call_later(HEAD_SECONDS, self._give_up_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._open[self._address] -= 1
        if self._open[self._address] <= 0:
            del self._open[self._address]
        self._stop_head()
        self._stop_write()

    def data_received(self, data: bytes) -> None:
        """Read on; once a head is whole, what follows has limits of its own."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head()
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._give_up_head)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        if self._write is None:
            unsent = self.transport.get_write_buffer_size()
            self._write = self.loop.call_later(WRITE_SECONDS, self._give_up_write, unsent)

    def resume_writing(self) -> None:
        """It has read something."""
        super().resume_writing()
        self._stop_write()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even where the last answer was never read."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stands_for_many(self) -> bool:
        try:
            address = ipaddress.ip_address(self._address)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self.exempt)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_write(self) -> None:
        if self._write is not None:
            self._write.cancel()
            self._write = None

    def _give_up_write(self, before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= before:
            self.transport.abort()
        else:
            self._write = self.loop.call_later(WRITE_SECONDS, self._give_up_write, unsent)

    def _give_up_head(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()
            self.loop.call_later(1.0, self.transport.abort)


class GuardedLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers give up slow TLS handshakes sooner than after a minute."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        """Listen."""
        if kwargs.get("ssl") is not None:
            kwargs.setdefault("ssl_handshake_timeout", HANDSHAKE_SECONDS)
        return await super().create_server(*args, **kwargs)


def guarded(proxies: str | None) -> type[GuardedProtocol]:
    """The protocol of a server behind ``proxies`` (``Settings.trusted_proxies``).

    Makes room for its connections: raises the limit of open files as far as it may.
    """
    files = _raise_files()

    class Guarded(GuardedProtocol):
        max_connections = max(64, min(MAX_CONNECTIONS, files - _SPARE_FILES))
        exempt = tuple(ipaddress.ip_network(one) for one in (proxies or "").split(",") if one)
        _open: ClassVar[Counter[str]] = Counter()

    return Guarded


def modern_tls(context: ssl.SSLContext) -> ssl.SSLContext:
    """TLS 1.2 or newer (RFC 8996), whatever the machine's OpenSSL would also take."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _raise_files() -> int:
    """Let this process open as many files as it may need; how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = MAX_CONNECTIONS + _SPARE_FILES
    if soft in {resource.RLIM_INFINITY, -1} or soft >= enough:
        return enough
    allowed = enough if hard in {resource.RLIM_INFINITY, -1} else min(enough, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
