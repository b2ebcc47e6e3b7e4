"""How large a request's body may be, and how slowly it may come."""

from __future__ import annotations

import math

from anyio import current_time, move_on_after
from fastapi import HTTPException, Request, status
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem
from schemas.errors import Code

MAX_BODY = 8 * 1024**2
"""Of every request but an upload, which has a limit of its own where it is stored."""

MAX_ANONYMOUS_BODY = 128 * 1024
"""Of a request that shows no key: enough to enroll and to renew."""

MAX_READING = 128 * 1024**2
"""Of all bodies together that are in memory, uploads aside: these are written as they come."""

GRACE_SECONDS = 20.0
MIN_BYTES_PER_SECOND = 1024
"""A body may take the grace, and a second more for so many bytes of it that came."""

_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1024**2


class BodyLimits:
    """Bounds bodies in size, in time, and all of them together.

    Args:
        app: what comes behind.
        grace: seconds that any body may take.
    """

    def __init__(self, app: ASGIApp, grace: float = GRACE_SECONDS) -> None:
        self._app = app
        self.grace = grace
        self.reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body bounded."""
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        if not headers.keys() & {b"content-length", b"transfer-encoding"}:
            await self._app(scope, receive, send)
            return
        limit = _limit(scope, headers)
        body = _Body(self, receive, send, limit, expects=b"expect" in headers)
        if (_declared(headers) or 0) > limit:
            refusal = problem(Request(scope), Code.TOO_LARGE, _too_large(limit))
            await refusal(scope, body.receive, body.send)
            return
        try:
            await self._app(scope, body.receive, body.send)
        finally:
            self.reading -= body.held


class _Body:
    """One request's body on its way."""

    def __init__(
        self, limits: BodyLimits, receive: Receive, send: Send, limit: float, *, expects: bool
    ) -> None:
        self._limits, self._limit = limits, limit
        self._receive, self._send = receive, send
        self._unasked = expects
        self._waited, self._seen = 0.0, 0
        self._whole = False
        self.held = 0

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            HTTPException: it is too large, or comes too slowly; or there is no room for it now.
        """
        if self._whole:
            return await self._receive()
        self._unasked = False
        # What the server itself takes to work on the pieces is no fault of the client's.
        left = self._limits.grace + self._seen / MIN_BYTES_PER_SECOND - self._waited
        began = current_time()
        with move_on_after(left) as waiting:
            message = await self._receive()
        if waiting.cancelled_caught:
            msg = f"the body came too slowly: {self._seen} bytes in {left + self._waited:.0f} s"
            raise HTTPException(status.HTTP_408_REQUEST_TIMEOUT, msg)
        self._waited += current_time() - began
        self._take(message)
        return message

    def _take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._whole = True
            return
        size = len(message.get("body", b""))
        self._seen += size
        self._whole = not message.get("more_body", False)
        if self._seen > self._limit:
            raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, _too_large(self._limit))
        if self._limit != math.inf:
            self.held += size
            self._limits.reading += size
            if self._limits.reading > MAX_READING:
                msg = "the server is reading too many large requests"
                raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, msg)

    async def send(self, message: Message) -> None:
        """Answer; where the body is not read to its end, the connection ends with the answer."""
        if message["type"] == "http.response.start" and not self._whole:
            if not self._unasked:
                await self._drain()
            if not self._whole:
                close = (b"connection", b"close")
                message["headers"] = [*message.get("headers", ()), close]
        await self._send(message)

    async def _drain(self) -> None:
        """Read a little more, so that a client which is still sending gets to read the answer."""
        seen = 0
        with move_on_after(_LINGER_SECONDS):
            while not self._whole and seen < _LINGER_BYTES:
                message = await self._receive()
                seen += len(message.get("body", b""))
                self._whole = not message.get("more_body", False)


def _limit(scope: Scope, headers: dict[bytes, bytes]) -> float:
    if scope["method"] == "PUT" and scope["path"].startswith("/v1/artifacts/"):
        return math.inf
    shown = headers.keys() & {b"authorization", b"cookie"}
    return MAX_BODY if shown else MAX_ANONYMOUS_BODY


def _declared(headers: dict[bytes, bytes]) -> int | None:
    text = headers.get(b"content-length", b"")
    return int(text[:20]) if text.isdigit() else None


def _too_large(limit: float) -> str:
    return f"the request's body may have {limit:.0f} bytes"
