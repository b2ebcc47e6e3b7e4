"""Files for devices, by links that are signed: the signature is the right."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from anyio import CapacityLimiter, sleep, to_thread
from fastapi import APIRouter, Path, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import StringConstraints
from starlette.types import Receive, Scope, Send

from orchestrator.api import ranges
from orchestrator.api.artifacts import BYTES, NO_PART, PART, RangeHeader, Tag, unsatisfiable
from orchestrator.api.body import StrictRoute
from orchestrator.api.context import Ctx
from orchestrator.domain.link import Link
from orchestrator.errors import ArgosyError
from orchestrator.services.links import LinkService
from schemas.ids import DeviceId, Sha256

public = APIRouter(prefix="/v1/files", tags=["devices"], route_class=StrictRoute)

LOOK_SECONDS = 3.0
"""How soon a download ends once its device, or its file, is revoked."""

_PIECES = 4
"""Of 64 KiB, that are read at a time: as much of a slow device's file is in memory."""

_READING = CapacityLimiter(16)
_LONGEST_SLEEP = 1.0

log = logging.getLogger(__name__)

Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@public.get(
    "/{sha256}",
    operation_id="download_file",
    response_class=StreamingResponse,
    responses={
        status.HTTP_200_OK: {"description": "All of it.", "content": BYTES},
        status.HTTP_206_PARTIAL_CONTENT: PART,
        status.HTTP_416_RANGE_NOT_SATISFIABLE: NO_PART,
    },
)
def download(
    ctx: Ctx,
    request: Request,
    sha256: Annotated[Sha256, Path()],
    device: Annotated[DeviceId, Query()],
    expires: Annotated[int, Query(ge=0, le=2**40)],
    signature: Annotated[Signature, Query()],
    range_: RangeHeader = None,
    if_range: Tag = None,
) -> Response:
    """A file that a device may fetch, or one range of its bytes."""
    link = Link(sha256, device, expires)
    ctx.links.check(link, signature)
    try:
        part = ranges.part(range_, if_range, sha256, ctx.uploads.size(sha256))
    except ranges.UnsatisfiableError as error:
        return unsatisfiable(request, error)
    ctx.links.begin(device)
    pieces = ctx.uploads.pieces(sha256, part.start, part.end)
    return Download(pieces, part, ctx.links, link)


class Download(StreamingResponse):
    """Sends a part of a file; ends the connection early where it may not be sent to its end.

    Args:
        pieces: its bytes.
        part: which they are.
        links: counts downloads, which this one was counted among, and their bytes.
        link: by which it is honoured.
    """

    def __init__(
        self, pieces: Iterator[bytes], part: ranges.Part, links: LinkService, link: Link
    ) -> None:
        self._pieces, self._links, self._link = pieces, links, link
        super().__init__(
            self._read(),
            status_code=part.status,
            media_type="application/octet-stream",
            headers=part.headers,
        )
        self._left = part.end - part.start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._links.end(self._link.device)

    async def stream_response(self, send: Send) -> None:
        """Send head and body.

        A body that is not whole has no last message: the server then closes the connection, by
        which the client sees that something is missing.
        """
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        async for piece in self.body_iterator:
            self._left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self._left == 0:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read(self) -> AsyncIterator[bytes]:
        look_at = time.monotonic() + LOOK_SECONDS
        while True:
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_SECONDS
                if not await to_thread.run_sync(self._goes_on, limiter=_READING):
                    return
            wait = self._links.wait()
            if wait > 0:
                await sleep(min(wait, _LONGEST_SLEEP))
                continue
            piece = await to_thread.run_sync(self._next, limiter=_READING)
            if not piece:
                return
            self._links.sent(len(piece))
            yield piece

    def _next(self) -> bytes:
        try:
            return b"".join(itertools.islice(self._pieces, _PIECES))
        except (ArgosyError, OSError) as error:
            log.warning("a download ended early: %s", error)
            return b""

    def _goes_on(self) -> bool:
        try:
            return self._links.stands(self._link)
        except ArgosyError:
            return True  # the database does not answer: nothing says that it was revoked
