"""Routes of artifacts: they are sent up, fetched, also in parts, and collected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from anyio import from_thread, to_thread
from fastapi import APIRouter, Depends, Header, Path, Request, Response, status
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from orchestrator.api import ranges
from orchestrator.api.body import StrictRoute
from orchestrator.api.context import Caller, Ctx, Needs
from orchestrator.api.problems import problem
from orchestrator.errors import Invalid
from schemas.access import Role, Scope
from schemas.api import Stored
from schemas.errors import Code
from schemas.ids import Sha256
from schemas.model import CollectReport, CollectRequest

router = APIRouter(prefix="/v1/artifacts", tags=["models"], route_class=StrictRoute)

_COLLECT = [Depends(Needs(Scope.MODELS_WRITE))]
_UPLOAD = [Depends(Needs(Scope.MODELS_WRITE, Scope.JOBS_WRITE, Role.JOB))]
_DOWNLOAD = [Depends(Needs(Scope.MODELS_READ, Role.JOB))]

Digest = Annotated[Sha256, Path()]
RangeHeader = Annotated[str | None, Header(alias="range", max_length=200)]
Tag = Annotated[str | None, Header(max_length=200)]

BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
PART = {"description": "The part that `Range` asks for.", "content": BYTES}
NO_PART = {"description": "None of the bytes that `Range` asks for is there."}


@router.post("/collect", dependencies=_COLLECT, operation_id="collect_artifacts")
def collect(ctx: Ctx, request: CollectRequest) -> CollectReport:
    """Delete the files that nothing needs; only says what would go unless told otherwise."""
    return ctx.collection.collect(request)


@router.put("/{sha256}", dependencies=_UPLOAD, operation_id="upload_artifact")
async def upload(ctx: Ctx, sha256: Digest, request: Request) -> Stored:
    """Store the body under its SHA-256."""
    # A slow sender holds a thread of these few, and none of those that answer all others.
    return await to_thread.run_sync(ctx.uploads.put, sha256, _body(request), limiter=ctx.uploading)


@router.get(
    "/{sha256}",
    dependencies=_DOWNLOAD,
    operation_id="download_artifact",
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
    sha256: Digest,
    caller: Caller,
    range_: RangeHeader = None,
    if_range: Tag = None,
) -> Response:
    """An artifact, or one range of its bytes; a job's key gives what that job begins with."""
    if caller.role is Role.JOB:
        ctx.orders.check_readable(caller.subject or "", sha256)
    try:
        part = ranges.part(range_, if_range, sha256, ctx.uploads.size(sha256))
    except ranges.UnsatisfiableError as error:
        return unsatisfiable(request, error)
    return StreamingResponse(
        ctx.uploads.pieces(sha256, part.start, part.end),
        status_code=part.status,
        media_type="application/octet-stream",
        headers=part.headers,
    )


def unsatisfiable(request: Request, error: ranges.UnsatisfiableError) -> Response:
    """The refusal of a range of which nothing is there."""
    refusal = problem(request, Code.INVALID, str(error), status=416)
    refusal.headers["content-range"] = f"bytes */{error.size}"
    return refusal


def _body(request: Request) -> Iterator[bytes]:
    """The request's body as it arrives, for a handler that runs in a thread."""
    stream = request.stream().__aiter__()

    async def following() -> bytes | None:
        try:
            return await anext(stream, None)
        except ClientDisconnect:
            msg = "the upload broke off"
            raise Invalid(msg, hint="send it again") from None

    while (piece := from_thread.run(following)) is not None:
        yield piece
