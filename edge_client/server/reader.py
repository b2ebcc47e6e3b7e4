"""HTTP/1.1 requests from a stream of bytes, within limits: RFC 9112, by Node's parser (llhttp).

No IO here: bytes in, whole requests out, in their order. What is refused ends the connection,
after those before it were answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from edge_client.server.addresses import is_local
from edge_client.server.failures import Kind, RequestError, invalid
from edge_client.server.limits import Limits

_KEPT = frozenset(
    (
        b"accept-encoding",
        b"content-encoding",
        b"content-length",
        b"expect",
        b"host",
        b"inference-header-content-length",
        b"origin",
        b"transfer-encoding",
    )
)
_CHUNK_OVERHEAD = 8
"""Bytes of framing per byte of body that a chunked body may have: those of chunks of one byte."""


@dataclass(slots=True)
class Request:
    """A whole request. held: bytes that it counts for until it was answered."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    held: int


class Reader:
    """The requests of one connection.

    ready: what waits for an answer; a RequestError is the last one. wants_continue: the client
    waits for ``100 Continue``. partial: a request has begun and not ended; in_head: so far only
    its head.
    """

    def __init__(self, limits: Limits, *, check_host: bool, take: Callable[[int], bool]) -> None:
        """Begin.

        Args:
            limits: of each request.
            check_host: refuse names that are not this machine's own (``is_local``).
            take: asks for room for so many bytes; False where there is none.
        """
        self.ready: deque[Request | RequestError] = deque()
        self.wants_continue = self.partial = self.in_head = self.ended = False
        self._limits, self._check_host, self._take = limits, check_host, take
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: RequestError | None = None
        self._good_host: bytes | None = None
        self._held = 0
        self._verb = b""
        self._begin()

    def feed(self, data: memoryview) -> None:
        """Take what arrived; nothing is taken any more after a refusal."""
        if self.ended:
            return
        if self._plain_left:
            data = self._take_plain(data)
        try:
            while len(data):
                self._fresh = False
                before = len(data)
                data = self._parse(data)
                self._count(before - len(data))
        except RequestError as error:
            self.refuse(error)
        except httptools.HttpParserError as error:
            last = self.ready[-1] if self.ready else None
            if self._refusal is None and isinstance(last, Request) and not last.keep_alive:
                self.ended = True  # what follows the last request of a connection is nobody's
                return
            self.refuse(self._refusal or invalid(f"this is no HTTP/1.1 request: {error}"))

    def refuse(self, error: RequestError) -> None:
        """End with an error."""
        self.ended = True
        self.partial = self.in_head = False
        self.ready.append(error)

    def drop(self) -> int:
        """Forget everything; the bytes that were held."""
        held = self._held + sum(r.held for r in self.ready if isinstance(r, Request))
        self.ready.clear()
        self._body.clear()
        self._held, self.ended, self.partial = 0, True, False
        return held

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
        self.partial = self.in_head = self._fresh = True

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer, which is ignored."""
        if not self.in_head:
            return
        self._fields += 1
        if self._fields > self._limits.headers:
            self._fail(Kind.HEAD, f"more than {self._limits.headers} header fields")
        name = name.lower()
        if name in _KEPT:
            if name in self._headers and name != b"accept-encoding":
                self._fail(Kind.INVALID, f"{name.decode()} is given twice")
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is whole: is there anything wrong with it already?"""
        self.in_head = False
        self._verb = self._parser.get_method()
        headers = self._headers
        if self._check_host:
            self._check_names(headers)
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body:
            self._fail(Kind.TOO_LARGE, f"a body is at most {self._limits.body} bytes")
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                self._fail(Kind.INVALID, "Expect can be 100-continue only")
            self.wants_continue = length != b"0"
        if self._parser.should_upgrade():
            # llhttp reads no further; the upgrade is not made, and the body is read as usual.
            if b"transfer-encoding" in headers:
                self._fail(Kind.UNSUPPORTED, "no other protocol is spoken here (Upgrade)")
            self._upgrade, self._plain_left = True, int(length or 0)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self.wants_continue = False
        size = len(data)
        if self._held + size > self._limits.body:
            self._fail(Kind.TOO_LARGE, f"a body is at most {self._limits.body} bytes")
        if not self._take(size):
            self._fail(Kind.UNAVAILABLE, "too much is being sent here at once; try again")
        self._held += size
        self._body.append(data)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if not self._upgrade:
            self._complete(keep_alive=self._parser.should_keep_alive())

    # Our own.

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._fields = self._held = self._seen = self._plain_left = 0
        self._body: list[bytes] = []
        self._fresh = self._upgrade = self.wants_continue = False

    def _parse(self, data: memoryview) -> memoryview:
        """Parse, and return what is still to be parsed, which is nothing but after an upgrade."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            offset = int(upgrade.args[0])
            if self._verb == b"CONNECT":
                msg = "CONNECT is not allowed here"
                raise RequestError(Kind.METHOD, msg) from None
            self._parser = httptools.HttpRequestParser(self)
            rest = data[offset:]
            return self._take_plain(rest) if self._upgrade else rest
        return data[len(data) :]

    def _take_plain(self, data: memoryview) -> memoryview:
        """Take the body of a request whose upgrade was not made; return what follows it."""
        part = data[: self._plain_left]
        try:
            if len(part):
                self.on_body(bytes(part))
        except RequestError as error:
            self.refuse(error)
            return data[len(data) :]
        self._plain_left -= len(part)
        if not self._plain_left:
            self._complete(keep_alive=True)
        return data[len(part) :]

    def _complete(self, *, keep_alive: bool) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.ready.append(
            Request(self._verb, self._target, self._headers, body, keep_alive, self._held)
        )
        self.partial = self.wants_continue = False
        self._held, self._body, self._upgrade = 0, [], False

    def _check_names(self, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host")
        if host is not None and host != self._good_host:
            if not is_local(host.decode("latin-1")):
                self._fail(Kind.FORBIDDEN, "the Host field must be localhost or a loopback address")
            self._good_host = host
        origin = headers.get(b"origin")
        if origin is not None:
            authority = origin.decode("latin-1").rpartition("://")[2]
            if not is_local(authority):
                self._fail(Kind.FORBIDDEN, "pages of other hosts may not ask this server")

    def _count(self, size: int) -> None:
        """Bound what is no body: heads, chunk sizes, trailers, which llhttp does not bound."""
        if not self.partial:
            return
        if not self._fresh:
            self._seen += size
        if self.in_head and self._seen > self._limits.head:
            raise RequestError(Kind.HEAD, f"a head is at most {self._limits.head} bytes")
        if self._seen > 2 * self._limits.head + (1 + _CHUNK_OVERHEAD) * self._held:
            raise RequestError(Kind.HEAD, "the body has more framing than content")

    def _fail(self, kind: Kind, message: str) -> None:
        self._refusal = RequestError(kind, message)
        raise self._refusal
