"""What every answer tells a browser: guess no types, frame nothing, keep nothing."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
UNLESS_SET = {
    # Answers hold tokens and figures of a fleet; artifacts are large and named by content.
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

HSTS = ("strict-transport-security", "max-age=31536000")
"""Sent where the server speaks TLS itself (``server.py``). A browser heeds it only where it
trusts the certificate, so an authority that it does not know cannot lock anybody out (RFC 6797,
section 8.1). Without includeSubDomains: the neighbours' names are not ours."""


class SecurityHeaders:
    """Adds the headers above.

    Args:
        app: what comes behind; what it sets itself under ``UNLESS_SET`` stays.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in UNLESS_SET.items():
                    headers.setdefault(name, value)
                headers.update(ALWAYS)
            await send(message)

        await self._app(scope, receive, protected)
