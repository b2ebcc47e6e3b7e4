"""One HTTP connection: requests in, answers out in the same order."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Protocol

from edge_client.errors import EdgeError
from edge_client.server.answer import failure_answer
from edge_client.server.failures import Kind, RequestError
from edge_client.server.limits import Limits
from edge_client.server.reader import Reader, Request
from edge_client.server.routes import Routes, Waiting
from edge_client.server.served import Outcome

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WRITE_BUFFER = 64 * 1024

log = logging.getLogger(__name__)


class Held:
    """Bytes of all connections together: requests that are not answered, answers not read."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, 0

    def take(self, size: int) -> bool:
        """Take room; False where there is none."""
        if self.now + size > self.most:
            return False
        self.now += size
        return True

    def give(self, size: int) -> None:
        """Give room back, or with a negative size take it whether it is there or not."""
        self.now -= size


class Host(Protocol):
    """What connections share. buffer: what is read goes through it; one is read at a time."""

    limits: Limits
    routes: Routes
    held: Held
    buffer: bytearray

    def call_soon(self, what: partial[None]) -> None:
        """Do something in the loop's thread."""

    def join(self, connection: Connection) -> bool:
        """Take it in; False where there are enough."""

    def leave(self, connection: Connection) -> None:
        """It has ended."""


class Connection(asyncio.BufferedProtocol):
    """Reads, has answered, writes. All of it in the loop's thread.

    since: when what is waited for began; busy: an inference is under way elsewhere.
    """

    def __init__(self, host: Host, *, check_host: bool) -> None:
        self._host = host
        self._view = memoryview(host.buffer)
        self._reader = Reader(host.limits, check_host=check_host, take=host.held.take)
        self._transport: asyncio.Transport | None = None
        self._waiting: tuple[Request, Waiting] | None = None
        self._continued = self._closing = self._full = self._paused = False
        self._unread = 0
        self._phase = "idle"
        self.since = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether something is still to be answered or written."""
        return bool(self._waiting or self._full or self._reader.ready or self._reader.partial)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_server gives
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_BUFFER, low=0)
        if not self._host.join(self):
            msg = f"at most {self._host.limits.connections} connections; try again"
            self._send(failure_answer(RequestError(Kind.UNAVAILABLE, msg), close=True))
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        del exc
        self._transport, self._closing = None, True
        held = self._reader.drop() + self._unread
        self._unread = 0
        self._host.held.give(held)
        self._host.leave(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        del sizehint
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if self._closing:
            return
        self._reader.feed(self._view[:nbytes])
        self._advance()

    def eof_received(self) -> bool:
        """The client sends no more; what it asked is answered."""
        if not self.busy or self._reader.partial:
            return False
        self._reader.ended = True
        return not self._drained()

    def pause_writing(self) -> None:
        """The client does not read what it asked for."""
        if self._transport is None:
            return
        self._full, self.since = True, time.monotonic()
        self._unread = self._transport.get_write_buffer_size()
        self._host.held.give(-self._unread)

    def resume_writing(self) -> None:
        """It read everything."""
        self._full = False
        self._host.held.give(self._unread)
        self._unread = 0
        self._advance()

    # Our own.

    def overdue(self, now: float) -> None:
        """End it where the client takes too long."""
        limits, reader = self._host.limits, self._reader
        if self._transport is None or self._waiting is not None:
            return
        if self._full:
            if now - self.since > limits.write_seconds:
                self._transport.abort()
            return
        if not reader.partial:
            if now - self.since > limits.idle_seconds:
                self._end()
            return
        allowed = limits.head_seconds if reader.in_head else limits.body_seconds
        if now - self.since > allowed:
            reader.refuse(RequestError(Kind.SLOW, f"the request took more than {allowed:g} s"))
            self._advance()

    def end_when_done(self) -> None:
        """The server stops: answer what was asked, then close."""
        self._reader.ended = True
        if not self.busy or self._reader.partial:
            self._end()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        """Answer what is ready, until something must be waited for."""
        ready = self._reader.ready
        while ready and self._waiting is None and not self._full and not self._closing:
            item = ready.popleft()
            if isinstance(item, EdgeError):
                self._send(failure_answer(item, close=True))
                self._end()
                return
            self._handle(item)
        if self._closing or self._transport is None:
            return
        if not ready and self._quiet():
            return
        if self._drained() and self._reader.ended:
            self._end()
            return
        self._mind_time()
        self._mind_reading(len(ready))
        if self._reader.wants_continue and not self._continued and self._drained():
            self._continued = True
            self._transport.write(_CONTINUE)

    def _handle(self, request: Request) -> None:
        self._continued = False
        try:
            answer = self._host.routes.answer(request, self._done)
        except Exception:
            log.exception("a request to the local server failed")
            self._finish(request, failure_answer(_internal(), close=True), close=True)
            return
        if isinstance(answer, Waiting):
            self._waiting = (request, answer)
        else:
            self._finish(request, answer)

    def _done(self, outcome: Outcome) -> None:
        """From any thread: an inference has come to its end."""
        self._host.call_soon(partial(self._heard, outcome))

    def _heard(self, outcome: Outcome) -> None:
        assert self._waiting is not None  # noqa: S101 - one inference at a time
        request, waiting = self._waiting
        self._waiting = None
        try:
            answer = waiting.finish(outcome)
        except Exception:
            log.exception("an answer of the local server failed")
            self._finish(request, failure_answer(_internal(), close=True), close=True)
        else:
            self._finish(request, answer)
        self._advance()

    def _finish(self, request: Request, answer: bytes, *, close: bool = False) -> None:
        self._host.held.give(request.held)
        if request.method == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        self._send(answer)
        if close or not request.keep_alive:
            self._end()

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._closing:
            self._transport.write(answer)
        self.since = time.monotonic()

    def _end(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def _quiet(self) -> bool:
        """Whether nothing is to be done until the next request: what most requests end with."""
        reader = self._reader
        waits = self._waiting is not None or self._paused or self._full
        return not (waits or reader.partial or reader.ended) and self._phase == "idle"

    def _drained(self) -> bool:
        return self._waiting is None and not self._reader.ready

    def _mind_time(self) -> None:
        """What is waited for from now on; its time begins when that changes."""
        reader = self._reader
        phase = "idle" if not reader.partial else "head" if reader.in_head else "body"
        if phase != self._phase:
            self._phase, self.since = phase, time.monotonic()

    def _mind_reading(self, waiting: int) -> None:
        """Read no more from a client that asks faster than it is answered."""
        transport = self._transport
        if transport is None:
            return
        if not self._paused and (waiting >= self._host.limits.pipelined or self._full):
            self._paused = True
            transport.pause_reading()
        elif self._paused and not waiting and not self._full:
            self._paused = False
            transport.resume_reading()


def _internal() -> RequestError:
    return RequestError(Kind.INTERNAL, "the server failed; its log says why")
